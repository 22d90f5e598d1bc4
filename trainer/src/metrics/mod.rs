//! Metrics of a split, from what every sample leaves.
//!
//! Duty: from records, gathered from any number of workers in any order, to the result: by slice, by patient, with
//! intervals; every sample counted once and summed in the order of its index. Must not: see tensors, files, time or ranks.

mod bootstrap;
mod classification;
mod patients;
mod record;
mod segmentation;
#[cfg(test)]
mod tests;

pub use classification::{Classification, Counts};
pub use patients::{Diagnosis, Patients, Point};
pub use record::{RECORD_WIRE, Record};
pub use segmentation::{Metrics, SampleScore, pool, ratio};

use bootstrap::{Cohort, Estimate};
use classification::Ranking;
use protocol::config::Metric;
use serde::Serialize;
use std::collections::BTreeMap;

/// How records become metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// A slice is positive from this probability on.
    pub threshold: f64,
    /// A patient is positive with more positive slices than this.
    pub patient_slices: u64,
    /// Bootstrap resamples; 0 leaves the intervals out.
    pub resamples: usize,
    /// Another seed draws other resamples.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { threshold: 0.5, patient_slices: 18, resamples: 1000, seed: 0 }
    }
}

/// The metrics of a split. What does not apply or is undefined is absent, in JSON too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Samples, each counted once.
    pub samples: usize,
    /// Where samples have a mask.
    #[serde(flatten)]
    pub segmentation: Option<Segmentation>,
    /// By slice, where slices have a label and a probability.
    #[serde(flatten)]
    pub classification: Option<Classification>,
    /// Slices whose probability is no number, as a network that diverged gives; they are called negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_a_number: Option<usize>,
    /// By patient, where patients are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patients: Option<Patients>,
    /// What the bootstrap drew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resampled: Option<Resampled>,
    /// 95 % bootstrap intervals, by the metric's path in this object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub intervals: BTreeMap<&'static str, [f64; 2]>,
}

impl Evaluation {
    /// The value of a metric; none where it does not apply.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let (maps, classes) = (self.segmentation.as_ref(), self.classification.as_ref());
        match metric {
            Metric::Dice => maps?.dice,
            Metric::Iou => maps?.iou,
            Metric::Mae => maps?.mae,
            Metric::Auroc => classes?.auroc,
            Metric::Accuracy => classes?.accuracy,
        }
    }

    /// The headline metrics, with their intervals, in one line.
    pub fn in_words(&self) -> String {
        let (maps, classes) = (self.segmentation.as_ref(), self.classification.as_ref());
        let metrics = [
            ("Dice", "dice", maps.and_then(|m| m.dice)),
            ("mean Dice", "dice_mean", maps.and_then(|m| m.dice_mean)),
            ("official IoU", "iou", maps.and_then(|m| m.iou)),
            ("MAE", "mae", maps.and_then(|m| m.mae)),
            ("AUROC", "auroc", classes.and_then(|c| c.auroc)),
            ("sensitivity", "sensitivity", classes.and_then(|c| c.sensitivity)),
            ("specificity", "specificity", classes.and_then(|c| c.specificity)),
        ];
        let word = |(name, key, value): (&str, &str, Option<f64>)| {
            let interval = self.intervals.get(key).map_or(String::new(), |[lo, hi]| format!(" ({lo:.3} to {hi:.3})"));
            value.map(|value| format!("{name} {value:.4}{interval}"))
        };
        metrics.into_iter().filter_map(word).collect::<Vec<_>>().join(", ")
    }

    /// What a reader of the metrics must know.
    pub fn notes(&self) -> Vec<String> {
        let rule = self.patients.as_ref().and_then(|p| p.diagnosis.as_ref()).and_then(Diagnosis::note);
        let broken =
            self.not_a_number.map(|n| format!("{n} probabilities are no number; these slices count as negative"));
        rule.into_iter().chain(broken).collect()
    }
}

/// Metrics of the lesion maps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Segmentation {
    /// Samples with a mask.
    pub masks: usize,
    /// Pooled Dice: over the pixels of the whole split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dice: Option<f64>,
    /// Mean of the samples' Dice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dice_mean: Option<f64>,
    /// Mean over the patients of each one's pooled Dice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dice_patient_mean: Option<f64>,
    /// Pooled IoU: over the pixels of the whole split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iou_pooled: Option<f64>,
    /// Mean of the samples' IoU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iou_mean: Option<f64>,
    /// Official IoU: mean over the samples, each thresholded at twice its mean prediction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iou: Option<f64>,
    /// Mean absolute error, mean over the samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mae: Option<f64>,
}

/// What a bootstrap resample is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Resampled {
    /// Patients, with all their slices; a slice of an unknown patient counts as a patient.
    Patients,
    /// Slices, since no patient is known: too narrow where slices come from the same people.
    Slices,
}

/// The metrics of a split from its records. Records of one index are taken to be the same.
pub fn summarize(mut records: Vec<Record>, settings: &Settings) -> Evaluation {
    records.sort_by_key(|r| r.index);
    records.dedup_by_key(|r| r.index);
    let cohort = cohort(&records, settings);
    let estimate = cohort.estimate(&vec![1; cohort.groups.len()]);
    let intervals = bootstrap::intervals(&cohort, settings);
    let drawn = if cohort.groups.iter().any(|g| g.known) { Resampled::Patients } else { Resampled::Slices };
    let not_a_number = records.iter().filter(|r| r.probability.is_some_and(f64::is_nan)).count();
    Evaluation {
        samples: records.len(),
        segmentation: segmentation(&records, &estimate),
        classification: Some(estimate.slices).filter(|c| c.counts.total() > 0),
        not_a_number: Some(not_a_number).filter(|n| *n > 0),
        patients: patients::describe(&cohort.groups, estimate.patients, settings.patient_slices),
        resampled: (!intervals.is_empty()).then_some(drawn),
        intervals,
    }
}

fn cohort(records: &[Record], settings: &Settings) -> Cohort {
    let (groups, places) = patients::group(records, settings.threshold);
    let slice = |(r, place): (&Record, &u32)| Some((r.probability?, *place, r.label?));
    let slices = Ranking::new(records.iter().zip(&places).filter_map(slice));
    let patient = |(place, case): (u32, Option<(bool, u64)>)| case.map(|(label, score)| (score as f64, place, label));
    let patients = Ranking::new((0..).zip(groups.iter().map(|g| g.case())).filter_map(patient));
    Cohort { groups, slices, patients, patient_slices: settings.patient_slices }
}

fn segmentation(records: &[Record], estimate: &Estimate) -> Option<Segmentation> {
    let m = pool(records.iter().filter_map(|r| r.segmentation).collect());
    let finite = |x: f64| Some(x).filter(|x| x.is_finite());
    (m.samples > 0).then(|| Segmentation {
        masks: m.samples,
        dice: finite(m.dice),
        dice_mean: finite(m.dice_mean),
        iou_pooled: finite(m.iou_pooled),
        iou_mean: finite(m.iou_mean),
        dice_patient_mean: estimate.dice_patient_mean,
        iou: finite(m.iou),
        mae: finite(m.mae),
    })
}
