//! Where the samples of a data set are: files of their own, or shards.
//!
//! Duty: what is known of a sample, and its decoded members. Must not: augment or resize.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::dataset::Fit;
use crate::decode::{self, Image, Mask};
use crate::features::{self, Features, Wanted};
use crate::list::{Entry, Written};
use crate::shard::{self, Feature, Index, Kind, Kinds, Members, Opened, Shards, blocks};
use crate::{hex, order};

/// Offending lines that one message shows; the others are counted.
const SHOWN: usize = 5;

/// The samples of a data set.
#[derive(Debug)]
pub(crate) enum Store {
    Files(Files),
    Shards(Box<InShards>),
}

/// Samples that a list names.
#[derive(Debug)]
pub(crate) struct Files {
    list: PathBuf,
    entries: Vec<Entry>,
    /// The lines as written, until they are hashed.
    texts: Vec<String>,
}

/// Samples of shards.
#[derive(Debug)]
pub(crate) struct InShards {
    index: Index,
    shards: Arc<dyn Shards>,
    opened: Opened,
    /// Numbers in the index of the samples that are meant, ascending; none: all.
    chosen: Option<Vec<u32>>,
}

/// The decoded members of a sample.
pub(crate) struct Loaded {
    pub(crate) picture: Picture,
    pub(crate) mask: Option<Mask>,
}

pub(crate) enum Picture {
    Image(Image),
    Features(Features),
}

impl Store {
    pub(crate) fn files(list: &Path, written: Vec<Written>) -> Store {
        let (texts, entries) = written.into_iter().map(|Written { text, entry }| (text, entry)).unzip();
        Store::Files(Files { list: list.to_owned(), entries, texts })
    }

    pub(crate) fn shards(index: Index, shards: Arc<dyn Shards>) -> Store {
        Store::Shards(Box::new(InShards { index, shards, opened: Opened::default(), chosen: None }))
    }

    /// The list, or the table of samples.
    pub(crate) fn list(&self) -> PathBuf {
        match self {
            Store::Files(files) => files.list.clone(),
            Store::Shards(shards) => shards.index.dir().join(shard::SAMPLES),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Store::Files(files) => files.entries.len(),
            Store::Shards(shards) => shards.chosen.as_ref().map_or(shards.index.len(), Vec::len),
        }
    }

    pub(crate) fn entry(&self, i: usize) -> Option<Entry> {
        match self {
            Store::Files(files) => files.entries.get(i).cloned(),
            Store::Shards(shards) => shards.entry(i),
        }
    }

    pub(crate) fn label(&self, i: usize) -> Option<bool> {
        match self {
            Store::Files(files) => files.entries.get(i)?.label,
            Store::Shards(shards) => shards.index.label(shards.number(i)?),
        }
    }

    pub(crate) fn patient(&self, i: usize) -> Option<&str> {
        match self {
            Store::Files(files) => files.entries.get(i)?.patient.as_deref(),
            Store::Shards(shards) => {
                shards.index.patients().get(shards.index.patient(shards.number(i)?)?).map(String::as_str)
            }
        }
    }

    pub(crate) fn has_mask(&self, i: usize) -> bool {
        match self {
            Store::Files(files) => files.entries.get(i).is_some_and(|entry| entry.mask.is_some()),
            Store::Shards(shards) => shards.kinds(i).has(Kind::Mask),
        }
    }

