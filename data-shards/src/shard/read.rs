//! Samples out of shards, at random.
//!
//! Duty: the members asked for, each compared with its checksum first. Must not: decode them.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::{Error, INDEX, Index, Kind, Kinds, Member, blocks};
use crate::hex;

/// Where the shards of a data set are to be had as files.
pub trait Shards: fmt::Debug + Send + Sync {
    /// The shard of this number, open. May take as long as a download does.
    ///
    /// # Errors
    /// Where it cannot be had, or is not what the index says.
    fn open(&self, index: &Index, shard: usize) -> Result<ShardReader, crate::Error>;

    /// Sees that all shards are there, as far as that costs little.
    ///
    /// # Errors
    /// Where one is not.
    fn check(&self, index: &Index) -> Result<(), crate::Error>;

    /// Another copy of a shard whose bytes were found damaged; none where there is no other.
    ///
    /// # Errors
    /// Where there should be one and it cannot be had.
    fn again(&self, _index: &Index, _shard: usize) -> Result<Option<ShardReader>, crate::Error> {
        Ok(None)
    }

    /// How many open shards may be kept for the next sample. None where an open shard keeps others from room that they need.
    fn kept(&self) -> usize {
        0
    }

    /// What whoever reads them should know, if anything.
    fn remark(&self, _index: &Index) -> Option<String> {
        None
    }

    /// Lets every call that waits for a shard, now or from now on, end with an error.
    fn stop(&self) {}

    /// A hint that shards are going to be opened in about this order.
    fn expect(&self, _order: &[usize]) {}
}

/// Shards that lie in the directory of their index.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalShards;

impl Shards for LocalShards {
    fn open(&self, index: &Index, shard: usize) -> Result<ShardReader, crate::Error> {
        let name = index.shards().get(shard).map(|shard| shard.name.as_str()).unwrap_or_default();
        Ok(ShardReader::open(index, shard, &index.dir().join(name))?)
    }

    fn check(&self, index: &Index) -> Result<(), crate::Error> {
        (0..index.shards().len()).try_for_each(|shard| self.open(index, shard).map(drop))
    }

    /// Those of the block that is read and of the one before it.
    fn kept(&self) -> usize {
        2 * blocks::BLOCK
    }
}

/// An open shard of the size that the index lists.
#[derive(Debug)]
pub struct ShardReader {
    path: PathBuf,
    file: File,
    shard: usize,
    len: u64,
    /// What keeps the file where it is.
    _keep: Option<Arc<dyn fmt::Debug + Send + Sync>>,
}

/// Open shards, so that a sample does not cost the opening of a file. The one used longest ago goes first.
#[derive(Debug, Default)]
pub(crate) struct Opened(Mutex<VecDeque<Arc<ShardReader>>>);

impl Opened {
    /// The shard of this number, opened where it is not.
    pub(crate) fn get(
        &self,
        shards: &dyn Shards,
        index: &Index,
        shard: usize,
    ) -> Result<Arc<ShardReader>, crate::Error> {
        let most = shards.kept();
        if most == 0 {
            return Ok(Arc::new(shards.open(index, shard)?));
        }
        let held = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |opened: &mut VecDeque<Arc<ShardReader>>| {
            let place = opened.iter().position(|reader| reader.shard == shard)?;
            opened.remove(place)
        };
        let mut opened = held();
        let reader = match take(&mut opened) {
            Some(reader) => reader,
            None => {
                // Others need not wait for a disk.
                drop(opened);
                let reader = Arc::new(shards.open(index, shard)?);
                opened = held();
                take(&mut opened).unwrap_or(reader)
            }
        };
        opened.truncate(most - 1);
        opened.push_front(Arc::clone(&reader));
        Ok(reader)
    }
}

/// Members of a sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    bytes: [Option<Vec<u8>>; 5],
}

impl Members {
    /// The bytes of a member, where it was asked for and there is one.
    pub fn get(&self, kind: Kind) -> Option<&[u8]> {
        Kind::ALL.iter().zip(&self.bytes).find(|(other, _)| **other == kind).and_then(|(_, bytes)| bytes.as_deref())
    }

