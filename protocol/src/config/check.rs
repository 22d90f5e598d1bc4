//! Which values are in range and go together. Pure.

use super::{Augment, AugmentTable, Backend, Config, Device, GlobalBatch, Metric, ModelKind, Norm, Precision};
use std::ops::RangeInclusive;

/// Channel multipliers that make sense.
pub const WIDTHS: RangeInclusive<f64> = 0.01..=4.0;
/// Heights and widths that the network can take and a machine can hold, in pixels.
pub const SIDES: RangeInclusive<usize> = 32..=8192;
/// Beyond any real job, and far from any overflow.
const MOST_SAMPLES: usize = 1 << 24;
const MOST_STEPS: u64 = 1 << 40;

/// The first value that cannot be used, as (key, problem); `None` where all is well.
pub(super) fn first_problem(c: &Config) -> Option<(&'static str, String)> {
    let (h, w) = c.data.size.height_width();
    let rules = [
        rule(WIDTHS.contains(&c.model.width), "model.width", || {
            format!("{} is not from {} to {}", c.model.width, WIDTHS.start(), WIDTHS.end())
        }),
        rule(!c.data.train.as_os_str().is_empty() || !c.train.stages.is_empty(), "data.train", || {
            "is not given: name a directory or URL of shards (data-shards pack), a list file, `image mask` a line, or a table \
             `file,label,patient_id,mask`"
                .into()
        }),
        rule(SIDES.contains(&h) && SIDES.contains(&w), "data.size", || {
            format!("{h} × {w} pixels: both sides must be from {} to {}", SIDES.start(), SIDES.end())
        }),
        rule(
            c.data.cache_limit.as_ref().is_none_or(|limit| limit.number().is_some_and(|n| n > 0)),
            "data.cache_limit",
            || "is no whole number of bytes above 0: expected one as in 200000000000, or a text as in \"200GB\"".into(),
        ),
        rule(c.data.workers <= 256, "data.workers", || format!("{} is above 256", c.data.workers)),
        rule((1..=MOST_SAMPLES).contains(&c.train.micro_batch), "train.micro_batch", || {
            format!("must be from 1 to {MOST_SAMPLES}")
        }),
        rule(
            !matches!(c.train.global_batch, GlobalBatch::Samples(n) if n > MOST_SAMPLES),
            "train.global_batch",
            || format!("must be at most {MOST_SAMPLES}"),
        ),
        rule(c.train.global_batch != GlobalBatch::Samples(0), "train.global_batch", || {
            "must be at least 1, or \"auto\"".into()
        }),
        rule((1..=MOST_STEPS >> 20).contains(&c.train.epochs), "train.epochs", || {
            format!("must be from 1 to {}", MOST_STEPS >> 20)
        }),
        rule(c.train.max_steps.is_none_or(|n| (1..=MOST_STEPS).contains(&n)), "train.max_steps", || {
            format!("must be from 1 to {MOST_STEPS}")
        }),
        rule(!half_on_cpu(c), "train.precision", || {
            "fp16 (GPU) works on GPUs only, and run.device = cpu: train.precision=bf16, or run.device=cuda".into()
        }),
        rule(c.train.clip_grad_norm.is_none_or(positive), "train.clip_grad_norm", || "must be above 0".into()),
        rule(c.optim.lr.is_finite() && c.optim.lr >= 0.0, "optim.lr", || format!("{} is not a rate", c.optim.lr)),
        rule(not_negative(c.optim.weight_decay), "optim.weight_decay", || "must not be negative".into()),
        rule(c.optim.betas.iter().all(|b| (0.0..1.0).contains(b)), "optim.betas", || "both must be in [0, 1)".into()),
        rule(not_negative(c.optim.eps), "optim.eps", || "must not be negative".into()),
        rule(share(c.optim.warmup_from), "optim.warmup_from", || "must be in [0, 1]".into()),
        rule(not_negative(c.loss.bce), "loss.bce", || "must not be negative".into()),
        rule(not_negative(c.loss.dice), "loss.dice", || "must not be negative".into()),
        rule(c.loss.bce + c.loss.dice > 0.0, "loss.bce", || "and loss.dice are both 0: nothing to learn".into()),
        rule(positive(c.loss.cross_entropy), "loss.cross_entropy", || "must be above 0".into()),
        rule(not_negative(c.loss.pixel), "loss.pixel", || "must not be negative".into()),
        rule((0.0..=4.0).contains(&c.mix.alpha), "mix.alpha", || "must be from 0 to 4".into()),
        rule(c.mix.alpha == 0.0 || c.model.kind == ModelKind::Cls, "mix.alpha", || {
            "mixes images for the classifier only: model.kind=cls, or 0".into()
        }),
        rule(c.mix.alpha == 0.0 || c.train.micro_batch > 1, "mix.alpha", || {
            "mixes pairs within a micro-batch, which needs at least 2 samples: train.micro_batch=2".into()
        }),
        rule(c.model.kind != ModelKind::Cls || h == w, "data.size", || {
            format!("{h} × {w}: the classifier takes square images, as in data.size={w}")
        }),
        rule(several_values(c), "train.micro_batch", || {
            "norms that learn need more than one value a channel: a larger micro-batch or data.size, or model.norm=frozen"
                .into()
        }),
        rule((0.0..1.0).contains(&c.optim.momentum), "optim.momentum", || "must be in [0, 1)".into()),
        rule(c.optim.step_epochs > 0, "optim.step_epochs", || "must be at least 1".into()),
        rule(positive(c.optim.step_factor), "optim.step_factor", || "must be above 0".into()),
        rule(c.optim.groups.values().all(|f| not_negative(*f)), "optim.groups", || {
            "holds a factor that is negative or no number".into()
        }),
        rule(c.data.fold().is_none_or(is_fold), "data.fold", || {
            format!(
                "{} is no fold: expected K/N with 1 <= K <= N and N from 2 to 1000, as in 1/5",
                c.data.fold().unwrap_or("")
            )
        }),
        rule(c.data.fold().is_none() || c.data.eval.as_os_str().is_empty(), "data.fold", || {
            "takes the evaluation samples from data.train: leave data.eval out".into()
        }),
        rule(share(c.eval.threshold), "eval.threshold", || "must be in [0, 1]".into()),
        rule(positive(c.comm.bucket_mb), "comm.bucket_mb", || "must be above 0".into()),
        rule(positive(c.comm.first_bucket_mb), "comm.first_bucket_mb", || "must be above 0".into()),
        rule(positive(c.comm.timeout_s) && c.comm.timeout_s <= 86400.0, "comm.timeout_s", || {
            "must be above 0 and at most 86400".into()
        }),
        rule(
            matches!(c.metric(), Metric::Auroc | Metric::Accuracy) == (c.model.kind == ModelKind::Cls),
            "checkpoint.metric",
            || format!("{:?} is no metric of model.kind = {}", c.metric(), c.model.kind.name()),
        ),
        rule(c.checkpoint.keep_last > 0, "checkpoint.keep_last", || {
            "must be at least 1, or there is nothing to resume from".into()
        }),
    ];
    rules.into_iter().flatten().next().or_else(|| match &c.data.augment {
        Augment::Table(table) => augment_problem(table),
        Augment::Switch(_) => None,
    })
}