    /// What to do where labels or patients are missing.
    pub(crate) fn labels_remedy(&self) -> &'static str {
        match self {
            Store::Files(_) => "name a table `file,label,patient_id` by data.labels",
            Store::Shards(_) => "pack again with --labels",
        }
    }

    /// What to do where masks are missing.
    pub(crate) fn masks_remedy(&self) -> &'static str {
        match self {
            Store::Files(_) => "add a column `mask`, or train the classifier (model.kind = \"cls\")",
            Store::Shards(_) => "pack again with --masks, or train the classifier (model.kind = \"cls\")",
        }
    }

    /// Lets every load that waits for a server end with an error.
    pub(crate) fn stop(&self) {
        if let Store::Shards(shards) = self {
            shards.shards.stop();
        }
    }

    /// What whoever reads them should know, if anything.
    pub(crate) fn remark(&self) -> Option<String> {
        match self {
            Store::Files(_) => None,
            Store::Shards(shards) => shards.shards.remark(&shards.index),
        }
    }

    /// Leaves out the samples for which `keep` is not set.
    pub(crate) fn retain(&mut self, keep: &[bool]) {
        match self {
            Store::Files(files) => {
                let mut flags = keep.iter();
                files.entries.retain(|_| flags.next() == Some(&true));
                let mut flags = keep.iter();
                files.texts.retain(|_| flags.next() == Some(&true));
            }
            Store::Shards(shards) => {
                shards.chosen = Some((0u32..).zip(keep).filter_map(|(number, keep)| keep.then_some(number)).collect());
            }
        }
    }

    /// SHA-256 over what identifies the samples wherever they lie. Takes the lines of a list, which nothing else needs.
    pub(crate) fn fingerprint(&mut self) -> String {
        let mut hash = Sha256::new();
        match self {
            Store::Files(files) => {
                for text in std::mem::take(&mut files.texts) {
                    hash.update(format!("{text}\n"));
                }
            }
            Store::Shards(shards) => {
                hash.update(shards.index.samples_sha256());
                shards.chosen.iter().flatten().for_each(|number| hash.update(number.to_le_bytes()));
            }
        }
        hex(&hash.finalize())
    }

    pub(crate) fn epoch_order(&self, seed: u64, epoch: u64, shuffle: bool) -> Vec<u32> {
        match self {
            Store::Files(files) => order::epoch_order(files.entries.len(), seed, epoch, shuffle),
            Store::Shards(shards) => {
                let order = blocks::epoch_order(&shards.lengths(), seed, epoch, shuffle, blocks::BLOCK);
                shards.expect(&order);
                order
            }
        }
    }

    /// Sees that what can be looked at without reading every sample is there and fits.
    pub(crate) fn check(&self, fit: Fit) -> Result<(), Error> {
        match self {
            Store::Files(files) => files.check(fit),
            Store::Shards(shards) => shards.shards.check(&shards.index),
        }
    }

    /// The member without which sample `i` cannot be used, if it has none.
    pub(crate) fn lacks(&self, i: usize, fit: Fit) -> Option<Kind> {
        match self {
            Store::Files(_) => None,
            Store::Shards(shards) => picture_kinds(fit).iter().find(|kind| !shards.kinds(i).has(*kind)),
        }
    }

    pub(crate) fn load(&self, i: usize, fit: Fit) -> Result<Loaded, Error> {
        match self {
            Store::Files(files) => files.load(i, fit),
            Store::Shards(shards) => shards.load(i, fit),
        }
    }

    /// The bytes of a mask, and what to call it.
    pub(crate) fn mask_file(&self, i: usize) -> Result<Option<(Vec<u8>, PathBuf)>, Error> {
        match self {
            Store::Files(files) => {
                let mask = files.entries.get(i).and_then(|entry| entry.mask.clone());
                mask.map(|path| Ok((decode::read(&path)?, path))).transpose()
            }
            Store::Shards(shards) => {
                let members = shards.members(i, Kinds::NONE.with(Kind::Mask))?;
                Ok(members.get(Kind::Mask).map(|bytes| (bytes.to_vec(), shards.path(i, Kind::Mask))))
            }
        }
    }

    /// Samples whose masks are looked at before the first step: those with masks; of shards only such as lie in the first
    /// of these, since a shard may have to be fetched.
    pub(crate) fn with_masks(&self) -> Vec<usize> {
        let mut all = (0..self.len()).filter(|i| self.has_mask(*i));
        match self {
            Store::Files(_) => all.collect(),
            Store::Shards(shards) => {
                let shard_of = |i: &usize| shards.number(*i).and_then(|number| shards.index.shard_of(number));
                let first = all.next();
                let same = |i: &usize| first.as_ref().and_then(shard_of) == shard_of(i);
                first.into_iter().chain(all.take_while(same)).collect()
            }
        }
    }
}

