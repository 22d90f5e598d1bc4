//! Training steps of a network made of nothing but a seed: a [`Trainee`], and whether a step on this worker's device comes out
//! as it does on a CPU.

use super::report::{Problem, Verdict};
use super::{attempt, essence, finite, median, scientific, tell};
use crate::ddp::{self, Limits, Reducer};
use crate::job::Job;
use crate::network::{Description, Input, Network, Output};
use crate::optim::Optimizer;
use crate::{Error, loss};
use collectives::{Alone, Collective};
use protocol::config::{Config, Loss, OptimName};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Of what a GPU computes from what a CPU does, relative to the latter. cuDNN may multiply in TF32, with 11 bits.
const TOLERANCE: f64 = 1e-3;
/// Of the step that is compared.
const SMALL: Size = Size { width: 0.125, side: 64 };
const SAMPLES: usize = 2;
/// Moves the weights by about a tenth, so that they tell what the gradient was.
const RATE: f64 = 10.0;
/// Steps that are timed.
const TIMED: usize = 3;

/// How large a network and its images are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// `model.width`.
    pub(super) width: f64,
    /// Height and width of the images, in pixels.
    pub(super) side: usize,
}

/// The segmentation branch, about to learn random masks of random images. Its update is in proportion to the gradient (SGD):
/// Adam's first one is only its sign, and would hide small errors and show rounding.
pub(super) struct Trainee {
    pub(super) network: Network,
    pub(super) reducer: Reducer,
    collective: Arc<dyn Collective>,
    images: Tensor,
    masks: Tensor,
    loss: Loss,
    side: usize,
    steps: u64,
}

impl Trainee {
    /// The same weights on every device. Without samples yet.
    pub(super) fn new(
        device: Device,
        size: Size,
        collective: Arc<dyn Collective>,
        overlap: bool,
    ) -> Result<Trainee, Error> {
        let config = Config::default();
        let description = Description { width: size.width, ..Description::of(&config) };
        let network = Network::random(&description, device, 0, None);
        if device != Device::Cpu {
            copy_weights(&Network::random(&description, Device::Cpu, 0, None), &network);
        }
        // As many buckets as the whole network has.
        let part = size.width * size.width * f64::from(1 << 20);
        let bytes = |mb: f64| (mb * part) as usize;
        let limits = Limits { first: bytes(config.comm.first_bucket_mb), rest: bytes(config.comm.bucket_mb) };
        let mut optim = config.optim;
        (optim.name, optim.weight_decay) = (OptimName::Sgd, 0.0);
        let settings = ddp::Settings { layout: None, limits, overlap, compress: false };
        let reducer = Reducer::new(collective.clone(), &network.store, Optimizer::new(&optim), settings)?;
        let (images, masks) = (Tensor::new(), Tensor::new());
        Ok(Trainee { network, reducer, collective, images, masks, loss: config.loss, side: size.side, steps: 0 })
    }

    /// From now on a step takes so many samples, drawn from `seed`.
    pub(super) fn draw(&mut self, samples: usize, seed: u64) {
        tch::manual_seed(seed as i64);
        let (n, side) = (samples as i64, self.side as i64);
        let options = (Kind::Float, Device::Cpu);
        let images = Tensor::randn([n, 3, side, side], options);
        let masks = Tensor::rand([n, side, side], options).gt(0.8).to_kind(Kind::Float);
        let device = self.network.store.device();
        (self.images, self.masks) = (images.to_device(device), masks.to_device(device));
    }

    /// A step of training, as [`crate::train`] takes it; returns the loss before it.
    pub(super) fn step(&mut self, rate: f64) -> Result<f64, Error> {
        self.reducer.flats.zero_gradients();
        let Output::Maps(logits) = self.network.forward(&Input::Images(self.images.shallow_clone())) else {
            return Err(Error::Panic("the segmentation branch gives no maps".into()));
        };
        let loss = loss::segmentation(&logits, &self.masks, &self.loss);
        let value = loss.detach();
        self.reducer.backward(&loss, self.steps, true)?;
        self.reducer.finish(1.0 / self.collective.world_size() as f64)?;
        self.collective.settle()?;
        // A device has done all before it when this is known.
        self.reducer.flats.gradient_norm();
        self.steps += 1;
        self.reducer.flats.update(rate, self.steps);
        self.reducer.settle(self.steps)?;
        Ok(value.double_value(&[]))
    }

    /// All weights, on the CPU: `(N)` float32.
    pub(super) fn weights(&self) -> Tensor {
        let flat = |entry: &crate::model::Entry| entry.tensor.detach().to_device(Device::Cpu).reshape([-1]);
        Tensor::cat(&self.network.store.trainable().map(flat).collect::<Vec<_>>(), 0)
    }
}

