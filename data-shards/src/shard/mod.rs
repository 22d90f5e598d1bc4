//! Data sets as WebDataset tar shards with an index that gives random access.
//!
//! Duty: the format of `docs/shard-format.md`: writing, opening, reading, verifying and describing. Must not: know where
//! samples came from, make images, or fetch what is not on this machine.
//!
//! No byte of a sample is handed out before its checksum was compared, and no number of an index is believed before it
//! was compared with what the file really holds.

pub mod blocks;
mod collection;
mod error;
mod head;
mod index;
mod info;
mod publish;
mod read;
mod record;
mod rows;
mod verify;
mod write;

pub use collection::{Collection, Named};
pub use error::Error;
pub use head::{Head, Listed, Listing, Shard};
pub use index::Index;
pub use info::{Classes, Info, SetInfo};
pub(crate) use publish::{atomically, privately};
pub use publish::{write_collection, write_index};
pub(crate) use read::Opened;
pub use read::{LocalShards, Members, ShardReader, Shards};
pub use record::{Feature, Kind, Kinds, Record, check_key};
pub use rows::{Member, Row};
pub use verify::{MOST_PROBLEMS, Report, unlisted, verify};
pub use write::{Finished, ShardWriter, shard_name};

/// Name of the file that makes a directory a data set or a collection.
pub const INDEX: &str = "index.json";
/// Name of the table of the samples.
pub const SAMPLES: &str = "samples.csv";
/// What `format` says in an index.
pub const FORMAT: &str = "jcs-shards";
/// The version of the format that is written, and the newest that is read.
pub const VERSION: u64 = 1;
/// Most bytes of one member.
pub const LARGEST_MEMBER: u64 = 1 << 30;
