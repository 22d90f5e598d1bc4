//! Every key of the configuration, with its type, default and meaning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// Mixing of images (classifier).
    pub mix: Mix,
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

/// `[model]`. In `init` and its kin `@NAME` is the run NAME beside this one: `runs/NAME`, or an earlier stage of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Model {
    /// The network.
    pub kind: ModelKind,
    /// Weights to start from: a run, a checkpoint or a file; left out: random (He-normal convolutions).
    pub init: Option<PathBuf>,
    /// Weights of the VGG-16 encoder alone (`single`, `joint`): of ImageNet, or of a trained `single` (then of all that the
    /// two networks share).
    pub init_vgg: Option<PathBuf>,
    /// Weights of the Res2Net-101 encoder alone (`joint`, `cls`), of ImageNet.
    pub init_res2net: Option<PathBuf>,
    /// A trained classifier whose Res2Net-101 the encoder starts from (`joint`).
    pub init_cls: Option<PathBuf>,
    /// Batch norms; left out: `sync` for `cls`, `frozen` for the others.
    pub norm: Option<Norm>,
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
    /// The classification branch of JCS.
    Cls,
}

impl ModelKind {
    /// All of them.
    const ALL: [ModelKind; 3] = [ModelKind::Single, ModelKind::Joint, ModelKind::Cls];

    /// Its name in the configuration and in weights files.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Single => "single",
            ModelKind::Joint => "joint",
            ModelKind::Cls => "cls",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<ModelKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Values of `model.norm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Norm {
    /// As in the official networks: encoders have frozen norms, the fusion keeps its running statistics.
    Frozen,
    /// All norms learn, from the statistics of each worker's micro-batch.
    Batch,
    /// All norms learn, from the statistics of the micro-batches of all workers together.
    Sync,
}

impl Model {
    /// What `norm` means for this kind.
    pub fn norm(&self) -> Norm {
        self.norm.unwrap_or(if self.kind == ModelKind::Cls { Norm::Sync } else { Norm::Frozen })
    }
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Data {
    /// The training samples: a directory of shards that `data-shards pack` wrote, or its URL (`file://`, `http://`, `https://`,
    /// `s3://`); of a directory with several splits the one named `train`. Or a list file, `image mask` a line, or a table
    /// (`.csv`) with the columns `file`, `label` (1 = COVID-19, else 0), `patient_id` and `mask`, as far as they are known.
    pub train: PathBuf,
    /// The evaluation samples, likewise; of a directory with several splits the one named `val`, else `eval`, else `test`.
    pub eval: PathBuf,
    /// Folder on a disk of each node in which shards of a URL are kept, for all workers of the node and for later runs; left
    /// out: `jcs-cache-UID` in `TMPDIR`, or in `/var/tmp`.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that may be kept there, as a number or as in `"200GB"`; left out: as many as the
    /// disk has room for, less a twentieth or 2 GiB, whichever is less.
    pub cache_limit: Option<Bytes>,
    /// Folder that the lists' paths count from; left out: each list's own.
    pub root: Option<PathBuf>,
    /// A table that adds label and patient to the images of the lists; left out: `labels.csv` beside each list.
    pub labels: Option<PathBuf>,
    /// `K/N`: the samples of `train` are divided into N folds by patient; fold K is for evaluation, the others for training.
    /// A patient's fold follows from the id alone: the same in every list, stage and run.
    pub fold: Option<String>,
    /// What the samples are.
    pub input: Input,
    /// Height and width that the network sees, in pixels; a single number is both.
    pub size: Size,
    /// Where training images are normalised. Evaluation and prediction always do it on the host.
    pub normalize: Normalize,
    /// Random changes of the training samples.
    pub augment: Augment,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// Threads that decode, for each worker; 0 decodes in the training thread.
    pub workers: usize,
}

impl Data {
    /// The fold; none where it is left out or empty.
    pub fn fold(&self) -> Option<&str> {
        self.fold.as_deref().filter(|fold| !fold.is_empty())
    }
}

/// Values of `data.input`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// PNG and JPEG images.
    #[default]
    Images,
    /// MATLAB files with the first stages' features, `vgg_feats` and `res2net_feats`, as the public COVID-CS release has
    /// them. Of the augmentation only flips apply.
    Features,
}

