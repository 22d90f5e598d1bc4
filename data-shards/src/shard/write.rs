//! Writing one shard.
//!
//! Duty: the same records give the same bytes; a shard under its final name is complete and on disk. Must not: choose which
//! records share a shard.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::publish;
use super::record::is_plain;
use super::{Error, Member, Record, Row};
use crate::hex;

/// The name of a shard: `train-000007.tar`, or `data-000007.tar` where there are no splits.
pub fn shard_name(split: Option<&str>, number: usize) -> String {
    format!("{}-{number:06}.tar", split.unwrap_or("data"))
}

/// Sees that the name of a shard is that of a file in the same directory.
pub(crate) fn check_shard_name(name: &str) -> Result<(), Error> {
    match name.strip_suffix(".tar") {
        Some(stem) if is_plain(stem) && name.len() <= 200 => Ok(()),
        _ => Err(Error::Name { what: "shard", name: name.chars().take(200).collect() }),
    }
}

/// A complete shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Name of the file.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of all of it, in lower-case hexadecimal.
    pub sha256: String,
    /// Its samples, in their order.
    pub rows: Vec<Row>,
}

impl Finished {
    /// Whether the shard lies in `dir` with this size.
    pub fn is_in(&self, dir: &Path) -> bool {
        fs::metadata(dir.join(&self.name)).is_ok_and(|found| found.is_file() && found.len() == self.bytes)
    }
}

/// Writes a shard under a temporary name. Dropping it without [`Self::finish`] leaves nothing.
pub struct ShardWriter {
    dir: PathBuf,
    name: String,
    partial: Partial,
    tar: Builder<Hashing<BufWriter<File>>>,
    rows: Vec<Row>,
    keys: HashSet<String>,
    /// A write failed, so that nothing more may follow.
    broken: bool,
}

impl ShardWriter {
    /// Begins the shard `name` (see [`shard_name`]) in `dir`, which exists. What an interrupted writer of the same name has
    /// left is overwritten.
    ///
    /// # Errors
    /// [`Error::Name`], [`Error::Write`].
    pub fn create(dir: &Path, name: &str) -> Result<ShardWriter, Error> {
        check_shard_name(name)?;
        let path = dir.join(format!(".{name}.partial"));
        let file = File::create(&path).map_err(|source| Error::write(&path, source))?;
        let tar =
            Builder::new(Hashing { inner: BufWriter::with_capacity(1 << 18, file), hash: Sha256::new(), bytes: 0 });
        Ok(ShardWriter {
            dir: dir.to_owned(),
            name: name.to_owned(),
            partial: Partial { path, armed: true },
            tar,
            rows: Vec::new(),
            keys: HashSet::new(),
            broken: false,
        })
    }

    /// Samples so far.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.tar.get_ref().bytes
    }

    /// Appends a sample.
    ///
    /// # Errors
    /// [`Error::Record`] where it cannot be written as it is, which leaves the shard as it was; [`Error::Write`], after which
    /// the shard cannot be finished.
    pub fn add(&mut self, record: &Record) -> Result<(), Error> {
        self.usable()?;
        let members = record.members()?;
        if !self.keys.insert(record.key.clone()) {
            return Err(record.wrong(format!("the key is already in {}", self.name)));
        }
        self.broken = true;
        let members = members.iter().map(|(kind, bytes)| {
            let offset = self.append(&kind.name(&record.key), bytes)?;
            Ok(Member { kind: *kind, offset, size: bytes.len() as u64, crc32: crc32fast::hash(bytes) })
        });
        let members = members.collect::<Result<_, Error>>()?;
        self.broken = false;
        let Record { key, label, patient, .. } = record.clone();
        self.rows.push(Row { key, label, patient, members });
        Ok(())
    }

    /// Ends the tar, brings it to disk and gives it its name.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn finish(self) -> Result<Finished, Error> {
        self.usable()?;
        let ShardWriter { dir, name, mut partial, tar, rows, .. } = self;
        let failed = |source| Error::write(&partial.path, source);
        let Hashing { inner, hash, bytes } = tar.into_inner().map_err(failed)?;
        let file = inner.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        let path = dir.join(&name);
        fs::rename(&partial.path, &path).map_err(|source| Error::write(&path, source))?;
        partial.armed = false;
        publish::sync_dir(&dir)?;
        Ok(Finished { name, bytes, sha256: hex(&hash.finalize()), rows })
    }

    fn usable(&self) -> Result<(), Error> {
        let problem = || io::Error::other("an earlier write failed");
        if self.broken { Err(Error::write(&self.partial.path, problem())) } else { Ok(()) }
    }

    /// Appends a member; returns where its bytes begin. Everything in the header that is not the file's is constant.
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<u64, Error> {
        let mut header = Header::new_ustar();
        let failed = |source| Error::write(&self.partial.path, source);
        header.set_path(name).map_err(failed)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let offset = self.bytes() + HEADER;
        self.tar.append(&header, bytes).map_err(|source| Error::write(&self.partial.path, source))?;
        Ok(offset)
    }
}

/// Bytes of a tar header, and what everything in a tar is padded to.
pub(crate) const HEADER: u64 = 512;

/// A file under its temporary name.
struct Partial {
    path: PathBuf,
    armed: bool,
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.armed {
            // The directory may be gone as well.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Counts and hashes what passes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or(bytes));
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