/// Half precision with a scaled loss where no GPU computes. With NCCL, the CPU stands for one in tests.
fn half_on_cpu(c: &Config) -> bool {
    c.train.precision == Precision::Fp16 && c.run.device == Device::Cpu && c.comm.backend != Backend::Nccl
}

/// Whether the coarsest feature, at 1/32 of the input, has a variance in every micro-batch, where one is taken.
fn several_values(c: &Config) -> bool {
    let (h, w) = c.data.size.height_width();
    let coarsest = h.div_ceil(32) * w.div_ceil(32);
    c.model.norm() == Norm::Frozen || c.model.kind == ModelKind::Single || c.train.micro_batch * coarsest > 1
}

/// Whether this is a fold, `K/N`.
fn is_fold(text: &str) -> bool {
    let numbers = text.split_once('/').map(|(k, n)| (k.parse::<usize>(), n.parse::<usize>()));
    matches!(numbers, Some((Ok(k), Ok(n))) if (2..=1000).contains(&n) && (1..=n).contains(&k))
}

fn augment_problem(a: &AugmentTable) -> Option<(&'static str, String)> {
    [
        rule((0.0..0.5).contains(&a.crop), "data.augment.crop", || "must be in [0, 0.5)".into()),
        rule(share(a.flip_vertical), "data.augment.flip_vertical", || "is a probability: in [0, 1]".into()),
        rule(share(a.flip_horizontal), "data.augment.flip_horizontal", || "is a probability: in [0, 1]".into()),
        rule((0.0..1.0).contains(&a.brightness), "data.augment.brightness", || "must be in [0, 1)".into()),
        rule((0.0..1.0).contains(&a.contrast), "data.augment.contrast", || "must be in [0, 1)".into()),
        rule((0.0..1.0).contains(&a.scale), "data.augment.scale", || "must be in [0, 1)".into()),
        rule((0.0..=180.0).contains(&a.rotation), "data.augment.rotation", || "is in degrees: in [0, 180]".into()),
        rule((0.0..=1.0).contains(&a.noise), "data.augment.noise", || "must be in [0, 1]".into()),
    ]
    .into_iter()
    .flatten()
    .next()
}

fn rule(holds: bool, key: &'static str, problem: impl FnOnce() -> String) -> Option<(&'static str, String)> {
    if holds { None } else { Some((key, problem())) }
}

fn positive(x: f64) -> bool {
    x.is_finite() && x > 0.0
}

fn not_negative(x: f64) -> bool {
    x.is_finite() && x >= 0.0
}

fn share(x: f64) -> bool {
    (0.0..=1.0).contains(&x)
}
