//! Scaling of the loss for half precision, so that small gradients do not vanish (Micikevicius et al., ICLR 2018;
//! `torch.amp.GradScaler`, with its defaults).

use serde::{Deserialize, Serialize};

const FIRST: f64 = 65536.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
/// Good steps after which a larger scale is tried.
const INTERVAL: u64 = 2000;

/// The factor of the loss, and what it was learned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScale {
    /// The factor; a power of two.
    pub scale: f64,
    /// Steps since it changed or a step was skipped.
    pub good_steps: u64,
    /// Steps that were skipped, because the gradient overflowed.
    pub skipped: u64,
}

impl Default for LossScale {
    fn default() -> LossScale {
        LossScale { scale: FIRST, good_steps: 0, skipped: 0 }
    }
}

impl LossScale {
    /// What follows a step whose gradient was finite, or was not; in the second case the step is skipped. `None` where the scale
    /// cannot be the reason any more.
    pub fn after(self, finite: bool) -> Option<LossScale> {
        if !finite {
            let scale = self.scale * BACKOFF;
            return (scale >= 1.0).then_some(LossScale { scale, good_steps: 0, skipped: self.skipped + 1 });
        }
        let good_steps = self.good_steps + 1;
        if good_steps == INTERVAL {
            return Some(LossScale { scale: self.scale * GROWTH, good_steps: 0, ..self });
        }
        Some(LossScale { good_steps, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_after_good_steps_and_falls_after_an_overflow() {
        let mut scale = LossScale::default();
        for _ in 0..INTERVAL - 1 {
            scale = scale.after(true).unwrap();
        }
        assert_eq!((scale.scale, scale.good_steps), (65536.0, 1999));
        scale = scale.after(true).unwrap();
        assert_eq!((scale.scale, scale.good_steps), (131_072.0, 0));
        scale = scale.after(true).and_then(|scale| scale.after(false)).unwrap();
        assert_eq!(scale, LossScale { scale: 65536.0, good_steps: 0, skipped: 1 });
    }

    #[test]
    fn at_a_scale_of_one_an_overflow_is_no_matter_of_the_scale() {
        let mut scale = LossScale::default();
        for _ in 0..16 {
            scale = scale.after(false).unwrap();
        }
        assert_eq!((scale.scale, scale.skipped, scale.after(false)), (1.0, 16, None));
    }
}
