//! Training: from a configuration to a trained network, on any number of workers.

mod changes;
mod lock;
mod resume;
mod save;
mod session;
mod step;

use crate::Error;
use crate::job::Job;
use protocol::Exit;
use protocol::config::Config;
use session::Session;
use std::sync::atomic::{AtomicU64, Ordering};

/// Optimizer steps that this process has finished; for the report of a failure.
static STEPS_DONE: AtomicU64 = AtomicU64::new(0);

/// Optimizer steps that training in this process has finished (of the whole run, with those before a resumption).
pub fn steps_done() -> u64 {
    STEPS_DONE.load(Ordering::Relaxed)
}

/// Trains as `config` says, going on from the newest checkpoint where there is one.
pub fn train(config: Config, job: Job) -> Result<Exit, Error> {
    let mut session = Session::open(config, job)?;
    if session.is_finished() {
        return session.leave_finished();
    }
    STEPS_DONE.store(session.step, Ordering::Relaxed);
    session.announce()?;
    loop {
        if session.evaluation_is_due() && !session.evaluate()? {
            return session.preempt();
        }
        session.save_if_due()?;
        if session.is_finished() {
            return session.end("finished", Exit::Done);
        }
        let report = session.train_step()?;
        STEPS_DONE.store(session.step, Ordering::Relaxed);
        session.log_step(&report)?;
        if report.stop {
            return session.preempt();
        }
    }
}
