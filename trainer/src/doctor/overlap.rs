//! How much of the communication the backward pass hides, and whether the gradients are the same then.

use super::report::{Problem, Verdict};
use super::step::{Size, Trainee, difference};
use super::{Failure, agree, attempt, finite, in_words, median};
use crate::job::Job;
use crate::{Error, ddp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Instant;
use tch::{Device, Tensor};

/// How long a step should take.
const WANTED_SECONDS: f64 = 0.1;
/// More samples than these would want more memory than a small GPU has.
const MOST_SAMPLES: f64 = 8.0;
/// Steps of each kind that are measured.
const STEPS: usize = 7;
/// Moves the weights by a thousandth or so a step: no step goes astray, and rounding does not matter.
const RATE: f64 = 0.1;
/// Between weights that were trained with overlap and without, relative to how far they moved.
const TOLERANCE: f64 = 1e-3;

/// What a step takes, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Times {
    /// All of it.
    pub(super) step: f64,
    /// The backward pass.
    pub(super) backward: f64,
    /// The all-reduces, added up.
    pub(super) communication: f64,
    /// From the end of the backward pass to that of the last all-reduce.
    pub(super) exposed: f64,
}

/// Steps of one kind: medians on each rank, averaged over the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// `comm.overlap`.
    pub(super) overlap: bool,
    #[serde(flatten)]
    pub(super) seconds: Times,
    /// Share of the communication that took place behind the backward pass.
    pub(super) hidden: f64,
}

/// Steps with overlap and without.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Overlap {
    pub(super) verdict: Verdict,
    /// Why there is nothing to measure, or no measurement.
    pub(super) none: Option<String>,
    /// Samples of each worker in a step.
    pub(super) samples: usize,
    /// `model.width`.
    pub(super) width: f64,
    /// Height and width of the images, in pixels.
    pub(super) side: usize,
    /// Bytes of all gradients.
    pub(super) gradient_bytes: usize,
    /// With overlap, without; empty where there is nothing to measure.
    pub(super) rows: Vec<Row>,
    /// Between the weights after training with overlap and without, relative to how far they moved; the largest of all ranks.
    pub(super) weights_difference: Option<f64>,
    pub(super) tolerance: f64,
    /// Ranks whose weights are wrong.
    pub(super) wrong: Vec<Problem>,
    /// Ranks on which it failed.
    pub(super) failed: Vec<Problem>,
}

impl Overlap {
    /// Nothing was measured.
    pub(super) fn none(why: &str) -> Overlap {
        Overlap {
            verdict: Verdict::None,
            none: Some(why.into()),
            samples: 0,
            width: 0.0,
            side: 0,
            gradient_bytes: 0,
            rows: Vec::new(),
            weights_difference: None,
            tolerance: TOLERANCE,
            wrong: Vec::new(),
            failed: Vec::new(),
        }
    }

    fn failed(failed: Vec<Problem>) -> Overlap {
        Overlap { verdict: Verdict::Wrong, failed, ..Overlap::none("a step failed") }
    }

    /// Whether the ranks have lost each other.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Everything that is wrong.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.wrong.iter().chain(&self.failed).cloned()
    }
}

/// What a rank saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seen {
    on: Times,
    off: Times,
    /// Of the weights after all steps, with overlap and without.
    digest: String,
    weights_difference: Option<f64>,
}

