//! Where this worker is, for its launcher: what it does, told every second by a thread of its own, so that a hang has a
//! name. A process is one worker; its place is kept once.

use crate::train::steps_done;
use protocol::Step;
use protocol::message::{Beat, Message, Phase};
use protocol::side_channel::SideChannel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two reports.
const EVERY: Duration = Duration::from_secs(1);

/// How many phases were entered, and the one that this worker is in.
static NOW: Mutex<(u64, Phase)> = Mutex::new((0, Phase::Start));

/// This worker goes on to `phase`, or to another part of it.
pub fn enter(phase: Phase) {
    let mut now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
    *now = (now.0 + 1, phase);
}

/// Tells the launcher from now on, if there is one.
pub fn report(side_channel: Arc<SideChannel>) {
    if side_channel.is_connected() {
        let started = std::thread::Builder::new().name("beat".into()).spawn(move || {
            loop {
                side_channel.send(&Message::Beat(beat()));
                std::thread::sleep(EVERY);
            }
        });
        if let Err(e) = started {
            tracing::warn!(
                "no thread for reports of progress ({e}): the launcher will not see whether this worker hangs"
            );
        }
    }
}

fn beat() -> Beat {
    let (phases, phase) = *NOW.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = collectives::waits();
    Beat {
        count: phases + waits.begun + data_shards::activity(),
        waits: waits.begun,
        step: Step(steps_done()),
        phase,
        waits_for: waits.now.map(|label| label.phase.to_owned()),
        bucket: waits.now.and_then(|label| label.bucket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_move_counts() {
        enter(Phase::Data);
        let first = beat();
        enter(Phase::Data);
        let second = beat();
        assert!(second.count > first.count && second.phase == Phase::Data, "{first:?} {second:?}");
    }
}
