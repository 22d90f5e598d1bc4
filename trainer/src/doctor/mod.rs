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

use crate::job::{Job, Meeting};
use crate::whereabouts::enter;
use crate::{Error, ddp};
use collectives::Label;
use protocol::config::{Backend, Comm, Device};
use protocol::env::Place;
use protocol::message::Phase;
use report::{Desk, Problem, Verdict};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
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
pub fn run(
    place: &Place,
    wish: &Wish,
    meet: impl FnOnce() -> Result<Meeting, Error>,
    say: impl Fn(&str),
) -> Result<Job, Error> {
    wish.check()?;
    let mut desk = Desk::open(place, wish.json, &say)?;
    let met = meet();
    if let Err(e) = &met {
        let (rank, host) = (place.rank.0, protocol::side_channel::host_name());
        desk.report.problems.push(Problem { rank, host, problem: in_words(e) });
        desk.end()?;
    }
    let meeting = met?;
    let control = meeting.on_cpus();
    let examined = examine(&meeting, &control, wish, &mut desk);
    if let Err(e) = &examined {
        desk.report.problems.push(Problem::of(&control, control.place.rank.0, in_words(e)));
    }
    desk.end()?;
    let unsound = |e: Error| Error::Unsound(in_words(&e));
    let job = examined.map_err(unsound)?;
    // The report is out before any rank ends the job.
    let waited = control.collective.barrier(Label::new(0, "report"));
    let mine = desk.report.problems.into_iter().find(|problem| problem.rank == control.place.rank.0);
    match mine {
        Some(mine) => Err(Error::Unsound(mine.problem)),
        None => waited.map(|()| job).map_err(|e| unsound(e.into())),
    }
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
    let added = desk.report.sums.iter().all(|row| row.failed.is_empty());
    desk.report.problems.extend(sums::problems(&desk.report.sums, control));
    desk.publish(table::sums(&desk.report))?;
    enter(Phase::Check);
    desk.report.step = step::compare(&job, control, desk.report.hosts.iter().any(|host| host.facts.no_gpu.is_none()))?;
    desk.report.problems.extend(desk.report.step.iter().filter_map(|row| row.problem(control)));
    desk.publish(table::steps(&desk.report.step))?;
    enter(Phase::Check);
    if added && desk.report.step.iter().all(|row| row.verdict != Verdict::Wrong) {
        desk.report.overlap = overlap::measure(&job, control)?;
    }
    desk.report.problems.extend(desk.report.overlap.problems());
    desk.publish(table::overlap(&desk.report.overlap))?;
    // What has failed can't be left in peace.
    Ok(if added && !desk.report.overlap.has_failed() { job } else { control.clone() })
}

/// Brings the workers together on the devices that are to be looked at; none, on all ranks, where any of them fails.
fn begin(meeting: &Meeting, control: &Job, wish: &Wish, desk: &mut Desk) -> Result<Option<Job>, Error> {
    if facts::cannot_begin(&desk.report.problems, wish, control.place.world_size) {
        return Ok(None);
    }
    let comm = Comm { backend: wish.backend, timeout_s: NCCL_TIMEOUT_S, ..Comm::default() };
    let job = meeting.job(wish.device, &comm);
    let mine = job.as_ref().map(drop).map_err(|e| Failure::of(e, in_words));
    if let Err(problems) = agree(control, mine, "start of the ranks")? {
        desk.report.problems.extend(problems);
        return Ok(None);
    }
    Ok(job.ok())
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
        Failure { words: words(e), waited: collective(e).is_some_and(collectives::Error::is_timeout) }
    }
}

