//! `jcs doctor`: what is there, is it added up right, is it computed right, what does overlap hide; on all workers of a job.
//!
//! The workers meet by MPI on CPUs first, and tell each other there what they found, so that all come to the same report, of
//! what is broken, too; rank 0 speaks. Decides nothing about training, and writes no file but the report that was asked for.

mod facts;
mod overlap;
mod report;
mod step;
mod sums;
mod table;

use crate::Error;
use crate::job::{Job, Meeting};
use crate::whereabouts::enter;
use collectives::Label;
use overlap::Overlap;
use protocol::config::{Backend, Comm, Device};
use protocol::message::Phase;
use report::{Desk, Problem, Verdict};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// How long a worker may let the others wait for its word.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// The same over NCCL, in seconds: a worker that gave up there is still heard.
const NCCL_TIMEOUT_S: f64 = 30.0;
const UNTRIED: &str = "not tried, because something before it is wrong";

/// What is to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// `--device`
    pub device: Device,
    /// `--backend`
    pub backend: Backend,
    /// Where the report goes as JSON.
    pub json: Option<&'a Path>,
}

impl Wish<'_> {
    fn check(&self) -> Result<(), Error> {
        match (self.device, self.backend) {
            (Device::Cuda, Backend::Mpi) => Err(Error::Usage(
                "--backend mpi adds up on CPUs, and --device cuda computes on GPUs: --backend nccl, or --device cpu"
                    .into(),
            )),
            _ => Ok(()),
        }
    }
}

/// Looks, checks and measures, on all workers together, and returns the job that they came to, to be left. On rank 0 `say`
/// gets the text, part by part. An error of the kind [`Error::Unsound`] where a check of this rank came out wrong, or could
/// not be made; the report is out by then.
pub fn run(meeting: &Meeting, wish: &Wish, say: impl Fn(&str)) -> Result<Job, Error> {
    wish.check()?;
    let control = meeting.on_cpus();
    let mut desk = Desk::open(&control, wish.json, &say)?;
    let examined = examine(meeting, &control, wish, &mut desk);
    if let Err(e) = &examined {
        desk.report.problems.push(Problem::of(&control, control.place.rank.0, in_words(e)));
    }
    desk.end()?;
    let job = examined.map_err(|e| Error::Unsound(in_words(&e)))?;
    // The report is out before any rank ends the job.
    control.collective.barrier(Label::new(0, "report"))?;
    let mine = desk.report.problems.into_iter().find(|problem| problem.rank == control.place.rank.0);
    mine.map_or(Ok(job), |mine| Err(Error::Unsound(mine.problem)))
}

fn examine(meeting: &Meeting, control: &Job, wish: &Wish, desk: &mut Desk) -> Result<Job, Error> {
    enter(Phase::Check);
    let (hosts, problems) = facts::gather(control, wish)?;
    desk.report.problems = problems;
    desk.report.differences = facts::differences(&hosts);
    desk.report.hosts = hosts;
    desk.publish(table::hosts(&desk.report))?;
    let Some(job) = begin(meeting, control, wish, desk)? else { return Ok(control.clone()) };
    desk.report.collectives = Some(job.collective.name());
    enter(Phase::Check);
    desk.report.sums = sums::measure(&job, control)?;
    let sound = desk.report.sums.iter().all(|row| row.failed.is_empty());
    desk.report.problems.extend(sums::problems(&desk.report.sums, control));
    desk.publish(table::sums(&desk.report))?;
    enter(Phase::Check);
    desk.report.step = step::compare(&job, control, desk.report.hosts.iter().any(|host| host.facts.no_gpu.is_none()))?;
    desk.report.problems.extend(desk.report.step.iter().filter_map(|row| row.problem(control)));
    desk.publish(table::steps(&desk.report.step))?;
    enter(Phase::Check);
    desk.report.overlap = match sound && desk.report.step.iter().all(|row| row.verdict != Verdict::Wrong) {
        true => overlap::measure(&job)?,
        false => Overlap::none(UNTRIED),
    };
    let wrong = &desk.report.overlap.wrong;
    let wrong = wrong.iter().map(|wrong| Problem::of(control, wrong.rank, wrong.problem.clone()));
    desk.report.problems.extend(wrong);
    desk.publish(table::overlap(&desk.report.overlap))?;
    // What has failed can't be left in peace.
    Ok(if sound { job } else { control.clone() })
}

/// Brings the workers together on the devices that are to be looked at; none, on all ranks, where any of them fails.
fn begin(meeting: &Meeting, control: &Job, wish: &Wish, desk: &mut Desk) -> Result<Option<Job>, Error> {
    if facts::cannot_begin(&desk.report.problems, wish, control.place.world_size) {
        return Ok(None);
    }
    let comm = Comm { backend: wish.backend, timeout_s: NCCL_TIMEOUT_S, ..Comm::default() };
    let job = meeting.job(wish.device, &comm);
    let told = tell(control, &job.as_ref().err().map(|e| Failure::of(e, in_words)), "start of the ranks")?;
    let failed = told.iter().any(Option::is_some);
    desk.report.problems.extend(blamed(told, control));
    Ok(job.ok().filter(|_| !failed))
}

/// How something failed on a rank.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    words: String,
    /// Whether all that is known there is that others did not come.
    waited: bool,
}

impl Failure {
    fn of(e: &Error, words: fn(&Error) -> String) -> Failure {
        Failure { words: words(e), waited: matches!(e, Error::Collective(e) if e.is_timeout()) }
    }
}

/// The ranks that failed, without those that only waited for them.
fn blamed(told: Vec<Option<Failure>>, control: &Job) -> Vec<Problem> {
    let all_waited = told.iter().flatten().all(|failure| failure.waited);
    let failures = told.into_iter().enumerate().filter_map(|(rank, failure)| Some((rank, failure?)));
    let culprits = failures.filter(|(_, failure)| all_waited || !failure.waited);
    culprits.map(|(rank, failure)| Problem::of(control, rank, failure.words)).collect()
}

/// What each rank says, in rank order.
fn tell<T: Serialize + DeserializeOwned>(control: &Job, mine: &T, phase: &'static str) -> Result<Vec<T>, Error> {
    let bytes = serde_json::to_vec(mine).unwrap_or_default();
    let all = control.collective.all_gather(bytes, Label::new(0, phase))?;
    let read = |(rank, bytes): (usize, &Vec<u8>)| {
        serde_json::from_slice(bytes).map_err(|e| {
            let host = control.hosts.get(rank).map_or("?", String::as_str);
            Error::Usage(format!(
                "rank {rank} on {host} answers as another version of jcs would ({e}): give all hosts the same"
            ))
        })
    };
    all.iter().enumerate().map(read).collect()
}

/// An error, without advice on settings that only training has.
fn in_words(e: &Error) -> String {
    match e {
        Error::Collective(collectives::Error::Timeout { label, .. } | collectives::Error::Failed { label, .. }) => {
            format!("{label}: {}", essence(e))
        }
        _ => essence(e),
    }
}

/// The same without where it was.
fn essence(e: &Error) -> String {
    match e {
        Error::Collective(collectives::Error::Timeout { seconds, .. }) => {
            format!("the other workers did not answer within {seconds} s")
        }
        Error::Collective(collectives::Error::Failed { problem, .. }) => problem.clone(),
        other => other.to_string(),
    }
}

/// The middle of some numbers, NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A number that JSON can tell.
fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

/// A relative difference in words.
fn scientific(x: Option<f64>) -> String {
    match x {
        Some(0.0) => "0".into(),
        Some(x) => format!("{x:.1e}"),
        None => "no number".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