/// Values of `data.normalize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// In floating point before the image is resized, as the official code does it.
    #[default]
    Host,
    /// On the device. Images are rounded to 8 bits after they are resized, which takes a quarter of the memory, and a twelfth
    /// where they are gray.
    Device,
}

/// Value of `data.cache_limit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Bytes {
    /// So many.
    Number(u64),
    /// A number with a unit: kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB or TiB (of 1024).
    Text(String),
}

impl Bytes {
    /// How many; none where the text is no number with a unit, or too large.
    pub fn number(&self) -> Option<u64> {
        let text = match self {
            Bytes::Number(number) => return Some(*number),
            Bytes::Text(text) => text.trim(),
        };
        let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
        let (power, base) = match unit.to_ascii_lowercase().as_str() {
            "b" => (0, 1000),
            "kb" => (1, 1000),
            "mb" => (2, 1000),
            "gb" => (3, 1000),
            "tb" => (4, 1000),
            "kib" => (1, 1024),
            "mib" => (2, 1024),
            "gib" => (3, 1024),
            "tib" => (4, 1024),
            _ => return None,
        };
        number.trim().parse::<u64>().ok()?.checked_mul(u64::pow(base, power))
    }
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
    /// Largest share of a side that is cut from each edge (official: 7/224), with probability 0.5. The classifier always
    /// sees a crop of 7/8; there, any value above 0 moves it from the middle to anywhere.
    pub crop: f64,
    /// Probability of a flip top to bottom (official: 0.5).
    pub flip_vertical: f64,
    /// Probability of a flip left to right (official: 0).
    pub flip_horizontal: f64,
    /// Largest relative change of brightness (0.1 = ±10 %).
    pub brightness: f64,
    /// Largest relative change of contrast.
    pub contrast: f64,
    /// Largest relative change of size, about the middle of what the crop keeps (0.1 = 10 % smaller to 10 % larger).
    pub scale: f64,
    /// Largest turn about the middle, in degrees, either way. What comes in from outside of the image is black.
    pub rotation: f64,
    /// Largest standard deviation of Gaussian noise, where black is 0 and white is 1.
    pub noise: f64,
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
    /// A pipeline: configurations that are trained one after the other, each in a folder of the run directory that has
    /// the name of its file. A pipeline has no other keys but `[run]`, which goes for all stages in place of
    /// theirs, as `[comm]` of the first does; settings on the command line go to all stages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<PathBuf>,
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
    /// 32-bit floating point; on GPUs, cuDNN's convolutions may use TF32, as is libtorch's default.
    #[default]
    Fp32,
    /// Autocast to bfloat16.
    Bf16,
    /// Autocast to half precision with a scaled loss, on a GPU.
    Fp16,
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
    /// Momentum of `sgd`.
    pub momentum: f64,
    /// How the rate falls.
    pub schedule: Schedule,
    /// Steps at the start in which the rate rises linearly, in place of the schedule.
    pub warmup_steps: u64,
    /// Share of the rate at which the warm-up starts.
    pub warmup_from: f64,
    /// Epochs after which the schedule `step` lowers the rate, again and again.
    pub step_epochs: u64,
    /// Factor by which it does.
    pub step_factor: f64,
    /// Factors of the rate for parts of the network, by the beginning of their tensors' names: `vgg16 = 0.1`, `"vgg16.conv1_1" = 0`.
    /// The longest beginning that fits counts; 0 keeps a part as it is.
    pub groups: BTreeMap<String, f64>,
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
    /// Stochastic gradient descent with momentum, as `torch.optim.SGD`.
    Sgd,
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
    /// `lr · step_factor^⌊epoch / step_epochs⌋`
    Step,
    /// `lr`
    Constant,
}

/// `[loss]`: the segmentation loss is `bce · BCE + dice · (1 − Dice)`, summed over the five maps; the classifier's is
/// `cross_entropy · CE + pixel · BCE of the attention map`.
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
    /// Weight of the classifier's cross-entropy.
    pub cross_entropy: f64,
    /// Weight of the supervision of the classifier's attention by the lesion masks, where there are some.
    pub pixel: f64,
    /// Weigh the classes so that both count alike, however many training samples they have.
    pub balance: bool,
}

