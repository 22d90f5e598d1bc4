//! An operation in flight.

use crate::waiting::during;
use crate::{Error, Label};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// When an operation was at work.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// When it began to run (not when it was submitted).
    pub started: Instant,
    /// When its result was there.
    pub finished: Instant,
}

impl Span {
    /// How long it ran.
    pub fn duration(&self) -> Duration {
        self.finished - self.started
    }
}

/// An operation in flight. It holds its buffer's memory, so that dropping it early frees nothing
/// that is still in use; the result is then lost, and so is any error.
#[derive(Debug)]
#[must_use = "the buffer is not ready until wait() has returned"]
pub struct Pending {
    answer: Receiver<Result<Span, Error>>,
    rank: usize,
    label: Label,
    timeout: Duration,
}

/// Slack beyond the backend's own deadline, after which the backend itself counts as stuck.
const SLACK: Duration = Duration::from_secs(2);

impl Pending {
    /// A pending operation and the sender that completes it.
    pub(crate) fn new(rank: usize, label: Label, timeout: Duration) -> (Pending, Sender<Result<Span, Error>>) {
        let (sender, answer) = channel();
        (Pending { answer, rank, label, timeout }, sender)
    }

    /// Waits until the buffer holds the result.
    pub fn wait(self) -> Result<Span, Error> {
        during(self.label, || match self.answer.recv_timeout(self.timeout + SLACK) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::Timeout { rank: self.rank, label: self.label, seconds: self.timeout.as_secs_f64() })
            }
            Err(RecvTimeoutError::Disconnected) => Err(Error::Broken { rank: self.rank, label: self.label }),
        })
    }
}
