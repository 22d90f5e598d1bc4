//! Adam and AdamW, as `torch.optim.Adam` and `torch.optim.AdamW` compute them.

use super::Part;
use protocol::config::{Optim, OptimName};

/// The settings that a step needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adam {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
}

/// Running mean of the gradient, and of its square.
pub(super) const SLOTS: &[&str] = &["exp_avg", "exp_avg_sq"];

impl Adam {
    pub(super) fn new(o: &Optim) -> Adam {
        Adam { betas: o.betas, eps: o.eps, weight_decay: o.weight_decay, decoupled: o.name == OptimName::Adamw }
    }

    pub(super) fn update(&self, part: Part<'_>, lr: f64, step: u64) {
        let Part { values, gradient, slots, rates } = part;
        let [mean, square] = slots else { return };
        let Adam { betas: [b1, b2], eps, weight_decay, decoupled } = *self;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let decay = lr * weight_decay;
        match (decoupled, rates) {
            (true, None) => *values *= 1.0 - decay,
            (true, Some(rates)) => *values *= rates * -decay + 1.0,
            (false, _) if weight_decay != 0.0 => *gradient += &*values * weight_decay,
            (false, _) => {}
        }
        let _ = mean.lerp_(gradient, 1.0 - b1);
        *square *= b2;
        *square += gradient.square() * (1.0 - b2);
        let mut denominator = square.sqrt();
        denominator /= correction(b2).sqrt();
        denominator += eps;
        let change = &*mean / denominator * (lr / correction(b1));
        *values -= rates.map_or_else(|| change.shallow_clone(), |rates| &change * rates);
    }
}
