//! The learning rate of each step. Pure.

use protocol::config::{Optim, Schedule};

/// Rate of step `it` (from 0) of `max`, of which `per_epoch` make an epoch. During the warm-up it rises linearly from `warmup_from · lr`, in
/// place of the schedule, as in the official script (there: the first 200 steps of epoch 0).
pub fn learning_rate(optim: &Optim, it: u64, max: u64, per_epoch: u64) -> f64 {
    if it < optim.warmup_steps {
        let part = (it + 1) as f64 / optim.warmup_steps as f64;
        return optim.lr * ((1.0 - optim.warmup_from) * part + optim.warmup_from);
    }
    let done = it as f64 / max as f64;
    match optim.schedule {
        Schedule::Poly => optim.lr * (1.0 - done).powf(0.9),
        Schedule::Cosine => optim.lr * (1.0 + (std::f64::consts::PI * done).cos()) / 2.0,
        Schedule::Step => {
            let times = it / per_epoch.max(1) / optim.step_epochs.max(1);
            optim.lr * optim.step_factor.powi(i32::try_from(times).unwrap_or(i32::MAX))
        }
        Schedule::Constant => optim.lr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optim(schedule: Schedule, warmup_steps: u64) -> Optim {
        Optim { lr: 2.5e-5, schedule, warmup_steps, ..Optim::default() }
    }

    #[test]
    fn warm_up_is_the_official_one() {
        // Official: lr * (0.9 * (it + 1) / 200 + 0.1)
        let o = optim(Schedule::Poly, 200);
        assert!((learning_rate(&o, 0, 1000, 100) - 2.5e-5 * (0.9 / 200.0 + 0.1)).abs() < 1e-18);
        assert!((learning_rate(&o, 199, 1000, 100) - 2.5e-5).abs() < 1e-18);
        assert!((learning_rate(&o, 200, 1000, 100) - 2.5e-5 * 0.8f64.powf(0.9)).abs() < 1e-18);
    }

    #[test]
    fn the_other_schedules() {
        assert_eq!(learning_rate(&optim(Schedule::Constant, 0), 7, 10, 1), 2.5e-5);
        let step = Optim { step_epochs: 2, step_factor: 0.1, ..optim(Schedule::Step, 0) };
        for (it, factor) in [(0, 1.0), (7, 1.0), (8, 0.1), (15, 0.1), (16, 0.01)] {
            assert!((learning_rate(&step, it, 100, 4) - 2.5e-5 * factor).abs() < 1e-18, "{it}");
        }
        assert!((learning_rate(&optim(Schedule::Cosine, 0), 5, 10, 1) - 1.25e-5).abs() < 1e-18);
    }
}
