//! What the hosts' answers mean: who cannot take part, why, and what to do about it. Pure.

use super::report::{Check, Finding, HostReport, Report};
use super::script::{Answer, Expected, Gpus, Worker};
use crate::plan::Share;

/// KiB in a MiB, and in a GiB.
const MIB: u64 = 1 << 10;
const GIB: u64 = 1 << 20;

/// Room that a run directory must have. A checkpoint of the smallest network at full width takes half of it (weights and two
/// moments), and the last one stays until the next is complete.
const DISK: u64 = GIB;
/// Open MPI gives each of several workers on a host a segment of so much in `/dev/shm` (`btl_sm_segment_size`). One that finds
/// no room for it silently sends over loopback; one that finds room for the segment and later none for its pages dies of SIGBUS.
const SHM_OF_WORKER: u64 = 16 * MIB;
/// mpirun and its daemons keep sockets, and memory that they share with the workers, in their session's folder.
const SESSION: u64 = 16 * MIB;
/// Seconds that clocks may differ: by more, times of files and lines of logs mislead.
const SKEW: f64 = 5.0;

/// What came of asking a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// Its answer, or why there is none.
    pub answer: Result<Answer, String>,
    /// When it was asked, in seconds since 1970 by this machine's clock.
    pub began: f64,
    /// When the answer was there.
    pub ended: f64,
}

/// This machine, with which the others are compared.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its name.
    pub host: &'a str,
    /// Its answer.
    pub heard: &'a Heard,
}

impl Heard {
    /// No answer.
    pub fn silent(why: &str) -> Heard {
        Heard { answer: Err(why.into()), began: 0.0, ended: 0.0 }
    }

    fn name(&self) -> Option<&str> {
        self.answer.as_ref().ok()?.name.as_deref()
    }
}

/// Judges the answers of `hosts`, which come in their order.
pub fn judge(hosts: &[Share], answers: &[Heard], expected: &Expected, here: &Here) -> Report {
    let silent = Heard::silent("was not asked");
    let answer = |i: usize| answers.get(i).unwrap_or(&silent);
    let twin = |i: usize| {
        let name = answer(i).name()?;
        let earlier = hosts.iter().take(i).enumerate().find(|(j, _)| answer(*j).name() == Some(name));
        earlier.map(|(_, share)| share.host.as_str())
    };
    let reports = hosts.iter().enumerate().map(|(i, share)| {
        let case = Case { share, expected, here: here.heard.answer.as_ref().ok(), here_name: here.host };
        case.report(answer(i), twin(i))
    });
    Report { hosts: reports.collect() }
}

/// A host, and what its answer is measured by.
struct Case<'a> {
    share: &'a Share,
    expected: &'a Expected,
    here: Option<&'a Answer>,
    here_name: &'a str,
}

/// What was found on a host so far.
#[derive(Default)]
struct Findings {
    problems: Vec<Finding>,
    warnings: Vec<Finding>,
}

impl Findings {
    fn problem(&mut self, check: Check, found: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Finding { check, found: found.into(), remedy: remedy.into() });
    }

    fn warning(&mut self, check: Check, found: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Finding { check, found: found.into(), remedy: remedy.into() });
    }
}

