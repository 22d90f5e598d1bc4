//! Bootstrap intervals: patients drawn with replacement, the metrics computed anew from what each patient leaves.
//!
//! Duty: every metric under any weighting of the patients, and percentile intervals over seeded weightings; the same on
//! every machine. Must not: go back to the samples for what a sum over a patient can give; read a clock or entropy.

use super::Settings;
use super::classification::{Classification, Counts, Ranking};
use super::patients::Group;
use super::segmentation::Sums;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;

/// Everything that the metrics of a weighting of the groups need.
#[derive(Debug)]
pub(super) struct Cohort {
    pub(super) groups: Vec<Group>,
    /// The slices with label and prediction, by probability.
    pub(super) slices: Ranking,
    /// The patients, by their number of positive slices.
    pub(super) patients: Ranking,
    /// See [`Settings::patient_slices`].
    pub(super) patient_slices: u64,
}

/// The metrics of one weighting.
#[derive(Debug)]
pub(super) struct Estimate {
    pub(super) segmentation: Sums,
    pub(super) dice_patient_mean: Option<f64>,
    pub(super) slices: Classification,
    pub(super) patients: Classification,
}

impl Cohort {
    /// The metrics with group `i` counted `weights[i]` times.
    pub(super) fn estimate(&self, weights: &[u32]) -> Estimate {
        let (mut segmentation, mut slices, mut patients) = (Sums::default(), Counts::default(), Counts::default());
        let (mut dice, mut with_dice) = (0.0, 0.0);
        for (group, &weight) in self.groups.iter().zip(weights) {
            segmentation.add(&group.segmentation, f64::from(weight));
            slices.add(&group.slices, u64::from(weight));
            if let Some(patient) = group.dice() {
                dice += f64::from(weight) * patient;
                with_dice += f64::from(weight);
            }
            if let Some((label, positive)) = group.case() {
                patients.add(&Counts::of(label, positive > self.patient_slices), u64::from(weight));
            }
        }
        Estimate {
            segmentation,
            dice_patient_mean: (with_dice > 0.0).then(|| dice / with_dice),
            slices: Classification::new(slices, self.slices.auroc(weights)),
            patients: Classification::new(patients, self.patients.auroc(weights)),
        }
    }
}

impl Estimate {
    /// The metrics that get an interval. Those by patient are named by their path in the result.
    fn headline(&self) -> [(&'static str, Option<f64>); 17] {
        let (m, s, p) = (self.segmentation.metrics(), &self.slices, &self.patients);
        let segmentation = |x: f64| Some(x).filter(|x| x.is_finite() && !self.segmentation.is_empty());
        [
            ("dice", segmentation(m.dice)),
            ("dice_mean", segmentation(m.dice_mean)),
            ("iou_pooled", segmentation(m.iou_pooled)),
            ("iou_mean", segmentation(m.iou_mean)),
            ("iou", segmentation(m.iou)),
            ("mae", segmentation(m.mae)),
            ("dice_patient_mean", self.dice_patient_mean),
            ("sensitivity", s.sensitivity),
            ("specificity", s.specificity),
            ("precision", s.precision),
            ("accuracy", s.accuracy),
            ("auroc", s.auroc),
            ("patients.sensitivity", p.sensitivity),
            ("patients.specificity", p.specificity),
            ("patients.precision", p.precision),
            ("patients.accuracy", p.accuracy),
            ("patients.auroc", p.auroc),
        ]
    }
}

/// 95 % percentile intervals by metric. A resample in which a metric is undefined is left out of its distribution; with
/// fewer than half of them left there is no interval. Nor is there one of a single group, whose resamples are all alike.
pub(super) fn intervals(cohort: &Cohort, settings: &Settings) -> BTreeMap<&'static str, [f64; 2]> {
    let mut found: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    if cohort.groups.len() < 2 {
        return BTreeMap::new();
    }
    let mut rng = stream(settings.seed);
    let mut weights = vec![0; cohort.groups.len()];
    for _ in 0..settings.resamples {
        resample(&mut rng, &mut weights);
        for (name, value) in cohort.estimate(&weights).headline() {
            found.entry(name).or_default().extend(value);
        }
    }
    found.retain(|_, values| !values.is_empty() && 2 * values.len() >= settings.resamples);
    found.into_iter().map(|(name, values)| (name, middle(values))).collect()
}

/// Draws as many groups as there are; leaves how often each came.
fn resample(rng: &mut ChaCha8Rng, weights: &mut [u32]) {
    weights.fill(0);
    for _ in 0..weights.len() {
        // The upper half of a 64 x 64 bit product is uniform in 0..n but for n / 2^64.
        let drawn = (u128::from(rng.next_u64()) * weights.len() as u128) >> 64;
        if let Some(weight) = weights.get_mut(drawn as usize) {
            *weight += 1;
        }
    }
}

fn stream(seed: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    let parts = b"resample".iter().copied().chain(seed.to_le_bytes());
    key.iter_mut().zip(parts).for_each(|(place, byte)| *place = byte);
    ChaCha8Rng::from_seed(key)
}

/// The middle 95 % of the values.
fn middle(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [0.025, 0.975].map(|share| quantile(&values, share))
}

/// The `share` quantile of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let at = |i: f64| sorted.get(i as usize).copied().unwrap_or(f64::NAN);
    let (below, above) = (at(place.floor()), at(place.ceil()));
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// numpy 2.4.6: `np.percentile([1, 2, 4, 8, 16, 32], [2.5, 97.5])` is [1.125, 30.0].
    #[test]
    fn percentiles_are_linear_between_neighbours() {
        assert_eq!(middle(vec![32.0, 1.0, 16.0, 2.0, 8.0, 4.0]), [1.125, 30.0]);
        assert_eq!(middle(vec![0.5]), [0.5, 0.5]);
    }

    #[test]
    fn a_resample_has_as_many_groups_as_there_are() {
        let mut weights = vec![7; 750];
        resample(&mut stream(0), &mut weights);
        assert_eq!(weights.iter().sum::<u32>(), 750);
        let mut other = vec![0; 750];
        resample(&mut stream(1), &mut other);
        assert_ne!(weights, other);
    }
}
