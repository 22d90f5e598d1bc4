//! The index of a data set in memory.
//!
//! Duty: where each sample lies, in a few dozen bytes a sample. Must not: open shards. What it holds was checked: every
//! member lies within its shard as far as the listing knows, and the samples are those that the listing was written for.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::record::check_key;
use super::rows::{self, Cells};
use super::write::HEADER;
use super::{Error, Head, INDEX, Kind, Kinds, LARGEST_MEMBER, Listing, Member, Row, SAMPLES, Shard};
use crate::hex;

/// Most bytes of an `index.json`.
const LARGEST_INDEX: u64 = 1 << 26;
/// Most bytes of a `samples.csv`.
const LARGEST_SAMPLES: u64 = 1 << 31;

/// A data set: its shards and where each sample lies in them.
#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    listing: Listing,
    /// Number of the first sample of each shard.
    firsts: Vec<usize>,
    patients: Vec<String>,
    /// All keys, one after the other.
    keys: String,
    /// The members of all samples, one after the other.
    places: Vec<Place>,
    samples: Vec<Packed>,
}

/// A sample: where its parts end; they begin where those of the sample before it end.
#[derive(Debug)]
struct Packed {
    key_end: u32,
    places_end: u32,
    /// Number of its patient, or [`NOBODY`].
    patient: u32,
    kinds: Kinds,
    label: Option<bool>,
}

const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
struct Place {
    offset: u64,
    size: u32,
    crc32: u32,
}

impl Index {
    /// Opens the data set in the directory `dir`.
    ///
    /// # Errors
    /// [`Error::NoIndex`]; [`Error::Read`]; those of [`Head::parse`]; [`Error::Splits`] where `dir` is a collection; those of [`Index::parse`].
    pub fn open(dir: &Path) -> Result<Index, Error> {
        match head(dir)? {
            Head::Collection(splits) => Err(Error::Splits { dir: dir.to_owned(), splits: splits.join(", ") }),
            Head::DataSet(listing) => {
                let samples = bounded(&dir.join(SAMPLES), LARGEST_SAMPLES)?;
                Index::parse(dir, listing, &samples)
            }
        }
    }

    /// The index of a listing and the bytes of its `samples.csv`. `dir` stands in the errors, and is where
    /// [`super::LocalShards`] looks.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the samples are not those of the listing; [`Error::Row`] with the line; [`Error::Place`]
    /// where a member lies outside its shard or is too large.
    pub fn parse(dir: &Path, listing: Listing, samples: &[u8]) -> Result<Index, Error> {
        let path = dir.join(SAMPLES);
        check_samples_file(&path, &listing, samples)?;
        let mut table = csv::ReaderBuilder::new().from_reader(samples);
        let mut build = Build::new(dir, listing);
        let header = table.headers().map_err(|error| row_error(&path, 1, error.to_string()))?;
        if !header.iter().eq(rows::columns()) {
            return Err(row_error(&path, 1, format!("the columns are not {}", rows::columns().join(","))));
        }
        let mut record = csv::StringRecord::new();
        loop {
            let line = build.index.samples.len() as u64 + 2;
            match table.read_record(&mut record) {
                Ok(true) => build.add(&record, line)?,
                Ok(false) => return build.finish(),
                Err(error) => return Err(row_error(&path, line, error.to_string())),
            }
        }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The split that it is.
    pub fn split(&self) -> Option<&str> {
        self.listing.split.as_deref()
    }

    /// Samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none; an opened index has at least one.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The shards, in the order of the samples.
    pub fn shards(&self) -> &[Shard] {
        &self.listing.shards
    }

    /// Ids of the patients that are known, in the order of their first sample.
    pub fn patients(&self) -> &[String] {
        &self.patients
    }

    /// SHA-256 of `samples.csv`: equal for equal data sets.
    pub fn samples_sha256(&self) -> &str {
        &self.listing.samples_file.sha256
    }

    /// The key of a sample.
    pub fn key(&self, sample: usize) -> Option<&str> {
        let end = self.samples.get(sample)?.key_end as usize;
        let start = sample.checked_sub(1).and_then(|before| self.samples.get(before)).map_or(0, |p| p.key_end as usize);
        self.keys.get(start..end)
    }

    /// Whether a sample is COVID-19, where that is known.
    pub fn label(&self, sample: usize) -> Option<bool> {
        self.samples.get(sample)?.label
    }

    /// Place in [`Self::patients`] of a sample's patient.
    pub fn patient(&self, sample: usize) -> Option<usize> {
        self.samples.get(sample).map(|packed| packed.patient).filter(|p| *p != NOBODY).map(|p| p as usize)
    }

    /// The members that a sample has; none of a sample that is not there.
    pub fn kinds(&self, sample: usize) -> Kinds {
        self.samples.get(sample).map_or(Kinds::NONE, |packed| packed.kinds)
    }

    /// The shard in which a sample lies.
    pub fn shard_of(&self, sample: usize) -> Option<usize> {
        // Shards may be empty: the last that begins at or before the sample is its own.
        let after = self.firsts.partition_point(|first| *first <= sample);
        if sample < self.len() { after.checked_sub(1) } else { None }
    }

    /// The numbers of a shard's samples.
    pub fn samples_of(&self, shard: usize) -> std::ops::Range<usize> {
        match (self.firsts.get(shard), self.listing.shards.get(shard)) {
            (Some(first), Some(shard)) => *first..first + shard.samples,
            _ => 0..0,
        }
    }

    /// Where the members of a sample lie in its shard, in the order of [`Kind::ALL`].
    pub fn members(&self, sample: usize) -> impl Iterator<Item = Member> + '_ {
        let kinds = self.kinds(sample);
        let end = self.samples.get(sample).map_or(0, |packed| packed.places_end as usize);
        let places = self.places.get(end.saturating_sub(kinds.len())..end).unwrap_or_default();
        let member = |(kind, place): (Kind, &Place)| {
            let Place { offset, size, crc32 } = *place;
            Member { kind, offset, size: u64::from(size), crc32 }
        };
        kinds.iter().zip(places).map(member)
    }