/// Trains with overlap and without by turns, on all ranks of `job` together; `control` hears of it, whatever becomes of it.
pub(super) fn measure(job: &Job, control: &Job) -> Result<Overlap, Error> {
    if job.place.world_size == 1 {
        return Ok(Overlap::none("one worker has nothing to send, and nothing to hide"));
    }
    let size = match job.device {
        Device::Cpu => Size { width: 0.25, side: 64 },
        _ => Size { width: 1.0, side: 256 },
    };
    let failure = |e: &Error| Failure::of(e, in_words);
    let begun = attempt(|| Race::begin(job, size));
    let step = begun.as_ref().map(|race| race.first_step).map_err(failure);
    let (mut race, slowest) = match (begun, agree(control, step, "first steps of the ranks")?) {
        (Ok(race), Ok(all)) => (race, all.into_iter().fold(0.0, f64::max)),
        (_, all) => return Ok(Overlap::failed(all.err().unwrap_or_default())),
    };
    let samples = samples_for(slowest);
    let seen = attempt(|| race.run(samples)).map_err(|e| failure(&e));
    let seen = match agree(control, seen, "overlap of the ranks")? {
        Ok(seen) => seen,
        Err(failed) => return Ok(Overlap::failed(failed)),
    };
    let rows = [(true, seen.iter().map(|s| s.on).collect()), (false, seen.iter().map(|s| s.off).collect::<Vec<_>>())];
    let wrong = wrong(&seen).into_iter().map(|(rank, problem)| Problem::of(control, rank, problem)).collect::<Vec<_>>();
    Ok(Overlap {
        verdict: Verdict::of(wrong.is_empty()),
        none: None,
        samples,
        width: size.width,
        side: size.side,
        gradient_bytes: 4 * race.base.numel(),
        rows: rows.into_iter().map(|(overlap, times)| row(overlap, &times)).collect(),
        weights_difference: seen.iter().map(|s| s.weights_difference).try_fold(0.0, |a, b| Some(f64::max(a, b?))),
        tolerance: TOLERANCE,
        wrong,
        failed: Vec::new(),
    })
}

/// Two that train on the same samples: with overlap, without.
struct Race {
    pair: [Trainee; 2],
    /// The weights of both at the start.
    base: Tensor,
    seed: u64,
    /// What a step without overlap takes with one sample, in seconds.
    first_step: f64,
}

impl Race {
    /// Takes the first steps, which settle the buckets and make libtorch ready.
    fn begin(job: &Job, size: Size) -> Result<Race, Error> {
        let pair = [trainee(job, size, true)?, trainee(job, size, false)?];
        let base = pair[0].weights();
        let mut race = Race { pair, base, seed: 2 + job.place.rank.0 as u64, first_step: 0.0 };
        race.draw(1);
        race.turn()?;
        let [_, off] = race.turn()?;
        race.first_step = off.step;
        Ok(race)
    }

    fn draw(&mut self, samples: usize) {
        self.pair.iter_mut().for_each(|trainee| trainee.draw(samples, self.seed));
    }

    /// One step of each.
    fn turn(&mut self) -> Result<[Times; 2], Error> {
        let [on, off] = &mut self.pair;
        Ok([timed(on)?, timed(off)?])
    }

    /// Takes steps of so many samples a rank.
    fn run(&mut self, samples: usize) -> Result<Seen, Error> {
        self.draw(samples);
        self.turn()?;
        let turns = (0..STEPS).map(|_| self.turn()).collect::<Result<Vec<_>, _>>()?;
        let [on, off] = [0, 1].map(|i| medians(&turns.iter().map(|turn| turn[i]).collect::<Vec<_>>()));
        let (with, without) = (self.pair[0].weights(), self.pair[1].weights());
        let weights_difference = finite(difference(&with, &without, Some(&self.base)));
        Ok(Seen { on, off, digest: digest(&[with, without]), weights_difference })
    }
}

fn trainee(job: &Job, size: Size, overlap: bool) -> Result<Trainee, Error> {
    let trainee = Trainee::new(job.device, size, job.collective.clone(), overlap)?;
    ddp::broadcast_weights(&*job.collective, 0, &trainee.network.store, &trainee.reducer.flats)?;
    Ok(trainee)
}

fn timed(trainee: &mut Trainee) -> Result<Times, Error> {
    let started = Instant::now();
    trainee.step(RATE)?;
    let step = started.elapsed().as_secs_f64();
    let times = trainee.reducer.times();
    let [backward, communication, exposed] =
        [times.backward, times.communication, times.exposed].map(|time| time.as_secs_f64());
    Ok(Times { step, backward, communication, exposed })
}

