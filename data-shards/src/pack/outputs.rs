//! The folder that is packed into.
//!
//! Duty: whose it is, what an earlier run has left in it, and its last files. Must not: decide what goes into a shard.
//!
//! While it is packed the folder has `.pack/`, for its owner alone: `plan.json` with the fingerprints, `lock`, and a small
//! file for each finished shard. The index is written when all shards are there, and `.pack/` removed after that.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PackError;
use super::ids::Ids;
use super::plan::{Plan, ShardPlan};
use super::report::{self, LeftOut, Report, SplitReport};
use super::run::{Done, SplitDone};
use crate::shard::{self, Collection, Finished, Index, Kind, ShardReader};

const WORK: &str = ".pack";
const PLAN: &str = "plan.json";
const REPORT: &str = "report.json";

/// The folder, while it is packed into.
pub(crate) struct Output {
    out: PathBuf,
    /// What is to be noted of leaks that were allowed, and of what may be some.
    pub(crate) leaks: Vec<String>,
    /// Held until the pack ends, however that is.
    _lock: Option<File>,
}

pub(crate) enum State {
    /// Nothing is there.
    Fresh(Output),
    /// An interrupted run of the same plan.
    Begun(Output),
    /// A complete one.
    Complete(Box<Report>),
}

#[derive(Serialize, Deserialize)]
struct Begun {
    source: String,
    options: String,
    leaks: Vec<String>,
}

/// What a complete data set's own report says.
#[derive(Deserialize)]
struct Told {
    plan: String,
    left_out: Vec<LeftOut>,
    notes: Vec<String>,
}

/// The file with names and reasons, beside the data set: `OUT.report.json`.
pub fn private_report(out: &Path) -> PathBuf {
    beside(out, ".report.json")
}

/// A file next to the folder, called as it is with something behind.
pub(crate) fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    out.with_file_name(name)
}

/// The folder by a name that ends in its own.
pub(crate) fn named(out: &Path) -> Result<PathBuf, PackError> {
    if out.file_name().is_some() {
        return Ok(out.to_owned());
    }
    out.canonicalize().map_err(|source| PackError::Write { path: out.to_owned(), source })
}

/// Makes the folder that the key and the data set lie in.
pub(crate) fn make_parent(out: &Path) -> Result<(), PackError> {
    match out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        None => Ok(()),
        Some(parent) => {
            fs::create_dir_all(parent).map_err(|source| PackError::Write { path: parent.to_owned(), source })
        }
    }
}

/// Refuses a folder with anything in it that no pack has made.
pub(crate) fn refuse_foreign(out: &Path) -> Result<(), PackError> {
    let occupied = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => true,
        Err(source) => return Err(PackError::Write { path: out.to_owned(), source }),
    };
    let ours = out.join(WORK).is_dir() || out.join(REPORT).is_file() && out.join(shard::INDEX).is_file();
    if occupied && !ours { Err(PackError::Occupied { out: out.to_owned() }) } else { Ok(()) }
}

impl Output {
    /// Finds out what is there.
    pub(crate) fn open(out: &Path, plan: &Plan) -> Result<State, PackError> {
        let output = Output { out: out.to_owned(), leaks: Vec::new(), _lock: None };
        let path = output.out.join(WORK).join(PLAN);
        if let Ok(text) = fs::read(&path) {
            let before: Option<Begun> = serde_json::from_slice(&text).ok();
            let what = match before {
                None => "the plan",
                Some(before) if before.options != plan.options => "the options or the key",
                Some(before) if before.source != plan.source => "the source",
                Some(Begun { leaks, .. }) => return Ok(State::Begun(Output { leaks, ..output.locked()? })),
            };
            return Err(PackError::Changed { out: output.out, what: what.to_owned() });
        }
        if output.out.join(shard::INDEX).is_file() {
            return output.complete(plan);
        }
        Ok(State::Fresh(output))
    }

