//! A shard's place in the cache, and the locks on it.
//!
//! Duty: who may read, write or take away a file of the cache, among the threads and processes of this node. Must not: fetch,
//! or choose what is to go.
//!
//! All locks are `flock` locks on the file that they guard. They belong to an open file, so that threads exclude each other
//! as processes do, and the kernel frees those of a process however it ends.
//!
//! * A complete file is locked shared by each reader. Whoever takes it away locks it exclusively first.
//! * A partial file is locked exclusively by the one who fetches. It is renamed to its complete name under that lock, so that
//!   a complete file comes to be under the lock of its partial file only.
//! * A file may have lost its name by the time its lock is had. Whoever locks looks again, and starts over.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// End of the name of a partial file.
pub(super) const PARTIAL: &str = ".part";
/// End of the name of what is known of a partial file.
const META: &str = ".meta";
/// End of the name of what the last failure was.
const NOTE: &str = ".failed";

/// A complete file of the cache that is open for reading. While it lives, the cache does not give the file up.
#[derive(Debug)]
pub struct Held {
    file: Flock<File>,
    path: PathBuf,
}

impl Held {
    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is. Whoever opens it anew has to keep this value as long.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Where it fails, the file is given up earlier than it might.
        let _ = touch(&self.file);
    }
}

/// The names of a shard in the cache.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) complete: PathBuf,
    pub(super) partial: PathBuf,
    pub(super) meta: PathBuf,
    pub(super) note: PathBuf,
    bytes: u64,
    stamp: SystemTime,
}

impl Entry {
    /// The entry of the file `name` with this size and SHA-256 (64 hexadecimal digits) in `folder`. A file of other content
    /// has another entry.
    pub(super) fn new(folder: &Path, name: &str, bytes: u64, sha256: &str) -> Entry {
        let digits = |from: usize, to: usize| sha256.get(from..to).unwrap_or_default();
        let stem = format!("{name}@{}", digits(0, 16));
        Entry {
            complete: folder.join(&stem),
            partial: folder.join(format!(".{stem}{PARTIAL}")),
            meta: folder.join(format!(".{stem}{META}")),
            note: folder.join(format!(".{stem}{NOTE}")),
            bytes,
            stamp: stamp(digits(16, 24)),
        }
    }

    /// Opens the complete file and locks it for reading; none where it is not there, or not as it was when its checksum was
    /// verified, as far as size and time of change tell.
    pub(super) fn open(&self) -> io::Result<Option<Held>> {
        loop {
            let file = match File::open(&self.complete) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => opened?,
            };
            let file = lock(file, FlockArg::LockShared)?;
            if !leads_to(&self.complete, &file)? {
                continue;
            }
            if !self.is_sound(&file)? {
                return Ok(None);
            }
            touch(&file)?;
            return Ok(Some(Held { file, path: self.complete.clone() }));
        }
    }

    fn is_sound(&self, file: &File) -> io::Result<bool> {
        let found = file.metadata()?;
        Ok(found.len() == self.bytes && found.modified()? == self.stamp)
    }

    /// Makes the partial file, whose content was verified, the complete one, and opens it. None where it was given up at once.
    pub(super) fn complete(&self, partial: Flock<File>) -> io::Result<Option<Held>> {
        partial.set_times(FileTimes::new().set_modified(self.stamp).set_accessed(SystemTime::now()))?;
        partial.sync_data()?;
        fs::rename(&self.partial, &self.complete)?;
        self.forget();
        drop(partial);
        self.open()
    }

    /// Removes what is known of a partial file.
    pub(super) fn forget(&self) {
        for path in [&self.meta, &self.note] {
            // What stays is small, and replaced by the next download.
            let _ = fs::remove_file(path);
        }
    }

    /// Locks the partial file, which comes to be if need be; none where another thread or process has the lock.
    pub(super) fn lock_partial(&self) -> io::Result<Option<Flock<File>>> {
        let mut options = File::options();
        try_exclusive(&self.partial, options.read(true).write(true).create(true).truncate(false).mode(0o600))
    }
}

/// What is known of the partial file at this path lies in this one.
pub(super) fn meta_of(partial: &Path) -> Option<PathBuf> {
    let name = partial.file_name()?.to_str()?;
    Some(partial.with_file_name(format!("{}{META}", name.strip_suffix(PARTIAL)?)))
}

/// Opens a file and locks it exclusively; none where it has another lock, or another file its name by now.
pub(super) fn try_exclusive(path: &Path, options: &fs::OpenOptions) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(options.open(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(file) => Ok(leads_to(path, &file)?.then_some(file)),
        Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Waits for a lock.
pub(super) fn lock(mut file: File, how: FlockArg) -> io::Result<Flock<File>> {
    loop {
        match Flock::lock(file, how) {
            Ok(locked) => return Ok(locked),
            Err((back, Errno::EINTR)) => file = back,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let (named, open) = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        named => (named?, file.metadata()?),
    };
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

/// Notes a use, for the choice of what is to go. The time of the last change stays, because it is the stamp.
fn touch(file: &File) -> io::Result<()> {
    file.set_times(FileTimes::new().set_accessed(SystemTime::now()))
}

/// The time of change that a verified file is given: whoever writes to it later changes it. In whole seconds, which every file
/// system keeps, and in the past, where no clock can give it by chance.
fn stamp(digits: &str) -> SystemTime {
    let seconds = u64::from_str_radix(digits, 16).unwrap_or_default() % 500_000_000;
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds)
}