impl Files {
    fn load(&self, i: usize, fit: Fit) -> Result<Loaded, Error> {
        let missing = || Error::Index { list: self.list.clone(), index: i, len: self.entries.len() };
        let entry = self.entries.get(i).ok_or_else(missing)?;
        let mask = entry.mask.as_deref().map(decode::mask).transpose()?;
        if let Fit::Features(wanted) = fit {
            return Ok(Loaded { picture: Picture::Features(features::load(&entry.image, wanted)?), mask });
        }
        let image = decode::image_of(&decode::read(&entry.image)?, &entry.image)?;
        if let (Some(mask), Some(path)) = (&mask, &entry.mask) {
            same_size((&entry.image, (image.width, image.height)), (path, (mask.width, mask.height)))?;
        }
        Ok(Loaded { picture: Picture::Image(image), mask })
    }

    fn check(&self, fit: Fit) -> Result<(), Error> {
        let problem = |entry: &Entry| {
            let problem = check_header(entry, fit).err().map(|error| (entry.line, error));
            crate::activity::happened();
            problem
        };
        let mut problems: Vec<_> = self.entries.par_iter().filter_map(problem).collect();
        let others = problems.len().saturating_sub(SHOWN);
        problems.truncate(SHOWN);
        if problems.is_empty() {
            return Ok(());
        }
        let shown = problems.iter().map(|(line, error)| format!("{}:{line}: {error}", self.list.display())).collect();
        Err(Error::Entries { list: self.list.clone(), total: self.entries.len(), shown, others })
    }
}

fn check_header(entry: &Entry, fit: Fit) -> Result<(), Error> {
    if let Fit::Features(wanted) = fit {
        features::check(&entry.image, wanted)?;
        return entry.mask.as_deref().map_or(Ok(()), |mask| decode::dimensions(mask).map(drop));
    }
    let image = decode::dimensions(&entry.image)?;
    match &entry.mask {
        Some(mask) => same_size((&entry.image, image), (mask, decode::dimensions(mask)?)),
        None => Ok(()),
    }
}

type Sized<'a> = (&'a Path, (usize, usize));

fn same_size((image, image_size): Sized, (mask, mask_size): Sized) -> Result<(), Error> {
    if image_size == mask_size {
        return Ok(());
    }
    Err(Error::MaskSize { mask: mask.to_owned(), mask_size, image: image.to_owned(), image_size })
}

/// The members that make the picture.
fn picture_kinds(fit: Fit) -> Kinds {
    let with = |kinds: Kinds, kind: Kind, wanted: bool| if wanted { kinds.with(kind) } else { kinds };
    match fit {
        Fit::Features(Wanted { vgg, res2net, .. }) => with(with(Kinds::NONE, Kind::Vgg, vgg), Kind::Res2Net, res2net),
        Fit::Stretch | Fit::CentreCrop => Kinds::NONE.with(Kind::Image),
    }
}

impl InShards {
    /// The number in the index of sample `i`.
    fn number(&self, i: usize) -> Option<usize> {
        match &self.chosen {
            Some(chosen) => chosen.get(i).map(|number| *number as usize),
            None => (i < self.index.len()).then_some(i),
        }
    }

    fn kinds(&self, i: usize) -> Kinds {
        self.number(i).map_or(Kinds::NONE, |number| self.index.kinds(number))
    }

    /// How many of the samples that are meant lie in each shard.
    fn lengths(&self) -> Vec<usize> {
        let all = (0..self.index.shards().len()).map(|shard| self.index.samples_of(shard));
        let Some(chosen) = &self.chosen else { return all.map(|range| range.len()).collect() };
        let before = |end: usize| chosen.partition_point(|number| (*number as usize) < end);
        all.map(|range| before(range.end) - before(range.start)).collect()
    }

