//! Every key of the configuration, with its type, default and meaning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The whole configuration. Every key has a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(title = "JCS configuration", deny_unknown_fields)]
pub struct Config {
    /// Where and how to run.
    pub run: Run,
    /// The network.
    pub model: Model,
    /// The data set.
    pub data: Data,
    /// Length and batches of the training.
    pub train: Train,
    /// The optimizer and its learning rate.
    pub optim: Optim,
    /// Weights of the loss terms.
    pub loss: Loss,
    /// Evaluation.
    pub eval: Eval,
    /// Communication between the workers.
    pub comm: Comm,
    /// Checkpoints.
    pub checkpoint: Checkpoint,
    /// What is written for people to watch.
    pub monitor: Monitor,
}

/// `[run]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Run {
    /// Run directory; left out: `runs/` and the configuration's file name without `.toml`, in the working directory.
    pub dir: PathBuf,
    /// Seed of weights, order of samples and augmentation.
    pub seed: u64,
    /// Where to compute.
    pub device: Device,
    /// Whether to go on from the newest checkpoint: `auto` where there is one, `must`, `never` (an existing run is then an error).
    pub resume: Resume,
    /// Resume even though model, data, optim, loss or batch keys differ from those of the run.
    pub allow_changes: bool,
}

/// Values of `run.device`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    /// A GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this worker's local rank.
    Cuda,
}

/// Values of `run.resume`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// Go on from the newest checkpoint where there is one.
    #[default]
    Auto,
    /// It is an error where there is none.
    Must,
    /// Start afresh; it is an error where the run directory holds checkpoints.
    Never,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Model {
    /// The network.
    pub kind: ModelKind,
    /// Weights to start from, `.safetensors`; left out: random (He-normal convolutions).
    pub init: Option<PathBuf>,
    /// Channel multiplier, for small machines and tests.
    pub width: f64,
}

/// Values of `model.kind`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// The segmentation branch of JCS.
    #[default]
    Single,
    /// JCS: the segmentation branch, fused with the classifier's encoder.
    Joint,
}

impl ModelKind {
    /// All of them.
    const ALL: [ModelKind; 2] = [ModelKind::Single, ModelKind::Joint];

    /// Its name in the configuration and in weights files.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Single => "single",
            ModelKind::Joint => "joint",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<ModelKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Data {
    /// List file of the training samples, `image mask` a line.
    pub train: PathBuf,
    /// List file of the evaluation samples.
    pub eval: PathBuf,
    /// Folder that the list files' paths count from; left out: each list file's own.
    pub root: Option<PathBuf>,
    /// Height and width that the network sees, in pixels; a single number is both.
    pub size: Size,
    /// Random changes of the training samples.
    pub augment: Augment,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Threads that decode, for each worker; 0 decodes in the training thread.
    pub workers: usize,
}

/// Value of `data.size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Size {
    /// Both sides.
    Square(usize),
    /// Height, width.
    Rectangle([usize; 2]),
}

impl Size {
    /// Height and width.
    pub fn height_width(self) -> (usize, usize) {
        match self {
            Size::Square(n) => (n, n),
            Size::Rectangle([h, w]) => (h, w),
        }
    }
}

/// Value of `data.augment`: `true` is what the official code does, `false` nothing, a table anything else.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Augment {
    /// On, as the official code does it, or off.
    Switch(bool),
    /// Each change on its own.
    Table(AugmentTable),
}

/// `[data.augment]`: what is left out is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct AugmentTable {
    /// Largest share of a side that is cut from each edge (official: 7/224), with probability 0.5.
    pub crop: f64,
    /// Probability of a flip top to bottom (official: 0.5).
    pub flip_vertical: f64,
    /// Probability of a flip left to right (official: 0).
    pub flip_horizontal: f64,
    /// Largest relative change of brightness (0.1 = ±10 %).
    pub brightness: f64,
    /// Largest relative change of contrast.
    pub contrast: f64,
}

/// `[train]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Train {
    /// Passes over the training samples, where `max_steps` is left out.
    pub epochs: u64,
    /// Optimizer steps in all; wins over `epochs`.
    pub max_steps: Option<u64>,
    /// Samples that each optimizer step consumes, on any number of workers.
    pub global_batch: GlobalBatch,
    /// Samples in one forward and backward pass.
    pub micro_batch: usize,
    /// Arithmetic of forward and backward; weights and optimizer are always fp32.
    pub precision: Precision,
    /// Keep activations in channels-last order.
    pub channels_last: bool,
    /// Scale the gradient down to this norm where it is larger; left out: never.
    pub clip_grad_norm: Option<f64>,
}

/// Value of `train.global_batch`: a number, or `auto` = micro-batch × workers at the first start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum GlobalBatch {
    /// So many samples.
    Samples(usize),
    /// `auto`
    Auto(Auto),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// `auto`
    Auto,
}

/// Values of `train.precision`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    Fp32,
    /// Autocast to bfloat16.
    Bf16,
}

