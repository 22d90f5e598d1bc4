//! An operation in flight.

use crate::waiting::during;
use crate::{Error, Label, Span};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// An operation in flight. The backend holds its buffer's memory, so that dropping this early frees nothing
/// that is still in use; the result is then lost, and so is any error.
#[must_use = "the buffer is not ready until wait() has returned"]
pub struct Pending {
    label: Label,
    end: Box<dyn FnOnce() -> Result<Span, Error> + Send>,
}

/// Slack beyond the backend's own deadline, after which the backend itself counts as stuck.
const SLACK: Duration = Duration::from_secs(2);

impl Pending {
    /// An operation that `end` waits for.
    pub(crate) fn until(label: Label, end: impl FnOnce() -> Result<Span, Error> + Send + 'static) -> Pending {
        Pending { label, end: Box::new(end) }
    }

    /// A pending operation and the sender that completes it.
    pub(crate) fn new(rank: usize, label: Label, timeout: Duration) -> (Pending, Sender<Result<Span, Error>>) {
        let (sender, answer) = channel();
        let end = move || {
            during(label, || match answer.recv_timeout(timeout + SLACK) {
                Ok(result) => result,
                Err(RecvTimeoutError::Timeout) => Err(Error::Timeout { rank, label, seconds: timeout.as_secs_f64() }),
                Err(RecvTimeoutError::Disconnected) => Err(Error::Broken { rank, label }),
            })
        };
        (Pending::until(label, end), sender)
    }

    /// Waits until the buffer holds the result: on the CPU it does when this returns; on a device whatever is put on
    /// the current stream from now on finds it there.
    pub fn wait(self) -> Result<Span, Error> {
        (self.end)()
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({})", self.label)
    }
}