    /// Tells in which order the shards are going to be opened first.
    fn expect(&self, order: &[u32]) {
        let mut seen = vec![false; self.index.shards().len()];
        let shard = |i: &u32| self.index.shard_of(self.number(*i as usize)?);
        let first = |shard: &usize| seen.get_mut(*shard).is_some_and(|seen| !std::mem::replace(seen, true));
        let shards: Vec<usize> = order.iter().filter_map(shard).filter(first).collect();
        self.shards.expect(&shards);
    }

    /// What to call a member in messages: its name behind that of its shard.
    fn path(&self, i: usize, kind: Kind) -> PathBuf {
        let number = self.number(i).unwrap_or(usize::MAX);
        let shard = self.index.shard_of(number).and_then(|shard| self.index.shards().get(shard));
        let shard = self.index.dir().join(shard.map(|shard| shard.name.as_str()).unwrap_or_default());
        shard.join(kind.name(self.index.key(number).unwrap_or_default()))
    }

    fn entry(&self, i: usize) -> Option<Entry> {
        let number = self.number(i)?;
        let kinds = self.index.kinds(number);
        let picture = [Kind::Image, Kind::Vgg, Kind::Res2Net].into_iter().find(|kind| kinds.has(*kind));
        let patient = self.index.patient(number).and_then(|patient| self.index.patients().get(patient)).cloned();
        Some(Entry {
            image: self.path(i, picture.unwrap_or(Kind::Facts)),
            mask: kinds.has(Kind::Mask).then(|| self.path(i, Kind::Mask)),
            label: self.index.label(number),
            patient,
            // The first line has the names of the columns.
            line: number + 2,
        })
    }

    fn members(&self, i: usize, wanted: Kinds) -> Result<Members, Error> {
        let missing = || Error::Index { list: self.index.dir().join(shard::SAMPLES), index: i, len: self.index.len() };
        let number = self.number(i).ok_or_else(missing)?;
        let shard = self.index.shard_of(number).ok_or_else(missing)?;
        match self.opened.get(&*self.shards, &self.index, shard)?.read(&self.index, number, wanted) {
            Err(damaged @ shard::Error::Checksum { .. }) => match self.shards.again(&self.index, shard)? {
                Some(reader) => Ok(reader.read(&self.index, number, wanted)?),
                None => Err(damaged.into()),
            },
            read => Ok(read?),
        }
    }

    fn load(&self, i: usize, fit: Fit) -> Result<Loaded, Error> {
        let members = self.members(i, picture_kinds(fit).with(Kind::Mask))?;
        let mask_path = self.path(i, Kind::Mask);
        let mask = members.get(Kind::Mask).map(|bytes| decode::mask_of(bytes, &mask_path)).transpose()?;
        if let Fit::Features(wanted) = fit {
            let file =
                |feature: Feature| Ok((self.required(&members, i, feature.kind())?, self.path(i, feature.kind())));
            return Ok(Loaded { picture: Picture::Features(features::of_members(wanted, file)?), mask });
        }
        let path = self.path(i, Kind::Image);
        let image = decode::image_of(self.required(&members, i, Kind::Image)?, &path)?;
        if let Some(mask) = &mask {
            same_size((&path, (image.width, image.height)), (&mask_path, (mask.width, mask.height)))?;
        }
        Ok(Loaded { picture: Picture::Image(image), mask })
    }

    fn required<'a>(&self, members: &'a Members, i: usize, kind: Kind) -> Result<&'a [u8], Error> {
        let problem = || shard::Error::Sample {
            path: self.index.dir().to_owned(),
            key: self.number(i).and_then(|number| self.index.key(number)).unwrap_or_default().to_owned(),
            problem: format!("it has no {}", kind.extension()),
        };
        Ok(members.get(kind).ok_or_else(problem)?)
    }
}
