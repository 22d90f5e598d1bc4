//! Adam and AdamW over flat buffers, as `torch.optim.Adam` and `torch.optim.AdamW` compute them.
//!
//! Values, gradients and moments of all parameters of a bucket lie in one flat tensor each, so that a
//! step is a dozen operations a bucket instead of a dozen a parameter.

use protocol::config::{Optim, OptimName};
use tch::Tensor;

/// The settings that a step needs.
#[derive(Clone, Copy, Debug)]
pub struct AdamSettings {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    decoupled: bool,
}

impl From<&Optim> for AdamSettings {
    fn from(o: &Optim) -> Self {
        AdamSettings { betas: o.betas, eps: o.eps, weight_decay: o.weight_decay, decoupled: o.name == OptimName::Adamw }
    }
}

/// First and second moment of one flat buffer.
#[derive(Debug)]
pub struct Moments {
    /// Running mean of the gradient (`exp_avg`).
    pub mean: Tensor,
    /// Running mean of its square (`exp_avg_sq`).
    pub square: Tensor,
}

/// The optimizer.
#[derive(Debug)]
pub struct Adam {
    settings: AdamSettings,
}

impl Adam {
    /// An optimizer with these settings.
    pub fn new(settings: AdamSettings) -> Adam {
        Adam { settings }
    }

    /// One update of a flat buffer of weights in place; all tensors have its shape. `step` counts
    /// updates from 1; the gradient may be changed.
    pub fn update(&self, values: &mut Tensor, gradient: &mut Tensor, moments: &mut Moments, lr: f64, step: u64) {
        let AdamSettings { betas: [b1, b2], eps, weight_decay, decoupled } = self.settings;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        tch::no_grad(|| {
            if decoupled {
                *values *= 1.0 - lr * weight_decay;
            } else if weight_decay != 0.0 {
                *gradient += &*values * weight_decay;
            }
            let _ = moments.mean.lerp_(gradient, 1.0 - b1);
            moments.square *= b2;
            moments.square += gradient.square() * (1.0 - b2);
            let mut denominator = moments.square.sqrt();
            denominator /= correction(b2).sqrt();
            denominator += eps;
            *values -= &moments.mean / denominator * (lr / correction(b1));
        });
    }
}