    fn set(&mut self, kind: Kind, value: Vec<u8>) {
        let place = Kind::ALL.iter().zip(&mut self.bytes).find(|(other, _)| **other == kind);
        if let Some((_, bytes)) = place {
            *bytes = Some(value);
        }
    }
}

impl ShardReader {
    /// Opens the file at `path`, which is the shard of this number.
    ///
    /// # Errors
    /// [`Error::ShardMissing`], [`Error::Read`]; [`Error::Length`] where it is not as long as the index says.
    pub fn open(index: &Index, shard: usize, path: &Path) -> Result<ShardReader, Error> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::ShardMissing { path: path.to_owned(), index: index.dir().join(INDEX) },
            _ => Error::read(path, source),
        };
        ShardReader::of_file(index, shard, path, File::open(path).map_err(failed)?, None)
    }

    /// The shard of this number as an open file. `path` stands in the errors; `keep` is dropped with the reader.
    pub(crate) fn held(
        index: &Index,
        shard: usize,
        path: &Path,
        file: File,
        keep: Arc<dyn fmt::Debug + Send + Sync>,
    ) -> Result<ShardReader, Error> {
        ShardReader::of_file(index, shard, path, file, Some(keep))
    }

    fn of_file(
        index: &Index,
        shard: usize,
        path: &Path,
        file: File,
        keep: Option<Arc<dyn fmt::Debug + Send + Sync>>,
    ) -> Result<ShardReader, Error> {
        let found = file.metadata().map_err(|source| Error::read(path, source))?.len();
        let expected = index.shards().get(shard).map_or(0, |shard| shard.bytes);
        if found != expected {
            return Err(Error::Length { path: path.to_owned(), found, expected });
        }
        Ok(ShardReader { path: path.to_owned(), file, shard, len: found, _keep: keep })
    }

    /// Reads those members of a sample that are wanted and that it has.
    ///
    /// # Errors
    /// [`Error::NoSample`] where this shard does not have it; [`Error::Read`]; [`Error::Checksum`].
    pub fn read(&self, index: &Index, sample: usize, wanted: Kinds) -> Result<Members, Error> {
        let range = index.samples_of(self.shard);
        if !range.contains(&sample) {
            let (path, first, len) = (self.path.clone(), range.start, range.len());
            return Err(Error::NoSample { path, sample, first, len });
        }
        let key = index.key(sample).unwrap_or_default();
        let mut members = Members::default();
        for member in index.members(sample).filter(|member| wanted.has(member.kind)) {
            members.set(member.kind, self.member(key, &member)?);
        }
        Ok(members)
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The SHA-256 of the whole file.
    pub(crate) fn sha256(&self) -> Result<String, Error> {
        let (mut hash, mut at) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = self.file.read_at(&mut buffer, at).map_err(|source| Error::read(&self.path, source))?;
            match buffer.get(..read) {
                None | Some([]) => return Ok(hex(&hash.finalize())),
                Some(bytes) => hash.update(bytes),
            }
            at += read as u64;
        }
    }

    /// Bytes of the file, which has them: whoever asks has compared with its size.
    pub(crate) fn bytes(&self, offset: u64, size: u64) -> Result<Vec<u8>, Error> {
        let failed = |source| Error::read(&self.path, source);
        let size = usize::try_from(size).map_err(|error| failed(io::Error::other(error)))?;
        let mut bytes = vec![0; size];
        self.file.read_exact_at(&mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    }

    /// A member; the index has seen to it that it lies within the shard.
    fn member(&self, key: &str, member: &Member) -> Result<Vec<u8>, Error> {
        let bytes = self.bytes(member.offset, member.size)?;
        let found = crc32fast::hash(&bytes);
        if found == member.crc32 {
            return Ok(bytes);
        }
        Err(Error::Checksum {
            path: self.path.clone(),
            key: key.to_owned(),
            member: member.kind.name(key),
            expected: member.crc32,
            found,
        })
    }
}