impl Case<'_> {
    fn report(&self, heard: &Heard, twin: Option<&str>) -> HostReport {
        let mut findings = Findings::default();
        let host = self.share.host.clone();
        match (&heard.answer, twin) {
            (Err(why), _) => findings.problem(Check::Reach, why, REACH),
            (Ok(answer), _) if answer.name.is_none() || !answer.whole => {
                let remedy = "see what a login shell there prints and runs; it must start /bin/sh";
                findings.problem(Check::Reach, "the answer makes no sense", remedy);
            }
            // All else was said of the other name.
            (Ok(answer), Some(twin)) => self.twin(&mut findings, answer, twin),
            (Ok(answer), None) => self.look(&mut findings, answer, heard),
        }
        let shares = heard.answer.as_ref().ok().and_then(|answer| answer.run_dir.as_ref()).map(|dir| dir.shared);
        HostReport {
            host,
            reached: heard.answer.is_ok(),
            problems: findings.problems,
            warnings: findings.warnings,
            shares_run_dir: shares,
        }
    }

    fn twin(&self, findings: &mut Findings, answer: &Answer, twin: &str) {
        let name = answer.name.as_deref().unwrap_or_default();
        let found = format!("{twin} and {} both call themselves {name}", self.share.host);
        findings.problem(Check::Name, found, "every host needs a name of its own, and stands in the list once");
    }

    fn look(&self, findings: &mut Findings, answer: &Answer, heard: &Heard) {
        if answer.no_folder {
            let found = format!("no directory {} there", self.expected.folder);
            return findings.problem(
                Check::Folder,
                found,
                "mount it there, or start from a directory that every host has",
            );
        }
        self.programs(findings, answer);
        self.worker(findings, answer);
        self.files(findings, answer);
        self.data(findings, answer);
        self.run_dir(findings, answer);
        self.memory(findings, answer);
        self.gpus(findings, answer);
        clock(findings, heard, answer);
    }

    fn programs(&self, findings: &mut Findings, answer: &Answer) {
        for program in answer.no_programs.iter().filter_map(|i| self.expected.programs.get(*i)) {
            findings.problem(Check::Programs, format!("no program {program} there"), SAME_PLACE);
        }
    }

    fn worker(&self, findings: &mut Findings, answer: &Answer) {
        let (program, here) = (&self.expected.worker, self.here_name);
        match (&answer.worker, self.here.map(|here| &here.worker)) {
            (Worker::Missing, _) => {
                findings.problem(Check::Programs, format!("no program {program} there"), SAME_PLACE)
            }
            (Worker::Broken(why), _) => {
                let remedy =
                    "put its libraries there, too: copy the whole directory of the programs (make dist makes one)";
                findings.problem(Check::Programs, format!("{program} does not start there: {why}"), remedy);
            }
            (Worker::Runs { version, .. }, Some(Worker::Runs { version: own, .. })) if version != own => {
                findings.problem(Check::Version, format!("{version} there, {own} on {here}"), SAME_VERSION);
            }
            (Worker::Runs { version, sum }, Some(Worker::Runs { sum: own, .. })) => {
                if let Some((there, own)) = differing(sum.as_deref(), own.as_deref()) {
                    let found = format!("another build of {version}: {} there, {} on {here}", short(there), short(own));
                    findings.problem(Check::Version, found, SAME_VERSION);
                }
            }
            _ => {}
        }
    }

    fn files(&self, findings: &mut Findings, answer: &Answer) {
        for (i, file) in self.expected.files.iter().enumerate() {
            let own = self.here.and_then(|here| here.files.get(i)).and_then(Option::as_deref);
            match answer.files.get(i) {
                // Nobody asked: the launcher itself has read it.
                None => {}
                Some(None) => findings.problem(Check::Config, format!("no file {file} there"), SAME_PLACE),
                Some(Some(sum)) if differing(Some(sum), own).is_some() => {
                    let found = format!("{file} has another content there than on {}", self.here_name);
                    findings.problem(Check::Config, found, "copy the one that is meant to every host");
                }
                Some(Some(_)) => {}
            }
        }
    }

    fn data(&self, findings: &mut Findings, answer: &Answer) {
        for (key, path) in answer.no_data.iter().filter_map(|i| self.expected.data.get(*i)) {
            let remedy = format!("copy or mount it there, or set {key}");
            findings.problem(Check::Data, format!("no {key} there: {path}"), remedy);
        }
    }

    fn run_dir(&self, findings: &mut Findings, answer: &Answer) {
        let (Some(wanted), Some(dir)) = (&self.expected.run_dir, &answer.run_dir) else { return };
        if let Some(why) = &dir.closed {
            let found = format!("cannot write {wanted}: {}: {why}", dir.folder);
            return findings.problem(Check::RunDir, found, "run.dir=PATH names another");
        }
        if let Some(free) = dir.free.filter(|free| *free < DISK) {
            let found = format!("{} free for {wanted}, {} needed", size(free), size(DISK));
            findings.problem(Check::Disk, found, "make room for two checkpoints, or run.dir=PATH on a larger disk");
        }
    }

    fn memory(&self, findings: &mut Findings, answer: &Answer) {
        let workers = self.share.workers;
        let needed = SHM_OF_WORKER * workers as u64;
        if let Some(free) = answer.shm.filter(|free| workers > 1 && *free < needed) {
            let found = format!("{} free, {workers} workers need {}", size(free), size(needed));
            let remedy =
                "empty it, or make it larger (in a container: --shm-size; in a pod: an emptyDir with medium: Memory)";
            findings.problem(Check::Shm, found, remedy);
        }
        let Some((folder, free)) = &answer.tmp else { return };
        let remedy = "TMPDIR names another folder (in ssh's environment there, too)";
        if let Some(why) = &answer.tmp_closed {
            findings.problem(Check::Tmp, format!("mpirun cannot write to {folder}: {why}"), remedy);
        } else if *free < SESSION {
            let found = format!("{} free in {folder}, mpirun needs {}", size(*free), size(SESSION));
            findings.problem(Check::Tmp, found, remedy);
        }
    }

    fn gpus(&self, findings: &mut Findings, answer: &Answer) {
        if self.expected.gpus == Gpus::None {
            return;
        }
        if self.expected.gpus == Gpus::Required && answer.gpus == Some(0) && answer.driver.is_none() {
            let found = "no GPU and no NVIDIA driver, and the configuration asks for GPUs (run.device, comm.backend)";
            return findings.problem(Check::Gpus, found, "run.device=cpu comm.backend=mpi, or leave it out");
        }
        let workers = self.share.workers;
        // Parts of a GPU (MIG) are not counted: where this machine has too few by this count, it says nothing.
        let counts_here = self.here.and_then(|here| here.gpus).is_some_and(|gpus| gpus >= workers);
        if let Some(gpus) = answer.gpus.filter(|gpus| *gpus < workers && counts_here) {
            let found = format!("{gpus} GPUs, {workers} workers planned");
            findings.problem(
                Check::Gpus,
                found,
                format!("give it fewer workers ({}:{gpus}), or leave it out", self.share.host),
            );
        }
        if let Some(why) = &answer.gpus_untold {
            findings.warning(Check::Gpus, why, "whether the workers can use the GPUs is seen when they start");
        }
        // A worker takes the GPU of its number on the host.
        if let Some((_, why)) = answer.gpus_unfit.iter().find(|(number, _)| *number < workers) {
            let remedy = "run.device=cpu, or leave it out";
            // Where GPUs are only used if there are any, the processor does.
            match self.expected.gpus {
                Gpus::Required => findings.problem(Check::Gpus, why, remedy),
                Gpus::Perhaps | Gpus::None => findings.warning(Check::Gpus, why, remedy),
            }
        }
        self.driver(findings, answer);
    }

    fn driver(&self, findings: &mut Findings, answer: &Answer) {
        let Some(version) = &answer.driver else { return };
        let major = |version: &str| version.split('.').next().and_then(|part| part.parse::<u32>().ok());
        if let Some(own) = self.here.and_then(|here| here.driver.as_deref()).filter(|own| major(own) != major(version))
        {
            let found = format!("NVIDIA driver {version} there, {own} on {}", self.here_name);
            findings.warning(Check::Driver, found, "the same driver on every host spares surprises");
        }
    }
}

