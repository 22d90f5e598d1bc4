//! Looks at every byte of a data set.
//!
//! Duty: each problem, with the shard and the sample it is in, up to a bounded number. Must not: stop at the first one, or
//! change anything.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde_json::Value;
use tar::{EntryType, Header};

use super::write::HEADER;
use super::{Error, INDEX, Index, Kind, Kinds, Member, Members, Row, ShardReader, Shards};
use crate::{decode, npy};

/// Problems that a report holds; the others are counted.
pub const MOST_PROBLEMS: usize = 1000;

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The first problems found, in the order of the samples.
    pub problems: Vec<crate::Error>,
    /// How many more there are.
    pub others: usize,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Reads all shards: the SHA-256 of each, that its members lie one behind the other under the names that the index has for
/// them, and of every sample the checksums, that it can be decoded, that masks fit their images and hold nothing but 0 and 255, and that its facts are those of
/// the index. `progress` is told how many samples are done, of how many.
pub fn verify(index: &Index, shards: &dyn Shards, progress: &(dyn Fn(usize, usize) + Sync)) -> Report {
    let problems = Problems::default();
    let done = AtomicUsize::new(0);
    let step = |samples: usize| progress(done.fetch_add(samples, Ordering::Relaxed) + samples, index.len());
    twice(index).into_iter().for_each(|error| problems.note(0, error.into()));
    (0..index.shards().len()).into_par_iter().for_each(|shard| match shards.open(index, shard) {
        Ok(reader) => verify_shard(index, shard, &reader, &problems, &step),
        Err(error) => {
            problems.note(index.samples_of(shard).start, error);
            step(index.samples_of(shard).len());
        }
    });
    problems.into_report()
}

/// The shards in the directory of an index that it does not list.
///
/// # Errors
/// [`Error::Read`] where the directory cannot be read.
pub fn unlisted(index: &Index) -> Result<Vec<Error>, Error> {
    let dir = index.dir();
    let failed = |source| Error::read(dir, source);
    let mut names = Vec::new();
    for entry in dir.read_dir().map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort();
    let listed = |name: &Path| index.shards().iter().any(|shard| Path::new(&shard.name) == name);
    let shards =
        names.iter().map(Path::new).filter(|name| name.extension().is_some_and(|extension| extension == "tar"));
    let error = |name: &Path| Error::Unlisted { path: dir.join(name), index: dir.join(INDEX) };
    Ok(shards.filter(|name| !listed(name)).map(error).collect())
}

/// Problems with the number of the sample that each is at.
#[derive(Default)]
struct Problems {
    found: Mutex<Vec<(usize, crate::Error)>>,
    others: AtomicUsize,
}

