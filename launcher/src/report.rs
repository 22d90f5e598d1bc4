//! What the launcher says and writes about a job: the plan, the last line, summary.json. Decides
//! nothing.

use crate::attempt::Outcome;
use crate::cause::{Cause, signal_name};
use crate::nodes::Reach;
use crate::plan::{Plan, Start, Worker};
use crossbeam_channel::bounded;
use protocol::{Exit, Step, without_credentials};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt::{self, Write as _};
use std::fs::TryLockError;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long standard error may take for a line.
const PATIENCE: Duration = Duration::from_secs(2);

/// Prints a line of the launcher's own on standard error, but never hangs on a reader that has stopped
/// reading: the exit code is worth more than the line.
pub fn complain(text: &str) {
    let line = format!("jcs-launch: {text}\n");
    let (done, ended) = bounded(1);
    let writing = std::thread::Builder::new().name("last line".into()).spawn(move || {
        let _ = io::stderr().lock().write_all(line.as_bytes());
        let _ = done.send(());
    });
    if writing.is_ok() {
        let _ = ended.recv_timeout(PATIENCE);
    }
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    /// The exit code.
    pub exit: Exit,
    /// What is said about it.
    pub text: String,
}

impl Final {
    /// The last line on standard error.
    pub fn line(&self) -> String {
        match self.exit {
            Exit::Done => self.text.clone(),
            exit => format!("{}; exit code {}", self.text, exit.code()),
        }
    }
}

/// The end of a job that did not fail.
pub fn good_end(outcome: &Outcome, checkpoint: Option<Step>, restarts: u32) -> Final {
    let last =
        checkpoint.map_or_else(|| "none is known of this job".into(), |step| format!("the last is of step {step}"));
    match outcome {
        Outcome::Preempted { confirmed: true } => {
            let which =
                checkpoint.map_or_else(|| "a checkpoint".into(), |step| format!("the checkpoint of step {step}"));
            Final { exit: Exit::Preempted, text: format!("preempted after {which}") }
        }
        Outcome::Preempted { confirmed: false } => Final {
            exit: Exit::Preempted,
            text: format!("stopped on request, but no new checkpoint was confirmed ({last})"),
        },
        Outcome::Signalled(signal) => {
            let name = signal_name(*signal).map_or_else(String::new, |name| format!(" ({name})"));
            let exit = Exit::Signal(u8::try_from(*signal).unwrap_or(u8::MAX));
            Final { exit, text: format!("stopped by signal {signal}{name}") }
        }
        Outcome::Done | Outcome::Failed(_) => {
            let after = if restarts > 0 { format!(", restarts: {restarts}") } else { String::new() };
            Final { exit: Exit::Done, text: format!("done{after}") }
        }
    }
}

/// The first failure of a job's last start, as summary.json has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RootCause {
    /// The first worker that failed.
    pub rank: Option<usize>,
    /// Its host.
    pub host: Option<String>,
    /// The last step that it is known to have finished.
    pub step: Option<u64>,
    /// What happened.
    pub cause: String,
    /// The launcher's exit code.
    pub exit_code: i32,
}

impl RootCause {
    /// From a cause and the host of its rank; the text becomes one line.
    pub fn new(cause: &Cause, host: Option<String>) -> RootCause {
        RootCause {
            rank: cause.rank.map(|r| r.0),
            host,
            step: cause.step.map(|s| s.0),
            cause: cause.text.split_whitespace().collect::<Vec<_>>().join(" "),
            exit_code: cause.exit.code(),
        }
    }
}

impl fmt::Display for RootCause {
    /// `rank 1 on gpu02 failed after step 37: killed by signal 9 (SIGKILL)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.rank, &self.host) {
            (Some(rank), Some(host)) => write!(f, "rank {rank} on {host} failed")?,
            (Some(rank), None) => write!(f, "rank {rank} failed")?,
            (None, _) => write!(f, "the job failed")?,
        }
        match self.step {
            Some(0) => write!(f, " before its first step")?,
            Some(step) => write!(f, " after step {step}")?,
            None => {}
        }
        write!(f, ": {}", self.cause)
    }
}

/// summary.json cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct SummaryError {
    path: PathBuf,
    source: io::Error,
}

/// Whether somebody else trains in the run directory; its lock is a worker's. The workers of this job, which has ended, let go of it
/// within a moment.
pub fn belongs_to_another(run: &Path) -> bool {
    let Ok(file) = std::fs::File::open(run.join(".lock")) else { return false };
    let until = Instant::now() + Duration::from_secs(2);
    while matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        if Instant::now() > until {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Adds the launcher's fields to RUN/summary.json, whose other fields are the trainer's. The file is
/// replaced as a whole: a reader sees the old or the new one.
pub fn merge_summary(run: &Path, restarts: u32, root_cause: Option<&RootCause>) -> Result<(), SummaryError> {
    let path = run.join("summary.json");
    let old = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let merge = || {
        let text = serde_json::to_vec_pretty(&merged(old, restarts, root_cause))?;
        let temporary = run.join(format!(".summary.json.{}", std::process::id()));
        std::fs::write(&temporary, text)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    };
    merge().map_err(|source| SummaryError { path: path.clone(), source })
}

/// A cause of an earlier failure does not outlive a better end.
fn merged(mut old: Map<String, Value>, restarts: u32, root_cause: Option<&RootCause>) -> Map<String, Value> {
    old.insert("restarts".into(), restarts.into());
    old.shift_remove("root_cause");
    if old.get("status").is_some_and(|status| status == "failed") {
        old.shift_remove("status");
    }
    if let Some(cause) = root_cause.and_then(|cause| serde_json::to_value(cause).ok()) {
        old.insert("root_cause".into(), cause);
        old.insert("status".into(), "failed".into());
    }
    old
}

/// The plan, for `--dry-run`.
pub fn render_plan(plan: &Plan) -> String {
    let launcher = if plan.reach == Reach::Here { "127.0.0.1:PORT" } else { "ADDRESS:PORT,..." };
    let start = Start { launcher: launcher.into(), restart: 0 };
    let mut text = format!("jcs-launch: {}\n", plan.headline());
    for worker in &plan.workers {
        render_worker(&mut text, worker, &start);
    }
    let folder = std::env::current_dir().unwrap_or_default();
    let variables = plan.mpirun_env.iter().map(|(n, v)| format!("{n}={v} ")).collect::<String>();
    let _ = writeln!(text, "\nworking directory\n  {}", folder.display());
    let _ = writeln!(text, "\nmpirun (JCS_TOKEN, a secret of each start, comes through its environment)");
    let _ = writeln!(text, "  {variables}{}", shell(&plan.command_line(&start)));
    let _ = writeln!(text, "\nnothing was started");
    without_credentials(&text)
}

fn render_worker(text: &mut String, worker: &Worker, start: &Start) {
    let _ = writeln!(text, "\nrank {}  host {}  device {}", worker.rank, worker.host, worker.device);
    let _ = writeln!(text, "  command      {}", shell(&worker.command));
    for (i, (name, value)) in worker.environment(start).iter().enumerate() {
        let label = if i == 0 { "environment" } else { "" };
        let _ = writeln!(text, "  {label:<12} {name}={value}");
    }
}

/// Quoted so that a shell reads the same words.
fn shell(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
