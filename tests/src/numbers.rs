//! Bounds of numbers that depend on the CPU: what is allowed, what is seen (the table in `tests/README.md`), and how far
//! rounding alone leads two runs apart.

use crate::{Bench, values};
use std::io::Write as _;

/// Asserts that `seen` is at most `allowed`, and is a number. Where `JCS_TEST_NUMBERS` names a file, the test's name and both
/// values are appended there as a line (`scripts/numbers.sh` makes the table of them); with `JCS_TEST_NUMBERS_ONLY` (scripts/gpu-check)
/// whoever reads that file asserts, so that one number out of bounds does not hide the others.
#[track_caller]
pub fn at_most(what: &str, seen: f64, allowed: f64) {
    if let Some(file) = std::env::var_os("JCS_TEST_NUMBERS") {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("main");
        let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
        file.write_all(format!("{test}\t{what}\t{seen:e}\t{allowed:e}\n").as_bytes()).unwrap();
        if std::env::var_os("JCS_TEST_NUMBERS_ONLY").is_some() {
            return;
        }
    }
    assert!(seen <= allowed, "{what}: {seen:.2e} where {allowed:.0e} is allowed");
}

/// ‖a‖
pub fn length(a: &[f32]) -> f64 {
    a.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// ‖a − b‖
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// Steps of the runs that are compared.
const STEPS: u64 = 10;
/// The loss is one a sample, so that it does not depend on how many of them a micro-batch has; the rate is the official one, with
/// which weights go a short way.
const COMMON: [&str; 5] = [
    "train.max_steps=10",
    "checkpoint.every_steps=1",
    "loss.dice_over=sample",
    "optim.weight_decay=0",
    "optim.lr=2.5e-5",
];
/// Of the weights' way: what a single tie that only one run meets may make. The most that was seen is 4.2e-3.
const ONE_TIE: f64 = 0.01;

/// What one worker comes to, and how far its weights are led astray by rounding alone: the same samples are summed in other orders.
/// Adam's step is as long for a tiny gradient as for a large one, so that a sign which rounding decides moves a weight by
/// its whole rate. How many there are depends on the CPU; hence a measured bound, not a constant.
pub struct OneWorker<'a> {
    bench: &'a Bench,
    settings: Vec<&'a str>,
    weights: Vec<f32>,
    moved: f64,
    rounding: f64,
}

impl<'a> OneWorker<'a> {
    /// Trains one worker with micro-batches of `micro_batch`, and then of each of `others`.
    pub fn train(bench: &'a Bench, settings: &[&'a str], micro_batch: &'a str, others: [&str; 3]) -> OneWorker<'a> {
        let settings = [&COMMON, settings].concat();
        let train = |run: &str, more: &[&str]| {
            bench.train(1, run, &[&settings, more].concat());
            values(&bench.weights(run, if run == "start" { 1 } else { STEPS }))
        };
        let weights = train("one", &[micro_batch]);
        let moved = distance(&weights, &train("start", &[micro_batch, "train.max_steps=1", "optim.lr=0"]));
        assert!(moved > 1e-2, "nothing was learned: {moved:.2e}");
        let apart = others.map(|other| distance(&weights, &train(&format!("one-{other}"), &[other])) / moved);
        let rounding = apart.into_iter().fold(0.0, f64::max);
        assert!(rounding > 0.0, "another order of summation changed nothing");
        OneWorker { bench, settings: [&settings[..], &[micro_batch]].concat(), weights, moved, rounding }
    }

    /// What other runs are given to be compared with this one.
    pub fn settings(&self) -> &[&'a str] {
        &self.settings
    }

    /// Asserts that `run`, with some workers, differs by rounding alone (README, Equality).
    pub fn assert_rounding_alone(&self, run: &str) {
        let [ours, theirs] = [run, "one"].map(|run| first_gradient(self.bench, run));
        at_most(&format!("{run}: first gradient, of its length"), distance(&ours, &theirs) / length(&theirs), 1e-5);
        let apart = distance(&values(&self.bench.weights(run, STEPS)), &self.weights) / self.moved;
        let allowed = (3.0 * self.rounding).max(ONE_TIE);
        at_most(&format!("{run}: weights after 10 steps, of what is allowed"), apart / allowed, 1.0);
    }
}

/// Adam's first `exp_avg`, which is the gradient times `1 − beta1`.
fn first_gradient(bench: &Bench, run: &str) -> Vec<f32> {
    let bytes = bench.moments(run, 1);
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.retain(|name| name.starts_with("exp_avg."));
    names.sort();
    let data: Vec<u8> = names.into_iter().flat_map(|name| file.tensor(name).unwrap().data().to_vec()).collect();
    let gradient: Vec<f32> = data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert!(length(&gradient) > 0.0, "no gradient in {run}");
    gradient
}
