//! Stochastic gradient descent with momentum, as `torch.optim.SGD` computes it.

use super::Part;
use protocol::config::Optim;

/// The settings that a step needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sgd {
    momentum: f64,
    weight_decay: f64,
}

/// Sum of the gradients, the older ones fading.
pub(super) const SLOTS: &[&str] = &["momentum_buffer"];

impl Sgd {
    pub(super) fn new(o: &Optim) -> Sgd {
        Sgd { momentum: o.momentum, weight_decay: o.weight_decay }
    }

    pub(super) fn update(&self, part: Part<'_>, lr: f64) {
        let Part { values, gradient, slots, rates } = part;
        let [velocity] = slots else { return };
        if self.weight_decay != 0.0 {
            *gradient += &*values * self.weight_decay;
        }
        *velocity *= self.momentum;
        *velocity += &*gradient;
        let change = &*velocity * lr;
        *values -= rates.map_or_else(|| change.shallow_clone(), |rates| &change * rates);
    }
}
