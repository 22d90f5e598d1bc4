//! What was packed, and what was not.
//!
//! Duty: counts, and every input that was left out with its reason, as text and as JSON. Must not: give a patient away in
//! the file that lies within the data set: there inputs go by their hashes, and reasons by their kind.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ids::Ids;

/// Why an input is not in the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It cannot be read, or is damaged.
    Unreadable,
    /// It is of a kind that cannot be packed.
    Unsupported,
    /// Its mask cannot be used.
    Mask,
    /// It is there already.
    Duplicate,
    /// It is no axial slice of a chest CT: a localizer, another modality, another orientation.
    NotCt,
    /// It is no image but a mask, or a file of another kind.
    Other,
}

/// An input that is not in the data set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftOut {
    /// The file, or what else names it.
    pub input: String,
    /// The kind of reason.
    pub why: Why,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Errors of readers name the file themselves.
        if self.reason.contains(&self.input) {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.input, self.reason)
        }
    }
}

impl LeftOut {
    pub(crate) fn new(input: impl Into<String>, why: Why, reason: impl Into<String>) -> LeftOut {
        LeftOut { input: input.into(), why, reason: reason.into() }
    }

    /// Of a file whose reader failed.
    pub(crate) fn unreadable(path: &std::path::Path, error: impl fmt::Display) -> LeftOut {
        LeftOut::new(path.display().to_string(), Why::Unreadable, error.to_string())
    }
}

/// A part of the data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SplitReport {
    /// Its name; none where there are no splits.
    pub split: Option<String>,
    /// Samples in it.
    pub samples: usize,
    /// Known patients among them.
    pub patients: usize,
    /// Samples with label 1, with label 0, and without.
    pub labels: [usize; 3],
    /// Samples with a mask.
    pub masks: usize,
    /// Shards.
    pub shards: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What a pack came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The fingerprint of the plan.
    pub plan: String,
    /// In their order.
    pub splits: Vec<SplitReport>,
    /// Known patients in all.
    pub patients: usize,
    /// Every input that is not in the data set.
    pub left_out: Vec<LeftOut>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// Shards that an earlier run had finished.
    pub kept: usize,
    /// Whether everything was there already, and nothing was done.
    pub already: bool,
}

impl Report {
    /// Samples in all splits.
    pub fn samples(&self) -> usize {
        self.splits.iter().map(|split| split.samples).sum()
    }

    /// As it lies in the data set: `report.json`.
    pub(crate) fn public(&self, ids: &Ids) -> Value {
        let left_out: Vec<Value> = self.left_out.iter().map(|one| public(one, ids)).collect();
        self.json(left_out)
    }

    /// As it lies beside the key: with names and reasons.
    pub(crate) fn private(&self, ids: &Ids) -> Value {
        let named = |one: &LeftOut| json!({"input": one.input, "id": ids.file(&one.input), "why": one.why, "reason": one.reason});
        let mut value = self.json(self.left_out.iter().map(named).collect());
        value["notes"] = json!(self.notes);
        value
    }

    fn json(&self, left_out: Vec<Value>) -> Value {
        json!({
            "plan": self.plan,
            "samples": self.samples(),
            "patients": self.patients,
            "splits": self.splits,
            "left_out_count": left_out.len(),
            "left_out": left_out,
        })
    }
}

fn public(one: &LeftOut, ids: &Ids) -> Value {
    match ids {
        Ids::Kept => json!(one),
        Ids::Hashed(_) => json!({"id": ids.file(&one.input), "why": one.why}),
    }
}

/// Distinct patients.
pub(crate) fn patients<'a>(ids: impl Iterator<Item = Option<&'a str>>) -> usize {
    ids.flatten().collect::<BTreeSet<_>>().len()
}
