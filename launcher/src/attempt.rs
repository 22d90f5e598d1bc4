//! One start of a job as a state machine: takes in what happened, says what to do next. Pure: no
//! clock, no process, no socket; every event carries its time since the start.

use crate::cause::{Cause, Death, MpirunEnd, Named, Trouble, What, first_cause};
use crate::pulse::{Hang, Pulse};
use protocol::message::{Message, Progress};
use protocol::{Exit, Rank, Step};
use std::time::Duration;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A worker's connection is open.
    Hello {
        /// The worker.
        rank: Rank,
        /// Its host.
        host: String,
        /// Its process.
        pid: u32,
    },
    /// A worker said something.
    Said(Rank, Message),
    /// A worker's connection closed.
    Closed(Rank),
    /// mpirun says which worker ended first.
    Named(Named),
    /// mpirun ended.
    MpirunEnded(Death),
    /// All output of mpirun and the workers has been read.
    OutputEnded,
    /// SIGTERM or SIGUSR1 came: checkpoint and end.
    AskedToStop,
    /// This host is about to go: checkpoint and end this start. Whether the job ends, too, depends on how many it needs.
    Leaving(String),
    /// A signal came that ends everything at once.
    MustEnd(i32),
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for events, but no longer than until this time.
    Wait(Option<Duration>),
    /// Forward SIGUSR1 to the workers, and say so with [`Attempt::asked`].
    AskWorkers,
    /// This start is over. What still runs is to be killed.
    Over(Outcome),
}

/// How a start ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All workers are done.
    Done,
    /// Stopped on request; `confirmed`: rank 0 said that its checkpoint lies on disk.
    Preempted {
        /// Whether the checkpoint is certain.
        confirmed: bool,
    },
    /// Stopped at once by this signal.
    Signalled(i32),
    /// A failure.
    Failed(Cause),
}

/// All workers must have reported by then.
const HELLO_DEADLINE: Duration = Duration::from_secs(60);
/// How long the others may take to end after a worker failed. Longer than the window in which a
/// better cause can arrive.
const SETTLING: Duration = Duration::from_secs(3);
/// How long connections may outlive mpirun: a worker that mpirun ended closes its own at once.
const AFTER_MPIRUN: Duration = Duration::from_secs(1);
/// How long the workers may take to end after all have finished.
const LEAVING: Duration = Duration::from_secs(60);

/// What is known of a worker.
#[derive(Clone, Debug, Default)]
struct Peer {
    host: Option<String>,
    pid: Option<u32>,
    step: Option<Step>,
    finished: Option<(Duration, Exit)>,
    failed: bool,
    closed: bool,
}

/// A start of the job.
#[derive(Debug)]
pub struct Attempt {
    peers: Vec<Peer>,
    troubles: Vec<Trouble>,
    named: Option<Named>,
    mpirun: Option<MpirunEnd>,
    output_ended: bool,
    pulse: Pulse,
    /// Who held the others up when one of them lost patience.
    suspect: Option<Hang>,
    grace: Duration,
    /// When the workers were first to end, be it for a signal or for a host that leaves.
    stop_since: Option<Duration>,
    stopping: bool,
    stop_again: bool,
    leaving: Vec<String>,
    asked: bool,
    must_end: Option<i32>,
}

impl Attempt {
    /// A start of `world_size` workers that may take `grace` to end when asked, and `hang_timeout` without progress.
    pub fn new(world_size: usize, grace: Duration, hang_timeout: Duration) -> Attempt {
        Attempt {
            peers: vec![Peer::default(); world_size],
            troubles: Vec::new(),
            named: None,
            mpirun: None,
            output_ended: false,
            pulse: Pulse::new(world_size, hang_timeout),
            suspect: None,
            grace,
            stop_since: None,
            stopping: false,
            stop_again: false,
            leaving: Vec::new(),
            asked: false,
            must_end: None,
        }
    }

    /// Takes in an event.
    pub fn on(&mut self, at: Duration, event: Event) {
        match event {
            Event::Hello { rank, host, pid } => self.with(rank, |peer| {
                peer.host = Some(host);
                peer.pid = Some(pid);
            }),
            Event::Said(rank, message) => self.said(at, rank, message),
            Event::Closed(rank) => self.closed(at, rank),
            Event::Named(named) => self.named = self.named.or(Some(named)),
            Event::MpirunEnded(death) => self.mpirun = self.mpirun.or(Some(MpirunEnd { at, death })),
            Event::OutputEnded => self.output_ended = true,
            Event::AskedToStop => {
                self.stop_again = self.stopping;
                self.stopping = true;
                self.stop_since = self.stop_since.or(Some(at));
            }
            Event::Leaving(host) => {
                self.leaving.push(host);
                self.stop_since = self.stop_since.or(Some(at));
            }
            Event::MustEnd(signal) => self.must_end = self.must_end.or(Some(signal)),
        }
    }

