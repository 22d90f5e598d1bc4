//! Who has stopped making progress. Pure: fed with the workers' beats and the time.
//!
//! Ranks wait for each other in every step, so one that hangs brings all to a halt. A halt is when nobody has moved for a
//! limit; the culprit is then the one that does not wait for the others.

use protocol::message::{Beat, Phase};
use protocol::{Rank, Step};
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

/// Steps that the run must have shown before its own pace is the measure.
const LEARNED_AFTER: usize = 10;
/// Steps that are remembered.
const REMEMBERED: usize = 64;
/// So many times the usual step is a hang.
const USUAL_TIMES: u32 = 30;
/// And never less than this: a machine may be busy with something else.
const LEAST: Duration = Duration::from_secs(30);
/// A worker that has not sent its beat, due every second, for so long gives no sign of life.
const SILENT: Duration = Duration::from_secs(4);

/// The workers' progress.
#[derive(Debug)]
pub struct Pulse {
    cap: Duration,
    ranks: Vec<Option<Heard>>,
    /// When anybody last moved.
    moved: Duration,
    steps: Steps,
}

/// What was last heard of a worker.
#[derive(Clone, Debug)]
struct Heard {
    at: Duration,
    beat: Beat,
}

/// The pace of the run: what its last steps took, with evaluations and checkpoints between some of them.
#[derive(Debug, Default)]
struct Steps {
    newest: Option<(Step, Duration)>,
    took: VecDeque<Duration>,
}

impl Steps {
    /// A step before the last is of the next stage of a pipeline, which has a pace of its own.
    fn on_step(&mut self, at: Duration, step: Step) {
        match self.newest {
            Some((newest, _)) if step == newest => return,
            Some((newest, before)) if step > newest => self.took.push_back(at.saturating_sub(before)),
            _ => self.took.clear(),
        }
        if self.took.len() > REMEMBERED {
            self.took.pop_front();
        }
        self.newest = Some((step, at));
    }

    /// The median, once there are enough.
    fn usual(&self) -> Option<Duration> {
        let mut took: Vec<Duration> = self.took.iter().copied().collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied().filter(|_| took.len() >= LEARNED_AFTER)
    }
}

/// A halt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hang {
    /// Who is to blame; none where all wait for each other.
    pub rank: Option<Rank>,
    /// The last step that it is known to have finished.
    pub step: Step,
    /// What is known, in one line.
    pub text: String,
}

impl Pulse {
    /// Of `world_size` workers; `cap` is `--hang-timeout`, and the limit until the run has shown its pace.
    pub fn new(world_size: usize, cap: Duration) -> Pulse {
        Pulse { cap, ranks: vec![None; world_size], moved: Duration::ZERO, steps: Steps::default() }
    }

    /// A worker's beat.
    pub fn on_beat(&mut self, at: Duration, rank: Rank, beat: Beat) {
        let Some(heard) = self.ranks.get_mut(rank.0) else { return };
        if heard.as_ref().is_none_or(|heard| heard.beat.count != beat.count) {
            self.moved = at;
        }
        *heard = Some(Heard { at, beat });
    }

    /// A worker told of its progress.
    pub fn on_progress(&mut self, at: Duration) {
        self.moved = at;
    }

    /// The run has finished a step, as rank 0 says.
    pub fn on_step(&mut self, at: Duration, step: Step) {
        self.steps.on_step(at, step);
    }

    /// The launcher itself was stopped until now: what it did not hear, nobody could say.
    pub fn forgive(&mut self, now: Duration) {
        self.moved = now;
        self.steps.newest = None;
        self.ranks.iter_mut().flatten().for_each(|heard| heard.at = now);
    }

    /// When it is a halt, if nothing more is heard; nothing before every worker has sent a beat.
    pub fn deadline(&self) -> Option<Duration> {
        self.ranks.iter().all(Option::is_some).then(|| self.moved + self.limit())
    }

