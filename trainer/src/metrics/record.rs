//! What one sample leaves for the metrics, and its form on the wire between ranks.
//!
//! Duty: an exact round trip. Must not: decide what a value means.

use super::SampleScore;

/// What the evaluation of one sample leaves. What is unknown or does not apply is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Index of the sample in the data set, below 2^53.
    pub index: u64,
    /// Number of the patient in a table that every rank derives alike from the data set, below 2^53.
    pub patient: Option<u64>,
    /// Score of the lesion map, of the same index.
    pub segmentation: Option<SampleScore>,
    /// Whether the slice is labelled COVID-19.
    pub label: Option<bool>,
    /// Predicted probability of COVID-19.
    pub probability: Option<f64>,
}

/// Number of float64 values of a record on the wire.
pub const RECORD_WIRE: usize = 9;

const PATIENT: u64 = 1;
const SEGMENTATION: u64 = 2;
const LABEL: u64 = 4;
const COVID: u64 = 8;
const PROBABILITY: u64 = 16;

impl Record {
    /// The record as numbers, to be gathered over the ranks. What is present is told by bits of the second, since every
    /// value, NaN too, can be a result.
    pub fn to_wire(&self) -> [f64; RECORD_WIRE] {
        let bit = |present, bit| if present { bit } else { 0 };
        let present = bit(self.patient.is_some(), PATIENT)
            | bit(self.segmentation.is_some(), SEGMENTATION)
            | bit(self.label.is_some(), LABEL)
            | bit(self.label == Some(true), COVID)
            | bit(self.probability.is_some(), PROBABILITY);
        let score = |s: SampleScore| [s.both, s.predicted, s.actual, s.iou, s.mae];
        let [both, predicted, actual, iou, mae] = self.segmentation.map_or([0.0; 5], score);
        let patient = self.patient.unwrap_or(0) as f64;
        let probability = self.probability.unwrap_or(0.0);
        [self.index as f64, present as f64, patient, both, predicted, actual, iou, mae, probability]
    }

    /// Inverse of [`Self::to_wire`].
    pub fn from_wire(v: [f64; RECORD_WIRE]) -> Record {
        let [at, present, patient, both, predicted, actual, iou, mae, probability] = v;
        let has = |bit| present as u64 & bit != 0;
        let index = at as u64;
        let score = SampleScore { index, both, predicted, actual, iou, mae };
        Record {
            index,
            patient: has(PATIENT).then_some(patient as u64),
            segmentation: has(SEGMENTATION).then_some(score),
            label: has(LABEL).then(|| has(COVID)),
            probability: has(PROBABILITY).then_some(probability),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_keeps_what_is_there_and_what_is_not() {
        let score = SampleScore { index: 7, both: 1.0, predicted: 1.0 / 3.0, actual: 3.0, iou: 0.1, mae: 1e-300 };
        for present in 0..32u64 {
            let record = Record {
                index: 7,
                patient: (present & 1 != 0).then_some((1 << 53) - 1),
                segmentation: (present & 2 != 0).then_some(score),
                label: (present & 4 != 0).then_some(present & 16 != 0),
                probability: (present & 8 != 0).then_some(0.1 + 0.2),
            };
            assert_eq!(Record::from_wire(record.to_wire()), record);
        }
    }

    #[test]
    fn a_result_that_is_no_number_stays_one() {
        let record =
            Record { index: 0, patient: None, segmentation: None, label: Some(false), probability: Some(f64::NAN) };
        let back = Record::from_wire(record.to_wire());
        assert!(back.probability.is_some_and(f64::is_nan));
        assert_eq!(back.label, Some(false));
    }
}
