//! Which values are in range and go together. Pure.

use super::{Augment, AugmentTable, Config, GlobalBatch};
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
        rule(!c.data.train.as_os_str().is_empty(), "data.train", || {
            "is not given: name a list file, `image mask` a line".into()
        }),
        rule(SIDES.contains(&h) && SIDES.contains(&w), "data.size", || {
            format!("{h} × {w} pixels: both sides must be from {} to {}", SIDES.start(), SIDES.end())
        }),
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
        rule(c.train.clip_grad_norm.is_none_or(positive), "train.clip_grad_norm", || "must be above 0".into()),
        rule(c.optim.lr.is_finite() && c.optim.lr >= 0.0, "optim.lr", || format!("{} is not a rate", c.optim.lr)),
        rule(not_negative(c.optim.weight_decay), "optim.weight_decay", || "must not be negative".into()),
        rule(c.optim.betas.iter().all(|b| (0.0..1.0).contains(b)), "optim.betas", || "both must be in [0, 1)".into()),
        rule(not_negative(c.optim.eps), "optim.eps", || "must not be negative".into()),
        rule(share(c.optim.warmup_from), "optim.warmup_from", || "must be in [0, 1]".into()),
        rule(not_negative(c.loss.bce), "loss.bce", || "must not be negative".into()),
        rule(not_negative(c.loss.dice), "loss.dice", || "must not be negative".into()),
        rule(c.loss.bce + c.loss.dice > 0.0, "loss.bce", || "and loss.dice are both 0: nothing to learn".into()),
        rule(share(c.eval.threshold), "eval.threshold", || "must be in [0, 1]".into()),
        rule(positive(c.comm.bucket_mb), "comm.bucket_mb", || "must be above 0".into()),
        rule(positive(c.comm.first_bucket_mb), "comm.first_bucket_mb", || "must be above 0".into()),
        rule(positive(c.comm.timeout_s) && c.comm.timeout_s <= 86400.0, "comm.timeout_s", || {
            "must be above 0 and at most 86400".into()
        }),
        rule(c.checkpoint.keep_last > 0, "checkpoint.keep_last", || {
            "must be at least 1, or there is nothing to resume from".into()
        }),
    ];
    rules.into_iter().flatten().next().or_else(|| match &c.data.augment {
        Augment::Table(table) => augment_problem(table),
        Augment::Switch(_) => None,
    })
}

fn augment_problem(a: &AugmentTable) -> Option<(&'static str, String)> {
    [
        rule((0.0..0.5).contains(&a.crop), "data.augment.crop", || "must be in [0, 0.5)".into()),
        rule(share(a.flip_vertical), "data.augment.flip_vertical", || "is a probability: in [0, 1]".into()),
        rule(share(a.flip_horizontal), "data.augment.flip_horizontal", || "is a probability: in [0, 1]".into()),
        rule((0.0..1.0).contains(&a.brightness), "data.augment.brightness", || "must be in [0, 1)".into()),
        rule((0.0..1.0).contains(&a.contrast), "data.augment.contrast", || "must be in [0, 1)".into()),
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
