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

/// After so many samples the ranks ask each other whether one was told to stop. It is also what keeps
/// a slow rank from being taken for a dead one at the end.
const ROUND: usize = 8;

/// Metrics of `dataset` under `network`: rank r takes samples r, r + world size, …; every rank gets the
/// result. `None` where a rank was asked to stop before the end.
///
/// `show` is told how far this rank is.
pub fn evaluate(
    network: &Network,
    dataset: &Arc<Dataset>,
    threshold: f64,
    workers: usize,
    job: &Job,
    step: u64,
    show: &mut dyn FnMut(Progress),
) -> Result<Option<Metrics>, Error> {
    let rounds = dataset.len().div_ceil(job.place.world_size).div_ceil(ROUND);
    let mine = (job.place.rank.0..dataset.len()).step_by(job.place.world_size);
    let total = mine.len() as u64;
    let requests = mine.map(|i| Request { index: i as u32, epoch: 0 });
    let settings = LoaderSettings { seed: 0, augment: Augment::NONE, workers, queue: 2 * workers.max(1) };
    let mut scores = Vec::new();
    let mut loader = Loader::new(dataset.clone(), requests, settings);
    let geometry = dataset.geometry();
    for _ in 0..rounds {
        for sample in loader.by_ref().take(ROUND) {
            let batch = Batch::stack(&[sample?], (geometry.height, geometry.width), job.device);
            scores.push(score(network, &batch, threshold)?);
            show(Progress { phase: "eval".into(), done: scores.len() as u64, total, ..Progress::default() });
        }
        if job.collective.any(job.asked_to_stop(), Label::new(step, "evaluation round"))? {
            return Ok(None);
        }
    }
    gather(scores, job, step).map(Some)
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
