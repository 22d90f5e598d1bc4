//! What follows a failure: another start, or the end. Pure.

use protocol::{Exit, Step};
use std::time::Duration;

/// What to do after a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start again after this time.
    Restart {
        /// The wait.
        delay: Duration,
    },
    /// End with this exit code.
    GiveUp {
        /// The exit code.
        exit: Exit,
        /// Why there is no restart.
        reason: String,
    },
}

/// The wait doubles with each restart in a row, up to this.
const LONGEST_DELAY: u64 = 30;

/// Decides after a failure that deserves `exit`, when `in_a_row` restarts brought no new checkpoint and
/// `max` are allowed. `asked_to_stop`: somebody wants the job to end anyway.
pub fn after_failure(exit: Exit, in_a_row: u32, max: u32, asked_to_stop: bool) -> Decision {
    let give_up = |reason: String| Decision::GiveUp { exit, reason };
    if !exit.worth_a_restart() {
        return give_up("a restart would end the same way".into());
    }
    if asked_to_stop {
        return give_up("no restart, because the job was asked to stop".into());
    }
    match in_a_row {
        n if n < max => Decision::Restart { delay: Duration::from_secs(LONGEST_DELAY.min(1 << n.min(10))) },
        _ if max == 0 => give_up("restarts are off (--max-restarts 0)".into()),
        n => give_up(format!("{n} restart{} in a row brought no new checkpoint", if n == 1 { "" } else { "s" })),
    }
}

/// Failures right after the same step. A fault strikes anywhere; what strikes at one place is in the program or its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bug {
    at: Option<(usize, Step)>,
    times: u32,
}

impl Bug {
    /// Why there is no restart after it.
    pub const REASON: &str = "three failures in a row at the same step: that is a bug, not a fault";

    /// A start failed after finishing `step` of `stage`; none: it finished no step. Whether that makes it a bug.
    pub fn on_failure(&mut self, stage: usize, step: Option<Step>) -> bool {
        let at = step.filter(|step| *step > Step(0)).map(|step| (stage, step));
        self.times = if at.is_some() && at == self.at { self.times + 1 } else { 1 };
        self.at = at;
        at.is_some() && self.times >= 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(in_a_row: u32) -> u64 {
        match after_failure(Exit::WorkerFailed, in_a_row, 100, false) {
            Decision::Restart { delay } => delay.as_secs(),
            Decision::GiveUp { reason, .. } => panic!("{reason}"),
        }
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 99].map(delay), [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn restarts_are_bounded() {
        let exit = |n, max| match after_failure(Exit::Hang, n, max, false) {
            Decision::GiveUp { exit, .. } => Some(exit),
            Decision::Restart { .. } => None,
        };
        assert_eq!([exit(0, 3), exit(2, 3), exit(3, 3), exit(0, 0)], [None, None, Some(Exit::Hang), Some(Exit::Hang)]);
    }

    #[test]
    fn three_times_the_same_step_is_a_bug() {
        let told = |steps: &[Option<u64>]| {
            let mut bug = Bug::default();
            steps.iter().map(|step| bug.on_failure(0, step.map(Step))).collect::<Vec<_>>()
        };
        assert_eq!(told(&[Some(7), Some(7), Some(7)]), [false, false, true]);
        assert_eq!(told(&[Some(7), Some(8), Some(7), Some(7)]), [false; 4]);
        assert_eq!(told(&[None, None, None, None, Some(0), Some(0), Some(0)]), [false; 7]);
    }

    #[test]
    fn some_failures_are_final() {
        for exit in [Exit::Usage, Exit::BadData, Exit::Preflight] {
            assert!(matches!(after_failure(exit, 0, 3, false), Decision::GiveUp { exit: e, .. } if e == exit));
        }
        assert!(matches!(after_failure(Exit::WorkerFailed, 0, 3, true), Decision::GiveUp { .. }));
    }
}