/// What each rank came to, in rank order; or, where any failed, those that failed, without those that only waited for them.
fn agree<T: Serialize + DeserializeOwned>(
    control: &Job,
    mine: Result<T, Failure>,
    phase: &'static str,
) -> Result<Result<Vec<T>, Vec<Problem>>, Error> {
    let told = match (tell(control, &mine, phase), mine) {
        (Ok(told), _) => told,
        // What failed here has broken the way to the others, too.
        (Err(_), Err(Failure { words, .. })) => {
            return Ok(Err(vec![Problem::of(control, control.place.rank.0, words)]));
        }
        (Err(e), Ok(_)) => return Err(e),
    };
    if told.iter().all(Result::is_ok) {
        return Ok(Ok(told.into_iter().flatten().collect()));
    }
    let failures = || told.iter().enumerate().filter_map(|(rank, told)| Some((rank, told.as_ref().err()?)));
    let all_waited = failures().all(|(_, failure)| failure.waited);
    let culprits = failures().filter(|(_, failure)| all_waited || !failure.waited);
    Ok(Err(culprits.map(|(rank, failure)| Problem::of(control, rank, failure.words.clone())).collect()))
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

/// Tries what may fail within libtorch: that is part of what is asked here, and is told in the report alone.
fn attempt<T>(what: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let tried = catch_unwind(AssertUnwindSafe(what));
    std::panic::set_hook(hook);
    tried.unwrap_or_else(|panic| Err(Error::panicked(&*panic)))
}

/// Where the ranks lost each other, if they did.
fn collective(e: &Error) -> Option<&collectives::Error> {
    match e {
        Error::Collective(e) | Error::Ddp(ddp::Error::Collective(e)) => Some(e),
        _ => None,
    }
}

/// An error in a line, without advice on settings that only training has.
fn in_words(e: &Error) -> String {
    use collectives::Error::{Broken, Failed, Start, Timeout, Unfit};
    match collective(e) {
        Some(Timeout { label, .. } | Broken { label, .. } | Failed { label, .. } | Unfit { label, .. }) => {
            format!("{label}: {}", essence(e))
        }
        Some(Start { .. }) | None => essence(e),
    }
}

/// The same without where it was.
fn essence(e: &Error) -> String {
    use collectives::Error::{Broken, Failed, Start, Timeout, Unfit};
    match (collective(e), e) {
        (Some(Timeout { seconds, .. }), _) => format!("the other workers did not answer within {seconds} s"),
        (Some(Broken { .. }), _) => "not tried, because an earlier operation failed".into(),
        (Some(Failed { problem, .. } | Unfit { problem, .. }), _) => problem.clone(),
        (_, Error::Memory(problem)) => format!("out of memory: {problem}"),
        (Some(Start { .. }) | None, _) => e.to_string().lines().next().unwrap_or_default().to_owned(),
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

    #[test]
    fn what_fails_within_libtorch_is_an_error_in_a_line() {
        let mismatched = || Ok(tch::Tensor::from_slice(&[1.0, 2.0]) + tch::Tensor::from_slice(&[1.0, 2.0, 3.0]));
        let said = in_words(&attempt(mismatched).unwrap_err());
        assert!(
            said.starts_with("libtorch: Internal torch error: The size of tensor a (2)") && !said.contains('\n'),
            "{said}"
        );
        let short = in_words(&Error::Memory("DefaultCPUAllocator: not enough memory".into()));
        assert_eq!(short, "out of memory: DefaultCPUAllocator: not enough memory");
    }

    #[test]
    fn what_failed_in_a_bucket_is_told_without_advice_for_training() {
        let label = Label::bucket(3, 1, "gradient all-reduce");
        let late = || collectives::Error::Timeout { rank: 0, label, seconds: 30.0 };
        let words = "step 3, bucket 1, gradient all-reduce: the other workers did not answer within 30 s";
        let bucket = Error::Ddp(ddp::Error::Collective(late()));
        assert_eq!((in_words(&bucket).as_str(), in_words(&late().into()).as_str()), (words, words));
        assert!(Failure::of(&bucket, in_words).waited);
        let broken = Error::Collective(collectives::Error::Broken { rank: 0, label });
        assert!(!in_words(&broken).contains("rank") && !Failure::of(&broken, essence).waited);
    }
}
