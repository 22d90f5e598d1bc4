//! `jcs doctor`: what is there, is it added up right, is it computed right, what does overlap hide; on all workers of a job.
//!
//! Ranks tell each other what they found by [`Collective::all_gather`](collectives::Collective::all_gather) alone, so that all
//! come to the same report; rank 0 speaks. Decides nothing about training, and writes no file but the report that was asked for.

mod facts;
mod overlap;
mod step;
mod sums;
mod table;

use crate::job::Job;
use crate::whereabouts::enter;
use crate::{Error, files};
use collectives::Label;
use facts::Host;
use overlap::Overlap;
use protocol::message::Phase;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use step::StepRow;
use sums::SumRow;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// It is as it should be.
    Ok,
    /// It is not.
    Wrong,
    /// There was nothing to check.
    None,
}

impl Verdict {
    fn of(right: bool) -> Verdict {
        if right { Verdict::Ok } else { Verdict::Wrong }
    }
}

/// A check of one rank that came out wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Problem {
    rank: usize,
    host: String,
    problem: String,
}

/// The report, as `--json` writes it. Times are in seconds, sizes in bytes, rates in bytes per second.
#[derive(Debug, Serialize)]
struct Report {
    /// `ok`, or `wrong` where any check is.
    verdict: Verdict,
    workers: usize,
    /// What carries the sums, with its version.
    collectives: String,
    hosts: Vec<Host>,
    /// What is not the same on all hosts, in words.
    differences: Vec<String>,
    sums: Vec<SumRow>,
    step: Vec<StepRow>,
    overlap: Overlap,
    /// Each check that came out wrong.
    problems: Vec<Problem>,
}

/// Looks, checks and measures, on all workers of `job` together. On rank 0 `say` gets the text, part by part, and `json` names
/// the file for the report. An error of the kind [`Error::Unsound`] where a check of this rank came out wrong.
pub fn run(job: &Job, json: Option<&Path>, say: impl Fn(&str)) -> Result<(), Error> {
    let json = json.filter(|_| job.is_chief());
    let say = |text: String| {
        if job.is_chief() {
            say(&text);
        }
    };
    let output = |file: &Path, source| Error::Output { file: file.to_owned(), source };
    // Before the work, not after it.
    json.map_or(Ok(()), |file| files::check_replaceable(file).map_err(|source| output(file, source)))?;
    let report = check(job, say)?;
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default() + "\n";
        files::replace(file, text.as_bytes()).map_err(|source| output(file, source))?;
    }
    // The report is out before any rank ends the job.
    job.collective.barrier(Label::new(0, "report"))?;
    let mine = report.problems.into_iter().find(|problem| problem.rank == job.place.rank.0);
    mine.map_or(Ok(()), |mine| Err(Error::Unsound(mine.problem)))
}

fn check(job: &Job, say: impl Fn(String)) -> Result<Report, Error> {
    enter(Phase::Check);
    let (workers, collectives) = (job.place.world_size, job.collective.name());
    let hosts = facts::gather(job)?;
    let differences = facts::differences(&hosts);
    say(table::hosts(&hosts, &differences, workers, &collectives));
    enter(Phase::Check);
    let sums = sums::measure(job)?;
    say(table::sums(&sums, workers));
    enter(Phase::Check);
    let step = step::compare(job, hosts.iter().any(|host| host.facts.no_gpu.is_none()))?;
    say(table::steps(&step));
    enter(Phase::Check);
    let overlap = match step.iter().all(|row| row.verdict != Verdict::Wrong) {
        true => overlap::measure(job)?,
        false => Overlap::none("not tried, because a training step is wrong"),
    };
    say(table::overlap(&overlap));
    let problems = problems(&job.hosts, &sums, &step, &overlap);
    say(table::end(&problems));
    let verdict = Verdict::of(problems.is_empty());
    Ok(Report { verdict, workers, collectives, hosts, differences, sums, step, overlap, problems })
}

/// Everything that came out wrong, in the order of the checks.
fn problems(hosts: &[String], sums: &[SumRow], step: &[StepRow], overlap: &Overlap) -> Vec<Problem> {
    let on =
        |rank: usize, problem: String| Problem { rank, host: hosts.get(rank).cloned().unwrap_or_default(), problem };
    let sums = sums.iter().flat_map(|row| row.wrong.iter().map(|wrong| on(wrong.rank, row.problem(wrong))));
    let steps = step.iter().filter_map(|row| Some(on(row.rank?, row.problem()?)));
    let overlap = overlap.wrong.iter().map(|wrong| on(wrong.rank, wrong.problem.clone()));
    sums.chain(steps).chain(overlap).collect()
}

/// What each rank says, in rank order.
fn tell<T: Serialize + DeserializeOwned>(job: &Job, mine: &T, phase: &'static str) -> Result<Vec<T>, Error> {
    let bytes = serde_json::to_vec(mine).unwrap_or_default();
    let all = job.collective.all_gather(bytes, Label::new(0, phase))?;
    let read = |(rank, bytes): (usize, &Vec<u8>)| {
        serde_json::from_slice(bytes).map_err(|e| {
            let host = job.hosts.get(rank).map_or("?", String::as_str);
            Error::Usage(format!(
                "rank {rank} on {host} answers as another version of jcs would ({e}): give all hosts the same"
            ))
        })
    };
    all.iter().enumerate().map(read).collect()
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
    use sums::WrongSums;

    #[test]
    fn every_problem_has_its_rank_and_host() {
        let hosts = ["a".to_owned(), "b".to_owned()];
        let wrong = vec![WrongSums { rank: 1, elements: 3 }];
        let sums = [SumRow { wrong, ..SumRow::example(Verdict::Wrong) }, SumRow::example(Verdict::Ok)];
        let step = [
            StepRow { verdict: Verdict::Wrong, weights_difference: Some(0.5), ..StepRow::example(0) },
            StepRow::example(1),
            StepRow::no_gpu(false),
        ];
        let found = problems(&hosts, &sums, &step, &Overlap::none("alone"));
        let texts: Vec<String> = found.iter().map(|p| format!("{} {}: {}", p.rank, p.host, p.problem)).collect();
        assert_eq!(
            texts,
            [
                "1 b: all-reduce of 1 MiB (float32): 3 of 262144 sums are wrong",
                "0 a: a training step on cuda:0 differs from the CPU's: loss by 1.0e-5, weights by 5.0e-1, more than 1.0e-3",
            ]
        );
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert!(median(Vec::new()).is_nan());
    }
}