const REACH: &str = "see that the name is right, the host up, and that it lets you in without a password";
const SAME_PLACE: &str = "put it at the same path on every host: copy or mount it";
const SAME_VERSION: &str = "install the same programs on every host";

/// The middle of the host's work and the middle of this machine's wait for it are the same moment, but for half the time of
/// the way.
fn clock(findings: &mut Findings, heard: &Heard, answer: &Answer) {
    let Some((first, last)) = answer.clock else { return };
    let ahead = (first + last) / 2.0 - (heard.began + heard.ended) / 2.0;
    if ahead.abs() > SKEW {
        let way = if ahead > 0.0 { "ahead" } else { "behind" };
        let found = format!("{:.0} s {way}", ahead.abs());
        findings.warning(Check::Clock, found, "set the clocks by NTP: times of files and logs mislead");
    }
}

/// Both, where they are checksums of the same kind and differ.
fn differing<'a>(there: Option<&'a str>, here: Option<&'a str>) -> Option<(&'a str, &'a str)> {
    let (there, here) = (there?, here?);
    let kind = |sum: &str| sum.split_once(':').map(|(kind, _)| kind.to_owned());
    (there != here && kind(there) == kind(here)).then_some((there, here))
}

/// `sha256:2d711642…`
fn short(sum: &str) -> String {
    let (kind, digits) = sum.split_once(':').unwrap_or(("", sum));
    format!("{kind} {}…", digits.chars().take(8).collect::<String>())
}

fn size(kib: u64) -> String {
    match kib {
        0..MIB => format!("{kib} KiB"),
        MIB..GIB => format!("{} MiB", kib / MIB),
        _ => format!("{:.1} GiB", kib as f64 / GIB as f64),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
