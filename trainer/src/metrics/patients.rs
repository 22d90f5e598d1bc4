//! Metrics by patient: the slices of each, and what is decided of a patient from the number of positive ones.
//!
//! Duty: group slices by patient, the rule "positive with more than so many positive slices", and the curve over that
//! number. Must not: guess a patient: a slice of an unknown one stands alone and takes no part in the rule.

use super::Record;
use super::classification::{Classification, Counts};
use super::segmentation::Sums;
use serde::Serialize;
use std::collections::BTreeSet;

/// Metrics by patient, where patients are known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Patients {
    /// Patients with at least one sample.
    pub count: usize,
    /// Samples whose patient is unknown; they count in no metric by patient.
    pub samples_without_patient: usize,
    /// Where there are patients with a label and a prediction.
    #[serde(flatten)]
    pub diagnosis: Option<Diagnosis>,
}

/// Metrics of the rule that calls a patient positive.
///
/// A patient counts when at least one of its slices is labelled and at least one predicted. It is labelled positive where
/// any of its slices is; it is called positive where more than [`Self::slices`] of them are positive. AUROC takes the
/// number of positive slices as the patient's score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diagnosis {
    /// A patient is called positive with more positive slices than this.
    pub slices: u64,
    /// Patients with too few predicted slices for the rule ever to call them positive.
    pub too_few_slices: usize,
    /// Rates, AUROC and counts over the patients.
    #[serde(flatten)]
    pub metrics: Classification,
    /// What other numbers of slices would give: every number at which something changes, from 0 up to the largest number of
    /// positive slices of any patient.
    pub curve: Vec<Point>,
}

impl Diagnosis {
    /// What a reader of the metrics must know: that the rule cannot fire for some patients.
    pub fn note(&self) -> Option<String> {
        let (few, all, need) = (self.too_few_slices, self.metrics.counts.total(), self.slices.saturating_add(1));
        (few > 0).then(|| {
            format!("{few} of {all} patients have fewer than the {need} slices that the rule needs to call a patient positive")
        })
    }
}

/// The rule with another number of slices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// A patient is called positive with more positive slices than this.
    pub slices: u64,
    /// Sensitivity over the patients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
    /// Specificity over the patients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specificity: Option<f64>,
}

/// What the samples of one patient leave, or the only sample of an unknown one.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// The patient is known.
    pub(super) known: bool,
    pub(super) segmentation: Sums,
    /// Of the slices with label and prediction.
    pub(super) slices: Counts,
    predicted: u64,
    pub(super) positive: u64,
    pub(super) label: Option<bool>,
}

impl Group {
    fn add(&mut self, record: &Record, threshold: f64) {
        if let Some(score) = &record.segmentation {
            self.segmentation.add(&Sums::of(score), 1.0);
        }
        if let Some(probability) = record.probability {
            self.predicted += 1;
            self.positive += u64::from(probability >= threshold);
        }
        if let Some(label) = record.label {
            self.label = Some(label || self.label == Some(true));
        }
        if let (Some(label), Some(probability)) = (record.label, record.probability) {
            self.slices.add(&Counts::of(label, probability >= threshold), 1);
        }
    }

    /// The patient's pooled Dice.
    pub(super) fn dice(&self) -> Option<f64> {
        (self.known && !self.segmentation.is_empty()).then(|| self.segmentation.dice())
    }

    /// Label and number of positive slices of a patient that counts.
    pub(super) fn case(&self) -> Option<(bool, u64)> {
        self.label.filter(|_| self.known && self.predicted > 0).map(|label| (label, self.positive))
    }
}

/// The groups, patients first, by number, and the group of each record.
pub(super) fn group(records: &[Record], threshold: f64) -> (Vec<Group>, Vec<u32>) {
    let key = |r: &Record| r.patient.map_or((true, r.index), |patient| (false, patient));
    let keys: Vec<_> = records.iter().map(key).collect::<BTreeSet<_>>().into_iter().collect();
    let mut groups: Vec<Group> = keys.iter().map(|k| Group { known: !k.0, ..Group::default() }).collect();
    let mut places = Vec::with_capacity(records.len());
    for record in records {
        let place = keys.binary_search(&key(record)).unwrap_or_default();
        if let Some(group) = groups.get_mut(place) {
            group.add(record, threshold);
        }
        places.push(place as u32);
    }
    (groups, places)
}

/// The result by patient around `metrics`, those of the rule; `None` where no patient is known.
pub(super) fn describe(groups: &[Group], metrics: Classification, slices: u64) -> Option<Patients> {
    let count = groups.iter().filter(|g| g.known).count();
    let cases: Vec<_> = groups.iter().filter_map(Group::case).collect();
    let too_few = |g: &&Group| g.case().is_some() && g.predicted <= slices;
    let diagnosis = (!cases.is_empty()).then(|| Diagnosis {
        slices,
        too_few_slices: groups.iter().filter(too_few).count(),
        metrics,
        curve: curve(&cases),
    });
    (count > 0).then(|| Patients { count, samples_without_patient: groups.len() - count, diagnosis })
}

/// The counts of the rule over patients given as label and number of positive slices.
pub(super) fn rule(cases: impl Iterator<Item = (bool, u64)>, slices: u64) -> Counts {
    let mut counts = Counts::default();
    cases.for_each(|(label, positive)| counts.add(&Counts::of(label, positive > slices), 1));
    counts
}

/// Only at 0 and at a patient's own number of positive slices can anything change.
fn curve(cases: &[(bool, u64)]) -> Vec<Point> {
    let numbers: BTreeSet<u64> = cases.iter().map(|c| c.1).chain([0]).collect();
    let point = |slices| {
        let counts = rule(cases.iter().copied(), slices);
        Point { slices, sensitivity: counts.sensitivity(), specificity: counts.specificity() }
    };
    numbers.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(slices: u64, sensitivity: f64, specificity: f64) -> Point {
        Point { slices, sensitivity: Some(sensitivity), specificity: Some(specificity) }
    }

    /// Labels and positive slices of seven patients. scikit-learn 1.9.1 has the same corners:
    /// `roc_curve([1,1,1,1,0,0,0], [30,19,18,2,18,0,1], drop_intermediate=False)` gives
    /// false-positive rate 0 0 0 1/3 1/3 2/3 1, true-positive rate 0 .25 .5 .75 1 1 1 at thresholds inf 30 19 18 2 1 0.
    #[test]
    fn the_curve_has_a_point_wherever_something_changes() {
        let cases = [(true, 30), (true, 19), (true, 18), (true, 2), (false, 18), (false, 0), (false, 1)];
        let third = 1.0 / 3.0;
        let expected = [
            point(0, 1.0, third),
            point(1, 1.0, 2.0 * third),
            point(2, 0.75, 2.0 * third),
            point(18, 0.5, 1.0),
            point(19, 0.25, 1.0),
            point(30, 0.0, 1.0),
        ];
        assert_eq!(curve(&cases), expected);
    }

    #[test]
    fn the_rule_wants_more_slices_than_the_number() {
        let counts = rule([(true, 19), (true, 18), (false, 19), (false, 18)].into_iter(), 18);
        assert_eq!(counts, Counts { tp: 1, fp: 1, tn: 1, fn_: 1 });
    }

    #[test]
    fn the_curve_begins_at_no_slice() {
        assert_eq!(curve(&[(true, 3), (false, 5)]), [point(0, 1.0, 0.0), point(3, 0.0, 0.0), point(5, 0.0, 1.0)]);
        assert_eq!(curve(&[(false, 0), (true, 0)]), [point(0, 0.0, 1.0)]);
    }
}
