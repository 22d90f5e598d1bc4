//! Evaluation of a network on a split, shared out over the ranks.

use crate::Error;
use crate::data::{Batch, next_sample};
use crate::job::Job;
use crate::metrics::{self, Evaluation, RECORD_WIRE, Record, SampleScore};
use crate::network::{Network, Output};
use collectives::Label;
use data_shards::augment::Augment;
use data_shards::{Dataset, Loader, LoaderSettings, Request};
use protocol::config::Config;
use protocol::message::Progress;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// After so many samples the ranks ask each other whether one was told to stop. It is also what keeps
/// a slow rank from being taken for a dead one at the end.
const ROUND: usize = 8;

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How records become metrics.
    pub metrics: metrics::Settings,
    /// Threads that decode.
    pub workers: usize,
    /// The step that errors name.
    pub step: u64,
}

impl Settings {
    /// What the configuration asks for.
    pub fn of(config: &Config, step: u64) -> Settings {
        let metrics = metrics::Settings {
            threshold: config.eval.threshold,
            patient_slices: config.eval.patient_slices,
            ..metrics::Settings::default()
        };
        Settings { metrics, workers: config.data.workers, step }
    }
}

/// Metrics of `dataset` under `network`: rank r takes samples r, r + world size, …; every rank gets the
/// result. `None` where a rank was asked to stop before the end.
///
/// `show` is told how far this rank is.
pub fn evaluate(
    network: &Network,
    dataset: &Arc<Dataset>,
    settings: &Settings,
    job: &Job,
    show: &mut dyn FnMut(Progress),
) -> Result<Option<Evaluation>, Error> {
    let rounds = dataset.len().div_ceil(job.place.world_size).div_ceil(ROUND);
    let order = dataset.epoch_order(0, 0, false);
    let mine: Vec<u32> = order.into_iter().skip(job.place.rank.0).step_by(job.place.world_size).collect();
    let total = mine.len() as u64;
    let requests = mine.into_iter().map(|index| Request { index, epoch: 0 });
    let workers = settings.workers;
    let loading = LoaderSettings { seed: 0, augment: Augment::NONE, workers, queue: 2 * workers.max(1) };
    let mut records = Vec::new();
    let mut loader = Loader::new(dataset.clone(), requests, loading);
    let geometry = dataset.geometry();
    for _ in 0..rounds {
        for _ in 0..ROUND {
            let Some(sample) = next_sample(&mut loader, dataset, &|| job.asked_to_stop())? else { break };
            let batch = Batch::stack(&[sample], geometry, job.device)?;
            records.push(record(network, &batch, dataset, settings.metrics.threshold));
            let done = records.len() as u64;
            // All are done when it is known what they come to.
            if done < total {
                show(Progress { phase: "eval".into(), done, total, ..Progress::default() });
            }
        }
        if job.collective.any(job.asked_to_stop(), Label::new(settings.step, "evaluation round"))? {
            return Ok(None);
        }
    }
    let records = gather(&records, job, settings.step)?;
    let evaluation = metrics::summarize(records, &settings.metrics);
    let note = evaluation.in_words().split(", ").next().unwrap_or_default().to_owned();
    show(Progress { phase: "eval".into(), done: total, total, note, ..Progress::default() });
    Ok(Some(evaluation))
}

fn record(network: &Network, batch: &Batch, dataset: &Dataset, threshold: f64) -> Record {
    let index = batch.indices[0];
    let base = Record {
        index: index as u64,
        patient: dataset.patient_of(index).map(|p| p as u64),
        segmentation: None,
        label: dataset.label_of(index),
        probability: None,
    };
    match tch::no_grad(|| network.forward(&batch.input)) {
        Output::Maps(logits) => {
            let prediction = logits.select(1, 0).sigmoid().to_kind(Kind::Float);
            Record { segmentation: Some(score_map(index as u64, &prediction, &batch.masks, threshold)), ..base }
        }
        Output::Classes { logits, .. } => {
            let probability = logits.softmax(1, Kind::Float).double_value(&[0, 1]);
            Record { probability: Some(probability), ..base }
        }
    }
}

/// The score of one probability map `(1, H, W)` against its mask, 0 or 1, of the same shape.
pub fn score_map(index: u64, prediction: &Tensor, mask: &Tensor, threshold: f64) -> SampleScore {
    let count = |t: &Tensor| t.sum(Kind::Double).double_value(&[]);
    let actual = mask.ge(0.5);
    let overlap = |predicted: &Tensor| (count(&predicted.logical_and(&actual)), count(predicted));
    let actual_pixels = count(&actual);
    let (both, predicted) = overlap(&prediction.ge(threshold));
    // Above, not from: an image without any prediction has no lesion.
    let twice_mean = 2.0 * prediction.mean(Kind::Double).double_value(&[]);
    let (both_official, predicted_official) = overlap(&prediction.gt(twice_mean));
    let union = predicted_official + actual_pixels - both_official;
    SampleScore {
        index,
        both,
        predicted,
        actual: actual_pixels,
        iou: crate::metrics::ratio(both_official, union),
        mae: (prediction - mask).abs().mean(Kind::Double).double_value(&[]),
    }
}

fn gather(records: &[Record], job: &Job, step: u64) -> Result<Vec<Record>, Error> {
    let bytes = records.iter().flat_map(Record::to_wire).flat_map(f64::to_le_bytes).collect();
    let all = job.collective.all_gather(bytes, Label::new(step, "gather evaluation"))?;
    let numbers: Vec<f64> = all.iter().flat_map(|b| b.chunks_exact(8)).map(le_f64).collect();
    let (records, _) = numbers.as_chunks::<RECORD_WIRE>();
    Ok(records.iter().map(|w| Record::from_wire(*w)).collect())
}

/// A float64 of 8 little-endian bytes.
pub(crate) fn le_f64(bytes: &[u8]) -> f64 {
    f64::from_le_bytes(bytes.try_into().unwrap_or_default())
}
