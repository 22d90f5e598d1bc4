//! Room in the cache.
//!
//! Duty: the limit holds, by giving up what was not used for longest and what nobody reads. Must not: fetch, or touch a file
//! that it did not make.
//!
//! All decisions are made under one lock a cache, and room that was promised to a download stands in a file before the lock is
//! freed, so that the sum of all promises keeps within the limit.

use std::fs::{self, DirEntry, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::entry::{self, PARTIAL};

/// A part of the disk that is left free where no limit is given.
const FREE_PART: u64 = 20;
/// No more than these bytes are left free, however large the disk is.
const FREE_MOST: u64 = 2 << 30;

/// What is known of a partial file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Bytes that it may come to take.
    pub(super) bytes: u64,
    /// ETag of the file that its bytes are from.
    pub(super) etag: Option<String>,
}

impl Meta {
    pub(super) fn read(path: &Path) -> Option<Meta> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Writes it. Torn by a crash it reads as none.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }
}

/// A file of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Whether there is room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Made,
    /// What others read or fetch takes `held` bytes of `limit`.
    Lacking {
        held: u64,
        limit: u64,
    },
}

/// The cache as a whole.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// The directory with a folder for each data set.
    pub(super) root: PathBuf,
    /// Bytes that it may take; none: what the disk has, less a twentieth or 2 GiB, whichever is less.
    pub(super) limit: Option<u64>,
}

impl Budget {
    /// Promises `need` bytes to the partial file `mine`, which the caller has locked, and notes it in its `meta`.
    pub(super) fn promise(&self, mine: &Path, meta: (&Path, &Meta)) -> io::Result<Room> {
        let _lock = self.lock()?;
        let others = self.others(mine)?;
        let used: u64 = others.iter().map(|item| item.bytes).sum();
        let limit = self.limit(used, mine)?;
        let need = meta.1.bytes;
        let over = used.saturating_add(need).saturating_sub(limit);
        // Nothing is given up for what can never fit.
        let freed = if need > limit { 0 } else { give_up(others, over)? };
        if freed < over {
            return Ok(Room::Lacking { held: used.saturating_sub(freed), limit });
        }
        meta.1.write(meta.0).map(|()| Room::Made)
    }

    /// Gives up at least `need` bytes if it can, because the disk is full. How many bytes it gave up.
    pub(super) fn squeeze(&self, mine: &Path, need: u64) -> io::Result<u64> {
        let _lock = self.lock()?;
        give_up(self.others(mine)?, need)
    }

    /// Bytes of all files, and those promised.
    pub(super) fn used(&self) -> io::Result<u64> {
        Ok(self.others(Path::new(""))?.iter().map(|item| item.bytes).sum())
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        let mut options = File::options();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.root.join(".lock"))?;
        entry::lock(file, FlockArg::LockExclusive)
    }

    fn limit(&self, used: u64, mine: &Path) -> io::Result<u64> {
        if let Some(limit) = self.limit {
            return Ok(limit);
        }
        let disk = nix::sys::statvfs::statvfs(&self.root)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        let spare = bytes(disk.blocks_available()).saturating_sub(left_free(bytes(disk.blocks())));
        let has = fs::metadata(mine).map_or(0, |mine| mine.len());
        Ok(used.saturating_add(has).saturating_add(spare))
    }

    /// All files but `mine`. A file that goes meanwhile is none.
    fn others(&self, mine: &Path) -> io::Result<Vec<Item>> {
        let mut items = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path())? {
                items.extend(item(&file?).filter(|item| item.path != mine));
            }
        }
        Ok(items)
    }
}

/// Bytes that stay free for the rest of the job on a disk of `size` bytes.
fn left_free(size: u64) -> u64 {
    (size / FREE_PART).min(FREE_MOST)
}

/// What a file counts; none for what belongs to another.
fn item(file: &DirEntry) -> Option<Item> {
    let found = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let path = file.path();
    let name = file.file_name();
    let name = name.to_str()?;
    if !name.starts_with('.') {
        return Some(Item { path, bytes: found.len(), used: found.accessed().ok()? });
    }
    let promised = entry::meta_of(&path).filter(|_| name.ends_with(PARTIAL)).map(|meta| Meta::read(&meta))?;
    let bytes = found.len().max(promised.unwrap_or_default().bytes);
    Some(Item { path, bytes, used: found.modified().ok()? })
}

/// Gives up files, those first that were not used for longest, until at least `over` bytes are free. How many are.
fn give_up(mut items: Vec<Item>, over: u64) -> io::Result<u64> {
    items.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut freed = 0_u64;
    for item in items {
        if freed >= over {
            break;
        }
        if remove_unused(&item.path)? {
            tracing::debug!(file = %item.path.display(), bytes = item.bytes, "given up for room in the cache");
            freed = freed.saturating_add(item.bytes);
        }
    }
    Ok(freed)
}

/// Removes a file that nobody reads or writes; whether it did.
fn remove_unused(path: &Path) -> io::Result<bool> {
    let lock = match entry::try_exclusive(path, File::options().read(true).write(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        tried => tried?,
    };
    if lock.is_none() {
        return Ok(false);
    }
    if let Some(meta) = entry::meta_of(path) {
        let _ = fs::remove_file(meta);
    }
    fs::remove_file(path).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::left_free;

    /// A large disk with little room left still serves: a twentieth of it is more than many have free.
    #[test]
    fn a_large_disk_keeps_no_more_free_than_a_job_needs() {
        assert_eq!(left_free(20 << 20), 1 << 20);
        assert_eq!(left_free(252 << 30), 2 << 30);
        assert_eq!(left_free(u64::MAX), 2 << 30);
    }
}