    fn complete(&self, plan: &Plan) -> Result<State, PackError> {
        let text = fs::read(self.out.join(REPORT)).unwrap_or_default();
        let report: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        if report.get("plan").and_then(serde_json::Value::as_str) != Some(&plan.fingerprint()) {
            return Err(PackError::Changed {
                out: self.out.clone(),
                what: "the source, the options or the key".to_owned(),
            });
        }
        // Left where an earlier run was killed at its very end.
        let _ = fs::remove_dir_all(self.out.join(WORK));
        let sets = Collection::open(&self.out).map_err(PackError::Shard)?.sets;
        let splits = sets.iter().map(|set| described(set.split.clone(), &set.dir)).collect::<Result<Vec<_>, _>>()?;
        let patients = report.get("patients").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let (left_out, notes) = self.told(plan);
        Ok(State::Complete(Box::new(Report {
            plan: plan.fingerprint(),
            kept: splits.iter().map(|split| split.shards).sum(),
            splits,
            patients: usize::try_from(patients).unwrap_or_default(),
            left_out,
            notes,
            already: true,
        })))
    }

    /// What was left out and noted when the data set was packed: more than the plan knows, unless that report is gone.
    fn told(&self, plan: &Plan) -> (Vec<LeftOut>, Vec<String>) {
        let text = fs::read(private_report(&self.out)).unwrap_or_default();
        let told = serde_json::from_slice(&text).ok().filter(|told: &Told| told.plan == plan.fingerprint());
        told.map_or_else(|| (plan.left_out.clone(), plan.notes.clone()), |told| (told.left_out, told.notes))
    }

    /// Makes the folder, and says in it what it is for.
    pub(crate) fn begin(self, plan: &Plan, leaks: Vec<String>) -> Result<Output, PackError> {
        let work = self.out.join(WORK);
        let private = || DirBuilder::new().recursive(true).mode(0o700).create(&work);
        let made = fs::create_dir_all(&self.out).and_then(|()| private());
        made.map_err(|source| PackError::Write { path: work.clone(), source })?;
        let output = Output { leaks, ..self.locked()? };
        let (source, options, leaks) = (plan.source.clone(), plan.options.clone(), output.leaks.clone());
        write_json(&work.join(PLAN), &Begun { source, options, leaks })?;
        Ok(output)
    }

