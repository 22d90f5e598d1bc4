//! `index.json`.
//!
//! Duty: its bytes to a listing of shards or of splits, with every name and number checked. Must not: open files.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::publish::{check_split, unique};
use super::write::check_shard_name;
use super::{Error, FORMAT, SAMPLES, VERSION};

/// What an `index.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// The directory is a data set.
    DataSet(Listing),
    /// The directory is a collection of these splits.
    Collection(Vec<String>),
}

/// The files of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listing {
    /// The split that it is.
    pub split: Option<String>,
    /// Samples in all.
    pub samples: usize,
    /// Different patients.
    pub patients: usize,
    /// The table of the samples.
    pub samples_file: Listed,
    /// The shards, in the order of the samples.
    pub shards: Vec<Shard>,
}

/// A file with its checksum.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its name in the directory.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of all of it, in lower-case hexadecimal.
    pub sha256: String,
}

/// A shard of a data set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Shard {
    /// Its name in the directory.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of all of it, in lower-case hexadecimal.
    pub sha256: String,
    /// Samples in it.
    pub samples: usize,
}

#[derive(Deserialize)]
struct Splits {
    splits: Vec<String>,
}

/// Most samples of a data set: each has a 32-bit number.
const MOST_SAMPLES: usize = u32::MAX as usize;

impl Head {
    /// Reads the bytes of the `index.json` at `path`, which stands in the errors.
    ///
    /// # Errors
    /// [`Error::Format`], [`Error::Version`], [`Error::Damaged`], [`Error::Name`], [`Error::Twice`], [`Error::NoSamples`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Head, Error> {
        let damaged = |problem: String| Error::Damaged { path: path.to_owned(), problem };
        let value: Value = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        check_version(path, &value)?;
        if value.get("splits").is_some() {
            let Splits { splits } = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
            return collection(path, splits);
        }
        let listing: Listing = serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        listing.check(path)?;
        Ok(Head::DataSet(listing))
    }

    /// The first of `wanted` that a collection has; none where `dir` is a data set itself.
    ///
    /// # Errors
    /// [`Error::Splits`] where `dir` is a collection without any of them.
    pub fn choose<'a>(&self, dir: &Path, wanted: &[&'a str]) -> Result<Option<&'a str>, Error> {
        let Head::Collection(splits) = self else { return Ok(None) };
        let found = wanted.iter().find(|name| splits.iter().any(|split| split == *name));
        let none = || Error::Splits { dir: dir.to_owned(), splits: splits.join(", ") };
        found.copied().map(Some).ok_or_else(none)
    }
}

fn check_version(path: &Path, value: &Value) -> Result<(), Error> {
    let format = value.get("format");
    if format.and_then(Value::as_str) != Some(FORMAT) {
        let found: String = format.map_or("absent".to_owned(), Value::to_string).chars().take(80).collect();
        return Err(Error::Format { path: path.to_owned(), found });
    }
    match value.get("version").and_then(Value::as_u64) {
        Some(1..=VERSION) => Ok(()),
        Some(found) if found > VERSION => Err(Error::Version { path: path.to_owned(), found }),
        _ => Err(Error::Damaged { path: path.to_owned(), problem: "`version` is no version".to_owned() }),
    }
}

fn collection(path: &Path, splits: Vec<String>) -> Result<Head, Error> {
    splits.iter().try_for_each(|split| check_split(split))?;
    unique(path, "split", splits.iter().map(String::as_str))?;
    if splits.is_empty() { Err(Error::NoSamples { path: path.to_owned() }) } else { Ok(Head::Collection(splits)) }
}

impl Listing {
    fn check(&self, path: &Path) -> Result<(), Error> {
        let damaged = |problem: String| Err(Error::Damaged { path: path.to_owned(), problem });
        self.split.as_deref().map_or(Ok(()), check_split)?;
        self.shards.iter().try_for_each(|shard| check_shard_name(&shard.name))?;
        unique(path, "shard", self.shards.iter().map(|shard| shard.name.as_str()))?;
        if self.samples_file.name != SAMPLES {
            return damaged(format!("`samples_file` is not `{SAMPLES}`"));
        }
        let mut sums = self.shards.iter().map(|shard| &shard.sha256).chain([&self.samples_file.sha256]);
        if !sums.all(|sum| is_sha256(sum)) {
            return damaged("a `sha256` is not 64 lower-case hexadecimal digits".to_owned());
        }
        let counted = self.shards.iter().try_fold(0usize, |sum, shard| sum.checked_add(shard.samples));
        match counted {
            Some(0) if self.samples == 0 => Err(Error::NoSamples { path: path.to_owned() }),
            Some(sum) if sum == self.samples && sum <= MOST_SAMPLES => Ok(()),
            _ => damaged(format!("`samples` is {}, which its shards do not add up to", self.samples)),
        }
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