impl Problems {
    fn note(&self, sample: usize, error: crate::Error) {
        // A panic elsewhere cannot have left the list half changed.
        let mut found = self.found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if found.len() < MOST_PROBLEMS {
            found.push((sample, error));
        } else {
            self.others.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn into_report(self) -> Report {
        let mut found = self.found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        found.sort_by_key(|(sample, _)| *sample);
        let problems = found.into_iter().map(|(_, error)| error).collect();
        Report { problems, others: self.others.into_inner() }
    }
}

fn twice(index: &Index) -> Option<Error> {
    let keys = (0..index.len()).filter_map(|sample| index.key(sample));
    super::publish::unique(&index.dir().join(super::SAMPLES), "key", keys).err()
}

fn verify_shard(index: &Index, shard: usize, reader: &ShardReader, problems: &Problems, step: &(dyn Fn(usize) + Sync)) {
    let samples = index.samples_of(shard);
    if let Err(error) = check_sum(index, shard, reader) {
        problems.note(samples.start, error.into());
    }
    if let Err((sample, error)) = check_layout(index, shard, reader) {
        problems.note(sample, error.into());
    }
    samples.into_par_iter().for_each(|sample| {
        let found = reader.read(index, sample, Kinds::ALL).map_err(crate::Error::from);
        let checked = found.and_then(|members| check_sample(index, sample, reader.path(), &members));
        if let Err(error) = checked {
            problems.note(sample, error);
        }
        step(1);
    });
}

fn check_sum(index: &Index, shard: usize, reader: &ShardReader) -> Result<(), Error> {
    let expected = index.shards().get(shard).map(|shard| shard.sha256.clone()).unwrap_or_default();
    let found = reader.sha256()?;
    if found == expected {
        return Ok(());
    }
    Err(Error::ShardChecksum { path: reader.path().to_owned(), expected, found })
}

/// Sees that the tar holds just the members that the index has, in its order.
fn check_layout(index: &Index, shard: usize, reader: &ShardReader) -> Result<(), (usize, Error)> {
    let mut next = HEADER;
    let samples = index.samples_of(shard);
    for sample in samples.clone() {
        let wrong = |problem| (sample, sample_error(index, sample, reader.path(), problem));
        for member in index.members(sample) {
            let name = member.kind.name(index.key(sample).unwrap_or_default());
            if member.offset != next {
                return Err(wrong(format!(
                    "{name} begins at byte {}, but the one before it ends at {next}",
                    member.offset
                )));
            }
            let header = reader.bytes(member.offset - HEADER, HEADER).map_err(|error| (sample, error))?;
            check_header(&header, &name, &member).map_err(wrong)?;
            // Both are bounded by the size of the shard.
            next = member.offset + member.size.next_multiple_of(HEADER) + HEADER;
        }
    }
    check_end(reader, next - HEADER).map_err(|error| (samples.end, error))
}

fn check_header(bytes: &[u8], name: &str, member: &Member) -> Result<(), String> {
    let short = || "its header is cut short".to_owned();
    let header: &[u8; 512] = bytes.try_into().map_err(|_| short())?;
    let header = Header::from_byte_slice(header);
    // The sum of all bytes, those of the sum itself counted as spaces.
    let sum =
        bytes.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    if header.cksum().ok() != Some(sum) {
        return Err(format!("the tar header before {name} is damaged"));
    }
    if header.path_bytes().as_ref() != name.as_bytes() || header.entry_type() != EntryType::Regular {
        let found = String::from_utf8_lossy(&header.path_bytes()).escape_debug().to_string();
        return Err(format!("{found} is where {name} should be"));
    }
    match header.entry_size() {
        Ok(size) if size == member.size => Ok(()),
        size => Err(format!("{name} has {} bytes by its header, {} by the index", size.unwrap_or(0), member.size)),
    }
}

/// Sees that the two empty blocks that end a tar follow, and nothing else.
fn check_end(reader: &ShardReader, end: u64) -> Result<(), Error> {
    let damaged = |problem: String| Error::Damaged { path: reader.path().to_owned(), problem };
    let left = reader.len().saturating_sub(end);
    if left < 2 * HEADER {
        return Err(damaged("it has no end".to_owned()));
    }
    if reader.bytes(end, 2 * HEADER)?.iter().any(|byte| *byte != 0) {
        return Err(damaged("members follow that the index does not have".to_owned()));
    }
    Ok(())
}

fn sample_error(index: &Index, sample: usize, path: &Path, problem: String) -> Error {
    Error::Sample { path: path.to_owned(), key: index.key(sample).unwrap_or_default().to_owned(), problem }
}

fn check_sample(index: &Index, sample: usize, path: &Path, members: &Members) -> Result<(), crate::Error> {
    let wrong = |problem: String| sample_error(index, sample, path, problem);
    let row = index.row(sample).ok_or_else(|| wrong("it is not in the index".to_owned()))?;
    let named = |kind: Kind| members.get(kind).map(|bytes| (bytes, path.join(kind.name(&row.key))));
    let image = named(Kind::Image).map(|(bytes, path)| decode::rgb_of(bytes, &path)).transpose()?;
    if let Some((bytes, path)) = named(Kind::Mask) {
        let mask = decode::mask_of(bytes, &path)?;
        let values = decode::mask_values(bytes, &path)?;
        if let Some(image) = image.as_ref().filter(|image| (image.width, image.height) != (mask.width, mask.height)) {
            let sizes = (mask.width, mask.height, image.width, image.height);
            return Err(wrong(format!("its mask is {}x{}, its image {}x{}", sizes.0, sizes.1, sizes.2, sizes.3)).into());
        }
        if let Some(value) = values.iter().find(|value| ![0, 255].contains(*value)) {
            return Err(wrong(format!("its mask holds {value}; expected 0 and 255")).into());
        }
    }
    for (bytes, path) in [Kind::Vgg, Kind::Res2Net].into_iter().filter_map(named) {
        npy::read(&path, bytes)?;
    }
    Ok(check_facts(&row, members.get(Kind::Facts).unwrap_or_default()).map_err(wrong)?)
}

fn check_facts(row: &Row, json: &[u8]) -> Result<(), String> {
    let facts: Value = serde_json::from_slice(json).map_err(|error| format!("its json is none: {error}"))?;
    let label = row.label.map_or(Value::Null, |label| Value::from(u8::from(label)));
    let patient = row.patient.clone().map_or(Value::Null, Value::from);
    for (name, expected) in [("label", label), ("patient", patient)] {
        if facts.get(name) != Some(&expected) {
            return Err(format!("`{name}` of its json is not that of the index"));
        }
    }
    Ok(())
}
