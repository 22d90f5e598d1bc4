//! The log files: rank-N.log for each worker, launcher.log for the launcher and mpirun. A file system
//! that is full or gone costs the logs, never the job.

use crate::utc;
use protocol::Rank;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The log folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot write logs to {}: {source}; --log-dir names another folder", path.display())]
pub struct LogError {
    path: PathBuf,
    source: io::Error,
}

/// The open log files, or none.
#[derive(Debug)]
pub struct Logs {
    folder: Option<PathBuf>,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    launcher: Option<File>,
    ranks: Vec<File>,
    broken: Option<String>,
    told: bool,
}

impl Logs {
    /// Logs that go nowhere.
    pub fn none() -> Logs {
        Logs { folder: None, files: Mutex::default() }
    }

    /// Opens the files in `folder`, which is created; existing ones are continued. A full disk gives logs
    /// that go nowhere and a [`Logs::complaint`].
    pub fn open(folder: &Path, world_size: usize) -> Result<Logs, LogError> {
        let files = match Files::open(folder, world_size) {
            Ok(files) => files,
            Err(e) if is_full(&e.source) => Files { broken: Some(e.to_string()), ..Files::default() },
            Err(e) => return Err(e),
        };
        Ok(Logs { folder: Some(folder.into()), files: Mutex::new(files) })
    }

    /// Where they are.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Adds to a worker's log; `text` brings its line ends along.
    pub fn worker(&self, rank: Rank, text: &[u8]) {
        self.lock().write(|files| files.ranks.get_mut(rank.0), text);
    }

    /// Adds a line to launcher.log, with the time.
    pub fn note(&self, text: &str) {
        let line = format!("{} {text}\n", utc::now());
        self.lock().write(|files| files.launcher.as_mut(), line.as_bytes());
    }

    /// What went wrong since the last call; said once.
    pub fn complaint(&self) -> Option<String> {
        let mut files = self.lock();
        if files.told {
            return None;
        }
        files.told = files.broken.is_some();
        files.broken.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files {
    fn open(folder: &Path, world_size: usize) -> Result<Files, LogError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| LogError { path, source }
        };
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let append = |name: String| {
            let path = folder.join(name);
            OpenOptions::new().create(true).append(true).open(&path).map_err(failed(&path))
        };
        let launcher = Some(append("launcher.log".into())?);
        let ranks = (0..world_size).map(|r| append(format!("rank-{r}.log"))).collect::<Result<_, _>>()?;
        Ok(Files { launcher, ranks, ..Files::default() })
    }

    fn write(&mut self, file: impl FnOnce(&mut Files) -> Option<&mut File>, text: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        if let Some(Err(e)) = file(self).map(|f| f.write_all(text)) {
            self.broken = Some(format!("cannot write the logs any more ({e}); the job goes on without"));
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_continued() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/logs");
        for text in ["one\n", "two\n"] {
            Logs::open(&folder, 2).unwrap().worker(Rank(1), text.as_bytes());
        }
        assert_eq!(fs::read_to_string(folder.join("rank-1.log")).unwrap(), "one\ntwo\n");
        assert_eq!(fs::read_to_string(folder.join("rank-0.log")).unwrap(), "");
    }

    #[test]
    fn a_full_disk_is_told_once_and_survived() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let files = Files { ranks: vec![full], ..Files::default() };
        let logs = Logs { folder: None, files: Mutex::new(files) };
        logs.worker(Rank(0), b"x\n");
        logs.worker(Rank(0), b"y\n");
        assert!(logs.complaint().is_some_and(|c| c.contains("No space left")));
        assert_eq!(logs.complaint(), None);
    }

    #[test]
    fn an_unusable_folder_is_named() {
        let error = Logs::open(Path::new("/dev/null/logs"), 1).unwrap_err().to_string();
        assert!(error.contains("/dev/null/logs") && error.contains("--log-dir"), "{error}");
    }
}
