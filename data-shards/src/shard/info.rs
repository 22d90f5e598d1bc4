//! What a data set holds.
//!
//! Duty: counts, from the index alone. Must not: read shards.

use serde::Serialize;

use super::{Index, Kind};

/// Of a location.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Its data sets.
    pub sets: Vec<SetInfo>,
}

/// Of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SetInfo {
    /// The split that it is.
    pub split: Option<String>,
    /// Its directory.
    pub dir: String,
    /// Its shards.
    pub shards: usize,
    /// Bytes of all shards.
    pub bytes: u64,
    /// Its samples.
    pub samples: usize,
    /// Samples by class.
    pub labels: Classes,
    /// Patients by class; positive where one of their samples is, unknown where none has a label.
    pub patients: Classes,
    /// Samples without a patient.
    pub without_patient: usize,
    /// Samples with an image.
    pub images: usize,
    /// Samples with a mask.
    pub masks: usize,
    /// Samples with `vgg_feats`.
    pub vgg: usize,
    /// Samples with `res2net_feats`.
    pub res2net: usize,
}

/// Numbers by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Classes {
    /// With COVID-19.
    pub positive: usize,
    /// Without.
    pub negative: usize,
    /// Not known.
    pub unknown: usize,
}

impl Classes {
    /// How many in all.
    pub fn total(&self) -> usize {
        self.positive + self.negative + self.unknown
    }

    fn count(&mut self, label: Option<bool>) {
        *match label {
            Some(true) => &mut self.positive,
            Some(false) => &mut self.negative,
            None => &mut self.unknown,
        } += 1;
    }
}

impl SetInfo {
    /// Describes a data set.
    pub fn of(index: &Index) -> SetInfo {
        let with = |kind: Kind| (0..index.len()).filter(|sample| index.kinds(*sample).has(kind)).count();
        let mut labels = Classes::default();
        (0..index.len()).for_each(|sample| labels.count(index.label(sample)));
        SetInfo {
            split: index.split().map(str::to_owned),
            dir: index.dir().display().to_string(),
            shards: index.shards().len(),
            bytes: index.shards().iter().fold(0, |sum, shard| shard.bytes.saturating_add(sum)),
            samples: index.len(),
            labels,
            patients: patients(index),
            without_patient: (0..index.len()).filter(|sample| index.patient(*sample).is_none()).count(),
            images: with(Kind::Image),
            masks: with(Kind::Mask),
            vgg: with(Kind::Vgg),
            res2net: with(Kind::Res2Net),
        }
    }
}

fn patients(index: &Index) -> Classes {
    let mut labels = vec![None; index.patients().len()];
    for sample in 0..index.len() {
        if let Some(label) = index.patient(sample).and_then(|patient| labels.get_mut(patient)) {
            // A label is more than none, and positive more than negative.
            *label = index.label(sample).max(*label);
        }
    }
    let mut classes = Classes::default();
    labels.into_iter().for_each(|label| classes.count(label));
    classes
}
