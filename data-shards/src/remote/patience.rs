//! How long to go on trying.
//!
//! Duty: pure decisions about attempts and pauses. Must not: sleep.

use std::time::Duration;

/// How often and how long a server is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts in a row that bring nothing, after which the server counts as unreachable. 0 counts as 1.
    pub attempts: u32,
    /// Pause after the first of them; each next one is twice as long, and all are shortened by chance by up to a half.
    pub first_pause: Duration,
    /// No pause is longer.
    pub longest_pause: Duration,
    /// An attempt in which nothing arrives for so long has failed.
    pub silence: Duration,
    /// How long to wait for other readers where the cache is full of what they read.
    pub room: Duration,
}

impl Default for Patience {
    /// A server that is gone is given up after about 40 seconds, one that accepts and says nothing after about 5 minutes.
    fn default() -> Patience {
        Patience {
            attempts: 8,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            room: Duration::from_secs(60),
        }
    }
}

/// An attempt that brought so many bytes was worth it: the count starts afresh.
const WORTH: u64 = 1 << 16;

/// Attempts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    /// All.
    pub(super) made: u32,
    /// Those at the end that brought nothing.
    in_vain: u32,
}

impl Attempts {
    /// Counts an attempt that failed after it brought `gained` bytes; the pause before the next, or none where it is enough.
    /// `chance` lies in 0..1.
    pub(super) fn failed(&mut self, gained: u64, patience: &Patience, chance: f64) -> Option<Duration> {
        self.made = self.made.saturating_add(1);
        self.in_vain = if gained >= WORTH { 1 } else { self.in_vain.saturating_add(1) };
        if self.in_vain >= patience.attempts.max(1) {
            return None;
        }
        let doubled = patience.first_pause.saturating_mul(1 << (self.in_vain - 1).min(20));
        Some(doubled.min(patience.longest_pause).mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0))
    }
}

/// A number in 0..1 that differs between threads and processes.
pub(super) fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let patience = Patience { attempts: 5, longest_pause: Duration::from_secs(3), ..Patience::default() };
        let mut attempts = Attempts::default();
        let pauses: Vec<_> = (0..5).map(|_| attempts.failed(0, &patience, 0.0)).collect();
        let seconds = [Some(0.5), Some(1.0), Some(2.0), Some(3.0), None].map(|s| s.map(Duration::from_secs_f64));
        assert_eq!(pauses, seconds);
        assert_eq!(Attempts::default().failed(0, &patience, 1.0), Some(Duration::from_millis(250)));
        assert!((0..100).all(|_| (0.0..=1.0).contains(&chance())));
    }

    #[test]
    fn progress_starts_the_count_afresh() {
        let patience = Patience { attempts: 2, ..Patience::default() };
        let mut attempts = Attempts::default();
        assert!((0..50).all(|_| attempts.failed(WORTH, &patience, 0.5).is_some()));
        assert_eq!(attempts.failed(WORTH - 1, &patience, 0.5), None);
        assert_eq!(attempts.made, 51);
        let hasty = Patience { attempts: 0, ..patience };
        assert_eq!(Attempts::default().failed(0, &hasty, 0.5), None);
    }
}