/// `[optim]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Optim {
    /// The optimizer.
    pub name: OptimName,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// L2 penalty (`adam`: added to the gradient; `adamw`: decoupled).
    pub weight_decay: f64,
    /// Decay rates of the moment estimates.
    pub betas: [f64; 2],
    /// Added to the denominator.
    pub eps: f64,
    /// How the rate falls.
    pub schedule: Schedule,
    /// Steps at the start in which the rate rises linearly, in place of the schedule.
    pub warmup_steps: u64,
    /// Share of the rate at which the warm-up starts.
    pub warmup_from: f64,
}

/// Values of `optim.name`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptimName {
    /// Adam (Kingma and Ba, 2015), as `torch.optim.Adam`.
    #[default]
    Adam,
    /// Adam with decoupled weight decay, as `torch.optim.AdamW`.
    Adamw,
}

/// Values of `optim.schedule`; `it` counts steps from 0 to `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// `lr · (1 − it/max)^0.9`, the official one.
    #[default]
    Poly,
    /// `lr · (1 + cos(π · it/max)) / 2`
    Cosine,
    /// `lr`
    Constant,
}

/// `[loss]`: the segmentation loss is `bce · BCE + dice · (1 − Dice)`, summed over the five maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Loss {
    /// Weight of the binary cross-entropy.
    pub bce: f64,
    /// Weight of the Dice term.
    pub dice: f64,
    /// Over what the sums of the Dice term run.
    pub dice_over: DiceOver,
}

/// Values of `loss.dice_over`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DiceOver {
    /// Over the micro-batch, as the official code does.
    #[default]
    Batch,
    /// Over each sample; the mean over the samples then counts.
    Sample,
}

/// `[eval]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Eval {
    /// Evaluate after every so many epochs, and at the end; 0: only at the end.
    pub every_epochs: u64,
    /// Probability from which a pixel counts as lesion.
    pub threshold: f64,
}

/// `[comm]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Comm {
    /// How the workers talk.
    pub backend: Backend,
    /// Size of a gradient bucket, in MB (2^20 bytes).
    pub bucket_mb: f64,
    /// Size of the first bucket, which leaves first, in MB.
    pub first_bucket_mb: f64,
    /// Whether buckets leave while the backward pass still runs.
    pub overlap: bool,
    /// Seconds that a collective may take.
    pub timeout_s: f64,
}

/// Values of `comm.backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// What suits the device.
    #[default]
    Auto,
    /// MPI.
    Mpi,
}

/// `[checkpoint]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Checkpoint {
    /// Save after every so many steps; 0: not by steps.
    pub every_steps: u64,
    /// Save after every so many epochs; 0: not by epochs. The end is always saved.
    pub every_epochs: u64,
    /// How many of the newest checkpoints are kept; at least 1.
    pub keep_last: usize,
    /// Whether the best one by `metric` is kept, too.
    pub keep_best: bool,
    /// The metric of the evaluation that decides what is best.
    pub metric: Metric,
}

/// Values of `checkpoint.metric`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Pooled Dice; higher is better.
    #[default]
    Dice,
    /// Official IoU; higher is better.
    Iou,
    /// Mean absolute error; lower is better.
    Mae,
}

/// `[monitor]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Monitor {
    /// Write TensorBoard event files.
    pub tensorboard: bool,
}

impl Default for Run {
    fn default() -> Self {
        Run { dir: PathBuf::new(), seed: 0, device: Device::Auto, resume: Resume::Auto, allow_changes: false }
    }
}

impl Default for Model {
    fn default() -> Self {
        Model { kind: ModelKind::Single, init: None, width: 1.0 }
    }
}

impl Default for Data {
    fn default() -> Self {
        Data {
            train: PathBuf::new(),
            eval: PathBuf::new(),
            root: None,
            size: Size::Square(512),
            augment: Augment::Switch(true),
            shuffle: true,
            workers: 2,
        }
    }
}

impl Default for Train {
    fn default() -> Self {
        Train {
            epochs: 60,
            max_steps: None,
            global_batch: GlobalBatch::Auto(Auto::Auto),
            micro_batch: 1,
            precision: Precision::Fp32,
            channels_last: false,
            clip_grad_norm: None,
        }
    }
}

impl Default for Optim {
    fn default() -> Self {
        Optim {
            name: OptimName::Adam,
            lr: 2.5e-5,
            weight_decay: 1e-4,
            betas: [0.9, 0.999],
            eps: 1e-8,
            schedule: Schedule::Poly,
            warmup_steps: 200,
            warmup_from: 0.1,
        }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Loss { bce: 1.0, dice: 1.0, dice_over: DiceOver::Batch }
    }
}

impl Default for Eval {
    fn default() -> Self {
        Eval { every_epochs: 1, threshold: 0.5 }
    }
}

impl Default for Comm {
    fn default() -> Self {
        Comm { backend: Backend::Auto, bucket_mb: 25.0, first_bucket_mb: 1.0, overlap: true, timeout_s: 300.0 }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint { every_steps: 0, every_epochs: 1, keep_last: 2, keep_best: true, metric: Metric::Dice }
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Monitor { tensorboard: true }
    }
}
