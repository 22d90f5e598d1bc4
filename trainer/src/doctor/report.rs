//! The report: what it holds, and how it gets out while it grows.

use super::facts::Host;
use super::overlap::Overlap;
use super::step::StepRow;
use super::sums::SumRow;
use super::{UNTRIED, table};
use crate::Error;
use crate::files::Target;
use crate::job::Job;
use protocol::env::Place;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It is as it should be.
    Ok,
    /// It is not.
    Wrong,
    /// There was nothing to check.
    None,
}

impl Verdict {
    pub(super) fn of(right: bool) -> Verdict {
        if right { Verdict::Ok } else { Verdict::Wrong }
    }
}

/// What is wrong on a rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) rank: usize,
    pub(super) host: String,
    pub(super) problem: String,
}

impl Problem {
    /// On a rank of this job.
    pub(super) fn of(job: &Job, rank: usize, problem: String) -> Problem {
        Problem { rank, host: job.hosts.get(rank).cloned().unwrap_or_default(), problem }
    }
}

/// The report, as `--json` writes it. Times are in seconds, sizes in bytes, rates in bytes per second.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// `wrong` until everything was looked at and is as it should be.
    pub(super) verdict: Verdict,
    /// Whether everything was looked at, as far as what is wrong allows it.
    pub(super) finished: bool,
    pub(super) workers: usize,
    /// What carries the sums, with its version; none where the workers did not come together.
    pub(super) collectives: Option<String>,
    pub(super) hosts: Vec<Host>,
    /// What is not the same on all hosts, in words.
    pub(super) differences: Vec<String>,
    pub(super) sums: Vec<SumRow>,
    pub(super) step: Vec<StepRow>,
    pub(super) overlap: Overlap,
    /// Everything that is wrong, in the order in which it was found.
    pub(super) problems: Vec<Problem>,
}

impl Report {
    pub(super) fn begun(workers: usize) -> Report {
        Report {
            verdict: Verdict::Wrong,
            finished: false,
            workers,
            collectives: None,
            hosts: Vec::new(),
            differences: Vec::new(),
            sums: Vec::new(),
            step: Vec::new(),
            overlap: Overlap::none(UNTRIED),
            problems: Vec::new(),
        }
    }
}

/// Where rank 0 gives the report out. On other ranks nothing comes out.
pub(super) struct Desk<'a> {
    pub(super) report: Report,
    json: Option<(&'a Path, Target)>,
    say: Option<&'a dyn Fn(&str)>,
}

impl<'a> Desk<'a> {
    /// The file shows from now on that nothing is known yet, whatever an earlier run left there.
    pub(super) fn open(place: &Place, json: Option<&'a Path>, say: &'a dyn Fn(&str)) -> Result<Desk<'a>, Error> {
        let chief = place.rank.0 == 0;
        let target = |file| Target::of(file).map(|target| (file, target)).map_err(|source| unwritten(file, source));
        let json = json.filter(|_| chief).map(target).transpose()?;
        let desk = Desk { report: Report::begun(place.world_size), json, say: chief.then_some(say) };
        desk.write()?;
        Ok(desk)
    }

    /// Says a part that is done, and keeps it.
    pub(super) fn publish(&self, text: String) -> Result<(), Error> {
        if let Some(say) = self.say {
            say(&text);
        }
        self.write()
    }

    /// Comes to the verdict.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.report.finished = true;
        self.report.verdict = Verdict::of(self.report.problems.is_empty());
        self.publish(table::end(&self.report.problems))
    }

    /// A pipe gets the report once, when it is finished.
    fn write(&self) -> Result<(), Error> {
        let Some((file, target)) = &self.json else { return Ok(()) };
        if !target.is_plain() && !self.report.finished {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&self.report).unwrap_or_default() + "\n";
        target.put(text.as_bytes()).map_err(|source| unwritten(file, source))
    }
}

fn unwritten(file: &Path, source: std::io::Error) -> Error {
    Error::Output { file: file.to_owned(), source }
}
