//! How far the job is, for whoever looks from outside: `progress.json` in the run directory, and on Kubernetes the pod's
//! termination message, which `kubectl describe` shows. What cannot be written is no reason to stop.

use protocol::message::Progress;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Phases.
const TRAIN: &str = "train";
const EVAL: &str = "eval";
/// Kubernetes keeps the last 4 KiB of a message: a text of more bytes is cut, so that all of it arrives.
const LONGEST: usize = 1500;
/// Where Kubernetes reads what a container has to say at its end, unless the manifest says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Between two times that the files are written.
const PAUSE: Duration = Duration::from_secs(1);

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Sheet {
    /// `train`, `eval`, …
    phase: String,
    /// Units done (training: steps), and in all.
    done: u64,
    total: u64,
    percent: f64,
    samples_per_second: f64,
    /// Until the end of the phase, at the pace of this start; `null` where nothing is known.
    seconds_left: Option<f64>,
    /// As the progress bar has it: `epoch 3/40  loss 1.234`.
    note: String,
    /// The last evaluation's: `Dice 0.7851`.
    evaluation: String,
    /// How the job ended, and its exit code.
    end: Option<String>,
    exit_code: Option<i32>,
    /// Seconds since 1970.
    updated: f64,
}

#[derive(Debug, Default)]
struct State {
    sheet: Sheet,
    /// The first units of the phase that were seen, and when.
    first: Option<(u64, Instant)>,
    written: Option<Instant>,
}

/// The files.
#[derive(Debug)]
pub struct Board {
    file: Option<PathBuf>,
    message: Option<PathBuf>,
    state: Mutex<State>,
}

impl Board {
    /// In this run directory, where there is one; `pod`: in the termination message, too.
    pub fn new(run: Option<&Path>, pod: bool) -> Board {
        let message = pod.then(|| PathBuf::from(TERMINATION_LOG)).filter(|file| file.exists());
        Board { file: run.map(|run| run.join("progress.json")), message, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rank 0 is so far.
    pub fn progress(&self, progress: &Progress) {
        let mut state = self.state();
        let now = Instant::now();
        if state.sheet.phase != progress.phase || state.first.is_none_or(|(done, _)| progress.done < done) {
            state.first = Some((progress.done, now));
        }
        let (before, is_training) = (std::mem::take(&mut state.sheet), progress.phase == TRAIN);
        let evaluation = match progress.phase == EVAL && !progress.note.is_empty() {
            true => progress.note.clone(),
            false => before.evaluation.clone(),
        };
        if !is_training && !before.note.is_empty() {
            // How far the training is stays to be read while it is evaluated, and at the end.
            state.sheet = Sheet { phase: progress.phase.clone(), seconds_left: None, evaluation, ..before };
            return self.write_now_and_then(&mut state, now);
        }
        state.sheet = Sheet {
            evaluation,
            phase: progress.phase.clone(),
            done: progress.done,
            total: progress.total,
            percent: 100.0 * progress.done as f64 / progress.total.max(1) as f64,
            samples_per_second: progress.samples_per_second,
            seconds_left: state.first.and_then(|first| left(progress, first, now)),
            note: if is_training { progress.note.clone() } else { String::new() },
            ..Sheet::default()
        };
        self.write_now_and_then(&mut state, now);
    }

    fn write_now_and_then(&self, state: &mut State, now: Instant) {
        if state.written.is_none_or(|written| now.duration_since(written) >= PAUSE) {
            state.written = Some(now);
            self.write(&mut state.sheet, true);
        }
    }

    /// The job is over. `whole`: its run directory is its own, and not that of another job that runs there.
    pub fn end(&self, text: &str, exit_code: i32, whole: bool) {
        let mut state = self.state();
        (state.sheet.seconds_left, state.sheet.end, state.sheet.exit_code) =
            (None, Some(shortened(text)), Some(exit_code));
        self.write(&mut state.sheet, whole);
    }

    fn write(&self, sheet: &mut Sheet, to_run: bool) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        sheet.updated = now.map_or(0.0, |since| since.as_secs_f64());
        let Ok(text) = serde_json::to_string(&sheet) else { return };
        if let Some(file) = self.file.as_ref().filter(|_| to_run) {
            // A reader sees the old one or the new one.
            let temporary = file.with_extension(format!("json.{}", std::process::id()));
            let written =
                std::fs::write(&temporary, format!("{text}\n")).and_then(|()| std::fs::rename(&temporary, file));
            if written.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
        }
        if let Some(message) = &self.message {
            // A mounted file, which cannot be replaced. Kubernetes keeps 4 KiB.
            let _ = std::fs::write(message, text);
        }
    }
}

/// The beginning, where it is too long for a message.
fn shortened(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    format!("{} …", &text[..text.floor_char_boundary(LONGEST)])
}

fn left(progress: &Progress, (before, began): (u64, Instant), now: Instant) -> Option<f64> {
    let done = progress.done.checked_sub(before).filter(|done| *done > 0)?;
    let each = now.duration_since(began).as_secs_f64() / done as f64;
    Some(each * progress.total.saturating_sub(progress.done) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_told_by_the_pace_of_this_start() {
        let (now, progress) = (Instant::now(), Progress { done: 30, total: 100, ..Progress::default() });
        assert_eq!(left(&progress, (10, now - Duration::from_secs(40)), now), Some(140.0));
        assert_eq!(left(&progress, (30, now), now), None);
    }

    #[test]
    fn the_file_says_how_far_it_is_and_how_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let board = Board::new(Some(folder.path()), false);
        let read = || -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(folder.path().join("progress.json")).unwrap()).unwrap()
        };
        let at =
            |done| Progress { phase: "train".into(), done, total: 8, note: "loss 1.2".into(), ..Progress::default() };
        board.progress(&at(2));
        assert_eq!((read()["percent"].as_f64(), read()["note"].as_str()), (Some(25.0), Some("loss 1.2")));
        // Not at every step.
        board.progress(&at(4));
        assert_eq!(read()["done"], 2);
        let eval =
            |note: &str| Progress { phase: "eval".into(), done: 3, total: 4, note: note.into(), ..Progress::default() };
        board.progress(&eval(""));
        board.progress(&eval("Dice 0.5000"));
        board.end("preempted after a checkpoint", 143, true);
        assert_eq!((read()["done"].as_u64(), read()["exit_code"].as_i64()), (Some(4), Some(143)));
        assert_eq!((read()["phase"].as_str(), read()["note"].as_str()), (Some("eval"), Some("loss 1.2")));
        assert_eq!(read()["evaluation"], "Dice 0.5000");
        board.end(&"é".repeat(4000), 4, true);
        assert!(std::fs::metadata(folder.path().join("progress.json")).unwrap().len() < 4096);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
