//! Waits of all ranks for what rank 0 alone does. They meet again and again, so that no deadline of a collective limits it.

use crate::Error;
use crate::job::Job;
use crate::whereabouts::enter;
use collectives::Label;
use protocol::message::Phase;
use std::time::Duration;

/// Between two meetings.
const TURN: Duration = Duration::from_secs(1);

/// Returns on every rank once `is_done` has said so on rank 0, which asks it again and again, to answer at once or after the
/// time that it is given. `what` names it in the report of a failure.
pub(super) fn wait(
    job: &Job,
    (step, phase): (u64, Phase),
    what: &'static str,
    mut is_done: impl FnMut(Duration) -> bool,
) -> Result<(), Error> {
    loop {
        let done = job.is_chief() && is_done(TURN);
        // What rank 0 does is bounded by its own patience, and no hang.
        enter(phase);
        let all = job.collective.all_gather(vec![u8::from(done)], Label::new(step, what))?;
        if all.first().is_some_and(|done| done == &[1]) {
            return Ok(());
        }
    }
}
