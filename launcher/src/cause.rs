//! What ended a job first. Pure: from what workers, sockets and mpirun reported, one cause.
//!
//! When one worker ends, the others soon follow: their collectives fail, or mpirun kills them. The
//! reports of these consequences can overtake that of the cause by some milliseconds.

use nix::sys::signal::Signal;
use protocol::{Exit, Rank, Step};
use std::time::Duration;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// By this signal.
    Signal(i32),
    /// With this exit code.
    Code(i32),
}

impl Death {
    /// What a shell gives for it: the code, or 128 + the signal; 255 for what is no exit code.
    pub fn exit_code(self) -> u8 {
        let code = match self {
            Death::Code(code) => code,
            Death::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

/// The worker that mpirun says ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its rank.
    pub rank: Rank,
    /// How it ended.
    pub death: Death,
}

/// The end of mpirun itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MpirunEnd {
    /// When, since the start.
    pub at: Duration,
    /// How; its exit code is that of the worker that failed, or 128 + the worker's signal.
    pub death: Death,
}

/// A sign that a worker failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When, since the start.
    pub at: Duration,
    /// Whose.
    pub rank: Rank,
    /// What it is.
    pub what: What,
}

/// Kinds of trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The worker said so.
    Failed {
        /// The last step that it finished.
        step: Step,
        /// The exit code that it asks for.
        exit: Exit,
        /// What went wrong.
        cause: String,
    },
    /// Its connection closed without a word.
    Gone,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The first worker that failed; none: no worker did.
    pub rank: Option<Rank>,
    /// The last step that it is known to have finished.
    pub step: Option<Step>,
    /// The exit code that it deserves.
    pub exit: Exit,
    /// What happened, in one line.
    pub text: String,
}

/// An error that no restart mends wins over what it did to the other workers in this time.
const ROOT_WINDOW: Duration = Duration::from_secs(2);
/// How far the reports of cause and consequence can be out of order.
const REORDERING: Duration = Duration::from_millis(500);

/// The first cause. `troubles` are in no particular order.
pub fn first_cause(troubles: &[Trouble], named: Option<Named>, mpirun: Option<MpirunEnd>) -> Cause {
    let first = troubles.iter().map(|t| t.at).min();
    if let Some(cause) = killed_mpirun(first, mpirun) {
        return cause;
    }
    let (Some(first), Some(earliest)) = (first, troubles.iter().min_by_key(|t| t.at)) else {
        return without_trouble(named, mpirun);
    };
    if let Some(named) = named.filter(|n| earliest.what == What::Gone && troubles.iter().all(|t| t.rank != n.rank)) {
        // It never reported, or had finished: mpirun killed the others because of it.
        return without_trouble(Some(named), mpirun);
    }
    let soon = |t: &&Trouble, window| t.at <= first + window;
    let hopeless = troubles.iter().filter(|t| soon(t, ROOT_WINDOW) && is_hopeless(t)).min_by_key(|t| t.at);
    let accused = named.and_then(|n| {
        let gone = |t: &&Trouble| t.rank == n.rank && t.what == What::Gone && soon(t, REORDERING);
        let credible = matches!(n.death, Death::Signal(_)) || earliest.what == What::Gone;
        troubles.iter().find(gone).filter(|_| credible)
    });
    let deaths = troubles.iter().filter(|t| soon(t, REORDERING) && t.what == What::Gone).count();
    // Of several deaths the end of mpirun tells only one, and not which: a worker's own host can tell mpirun of it later
    // than others tell of their failed connections to it.
    let mpirun = mpirun.filter(|_| deaths < 2);
    told(hopeless.or(accused).unwrap_or(earliest), named, mpirun)
}

/// mpirun was killed, and took the workers with it.
fn killed_mpirun(first: Option<Duration>, mpirun: Option<MpirunEnd>) -> Option<Cause> {
    let MpirunEnd { at, death: Death::Signal(signal) } = mpirun? else { return None };
    let workers_first = first.is_some_and(|first| first + REORDERING < at);
    let text = format!("mpirun was {}", killed_by(signal));
    (!workers_first).then_some(Cause { rank: None, step: None, exit: Exit::WorkerFailed, text })
}

fn without_trouble(named: Option<Named>, mpirun: Option<MpirunEnd>) -> Cause {
    let (rank, death) = match (named, mpirun) {
        (Some(named), _) => (Some(named.rank), Some(named.death)),
        (None, mpirun) => (None, mpirun.map(|m| m.death)),
    };
    let (exit, text) = match (rank, death) {
        (None, Some(Death::Code(code))) => (exit_of(Death::Code(code)), format!("mpirun ended with exit code {code}")),
        (_, Some(death)) => (exit_of(death), describe(death)),
        (_, None) => (Exit::WorkerFailed, "the workers ended without a word".into()),
    };
    Cause { rank, step: None, exit, text }
}

fn told(trouble: &Trouble, named: Option<Named>, mpirun: Option<MpirunEnd>) -> Cause {
    let rank = Some(trouble.rank);
    match &trouble.what {
        What::Failed { step, exit, cause } => Cause { rank, step: Some(*step), exit: *exit, text: cause.clone() },
        What::Gone => {
            let own = named.filter(|n| n.rank == trouble.rank).map(|n| n.death);
            let death = own.or_else(|| mpirun.and_then(of_worker));
            let exit = death.map_or(Exit::WorkerFailed, exit_of);
            let text = death.map_or_else(|| "its connection to the launcher closed".into(), describe);
            Cause { rank, step: None, exit, text }
        }
    }
}

/// What mpirun's exit code says of the worker that failed.
fn of_worker(mpirun: MpirunEnd) -> Option<Death> {
    match mpirun.death {
        Death::Code(code @ 129..=192) => Some(Death::Signal(code - 128)),
        Death::Code(code @ 1..) => Some(Death::Code(code)),
        _ => None,
    }
}

fn is_hopeless(trouble: &Trouble) -> bool {
    matches!(&trouble.what, What::Failed { exit, .. } if !exit.worth_a_restart())
}

/// A worker that ends without a word still has its exit code (wrong usage is noticed before anything else).
fn exit_of(death: Death) -> Exit {
    match death {
        Death::Code(2) => Exit::Usage,
        Death::Code(3) => Exit::BadData,
        Death::Code(5) => Exit::Hang,
        Death::Code(6) => Exit::Preflight,
        _ => Exit::WorkerFailed,
    }
}

fn describe(death: Death) -> String {
    match death {
        Death::Signal(signal) => killed_by(signal),
        Death::Code(code) => format!("ended with exit code {code}"),
    }
}

/// `killed by signal 9 (SIGKILL)`.
pub fn killed_by(signal: i32) -> String {
    format!("killed by signal {signal}{}", signal_name(signal).map_or(String::new(), |n| format!(" ({n})")))
}

/// `SIGKILL` for 9.
pub fn signal_name(signal: i32) -> Option<&'static str> {
    Signal::try_from(signal).ok().map(Signal::as_str)
}

#[cfg(test)]
#[path = "cause_tests.rs"]
mod tests;
