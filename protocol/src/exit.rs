//! The exit codes of every binary.

use serde::{Deserialize, Serialize};

/// How a process ends; [`Exit::code`] is the number that the shell sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// The work is done.
    Done,
    /// Wrong usage or configuration; never restarted.
    Usage,
    /// Input data that cannot be used; never restarted.
    BadData,
    /// A worker failed and restarts are used up.
    WorkerFailed,
    /// A hang, or a collective that missed its deadline.
    Hang,
    /// A check before the start failed.
    Preflight,
    /// Stopped by SIGTERM or SIGUSR1 after a checkpoint.
    Preempted,
    /// Stopped at once by the signal of this number.
    Signal(u8),
}

impl Exit {
    /// The number for `std::process::exit`.
    pub fn code(self) -> i32 {
        match self {
            Exit::Done => 0,
            Exit::Usage => 2,
            Exit::BadData => 3,
            Exit::WorkerFailed => 4,
            Exit::Hang => 5,
            Exit::Preflight => 6,
            Exit::Preempted => 143,
            Exit::Signal(n) => 128 + i32::from(n),
        }
    }

    /// Whether running the same command again could end differently.
    pub fn worth_a_restart(self) -> bool {
        matches!(self, Exit::WorkerFailed | Exit::Hang)
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code() as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_contract() {
        let codes = [
            Exit::Done,
            Exit::Usage,
            Exit::BadData,
            Exit::WorkerFailed,
            Exit::Hang,
            Exit::Preflight,
            Exit::Preempted,
            Exit::Signal(2),
        ]
        .map(Exit::code);
        assert_eq!(codes, [0, 2, 3, 4, 5, 6, 143, 130]);
    }
}
