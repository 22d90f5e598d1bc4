//! One training process a run directory, and the number of its start.
//!
//! `RUN/.lock` is locked, and names who has the run: generation, host and process. The lock keeps others out; the generation
//! fences off a process that was cut off, or that a file system without locks let in, once another start has the run.

use crate::Error;
use crate::checkpoint;
use crate::whereabouts::enter;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use protocol::message::Phase;
use protocol::side_channel::host_name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a restarted worker waits for one of an older start, which its launcher or its leash is about to end. The lock of
/// a host that was cut off ends with its lease: for 90 s, by NFS version 4's usual settings.
const OLDER_START_ENDS: Duration = Duration::from_secs(110);

/// Who has a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    generation: u64,
    host: String,
    pid: u32,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}, generation {}", self.pid, self.host, self.generation)
    }
}

/// The lock's file, open. The operating system releases the lock when the process ends, however it does.
#[derive(Debug)]
enum Held {
    Locked(Flock<File>),
    /// The file system has no locks.
    Open(File),
}

/// A run directory that is this process's.
#[derive(Debug)]
pub(super) struct Claim {
    dir: PathBuf,
    held: Held,
    me: Owner,
}

impl Claim {
    /// Takes the directory. Where another process has it: an error, at once or, where an older start of this job may be ending
    /// there, after some time.
    pub(super) fn take(dir: &Path, may_be_ending: bool) -> Result<Claim, Error> {
        let failed = |source| Error::RunDirectory { dir: dir.into(), source };
        let path = dir.join(".lock");
        let patience = if may_be_ending { OLDER_START_ENDS } else { Duration::ZERO };
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
        let held = lock(file, dir, patience)?;
        let earlier = owner(&path).map_err(failed)?.map_or(0, |owner| owner.generation);
        let me = Owner { generation: earlier + 1, host: host_name(), pid: std::process::id() };
        let claim = Claim { dir: dir.into(), held, me };
        claim.write().map_err(failed)?;
        Ok(claim)
    }

    /// The number of this start.
    pub(super) fn generation(&self) -> u64 {
        self.me.generation
    }

    /// Makes this start as late as one that another node knows of.
    pub(super) fn raise_to(&mut self, generation: u64) -> Result<(), Error> {
        if generation > self.me.generation {
            self.me.generation = generation;
            self.write().map_err(|source| Error::RunDirectory { dir: self.dir.clone(), source })?;
        }
        Ok(())
    }

    /// Whether the run is still this start's. To be asked before anything in it is replaced.
    pub(super) fn check(&self) -> Result<(), Error> {
        let path = self.dir.join(".lock");
        let found = owner(&path).map_err(|source| checkpoint::Error::Read { path, source })?;
        match found {
            Some(owner) if owner == self.me => Ok(()),
            found => Err(Error::Superseded {
                dir: self.dir.clone(),
                generation: self.me.generation,
                by: found
                    .map_or("an unknown one".into(), |o| format!("generation {} on host {}", o.generation, o.host)),
            }),
        }
    }

    /// In one write of one size, so that no reader sees a mixture.
    fn write(&self) -> io::Result<()> {
        let file: &File = match &self.held {
            Held::Locked(file) => file,
            Held::Open(file) => file,
        };
        let text = serde_json::to_string(&self.me).map_err(io::Error::other)?;
        file.write_all_at(format!("{text:<255}\n").as_bytes(), 0)?;
        file.sync_all()
    }
}

/// Who has the run, by its file; none where nobody has had it, or where the file says nothing that can be understood.
fn owner(path: &Path) -> io::Result<Option<Owner>> {
    let text = std::fs::read(path)?;
    Ok(text.split(|byte| *byte == b'\n').next().and_then(|line| serde_json::from_slice(line).ok()))
}

fn lock(mut file: File, dir: &Path, patience: Duration) -> Result<Held, Error> {
    let began = Instant::now();
    let mut said = false;
    loop {
        let errno;
        (file, errno) = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Held::Locked(lock)),
            Err(refused) => refused,
        };
        match errno {
            Errno::EWOULDBLOCK if began.elapsed() < patience => {
                if !said {
                    tracing::info!("{} is still held by {}; waiting for it to end", dir.display(), holder(dir));
                }
                said = true;
                // It is bounded, and no hang.
                enter(Phase::Start);
                std::thread::sleep(Duration::from_millis(100));
            }
            Errno::EWOULDBLOCK => {
                return Err(Error::Locked { dir: dir.into(), holder: holder(dir), waited: !patience.is_zero() });
            }
            Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP => {
                tracing::warn!(
                    "the file system of {} has no locks ({errno}): nothing keeps a second job out of it",
                    dir.display()
                );
                return Ok(Held::Open(file));
            }
            e => return Err(Error::RunDirectory { dir: dir.into(), source: e.into() }),
        }
    }
}

fn holder(dir: &Path) -> String {
    let owner = owner(&dir.join(".lock")).ok().flatten();
    owner.map_or("a process that did not say its name".into(), |owner| owner.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_start_supersedes_an_earlier_one() {
        let dir = std::env::temp_dir().join(format!("jcs-lock-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut first = Claim::take(&dir, false).unwrap();
        assert!(
            matches!(Claim::take(&dir, false), Err(Error::Locked { holder, .. }) if holder.contains("generation 1"))
        );
        first.raise_to(7).unwrap();
        assert_eq!((first.generation(), first.check().is_ok()), (7, true));
        // As a file system without locks lets a second one in.
        let file = OpenOptions::new().write(true).open(dir.join(".lock")).unwrap();
        let me = Owner { generation: 8, ..first.me.clone() };
        let second = Claim { dir: dir.clone(), held: Held::Open(file), me };
        second.write().unwrap();
        let refused = first.check().unwrap_err();
        assert_eq!(refused.exit(), protocol::Exit::WorkerFailed);
        assert!(refused.to_string().starts_with("generation 7 of the run in "), "{refused}");
        assert!(refused.to_string().contains("superseded by generation 8 on host "), "{refused}");
        assert!(second.check().is_ok());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
