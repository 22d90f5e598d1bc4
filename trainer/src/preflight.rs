//! What workers do before a job, one on each of its hosts: connect, add up numbers in pairs, and print what came of it, one
//! JSON object a line, for the launcher. Touches no file, and says nothing on the side channel.

use crate::Error;
use collectives::{Collective, Label, Mpi};
use protocol::env::Place;
use protocol::pairs::{Measured, Report, pairs_of};
use protocol::side_channel::host_name;
use std::time::Duration;

/// For each operation. Shorter than the launcher's patience, so that the worker that waits in vain says so.
const WITHIN: Duration = Duration::from_secs(6);
/// Numbers that a pair adds up: a mebibyte.
const ELEMENTS: usize = 1 << 18;

/// Measures all pairs that are to be measured. `say` takes a line for the launcher.
pub fn run(place: &Place, say: impl Fn(&str)) -> Result<(), Error> {
    let rank = place.rank.0;
    say(&Report::Started { rank, host: host_name() }.line());
    let mpi = Mpi::start(WITHIN)?;
    if (mpi.world_size(), mpi.rank()) != (place.world_size, rank) {
        let (its_rank, its_size) = (mpi.rank(), mpi.world_size());
        return Err(Error::Usage(format!(
            "rank {rank} of {} by the environment, but rank {its_rank} of {its_size} in MPI's world",
            place.world_size
        )));
    }
    say(&Report::Connected { rank }.line());
    let label = Label::new(0, "preflight");
    for (a, b) in pairs_of(place.world_size) {
        let speed = mpi.measure_pair((a, b), ELEMENTS, label)?;
        // Whoever of the pair comes first tells.
        if let Some(speed) = speed.filter(|_| rank == a) {
            let bytes = (ELEMENTS * size_of::<f32>()) as f64;
            let (bytes_per_second, latency) = (bytes / speed.seconds, speed.latency_seconds);
            say(&Report::Measured(Measured { a, b, bytes_per_second, latency, correct: speed.correct }).line());
        }
    }
    Ok(mpi.shutdown(label)?)
}
