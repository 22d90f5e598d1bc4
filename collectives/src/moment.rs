//! Points in time, on the host's clock or in a device's work.

use crate::nccl::Event;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A point in time: on a CPU by the clock, on a device by the place in its work.
#[derive(Clone, Debug)]
pub struct Moment(Point);

#[derive(Clone, Debug)]
enum Point {
    Clock(Instant),
    Device(Arc<Event>),
}

impl Moment {
    /// Now, by the clock.
    pub fn now() -> Moment {
        Moment(Point::Clock(Instant::now()))
    }

    pub(crate) fn on_device(event: Arc<Event>) -> Moment {
        Moment(Point::Device(event))
    }

    /// Time from `self` to `later`. Zero where `later` was earlier, where the device has not come to both, and
    /// between a clock and a device.
    pub fn until(&self, later: &Moment) -> Duration {
        match (&self.0, &later.0) {
            (Point::Clock(a), Point::Clock(b)) => b.saturating_duration_since(*a),
            (Point::Device(a), Point::Device(b)) => a.until(b).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

/// When an operation was at work.
#[derive(Clone, Debug)]
pub struct Span {
    /// When it began to run (not when it was submitted).
    pub started: Moment,
    /// When its result was there.
    pub finished: Moment,
}

impl Span {
    /// How long it ran; on a device known once the device has come to its end.
    pub fn duration(&self) -> Duration {
        self.started.until(&self.finished)
    }
}
