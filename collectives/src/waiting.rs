//! What this process waits for, for whoever asks from another thread. A process is one rank, and waits for one thing at a
//! time; where two threads wait, the later one is told.

use crate::Label;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The waits of this process so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// How many have begun. All ranks have the same waits in the same order, so that the one with the fewest is behind.
    pub begun: u64,
    /// How long those took that are over.
    pub took: Duration,
    /// What the one is for that it is in, or that failed.
    pub now: Option<Label>,
}

static WAITS: Mutex<Waits> = Mutex::new(Waits { begun: 0, took: Duration::ZERO, now: None });

/// The waits for other ranks of this process.
pub fn waits() -> Waits {
    *lock()
}

fn lock() -> MutexGuard<'static, Waits> {
    WAITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that this process waits while `wait` runs. After a failure nothing more is asked of the others: that it waits stays
/// true.
pub(crate) fn during<T, E>(label: Label, wait: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let began = Instant::now();
    {
        let mut waits = lock();
        waits.begun += 1;
        waits.now = Some(label);
    }
    let result = wait();
    let mut waits = lock();
    waits.took += began.elapsed();
    if result.is_ok() {
        waits.now = None;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_while_it_lasts_and_after_it_failed() {
        let label = Label::bucket(3, 1, "gradient all-reduce");
        let before = waits().begun;
        let inside = during(label, || {
            std::thread::sleep(Duration::from_millis(2));
            Ok::<_, ()>(waits())
        });
        assert_eq!(inside.map(|inside| (inside.begun, inside.now)), Ok((before + 1, Some(label))));
        assert_eq!((waits().begun, waits().now), (before + 1, None));
        assert!(waits().took >= Duration::from_millis(2));
        during(label, || Err::<(), _>(())).unwrap_err();
        assert_eq!(waits().now, Some(label));
    }
}
