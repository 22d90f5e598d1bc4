//! Evaluation of a network on a split, shared out over the ranks.

use crate::Error;
use crate::data::Batch;
use crate::job::Job;
use crate::metrics::{Metrics, SampleScore, WIRE, pool};
use crate::network::Network;
use collectives::Label;
use data_shards::augment::Augment;
use data_shards::{Dataset, Loader, LoaderSettings, Request};
use protocol::message::Progress;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Metrics of `dataset` under `network`: rank r takes samples r, r + world size, …; every rank gets the result.
///
/// `show` is told how far rank 0 is.
pub fn evaluate(
    network: &Network,
    dataset: &Arc<Dataset>,
    threshold: f64,
    workers: usize,
    job: &Job,
    step: u64,
    show: &mut dyn FnMut(Progress),
) -> Result<Metrics, Error> {
    let mine = (job.place.rank.0..dataset.len()).step_by(job.place.world_size);
    let total = mine.len() as u64;
    let requests = mine.map(|i| Request { index: i as u32, epoch: 0 });
    let settings = LoaderSettings { seed: 0, augment: Augment::NONE, workers, queue: 2 * workers.max(1) };
    let mut scores = Vec::new();
    for sample in Loader::new(dataset.clone(), requests, settings) {
        let geometry = dataset.geometry();
        let batch = Batch::stack(&[sample?], (geometry.height, geometry.width), job.device);
        scores.push(score(network, &batch, threshold)?);
        show(Progress { phase: "eval".into(), done: scores.len() as u64, total, ..Progress::default() });
    }
    gather(scores, job, step)
}

fn score(network: &Network, batch: &Batch, threshold: f64) -> Result<SampleScore, Error> {
    let logits = tch::no_grad(|| network.logits(&batch.images));
    let prediction = logits.select(1, 0).sigmoid().to_kind(Kind::Float);
    Ok(score_map(batch.indices[0] as u64, &prediction, &batch.masks, threshold))
}

/// The score of one probability map `(1, H, W)` against its mask, 0 or 1, of the same shape.
pub fn score_map(index: u64, prediction: &Tensor, mask: &Tensor, threshold: f64) -> SampleScore {
    let count = |t: &Tensor| t.sum(Kind::Double).double_value(&[]);
    let actual = mask.ge(0.5);
    let overlap = |threshold: f64| {
        let predicted = prediction.ge(threshold);
        let both = count(&predicted.logical_and(&actual));
        (both, count(&predicted))
    };
    let actual_pixels = count(&actual);
    let (both, predicted) = overlap(threshold);
    let twice_mean = 2.0 * prediction.mean(Kind::Double).double_value(&[]);
    let (both_official, predicted_official) = overlap(twice_mean);
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

fn gather(scores: Vec<SampleScore>, job: &Job, step: u64) -> Result<Metrics, Error> {
    let bytes = scores.iter().flat_map(|s| s.to_wire()).flat_map(f64::to_le_bytes).collect();
    let all = job.collective.all_gather(bytes, Label::new(step, "gather evaluation"))?;
    let numbers: Vec<f64> = all.iter().flat_map(|b| b.chunks_exact(8)).map(le_f64).collect();
    let (scores, _) = numbers.as_chunks::<WIRE>();
    Ok(pool(scores.iter().map(|w| SampleScore::from_wire(*w)).collect()))
}

/// A float64 of 8 little-endian bytes.
pub(crate) fn le_f64(bytes: &[u8]) -> f64 {
    f64::from_le_bytes(bytes.try_into().unwrap_or_default())
}
