//! What can go wrong with shards, and what to do about it.
//!
//! Duty: one variant a kind of failure, each naming the file and, where there is one, the sample and its member. Must not:
//! decide an exit code.

use std::io;
use std::path::{Path, PathBuf};

use super::{FORMAT, INDEX, LARGEST_MEMBER, VERSION};

/// A shard, an index or a record that cannot be used, or a file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record that no shard may hold.
    #[error("sample `{key}` cannot be written: {problem}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A name that a split or a shard may not have.
    #[error("`{}` is no name of a {what}: expected the characters a-z, A-Z, 0-9, `_` and `-`{}", name.escape_debug(),
        if *what == "shard" { ", then `.tar`" } else { "" })]
    Name {
        /// `split` or `shard`.
        what: &'static str,
        /// The name, shortened.
        name: String,
    },
    /// Two things of one name.
    #[error("{}: the {what} `{name}` comes twice", path.display())]
    Twice {
        /// The index.
        path: PathBuf,
        /// `split`, `shard` or `key`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An index without samples.
    #[error("{}: there are no samples", path.display())]
    NoSamples {
        /// The index.
        path: PathBuf,
    },
    /// A file that an index names and that is not there.
    #[error("{} is missing, or not of the size that is listed in {}: copy it again, or pack again", path.display(), listed_in.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The index.
        listed_in: PathBuf,
    },
    /// A file that is not what it should be.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A directory that is no data set, or not yet.
    #[error("{} has no {INDEX}: make a data set of it with `data-shards pack`, or let that come to its end", dir.display())]
    NoIndex {
        /// The directory.
        dir: PathBuf,
    },
    /// An index of another format.
    #[error("{}: no index of shards (`format` is {found}; expected \"{FORMAT}\"): was it written by `data-shards pack`?", path.display())]
    Format {
        /// The index.
        path: PathBuf,
        /// What `format` says.
        found: String,
    },
    /// An index of a newer version.
    #[error("{}: version {found} of the format, but this program reads versions up to {VERSION}: use a newer data-shards", path.display())]
    Version {
        /// The index.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// A collection where a data set is needed.
    #[error("{}: a collection of the splits {splits}: name the one that is meant, as in {}/{}", dir.display(), dir.display(), splits.split(',').next().unwrap_or_default())]
    Splits {
        /// Its directory.
        dir: PathBuf,
        /// Its splits, separated by commas.
        splits: String,
    },
    /// A table of samples that is not the one that the index was written for.
    #[error("{} does not match the {INDEX} beside it: {problem}: copy both again, or pack again", path.display())]
    Mismatch {
        /// The table.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A row of the table of samples that makes no sense.
    #[error("{}:{line}: {problem}", path.display())]
    Row {
        /// The table.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// A member that cannot be where the table of samples says.
    #[error("{}:{line}: {member} cannot lie at byte {offset} with {size} bytes: {shard} has {bytes} bytes, \
        a member at most {LARGEST_MEMBER}, and members begin at multiples of 512 behind their header", path.display())]
    Place {
        /// The table.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The member's name.
        member: String,
        /// Where it is said to begin.
        offset: u64,
        /// Its size, as it is said to be.
        size: u64,
        /// The shard.
        shard: String,
        /// Its size.
        bytes: u64,
    },
    /// A shard that the index names and that is not there.
    #[error("{} is missing; {} lists it: copy it again, or pack again", path.display(), index.display())]
    ShardMissing {
        /// The shard.
        path: PathBuf,
        /// The index.
        index: PathBuf,
    },
    /// A shard that is there and that the index does not name.
    #[error("{} is not listed in {}: it belongs to another data set, or the index was not written after it", path.display(), index.display())]
    Unlisted {
        /// The shard.
        path: PathBuf,
        /// The index.
        index: PathBuf,
    },
    /// A shard that is shorter or longer than the index says.
    #[error("{} {} (it has {found} bytes, its index says {expected}): copy it again, or pack again", path.display(),
        if found < expected { "is cut short" } else { "is too long" })]
    Length {
        /// The shard.
        path: PathBuf,
        /// Bytes that it has.
        found: u64,
        /// Bytes that the index lists.
        expected: u64,
    },
    /// A member whose bytes are not those that were written.
    #[error("{}: sample `{key}`: {member} is damaged: its CRC-32 is {found:08x}, expected {expected:08x}: copy the shard again, or pack again",
        path.display())]
    Checksum {
        /// The shard.
        path: PathBuf,
        /// The sample.
        key: String,
        /// The member's name.
        member: String,
        /// The checksum that the table of samples has.
        expected: u32,
        /// That of the bytes.
        found: u32,
    },
    /// A shard whose bytes are not those that were written.
    #[error("{} is damaged: its SHA-256 is {found}, expected {expected}: copy it again, or pack again", path.display())]
    ShardChecksum {
        /// The shard.
        path: PathBuf,
        /// The checksum that the index lists.
        expected: String,
        /// That of the file.
        found: String,
    },
    /// A shard that an index does not have.
    #[error("{}: shard {shard} was asked for, but the index has {len}", path.display())]
    NoShard {
        /// The index.
        path: PathBuf,
        /// Its number, from 0.
        shard: usize,
        /// Shards of the index.
        len: usize,
    },
    /// A sample that a shard does not have.
    #[error("{}: sample {sample} was asked for, but the shard has {len} from {first}", path.display())]
    NoSample {
        /// The shard.
        path: PathBuf,
        /// The sample's number in the data set.
        sample: usize,
        /// That of the shard's first sample.
        first: usize,
        /// Samples of the shard.
        len: usize,
    },
    /// A member that is whole, but not what it should be.
    #[error("{}: sample `{key}`: {problem}", path.display())]
    Sample {
        /// The shard.
        path: PathBuf,
        /// The sample.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A table of labels beside shards, which have their own.
    #[error("{}: shards have their own labels and patients; pack again with --labels {}, or leave data.labels out",
        dir.display(), labels.display())]
    Labels {
        /// The data set.
        dir: PathBuf,
        /// The table.
        labels: PathBuf,
    },
}

impl Error {
    pub(crate) fn read(path: &Path, source: io::Error) -> Error {
        Error::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Error {
        Error::Write { path: path.to_owned(), source }
    }
}