fn copy_weights(from: &Network, to: &Network) {
    for (from, to) in from.store.entries().iter().zip(to.store.entries()) {
        to.tensor.detach().copy_(&from.tensor.detach());
    }
}

/// ‖a − b‖ / ‖b − base‖, the last one 0 where there is none.
pub(super) fn difference(a: &Tensor, b: &Tensor, base: Option<&Tensor>) -> f64 {
    let norm = |x: Tensor| x.to_kind(Kind::Double).norm().double_value(&[]);
    norm(a - b) / norm(base.map_or_else(|| b.shallow_clone(), |base| b - base))
}

/// What came of a step on one device.
struct Trial {
    loss: f64,
    weights: Tensor,
    /// Median of the later steps.
    seconds: f64,
}

impl Trial {
    /// A worker for itself.
    fn on(device: Device) -> Result<Trial, String> {
        attempt(|| Trial::take(device)).map_err(|e| format!("{}: {}", name(device), essence(&e)))
    }

    fn take(device: Device) -> Result<Trial, Error> {
        let mut trainee = Trainee::new(device, SMALL, Arc::new(Alone), true)?;
        trainee.draw(SAMPLES, 1);
        let loss = trainee.step(RATE)?;
        let weights = trainee.weights();
        let mut seconds = Vec::new();
        for _ in 0..TIMED {
            let started = Instant::now();
            trainee.step(0.0)?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        Ok(Trial { loss, weights, seconds: median(seconds) })
    }
}

/// A worker's step beside the same on a CPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Compared {
    device: String,
    /// Why there is nothing to compare.
    failed: Option<String>,
    /// Whether loss and weights are the same bit for bit.
    equal: bool,
    loss: Option<f64>,
    loss_difference: Option<f64>,
    weights_difference: Option<f64>,
    seconds: Option<f64>,
    cpu_seconds: Option<f64>,
}

/// A training step on one device beside the same on the CPU; on a CPU beside its repetition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct StepRow {
    pub(super) verdict: Verdict,
    /// The worker; none: no worker has such a device.
    pub(super) rank: Option<usize>,
    pub(super) host: Option<String>,
    /// `cpu`, `cuda:0`, …
    pub(super) device: String,
    /// Why there are no numbers.
    pub(super) failed: Option<String>,
    pub(super) loss: Option<f64>,
    /// Relative to the CPU's.
    pub(super) loss_difference: Option<f64>,
    /// Of all weights after the step, in the 2-norm, relative to the CPU's.
    pub(super) weights_difference: Option<f64>,
    /// For both differences; 0 is bit for bit.
    pub(super) tolerance: f64,
    /// Of a step on the device.
    pub(super) seconds: Option<f64>,
    /// Of a step on the CPU.
    pub(super) cpu_seconds: Option<f64>,
}

impl StepRow {
    fn of(rank: usize, host: String, compared: Compared) -> StepRow {
        let Compared { device, failed, equal, loss, loss_difference, weights_difference, seconds, cpu_seconds } =
            compared;
        let tolerance = if device == "cpu" { 0.0 } else { TOLERANCE };
        let within = |difference: Option<f64>| difference.is_some_and(|difference| difference <= tolerance);
        let right = within(loss_difference) && within(weights_difference) && (equal || tolerance > 0.0);
        StepRow {
            verdict: Verdict::of(right && failed.is_none()),
            rank: Some(rank),
            host: Some(host),
            device,
            failed,
            loss,
            loss_difference,
            weights_difference,
            tolerance,
            seconds,
            cpu_seconds,
        }
    }

    /// Where no worker computes on a GPU, though there may be some.
    pub(super) fn no_gpu(some: bool) -> StepRow {
        let why = if some { "there are GPUs, but the workers compute on CPUs" } else { "no GPU" };
        StepRow {
            verdict: Verdict::None,
            rank: None,
            host: None,
            device: "cuda".into(),
            failed: Some(why.into()),
            loss: None,
            loss_difference: None,
            weights_difference: None,
            tolerance: TOLERANCE,
            seconds: None,
            cpu_seconds: None,
        }
    }

    /// What is wrong.
    pub(super) fn problem(&self, control: &Job) -> Option<Problem> {
        Some(Problem::of(control, self.rank?, self.words()?))
    }

    fn words(&self) -> Option<String> {
        let by = || {
            let (loss, weights) = (scientific(self.loss_difference), scientific(self.weights_difference));
            format!("loss by {loss}, weights by {weights}")
        };
        match (self.verdict, &self.failed) {
            (Verdict::Ok | Verdict::None, _) => None,
            (Verdict::Wrong, Some(failed)) => Some(format!("a training step failed on {failed}")),
            (Verdict::Wrong, None) if self.tolerance == 0.0 => {
                Some(format!("a training step differs from its repetition on the same CPU: {}", by()))
            }
            (Verdict::Wrong, None) => Some(format!(
                "a training step on {} differs from the CPU's: {}, more than {:.1e}",
                self.device,
                by(),
                self.tolerance
            )),
        }
    }
}