    /// The halt, at a time after the deadline.
    pub fn hang(&self, now: Duration) -> Option<Hang> {
        let halt = now.saturating_sub(self.moved).as_secs();
        let heard = || self.ranks.iter().flatten();
        let Some((rank, culprit)) = self.suspect(now) else {
            let step = heard().map(|h| h.beat.step).min()?;
            let doing = doing(&heard().next()?.beat);
            let text = format!(
                "no progress for {halt} s: every rank is {doing}; look at the connections between the hosts, one of which may \
                 be broken though all of them reach the launcher"
            );
            return Some(Hang { rank: None, step, text });
        };
        let text = format!("no progress for {halt} s: {}{}", place(now, culprit), self.others(now, rank));
        Some(Hang { rank: Some(rank), step: culprit.beat.step, text })
    }

    /// Who holds the others up, as far as it can be told: who gives no sign of life, else the one that is behind and does not
    /// wait, else the one that is behind.
    fn suspect(&self, now: Duration) -> Option<(Rank, &Heard)> {
        let heard = || self.ranks.iter().enumerate().filter_map(|(r, h)| h.as_ref().map(|h| (Rank(r), h)));
        let silent = heard().filter(|(_, h)| is_silent(now, h)).min_by_key(|(_, h)| h.at);
        let busy = || heard().filter(|(_, h)| h.beat.waits_for.is_none()).min_by_key(|(_, h)| h.beat.waits);
        let behind = || {
            let (rank, last) = heard().min_by_key(|(_, h)| h.beat.waits)?;
            heard().any(|(_, h)| h.beat.waits > last.beat.waits).then_some((rank, last))
        };
        silent.or_else(busy).or_else(behind)
    }

    /// Where one of the others waits: it was reached by all but the culprit.
    fn others(&self, now: Duration, culprit: Rank) -> String {
        let others = self.ranks.iter().enumerate().filter(|(rank, _)| *rank != culprit.0);
        let waiting = others.filter_map(|(rank, heard)| {
            heard.as_ref().filter(|h| !is_silent(now, h) && h.beat.waits_for.is_some()).map(|h| (rank, h))
        });
        let furthest = waiting.max_by_key(|(rank, h)| (h.beat.waits, Reverse(*rank)));
        furthest.map_or_else(String::new, |(rank, heard)| format!("; rank {rank} is {}", doing(&heard.beat)))
    }

    /// How long a halt may be, by where the run halted.
    fn limit(&self) -> Duration {
        let regular = self.ranks.iter().flatten().all(|heard| heard.beat.phase.is_regular());
        let learned = self.steps.usual().filter(|_| regular).map(|usual| (usual * USUAL_TIMES).max(LEAST));
        learned.unwrap_or(self.cap).min(self.cap)
    }
}

fn is_silent(now: Duration, heard: &Heard) -> bool {
    now.saturating_sub(heard.at) > SILENT
}

/// `no sign of life for 12 s, when it was in the forward pass of step 38`.
fn place(now: Duration, heard: &Heard) -> String {
    match is_silent(now, heard) {
        true => {
            let since = now.saturating_sub(heard.at).as_secs();
            format!("it has given no sign of life for {since} s, and was {} before", doing(&heard.beat))
        }
        false => format!("it is {}", doing(&heard.beat)),
    }
}

/// `in step 38 (backward pass)`, with what it waits for.
fn doing(beat: &Beat) -> String {
    let step = beat.step.0 + 1;
    let bucket = beat.bucket.map_or_else(String::new, |bucket| format!(", bucket {bucket}"));
    match (&beat.waits_for, beat.phase) {
        (Some(what), _) => format!("waiting for the others in step {step} ({what}{bucket})"),
        (None, phase @ (Phase::Start | Phase::End)) => format!("at its {phase}"),
        (None, phase) => format!("in step {step} ({phase})"),
    }
}

#[cfg(test)]
#[path = "pulse_tests.rs"]
mod tests;
