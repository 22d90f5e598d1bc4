//! Metrics of a yes-or-no decision: rates at a threshold, and the area under the ROC curve.
//!
//! Duty: exact counts and what follows from them, each case counted as often as its group's weight says. Must not: yield
//! NaN: a metric with an empty denominator is absent. Must not know what a case is, a slice or a patient.

use serde::Serialize;

/// Right and wrong decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Positive and called positive.
    pub tp: u64,
    /// Negative and called positive.
    pub fp: u64,
    /// Negative and called negative.
    pub tn: u64,
    /// Positive and called negative.
    #[serde(rename = "fn")]
    pub fn_: u64,
}

impl Counts {
    /// Of one case.
    pub(super) fn of(label: bool, called: bool) -> Counts {
        let [tp, fp, tn, fn_] = [label && called, !label && called, !label && !called, label && !called].map(u64::from);
        Counts { tp, fp, tn, fn_ }
    }

    /// Adds `other`, counted `weight` times.
    pub(super) fn add(&mut self, other: &Counts, weight: u64) {
        self.tp += weight * other.tp;
        self.fp += weight * other.fp;
        self.tn += weight * other.tn;
        self.fn_ += weight * other.fn_;
    }

    pub(super) fn total(&self) -> u64 {
        self.tp + self.fp + self.tn + self.fn_
    }

    pub(super) fn sensitivity(&self) -> Option<f64> {
        share(self.tp, self.tp + self.fn_)
    }

    pub(super) fn specificity(&self) -> Option<f64> {
        share(self.tn, self.tn + self.fp)
    }
}

/// Metrics of the decisions on a set of cases. What is undefined is absent, in JSON too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Classification {
    /// Share of the positive cases that are called positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
    /// Share of the negative cases that are called negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specificity: Option<f64>,
    /// Share of the cases called positive that are positive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Share of the cases called rightly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Probability that a positive case has a higher score than a negative one, equal scores counted half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auroc: Option<f64>,
    /// The counts behind the rates.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Classification {
    pub(super) fn new(counts: Counts, auroc: Option<f64>) -> Classification {
        Classification {
            sensitivity: counts.sensitivity(),
            specificity: counts.specificity(),
            precision: share(counts.tp, counts.tp + counts.fp),
            accuracy: share(counts.tp + counts.tn, counts.total()),
            auroc,
            counts,
        }
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Cases in the order of their scores, sorted once for any number of weightings.
#[derive(Debug, Default)]
pub(super) struct Ranking {
    entries: Vec<Entry>,
    /// A score that is no number has no place in the order: then there is no area.
    comparable: bool,
}

#[derive(Debug)]
struct Entry {
    group: u32,
    positive: bool,
    /// No further case has this score.
    last_of_score: bool,
}

impl Ranking {
    /// From the score, the group and the label of each case.
    pub(super) fn new(cases: impl Iterator<Item = (f64, u32, bool)>) -> Ranking {
        let mut cases: Vec<_> = cases.collect();
        cases.sort_by(|a, b| a.0.total_cmp(&b.0));
        let next = cases.iter().skip(1).map(|c| Some(c.0)).chain([None]);
        let entry = |(c, next): (&(f64, u32, bool), Option<f64>)| Entry {
            group: c.1,
            positive: c.2,
            last_of_score: next != Some(c.0),
        };
        let entries = cases.iter().zip(next).map(entry).collect();
        Ranking { entries, comparable: !cases.iter().any(|c| c.0.is_nan()) }
    }

    /// Area under the ROC curve (Mann-Whitney, ties counted half), each case counted as often as its group's weight
    /// says. `None` unless both classes have weight. The pairs are counted in integers: exact, whatever the order.
    pub(super) fn auroc(&self, weights: &[u32]) -> Option<f64> {
        let (mut positives, mut negatives, mut twice_won) = (0, 0, 0);
        let mut tied = [0; 2];
        for entry in &self.entries {
            let weight = u64::from(weights.get(entry.group as usize).copied().unwrap_or(0));
            tied[usize::from(entry.positive)] += weight;
            if entry.last_of_score {
                twice_won += tied[1] * (2 * negatives + tied[0]);
                negatives += tied[0];
                positives += tied[1];
                tied = [0; 2];
            }
        }
        share(twice_won, 2 * positives * negatives).filter(|_| self.comparable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auroc(cases: &[(f64, bool)]) -> Option<f64> {
        Ranking::new(cases.iter().map(|c| (c.0, 0, c.1))).auroc(&[1])
    }

    #[test]
    fn rates_are_absent_where_there_is_nothing_to_divide_by() {
        let none = Classification::new(Counts::default(), None);
        assert_eq!(serde_json::to_string(&none).unwrap(), r#"{"tp":0,"fp":0,"tn":0,"fn":0}"#);
        let healthy = Classification::new(Counts { tn: 3, fp: 1, ..Counts::default() }, None);
        assert_eq!((healthy.sensitivity, healthy.specificity), (None, Some(0.75)));
        assert_eq!((healthy.precision, healthy.accuracy), (Some(0.0), Some(0.75)));
    }

    /// scikit-learn 1.9.1: `roc_auc_score([0,0,1,1,0,1,1,0], [.1,.4,.35,.8,.4,.4,.9,.2])` is 0.8125.
    #[test]
    fn ties_count_half() {
        let labels = [0, 0, 1, 1, 0, 1, 1, 0].map(|l| l == 1);
        let cases: Vec<_> = [0.1, 0.4, 0.35, 0.8, 0.4, 0.4, 0.9, 0.2].into_iter().zip(labels).collect();
        assert_eq!(auroc(&cases), Some(0.8125));
        assert_eq!(auroc(&[(0.3, true), (0.3, false), (0.3, true)]), Some(0.5));
        assert_eq!(auroc(&[(0.0, true), (-0.0, false)]), Some(0.5));
    }

    #[test]
    fn one_class_has_no_area() {
        assert_eq!(auroc(&[]), None);
        assert_eq!(auroc(&[(0.2, true), (0.9, true)]), None);
        assert_eq!(auroc(&[(0.2, false)]), None);
    }

    #[test]
    fn a_score_that_is_no_number_leaves_no_area() {
        assert_eq!(auroc(&[(0.2, false), (f64::NAN, true), (0.9, true)]), None);
    }

    #[test]
    fn a_weight_is_so_many_copies() {
        let cases = [(0.1, 0, false), (0.4, 1, true), (0.4, 0, false), (0.7, 2, false), (0.9, 1, true)];
        let copied = cases.iter().flat_map(|c| vec![*c; [3, 2, 0][c.1 as usize]]);
        let copies = Ranking::new(copied).auroc(&[1, 1, 1]);
        assert_eq!(Ranking::new(cases.into_iter()).auroc(&[3, 2, 0]), copies);
        assert_eq!(copies, Some(0.875));
    }
}