    /// All that is known of a sample.
    pub fn row(&self, sample: usize) -> Option<Row> {
        let patient = self.patient(sample).and_then(|number| self.patients.get(number)).cloned();
        let members = self.members(sample).collect();
        Some(Row { key: self.key(sample)?.to_owned(), label: self.label(sample), patient, members })
    }
}

/// Reads and checks the `index.json` of a directory.
pub(crate) fn head(dir: &Path) -> Result<Head, Error> {
    let path = dir.join(INDEX);
    let bytes = bounded(&path, LARGEST_INDEX).map_err(|error| match error {
        Error::Read { source, .. } if source.kind() == ErrorKind::NotFound => Error::NoIndex { dir: dir.to_owned() },
        other => other,
    })?;
    Head::parse(&path, &bytes)
}

/// Reads a file that has at most `limit` bytes, whatever its size claims to be.
fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::read(path, source);
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Error::Damaged { path: path.to_owned(), problem: format!("it has more than {limit} bytes") });
    }
    Ok(bytes)
}

fn check_samples_file(path: &Path, listing: &Listing, samples: &[u8]) -> Result<(), Error> {
    let listed = &listing.samples_file;
    if samples.len() as u64 != listed.bytes {
        return Err(mismatch(path, format!("it has {} bytes, listed are {}", samples.len(), listed.bytes)));
    }
    let found = hex(&Sha256::digest(samples));
    if found != listed.sha256 {
        return Err(mismatch(path, format!("its SHA-256 is {found}, listed is {}", listed.sha256)));
    }
    Ok(())
}

fn mismatch(path: &Path, problem: String) -> Error {
    Error::Mismatch { path: path.to_owned(), problem }
}

fn row_error(path: &Path, line: u64, problem: String) -> Error {
    Error::Row { path: path.to_owned(), line, problem }
}

/// An index in the making.
struct Build {
    index: Index,
    path: PathBuf,
    /// The shard that the next sample lies in, and how many of its samples there were.
    shard: usize,
    seen: usize,
    numbers: HashMap<String, u32>,
}