/// One step on each worker's device and on its CPU. `has_gpus`: a worker could compute on one.
pub(super) fn compare(job: &Job, control: &Job, has_gpus: bool) -> Result<Vec<StepRow>, Error> {
    let all = tell(control, &both(job.device), "training steps of the ranks")?;
    let host = |rank: usize| job.hosts.get(rank).cloned().unwrap_or_default();
    let mut rows: Vec<StepRow> =
        all.into_iter().enumerate().map(|(rank, compared)| StepRow::of(rank, host(rank), compared)).collect();
    if rows.iter().all(|row| row.device == "cpu") {
        rows.push(StepRow::no_gpu(has_gpus));
    }
    Ok(rows)
}

fn name(device: Device) -> String {
    match device {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".into(),
    }
}

fn both(device: Device) -> Compared {
    let name = name(device);
    let (own, cpu) = match (Trial::on(Device::Cpu), Trial::on(device)) {
        (Ok(cpu), Ok(own)) => (own, cpu),
        (Err(failed), _) | (_, Err(failed)) => return Compared::failed(name, failed),
    };
    Compared {
        device: name,
        failed: None,
        equal: own.loss.to_bits() == cpu.loss.to_bits() && own.weights == cpu.weights,
        loss: finite(own.loss),
        loss_difference: finite((own.loss - cpu.loss).abs() / cpu.loss.abs()),
        weights_difference: finite(difference(&own.weights, &cpu.weights, None)),
        seconds: finite(own.seconds),
        cpu_seconds: finite(cpu.seconds),
    }
}

impl Compared {
    fn failed(device: String, failed: String) -> Compared {
        Compared {
            device,
            failed: Some(failed),
            equal: false,
            loss: None,
            loss_difference: None,
            weights_difference: None,
            seconds: None,
            cpu_seconds: None,
        }
    }
}

#[cfg(test)]
impl StepRow {
    /// A rank's on a GPU.
    pub(super) fn example(rank: usize) -> StepRow {
        StepRow::of(rank, "gpu01".into(), Compared::example("cuda:0"))
    }
}

#[cfg(test)]
impl Compared {
    fn example(device: &str) -> Compared {
        Compared {
            device: device.into(),
            failed: None,
            equal: false,
            loss: Some(1.5),
            loss_difference: Some(1e-5),
            weights_difference: Some(2e-4),
            seconds: Some(0.004),
            cpu_seconds: Some(0.08),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_differs_is_told_in_words() {
        let row = StepRow { verdict: Verdict::Wrong, weights_difference: Some(0.5), ..StepRow::example(0) };
        let words =
            "a training step on cuda:0 differs from the CPU's: loss by 1.0e-5, weights by 5.0e-1, more than 1.0e-3";
        assert_eq!(row.words().as_deref(), Some(words));
        assert_eq!((StepRow::example(1).words(), StepRow::no_gpu(false).words()), (None, None));
    }

    #[test]
    fn a_cpu_repeats_itself_and_a_gpu_comes_close() {
        let verdict = |compared: Compared| StepRow::of(0, "h".into(), compared).verdict;
        assert_eq!(verdict(Compared::example("cuda:0")), Verdict::Ok);
        assert_eq!(verdict(Compared { loss_difference: Some(2e-3), ..Compared::example("cuda:0") }), Verdict::Wrong);
        assert_eq!(verdict(Compared { weights_difference: None, ..Compared::example("cuda:0") }), Verdict::Wrong);
        assert_eq!(verdict(Compared::failed("cuda:0".into(), "no kernel".into())), Verdict::Wrong);
        let zero = Compared { loss_difference: Some(0.0), weights_difference: Some(0.0), ..Compared::example("cpu") };
        assert_eq!(verdict(zero.clone()), Verdict::Wrong);
        assert_eq!(verdict(Compared { equal: true, ..zero }), Verdict::Ok);
    }

    /// The weights show a wrong gradient only if the step moves them far enough, and learning must not blow up.
    #[test]
    fn the_step_moves_the_weights_by_a_tenth_or_so() {
        let mut trainee = Trainee::new(Device::Cpu, SMALL, Arc::new(Alone), true).unwrap();
        trainee.draw(SAMPLES, 1);
        let before = trainee.weights();
        let loss = trainee.step(RATE).unwrap();
        let moved = difference(&trainee.weights(), &before, None);
        assert!((0.03..0.3).contains(&moved) && loss.is_finite(), "{moved} {loss}");
    }
}
