//! The signals that the launcher listens to, as a stream of events. Decides nothing.

use crate::attempt::Event;
use crossbeam_channel::{Receiver, Sender, unbounded};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io;

/// A signal that arrived: its number, and what it means.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// The signal.
    pub signal: i32,
    /// What it asks for.
    pub event: Event,
}

/// Listens from now on, until the process ends. The sender is for what means the same as a signal.
pub fn listen() -> io::Result<(Sender<Arrived>, Receiver<Arrived>)> {
    let mut signals = Signals::new([SIGTERM, SIGUSR1, SIGINT, SIGHUP, SIGQUIT])?;
    let (sender, receiver): (Sender<Arrived>, _) = unbounded();
    let other = sender.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if sender.send(Arrived { signal, event: meaning(signal) }).is_err() {
                return;
            }
        }
    })?;
    Ok((other, receiver))
}

fn meaning(signal: i32) -> Event {
    match signal {
        SIGTERM | SIGUSR1 => Event::AskedToStop,
        other => Event::MustEnd(other),
    }
}