impl Build {
    fn new(dir: &Path, listing: Listing) -> Build {
        let firsts = listing.shards.iter().scan(0, |next, shard| {
            let first = *next;
            *next += shard.samples;
            Some(first)
        });
        let firsts = firsts.collect();
        let (patients, keys, places, samples) = Default::default();
        let index = Index { dir: dir.to_owned(), listing, firsts, patients, keys, places, samples };
        Build { index, path: dir.join(SAMPLES), shard: 0, seen: 0, numbers: HashMap::new() }
    }

    fn add(&mut self, record: &csv::StringRecord, line: u64) -> Result<(), Error> {
        let cells = Cells::of(record).map_err(|problem| row_error(&self.path, line, problem))?;
        check_key(cells.key).map_err(|error| row_error(&self.path, line, error.to_string()))?;
        self.follow(&cells, line)?;
        if !cells.kinds().has(Kind::Facts) {
            return Err(row_error(&self.path, line, "a sample without a json".to_owned()));
        }
        for member in cells.members.iter().flatten() {
            let place = self.place(&cells, member, line)?;
            self.index.places.push(place);
        }
        self.index.keys.push_str(cells.key);
        let patient = cells.patient.map_or(Ok(NOBODY), |id| self.number(id, line))?;
        let end =
            |length: usize| u32::try_from(length).map_err(|_| row_error(&self.path, line, "too many samples".into()));
        let (key_end, places_end) = (end(self.index.keys.len())?, end(self.index.places.len())?);
        self.index.samples.push(Packed { key_end, places_end, patient, kinds: cells.kinds(), label: cells.label });
        Ok(())
    }

    /// Sees that the samples come shard after shard, each with as many as are listed.
    fn follow(&mut self, cells: &Cells, line: u64) -> Result<(), Error> {
        let shards = &self.index.listing.shards;
        while shards.get(self.shard).is_some_and(|shard| self.seen == shard.samples) {
            (self.shard, self.seen) = (self.shard + 1, 0);
        }
        if self.shard == shards.len() {
            let problem = format!("line {line} is beyond the {} samples listed", self.index.listing.samples);
            return Err(mismatch(&self.path, problem));
        }
        if cells.shard != self.shard {
            let problem = format!("line {line} is of shard {}, listed is shard {}", cells.shard, self.shard);
            return Err(mismatch(&self.path, problem));
        }
        self.seen += 1;
        Ok(())
    }

    fn place(&self, cells: &Cells, member: &Member, line: u64) -> Result<Place, Error> {
        let Member { kind, offset, size, crc32 } = *member;
        let shard = self.index.listing.shards.get(self.shard);
        let end = offset.checked_add(size).filter(|end| shard.is_some_and(|shard| *end <= shard.bytes));
        let aligned = offset >= HEADER && offset % HEADER == 0;
        match u32::try_from(size) {
            Ok(small) if aligned && end.is_some() && size <= LARGEST_MEMBER => Ok(Place { offset, size: small, crc32 }),
            _ => Err(Error::Place {
                path: self.path.clone(),
                line,
                member: kind.name(cells.key),
                offset,
                size,
                shard: shard.map(|shard| shard.name.clone()).unwrap_or_default(),
                bytes: shard.map_or(0, |shard| shard.bytes),
            }),
        }
    }

    fn number(&mut self, id: &str, line: u64) -> Result<u32, Error> {
        if let Some(number) = self.numbers.get(id) {
            return Ok(*number);
        }
        let number = u32::try_from(self.numbers.len()).ok().filter(|number| *number != NOBODY);
        let number = number.ok_or_else(|| row_error(&self.path, line, "too many patients".to_owned()))?;
        self.numbers.insert(id.to_owned(), number);
        self.index.patients.push(id.to_owned());
        Ok(number)
    }

    fn finish(self) -> Result<Index, Error> {
        let Listing { samples, patients, .. } = self.index.listing;
        let (found, known) = (self.index.samples.len(), self.index.patients.len());
        if found != samples {
            return Err(mismatch(&self.path, format!("it has {found} samples, listed are {samples}")));
        }
        if known != patients {
            return Err(mismatch(&self.path, format!("it has {known} patients, listed are {patients}")));
        }
        Ok(self.index)
    }
}
