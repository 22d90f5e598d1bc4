//! The queue on which everything that happens during one start meets, stamped with its time.

use crate::attempt::Event;
use crossbeam_channel::{Receiver, unbounded};
use std::time::{Duration, Instant};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Happened {
    /// What the outcome may depend on.
    Event(Event),
    /// What only launcher.log is told.
    Note(String),
}

/// The queue's entrance.
#[derive(Clone, Debug)]
pub struct Sender {
    began: Instant,
    sender: crossbeam_channel::Sender<(Duration, Happened)>,
}

impl Sender {
    /// Puts in something that happens now. After the start's end nobody listens, and that is no error.
    pub fn send(&self, what: Happened) {
        self.send_at(self.now(), what);
    }

    /// Puts in something that happened at another time.
    pub fn send_at(&self, at: Duration, what: Happened) {
        let _ = self.sender.send((at, what));
    }

    /// The time.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// A new queue; times count from `began`.
pub fn queue(began: Instant) -> (Sender, Receiver<(Duration, Happened)>) {
    let (sender, receiver) = unbounded();
    (Sender { began, sender }, receiver)
}
