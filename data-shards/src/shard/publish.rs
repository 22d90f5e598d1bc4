//! Writing what makes a directory a data set or a collection.
//!
//! Duty: a directory with an `index.json` is complete. Must not: write shards.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

use super::record::is_plain;
use super::write::check_shard_name;
use super::{Error, FORMAT, Finished, INDEX, SAMPLES, VERSION, rows};
use crate::hex;

/// Writes `samples.csv` and then `index.json` for the shards, which lie in `dir`. Their order is that of the samples. An
/// earlier index is taken away first, so that none ever stands beside samples that are not its own.
///
/// # Errors
/// [`Error::Name`] where the split or a shard has a name that none may have; [`Error::Missing`] where a shard is not there
/// with its size; [`Error::Twice`] where two shards have one name or two samples one key; [`Error::NoSamples`]; [`Error::Write`].
pub fn write_index(dir: &Path, split: Option<&str>, shards: Vec<Finished>) -> Result<(), Error> {
    split.map_or(Ok(()), check_split)?;
    check_shards(dir, &shards)?;
    let samples = samples_csv(&shards).map_err(|source| Error::write(&dir.join(SAMPLES), source))?;
    let patients: BTreeSet<&str> =
        shards.iter().flat_map(|shard| &shard.rows).filter_map(|row| row.patient.as_deref()).collect();
    let listed: Vec<_> = shards
        .iter()
        .map(|s| json!({"name": s.name, "bytes": s.bytes, "sha256": s.sha256, "samples": s.rows.len()}))
        .collect();
    let index = json!({
        "format": FORMAT,
        "version": VERSION,
        "split": split,
        "samples": shards.iter().map(|shard| shard.rows.len()).sum::<usize>(),
        "patients": patients.len(),
        "samples_file": {"name": SAMPLES, "bytes": samples.len(), "sha256": hex(&Sha256::digest(&samples))},
        "shards": listed,
    });
    let before = dir.join(INDEX);
    remove(&before).map_err(|source| Error::write(&before, source))?;
    sync_dir(dir)?;
    atomically(&dir.join(SAMPLES), &samples)?;
    write_json(&dir.join(INDEX), &index)
}

/// Writes the `index.json` of a collection: each split is a data set in the sub-directory of its name.
///
/// # Errors
/// [`Error::Name`]; [`Error::Missing`] where a sub-directory has no index; [`Error::Twice`]; [`Error::NoSamples`] where no
/// split is given; [`Error::Write`].
pub fn write_collection<S: AsRef<str>>(dir: &Path, splits: &[S]) -> Result<(), Error> {
    let splits: Vec<&str> = splits.iter().map(AsRef::as_ref).collect();
    splits.iter().try_for_each(|split| check_split(split))?;
    unique(&dir.join(INDEX), "split", splits.iter().copied())?;
    if splits.is_empty() {
        return Err(Error::NoSamples { path: dir.join(INDEX) });
    }
    match splits.iter().map(|split| dir.join(split).join(INDEX)).find(|index| !index.is_file()) {
        Some(path) => Err(Error::Missing { path, listed_in: dir.join(INDEX) }),
        None => write_json(&dir.join(INDEX), &json!({"format": FORMAT, "version": VERSION, "splits": splits})),
    }
}

/// Sees that a split's name is one.
pub(crate) fn check_split(split: &str) -> Result<(), Error> {
    if is_plain(split) && split.len() <= 80 {
        return Ok(());
    }
    Err(Error::Name { what: "split", name: split.chars().take(80).collect() })
}

fn check_shards(dir: &Path, shards: &[Finished]) -> Result<(), Error> {
    let index = dir.join(INDEX);
    shards.iter().try_for_each(|shard| check_shard_name(&shard.name))?;
    unique(&index, "shard", shards.iter().map(|shard| shard.name.as_str()))?;
    unique(&index, "key", shards.iter().flat_map(|shard| &shard.rows).map(|row| row.key.as_str()))?;
    if shards.iter().all(|shard| shard.rows.is_empty()) {
        return Err(Error::NoSamples { path: index });
    }
    match shards.iter().find(|shard| !shard.is_in(dir)) {
        Some(shard) => Err(Error::Missing { path: dir.join(&shard.name), listed_in: index }),
        None => Ok(()),
    }
}

/// Sees that no name comes twice.
pub(crate) fn unique<'a>(path: &Path, what: &'static str, names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::Twice { path: path.to_owned(), what, name: pair[0].to_owned() }),
        None => Ok(()),
    }
}

fn samples_csv(shards: &[Finished]) -> io::Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(rows::columns())?;
    for (number, shard) in shards.iter().enumerate() {
        for row in &shard.rows {
            table.write_record(row.cells(number))?;
        }
    }
    table.into_inner().map_err(|error| io::Error::other(error.to_string()))
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::write(path, io::Error::other(error)))?;
    atomically(path, &[&text[..], b"\n"].concat())
}

/// Writes a file that is there whole or not at all.
pub(crate) fn atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    with_mode(path, bytes, 0o666)
}

/// As [`atomically`], a file that only its owner may read.
pub(crate) fn privately(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    with_mode(path, bytes, 0o600)
}

fn with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let write = || {
        // What an interrupted writer left may have other permissions.
        remove(&partial)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&partial);
        Error::write(path, source)
    })?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Brings the names in a directory to disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(here).and_then(|dir| dir.sync_all()).map_err(|source| Error::write(here, source))
}

/// Sees that a file is not there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
