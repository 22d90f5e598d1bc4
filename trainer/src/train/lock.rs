//! One training process a run directory.

use crate::Error;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::path::Path;

/// The lock on a run directory; the operating system releases it when the process ends, however it does.
pub(super) struct RunLock(#[expect(dead_code, reason = "held, not used")] Flock<File>);

impl RunLock {
    /// Takes the directory; an error where another process has it.
    pub(super) fn take(dir: &Path) -> Result<RunLock, Error> {
        let failed = |source| Error::RunDirectory { dir: dir.into(), source };
        let path = dir.join(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(RunLock(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(Error::Locked(dir.into())),
            Err((_, e)) => Err(failed(e.into())),
        }
    }
}