fn digest(weights: &[Tensor]) -> String {
    let mut hash = Sha256::new();
    for weights in weights {
        let values: Vec<f32> = weights.try_into().unwrap_or_default();
        values.iter().for_each(|value| hash.update(value.to_le_bytes()));
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Samples of a step that takes as long as wanted, where one takes `seconds`.
fn samples_for(seconds: f64) -> usize {
    (WANTED_SECONDS / seconds).round().clamp(1.0, MOST_SAMPLES) as usize
}

fn each(times: &[Times], of: impl Fn(Vec<f64>) -> f64) -> Times {
    let one = |field: fn(&Times) -> f64| of(times.iter().map(field).collect());
    Times {
        step: one(|t| t.step),
        backward: one(|t| t.backward),
        communication: one(|t| t.communication),
        exposed: one(|t| t.exposed),
    }
}

fn medians(steps: &[Times]) -> Times {
    each(steps, median)
}

fn row(overlap: bool, ranks: &[Times]) -> Row {
    let seconds = each(ranks, |values| values.iter().sum::<f64>() / values.len().max(1) as f64);
    let hidden = 1.0 - seconds.exposed / seconds.communication;
    Row { overlap, seconds, hidden: if hidden.is_finite() { hidden.clamp(0.0, 1.0) } else { 0.0 } }
}

/// Ranks whose weights are not those of rank 0; where there are none, those whose weights are not those that come without
/// overlap: ranks that differ soon change each other's.
fn wrong(seen: &[Seen]) -> Vec<(usize, String)> {
    let first = seen.first().map(|first| first.digest.as_str());
    let apart = |s: &Seen| {
        (first != Some(&*s.digest)).then(|| "after some steps its weights are not those of rank 0".to_owned())
    };
    let astray = |s: &Seen| match s.weights_difference {
        None => Some("after some steps its weights are no numbers".to_owned()),
        Some(difference) if difference > TOLERANCE => {
            Some(format!("with overlap its weights come out differently, by {difference:.1e} of how far they moved"))
        }
        Some(_) => None,
    };
    let all = |problem: &dyn Fn(&Seen) -> Option<String>| {
        let found = seen.iter().enumerate().filter_map(|(rank, s)| Some((rank, problem(s)?)));
        found.collect::<Vec<_>>()
    };
    let apart = all(&apart);
    if apart.is_empty() { all(&astray) } else { apart }
}

#[cfg(test)]
impl Overlap {
    /// Three quarters of 40 ms are hidden.
    pub(super) fn example() -> Overlap {
        let times = |exposed| Times { step: 0.1, backward: 0.06, communication: 0.04, exposed };
        Overlap {
            verdict: Verdict::Ok,
            none: None,
            samples: 4,
            width: 0.25,
            side: 64,
            gradient_bytes: 10 << 20,
            rows: vec![row(true, &[times(0.01), times(0.01)]), row(false, &[times(0.04), times(0.05)])],
            weights_difference: Some(0.0),
            ..Overlap::none("")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_about_a_tenth_of_a_second() {
        assert_eq!([0.025, 0.001, 3.0, 0.07].map(samples_for), [4, 8, 1, 1]);
    }

    #[test]
    fn hidden_is_what_is_not_exposed() {
        let rows = Overlap::example().rows;
        assert!((rows[0].hidden - 0.75).abs() < 1e-12, "{rows:?}");
        assert_eq!((rows[1].hidden, rows[1].seconds.exposed), (0.0, 0.045));
        assert_eq!(row(true, &[Times::default()]).hidden, 0.0);
    }

    #[test]
    fn other_weights_have_another_digest() {
        let of = |values: [f32; 2]| digest(&[Tensor::from_slice(&values), Tensor::from_slice(&[1.0f32])]);
        assert_eq!(of([1.0, 2.0]), of([1.0, 2.0]));
        assert_ne!(of([1.0, 2.0]), of([1.0, 2.5]));
    }

    #[test]
    fn ranks_that_drift_apart_are_named() {
        let seen = |digest: &str, weights_difference| Seen {
            on: Times::default(),
            off: Times::default(),
            digest: digest.into(),
            weights_difference,
        };
        let ranks = |all: &[Seen]| wrong(all).iter().map(|(rank, _)| *rank).collect::<Vec<_>>();
        assert_eq!(ranks(&[seen("a", Some(0.5)), seen("b", Some(0.5)), seen("a", Some(0.0))]), [1]);
        assert_eq!(
            ranks(&[seen("a", Some(0.0)), seen("a", Some(0.5)), seen("a", None), seen("a", Some(1e-4))]),
            [1, 2]
        );
    }
}
