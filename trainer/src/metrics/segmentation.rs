//! Segmentation metrics of a split, from what each sample leaves.
//!
//! Duty: sums over samples and the metrics that follow from them. Must not: see pixels, or depend on the order in which
//! the scores come.

use serde::Serialize;

/// What the evaluation of one sample leaves, enough for every metric of the whole split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleScore {
    /// Index of the sample in the data set.
    pub index: u64,
    /// Pixels that are lesion in prediction and mask.
    pub both: f64,
    /// Pixels that are lesion in the prediction.
    pub predicted: f64,
    /// Pixels that are lesion in the mask.
    pub actual: f64,
    /// Official IoU: of the prediction thresholded at twice its mean.
    pub iou: f64,
    /// Mean absolute error of the probabilities.
    pub mae: f64,
}

impl SampleScore {
    /// Dice of this sample alone; 1 where neither prediction nor mask has a lesion.
    pub fn dice(&self) -> f64 {
        ratio(2.0 * self.both, self.predicted + self.actual)
    }

    /// Intersection over union of this sample alone; 1 where neither prediction nor mask has a lesion.
    pub fn overlap(&self) -> f64 {
        ratio(self.both, self.predicted + self.actual - self.both)
    }
}

/// Metrics of a split, every sample counted once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Samples.
    pub samples: usize,
    /// Pooled Dice: over the pixels of the whole split.
    pub dice: f64,
    /// Mean of the samples' Dice.
    pub dice_mean: f64,
    /// Pooled IoU: over the pixels of the whole split.
    pub iou_pooled: f64,
    /// Mean of the samples' IoU.
    pub iou_mean: f64,
    /// Official IoU: mean over the samples, each thresholded at twice its mean prediction.
    pub iou: f64,
    /// Mean absolute error, mean over the samples.
    pub mae: f64,
}

/// Metrics of a split from the scores of its samples, summed in the order of their index, so that
/// the number of workers does not matter.
pub fn pool(mut scores: Vec<SampleScore>) -> Metrics {
    scores.sort_by_key(|s| s.index);
    scores.dedup_by_key(|s| s.index);
    let mut sums = Sums::default();
    scores.iter().for_each(|s| sums.add(&Sums::of(s), 1.0));
    sums.metrics()
}

/// `a / b`; 1 where both are empty.
pub fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 1.0 } else { a / b }
}

/// Sums over samples. They add up, so that a group of samples can be counted several times without its samples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    samples: f64,
    both: f64,
    predicted: f64,
    actual: f64,
    dice: f64,
    overlap: f64,
    iou: f64,
    mae: f64,
}

impl Sums {
    /// Of one sample.
    pub(super) fn of(s: &SampleScore) -> Sums {
        let (both, predicted, actual) = (s.both, s.predicted, s.actual);
        let (dice, overlap) = (s.dice(), s.overlap());
        Sums { samples: 1.0, both, predicted, actual, dice, overlap, iou: s.iou, mae: s.mae }
    }

    /// Adds `other`, counted `weight` times.
    pub(super) fn add(&mut self, other: &Sums, weight: f64) {
        self.samples += weight * other.samples;
        self.both += weight * other.both;
        self.predicted += weight * other.predicted;
        self.actual += weight * other.actual;
        self.dice += weight * other.dice;
        self.overlap += weight * other.overlap;
        self.iou += weight * other.iou;
        self.mae += weight * other.mae;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.samples == 0.0
    }

    /// Pooled Dice.
    pub(super) fn dice(&self) -> f64 {
        ratio(2.0 * self.both, self.predicted + self.actual)
    }

    pub(super) fn metrics(&self) -> Metrics {
        let n = self.samples.max(1.0);
        Metrics {
            samples: self.samples as usize,
            dice: self.dice(),
            dice_mean: self.dice / n,
            iou_pooled: ratio(self.both, self.predicted + self.actual - self.both),
            iou_mean: self.overlap / n,
            iou: self.iou / n,
            mae: self.mae / n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(index: u64, both: f64, predicted: f64, actual: f64) -> SampleScore {
        SampleScore { index, both, predicted, actual, iou: 0.5, mae: 0.1 * index as f64 }
    }

    #[test]
    fn pooled_dice_weighs_pixels_and_mean_dice_samples() {
        let m = pool(vec![score(1, 0.0, 10.0, 0.0), score(0, 40.0, 50.0, 40.0)]);
        assert_eq!(m.samples, 2);
        assert!((m.dice - 0.8).abs() < 1e-12);
        assert!((m.dice_mean - (80.0 / 90.0) / 2.0).abs() < 1e-12);
        assert!((m.iou_pooled - 40.0 / 60.0).abs() < 1e-12);
        assert!((m.iou_mean - (40.0 / 50.0) / 2.0).abs() < 1e-12);
        assert!((m.mae - 0.05).abs() < 1e-12);
    }

    #[test]
    fn a_sample_that_two_ranks_scored_counts_once() {
        assert_eq!(pool(vec![score(3, 1.0, 2.0, 2.0); 2]), pool(vec![score(3, 1.0, 2.0, 2.0)]));
    }

    #[test]
    fn the_order_of_the_scores_does_not_matter() {
        let [a, b] = [score(3, 1.0, 2.0, 2.0), score(5, 0.1, 0.7, 0.2)];
        assert_eq!(pool(vec![b, a, b]), pool(vec![a, b]));
    }

    #[test]
    fn nothing_found_where_nothing_is_counts_as_right() {
        assert_eq!(pool(vec![score(0, 0.0, 0.0, 0.0)]).dice, 1.0);
    }
}