    fn locked(self) -> Result<Output, PackError> {
        let path = self.out.join(WORK).join("lock");
        let failed = |source| PackError::Write { path: path.clone(), source };
        let file = File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Output { _lock: Some(file), ..self }),
            Err(TryLockError::WouldBlock) => Err(PackError::Busy { out: self.out }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The folder of a split, which is made.
    pub(crate) fn split_dir(&self, split: Option<&str>) -> Result<PathBuf, PackError> {
        let dir = split.map_or_else(|| self.out.clone(), |split| self.out.join(split));
        fs::create_dir_all(&dir).map_err(|source| PackError::Write { path: dir.clone(), source })?;
        Ok(dir)
    }

    /// A shard that is finished and still there.
    pub(crate) fn load(&self, plan: &ShardPlan, dir: &Path) -> Option<Done> {
        let text = fs::read(self.side_file(plan)).ok()?;
        let done: Done = serde_json::from_slice(&text).ok()?;
        let there = |finished: &Finished| finished.name == plan.name && finished.is_in(dir);
        done.finished.as_ref().is_none_or(there).then_some(done)
    }

    pub(crate) fn save(&self, plan: &ShardPlan, done: &Done) -> Result<(), PackError> {
        write_json(&self.side_file(plan), done)
    }

    fn side_file(&self, plan: &ShardPlan) -> PathBuf {
        self.out.join(WORK).join(format!("{}.json", plan.name))
    }

    /// Writes reports and indices; the folder is complete after the last of them.
    pub(crate) fn finish(self, plan: &Plan, done: Vec<SplitDone>, ids: &Ids) -> Result<Report, PackError> {
        let mut report = Report {
            plan: plan.fingerprint(),
            splits: Vec::new(),
            patients: 0,
            left_out: plan.left_out.clone(),
            notes: plan.notes.iter().chain(&self.leaks).cloned().collect(),
            kept: done.iter().map(|split| split.kept).sum(),
            already: false,
        };
        report.left_out.extend(done.iter().flat_map(|split| &split.shards).flat_map(|done| done.left_out.clone()));
        report.left_out.sort();
        report.left_out.dedup();
        let mut sets: Vec<(Option<&str>, Vec<Finished>)> = Vec::new();
        for (split, done) in plan.splits.iter().zip(done) {
            let shards: Vec<Finished> = done.shards.into_iter().filter_map(|done| done.finished).collect();
            match (shards.is_empty(), &split.split) {
                (false, _) => sets.push((split.split.as_deref(), shards)),
                (true, name) => report
                    .notes
                    .push(format!("split {}: nothing of it could be packed", name.as_deref().unwrap_or("data"))),
            }
        }
        if sets.is_empty() {
            let problem = "nothing could be packed:".to_owned();
            return Err(PackError::Nothing { from: self.out.clone(), problem, left_out: report.left_out });
        }
        report.splits = sets.iter().map(|(split, shards)| summed(*split, shards)).collect();
        let rows = sets.iter().flat_map(|(_, shards)| shards).flat_map(|shard| &shard.rows);
        report.patients = report::patients(rows.map(|row| row.patient.as_deref()));
        self.publish(sets, &report, ids)?;
        Ok(report)
    }

    fn publish(&self, sets: Vec<(Option<&str>, Vec<Finished>)>, report: &Report, ids: &Ids) -> Result<(), PackError> {
        write_json(&self.out.join(REPORT), &report.public(ids))?;
        let private = private_report(&self.out);
        shard::privately(&private, &json(&private, &report.private(ids))?).map_err(PackError::Shard)?;
        let names: Vec<&str> = sets.iter().filter_map(|(split, _)| *split).collect();
        for (split, shards) in sets {
            shard::write_index(&self.split_dir(split)?, split, shards).map_err(PackError::Shard)?;
        }
        if !names.is_empty() {
            shard::write_collection(&self.out, &names).map_err(PackError::Shard)?;
        }
        let work = self.out.join(WORK);
        fs::remove_dir_all(&work).map_err(|source| PackError::Write { path: work, source })
    }
}

fn json(path: &Path, value: &impl Serialize) -> Result<Vec<u8>, PackError> {
    let failed = |error| PackError::Write { path: path.to_owned(), source: io::Error::other(error) };
    let mut text = serde_json::to_vec_pretty(value).map_err(failed)?;
    text.push(b'\n');
    Ok(text)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), PackError> {
    shard::atomically(path, &json(path, value)?).map_err(PackError::Shard)
}

fn summed(split: Option<&str>, shards: &[Finished]) -> SplitReport {
    let rows = || shards.iter().flat_map(|shard| &shard.rows);
    let labelled = |label| rows().filter(|row| row.label == label).count();
    SplitReport {
        split: split.map(str::to_owned),
        samples: rows().count(),
        patients: report::patients(rows().map(|row| row.patient.as_deref())),
        labels: [Some(true), Some(false), None].map(labelled),
        masks: rows().filter(|row| row.members.iter().any(|member| member.kind == Kind::Mask)).count(),
        shards: shards.len(),
        bytes: shards.iter().map(|shard| shard.bytes).sum(),
    }
}

/// Describes a split of a complete data set, and sees that its shards are there.
fn described(split: Option<String>, dir: &Path) -> Result<SplitReport, PackError> {
    let index = Index::open(dir).map_err(PackError::Shard)?;
    for (number, shard) in index.shards().iter().enumerate() {
        ShardReader::open(&index, number, &dir.join(&shard.name)).map_err(PackError::Shard)?;
    }
    let samples = || 0..index.len();
    let labelled = |label| samples().filter(|at| index.label(*at) == label).count();
    Ok(SplitReport {
        split,
        samples: index.len(),
        patients: index.patients().len(),
        labels: [Some(true), Some(false), None].map(labelled),
        masks: samples().filter(|at| index.kinds(*at).has(Kind::Mask)).count(),
        shards: index.shards().len(),
        bytes: index.shards().iter().map(|shard| shard.bytes).sum(),
    })
}