    /// SIGUSR1 is on its way to the workers.
    pub fn asked(&mut self) {
        self.asked = true;
    }

    /// The launcher itself was stopped until now.
    pub fn slept(&mut self, now: Duration) {
        self.pulse.forgive(now);
    }

    /// The process of a worker on its host.
    pub fn pid(&self, rank: Rank) -> Option<u32> {
        self.peers.get(rank.0)?.pid
    }

    /// Whether somebody wants the whole job to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping || self.must_end.is_some()
    }

    /// The hosts for whose sake alone this start ends.
    pub fn leaving(&self) -> &[String] {
        if self.is_stopping() { &[] } else { &self.leaving }
    }

    /// Where a worker said that it runs.
    pub fn host(&self, rank: Rank) -> Option<&str> {
        self.peers.get(rank.0).and_then(|peer| peer.host.as_deref())
    }

    /// What to do at `now`.
    pub fn next(&self, now: Duration) -> Next {
        if let Some(signal) = self.must_end {
            return Next::Over(Outcome::Signalled(signal));
        }
        if self.stop_again {
            return Next::Over(Outcome::Preempted { confirmed: self.checkpoint_confirmed() });
        }
        let deadlines = self.deadlines();
        if self.is_settled() || deadlines.iter().any(|&d| d <= now) {
            return Next::Over(self.outcome(now));
        }
        if self.stop_since.is_some() && !self.asked && self.missing().is_empty() && self.mpirun.is_none() {
            return Next::AskWorkers;
        }
        Next::Wait(deadlines.into_iter().min())
    }

    fn said(&mut self, at: Duration, rank: Rank, message: Message) {
        match message {
            Message::Beat(beat) => self.pulse.on_beat(at, rank, beat),
            Message::Progress(progress) => self.progress(at, rank, &progress),
            Message::Failed { step, exit, cause } => self.failed(at, rank, step, exit, cause),
            Message::Finished { exit: exit @ (Exit::Done | Exit::Preempted) } => {
                self.with(rank, |peer| peer.finished = Some((at, exit)));
            }
            Message::Finished { exit } => {
                let step = self.last_step(rank).unwrap_or_default();
                self.failed(at, rank, step, exit, format!("ended with exit code {}", exit.code()));
            }
            Message::Checkpoint { .. } | Message::Hello { .. } => {}
        }
    }

    fn progress(&mut self, at: Duration, rank: Rank, progress: &Progress) {
        self.pulse.on_progress(at);
        if progress.phase == "train" {
            self.with(rank, |peer| peer.step = Some(Step(progress.done)));
            if rank == Rank(0) {
                self.pulse.on_step(at, Step(progress.done));
            }
        }
    }

    fn failed(&mut self, at: Duration, rank: Rank, step: Step, exit: Exit, cause: String) {
        self.with(rank, |peer| peer.failed = true);
        if exit == Exit::Hang && self.suspect.is_none() {
            self.suspect = self.pulse.hang(at);
        }
        self.troubles.push(Trouble { at, rank, what: What::Failed { step, exit, cause } });
    }

    fn closed(&mut self, at: Duration, rank: Rank) {
        self.with(rank, |peer| peer.closed = true);
        if self.peers.get(rank.0).is_some_and(|peer| peer.finished.is_none() && !peer.failed) {
            self.troubles.push(Trouble { at, rank, what: What::Gone });
        }
    }

    fn with(&mut self, rank: Rank, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.peers.get_mut(rank.0) {
            change(peer);
        }
    }

    fn deadlines(&self) -> Vec<Duration> {
        let hello = (!self.missing().is_empty()).then_some(HELLO_DEADLINE);
        let grace = self.stop_since.map(|since| since + self.grace);
        let trouble = self.troubles.iter().map(|t| t.at).min().map(|at| at + SETTLING);
        let mpirun = self.mpirun.map(|m| m.at + AFTER_MPIRUN);
        let preempted = self.first_preempted().map(|at| at + self.grace);
        let finished = self.all_finished().map(|at| at + LEAVING);
        let watched = self.troubles.is_empty() && self.mpirun.is_none() && finished.is_none();
        let hang = self.pulse.deadline().filter(|_| watched);
        [hello, grace, trouble, mpirun, preempted, finished, hang].into_iter().flatten().collect()
    }

    /// When the first worker ended on request, be it the launcher's or another's.
    fn first_preempted(&self) -> Option<Duration> {
        let ends = self.peers.iter().filter_map(|p| p.finished);
        ends.filter(|(_, exit)| *exit == Exit::Preempted).map(|(at, _)| at).min()
    }

    /// When the last worker finished.
    fn all_finished(&self) -> Option<Duration> {
        self.peers.iter().map(|p| p.finished.map(|(at, _)| at)).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// Nothing more can be learned. A worker that never reported may have a report on its way.
    fn is_settled(&self) -> bool {
        self.mpirun.is_some() && self.output_ended && self.peers.iter().all(|p| p.closed)
    }

    fn missing(&self) -> Vec<usize> {
        (0..self.peers.len()).filter(|&r| self.peers[r].host.is_none()).collect()
    }

    fn checkpoint_confirmed(&self) -> bool {
        self.peers.first().is_some_and(|p| matches!(p.finished, Some((_, Exit::Preempted))))
    }

    /// A worker failed while nobody wanted an end. mpirun then asks the others to end, and some manage to write a checkpoint.
    fn failed_unasked(&self) -> bool {
        let preempted = self.first_preempted().unwrap_or(Duration::MAX);
        let first = |t: &Trouble| t.what != What::Gone && t.at < preempted;
        self.stop_since.is_none() && self.troubles.iter().any(first)
    }

    fn outcome(&self, now: Duration) -> Outcome {
        let finished =
            |exit| self.peers.iter().filter(move |p| matches!(p.finished, Some((_, e)) if e == exit)).count();
        let done = finished(Exit::Done) == self.peers.len();
        let any_failed = self.troubles.iter().any(|t| t.what != What::Gone);
        if done && self.mpirun.is_some_and(|m| m.death == Death::Code(0)) {
            return Outcome::Done;
        }
        let preempted = self.checkpoint_confirmed() || (finished(Exit::Preempted) > 0 && !any_failed);
        if preempted && !self.failed_unasked() {
            return Outcome::Preempted { confirmed: self.checkpoint_confirmed() };
        }
        let grace_over = self.stop_since.is_some_and(|since| since + self.grace <= now);
        if grace_over && self.troubles.is_empty() && self.mpirun.is_none() {
            return Outcome::Preempted { confirmed: false };
        }
        Outcome::Failed(self.cause(now))
    }

    fn cause(&self, now: Duration) -> Cause {
        if self.troubles.is_empty()
            && self.mpirun.is_none()
            && self.all_finished().is_none()
            && self.pulse.deadline().is_some_and(|deadline| deadline <= now)
            && let Some(Hang { rank, step, text }) = self.pulse.hang(now)
        {
            return Cause { rank, step: Some(step), exit: Exit::Hang, text };
        }
        if self.troubles.is_empty()
            && let Some(cause) = self.silence()
        {
            return cause;
        }
        let mut cause = first_cause(&self.troubles, self.named, self.mpirun);
        if let (Exit::Hang, Some(hang)) = (cause.exit, &self.suspect)
            && cause.rank != hang.rank
        {
            // The one that lost patience is not the one that hangs.
            let patient = cause.rank.map_or_else(String::new, |rank| format!("rank {rank}"));
            let text = format!("{}; {patient} gave up: {}", hang.text, cause.text);
            return Cause { rank: hang.rank, step: Some(hang.step), exit: Exit::Hang, text };
        }
        cause.step = cause.step.or_else(|| cause.rank.and_then(|rank| self.last_step(rank)));
        cause
    }

    /// Failures of which no worker gave a sign.
    fn silence(&self) -> Option<Cause> {
        let missing = self.missing();
        let all = self.peers.len();
        let cause = |rank, exit, text| Some(Cause { rank, step: None, exit, text });
        let ranks = |ranks: &[usize]| ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        match self.mpirun.map(|m| m.death) {
            None if missing.is_empty() => {
                cause(None, Exit::Hang, format!("all work is done, but the workers did not end in {LEAVING:?}"))
            }
            None => cause(
                missing.first().map(|&r| Rank(r)),
                Exit::WorkerFailed,
                format!(
                    "{} of {all} workers reported to the launcher within {HELLO_DEADLINE:?}; missing: rank {}",
                    all - missing.len(),
                    ranks(&missing)
                ),
            ),
            Some(Death::Code(0)) => {
                let unfinished: Vec<usize> = (0..all).filter(|&r| self.peers[r].finished.is_none()).collect();
                cause(
                    unfinished.first().map(|&r| Rank(r)),
                    Exit::WorkerFailed,
                    format!(
                        "ended with exit code 0, but never said that it is done (so did rank {})",
                        ranks(&unfinished)
                    ),
                )
            }
            Some(_) => None,
        }
    }

    /// The last step that `rank` is known to have finished. Workers step together, so another's will do.
    fn last_step(&self, rank: Rank) -> Option<Step> {
        let own = self.peers.get(rank.0).and_then(|peer| peer.step);
        own.or_else(|| self.peers.iter().filter_map(|peer| peer.step).max())
    }
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