/// `[mix]`: pairs of training samples are mixed, `λ · a + (1 − λ) · b`, images and labels (Zhang et al., ICLR 2018).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Mix {
    /// λ is drawn from Beta(alpha, alpha) for each micro-batch; at most 4; 0: nothing is mixed.
    pub alpha: f64,
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
    /// Probability from which a pixel counts as lesion, or a slice as COVID-19.
    pub threshold: f64,
    /// A patient is positive with more positive slices than this.
    pub patient_slices: u64,
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
    /// What gradients travel as.
    pub compress: Compress,
    /// Whether buckets leave while the backward pass still runs.
    pub overlap: bool,
    /// Seconds that a collective may take.
    pub timeout_s: f64,
}

/// Values of `comm.backend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// NCCL where the workers compute on GPUs, else MPI.
    #[default]
    Auto,
    /// NCCL, between GPUs.
    Nccl,
    /// MPI, between CPUs.
    Mpi,
}

/// Values of `comm.compress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compress {
    /// As they are.
    #[default]
    None,
    /// As bfloat16, which halves what travels; sums are rounded to it, too. With NCCL only.
    Bf16,
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
    /// The metric of the evaluation that decides what is best; left out: `auroc` for `cls`, `dice` for the others.
    pub metric: Option<Metric>,
    /// Whether checkpoints are written behind the next steps; otherwise training waits for each.
    pub r#async: bool,
    /// URL of an object store (`s3://BUCKET/PREFIX`) that gets a copy of each checkpoint, and from which a start goes on where the
    /// run directory has none as new; in a pipeline, each stage has a folder of its own in it. Left out: none.
    pub upload: Option<String>,
}

/// Values of `checkpoint.metric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Pooled Dice; higher is better.
    Dice,
    /// Official IoU; higher is better.
    Iou,
    /// Mean absolute error; lower is better.
    Mae,
    /// Area under the ROC curve, by slice; higher is better.
    Auroc,
    /// Share of the slices that are classified rightly; higher is better.
    Accuracy,
}

impl Config {
    /// What `checkpoint.metric` means for this kind of network.
    pub fn metric(&self) -> Metric {
        let by_kind = if self.model.kind == ModelKind::Cls { Metric::Auroc } else { Metric::Dice };
        self.checkpoint.metric.unwrap_or(by_kind)
    }
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
        Model {
            kind: ModelKind::Single,
            init: None,
            init_vgg: None,
            init_res2net: None,
            init_cls: None,
            norm: None,
            width: 1.0,
        }
    }
}

impl Default for Data {
    fn default() -> Self {
        Data {
            train: PathBuf::new(),
            eval: PathBuf::new(),
            cache_dir: None,
            cache_limit: None,
            root: None,
            labels: None,
            fold: None,
            input: Input::Images,
            size: Size::Square(512),
            normalize: Normalize::Host,
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
            stages: Vec::new(),
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
            momentum: 0.9,
            schedule: Schedule::Poly,
            warmup_steps: 200,
            warmup_from: 0.1,
            step_epochs: 30,
            step_factor: 0.1,
            groups: BTreeMap::new(),
        }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Loss { bce: 1.0, dice: 1.0, dice_over: DiceOver::Batch, cross_entropy: 1.0, pixel: 0.0, balance: true }
    }
}

impl Default for Eval {
    fn default() -> Self {
        Eval { every_epochs: 1, threshold: 0.5, patient_slices: 18 }
    }
}

impl Default for Comm {
    fn default() -> Self {
        Comm {
            backend: Backend::Auto,
            bucket_mb: 25.0,
            first_bucket_mb: 1.0,
            compress: Compress::None,
            overlap: true,
            timeout_s: 300.0,
        }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Checkpoint {
            every_steps: 0,
            every_epochs: 1,
            keep_last: 2,
            keep_best: true,
            metric: None,
            r#async: true,
            upload: None,
        }
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Monitor { tensorboard: true }
    }
}
