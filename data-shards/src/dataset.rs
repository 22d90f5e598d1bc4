//! A list, or shards, with a geometry: samples ready for the network.
//!
//! Duty: check the whole list before the first step, and load single samples. Must not: choose which samples (that is
//! [`crate::order`] and [`crate::partition`]) or keep them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::augment::Augment;
use crate::decode::{self, Rgb};
use crate::features::{Features, Wanted};
use crate::fold::{self, Fold};
use crate::hex;
use crate::list::{self, Entry, Written};
use crate::prepare::{self, Buffers};
use crate::remote::{CacheSettings, Location};
use crate::resize::Rect;
use crate::sets::Set;
use crate::shard::{self, Index, Shards};
use crate::store::{Loaded, Picture, Store};
use crate::thumbnail;

/// Masks whose values [`Dataset::check_masks`] looks at.
const MASKS_CHECKED: usize = 32;

/// Size and normalisation of what the network receives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometry {
    /// Rows.
    pub height: usize,
    /// Pixels a row.
    pub width: usize,
    /// Subtracted from each channel (red, green, blue) of the 0..1 image.
    pub mean: [f32; 3],
    /// Divides each channel after that.
    pub std: [f32; 3],
    /// How an image of another shape is made to fit.
    pub fit: Fit,
    /// What is made of an image's pixels.
    pub pixels: PixelType,
}

/// The form in which an image is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PixelType {
    /// Normalised `f32`, always 3 channels, as the official code has it.
    #[default]
    Float,
    /// Rounded to 8 bits after the resize and not normalised, which is left to the device; grey files have 1 channel.
    Byte,
}

/// How an image is brought to the network's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The whole image, each side resized on its own, bilinear as OpenCV does it: segmentation.
    Stretch,
    /// Resized with its proportions, antialiased as PIL does it, to an 8/7 of the size on its short side; then a crop from
    /// the middle: the classifier (256 and 224 pixels).
    CentreCrop,
    /// There is no image but features, which stay as they are, but for flips; masks are brought to their size.
    Features(Wanted),
}

impl Geometry {
    /// The normalisation of ImageNet, which the official code uses, at this size.
    pub const fn imagenet(height: usize, width: usize) -> Self {
        Geometry {
            height,
            width,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            fit: Fit::Stretch,
            pixels: PixelType::Float,
        }
    }

    /// What of an image of this height and width the network sees, in pixels of the image.
    pub fn view(&self, (height, width): (usize, usize)) -> Rect {
        match self.fit {
            Fit::Stretch => Rect::whole(width, height),
            Fit::CentreCrop | Fit::Features(_) => {
                let (tall, wide) = thumbnail::size((height, width), (self.height, self.width));
                let crop = Augment::NONE.draw(0, 0, 0).window((wide, tall), (self.width, self.height));
                let (x, y) = (|n: usize| n * width / wide, |n: usize| n * height / tall);
                let (left, top) = (x(crop.left), y(crop.top));
                let (right, bottom) = (x(crop.left + crop.width), y(crop.top + crop.height));
                Rect { left, top, width: (right - left).max(1), height: (bottom - top).max(1) }
            }
        }
    }
}

/// A sample as the network receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its place in the list, from 0.
    pub index: usize,
    /// In the form that the geometry names.
    pub image: Pixels,
    /// Features in place of the image.
    pub features: Option<Features>,
    /// Height x width; 1 where there is lesion, else 0; all 0 where [`Self::has_mask`] is not set.
    pub mask: Vec<u8>,
    /// Whether there is a mask.
    pub has_mask: bool,
    /// Whether it is COVID-19, where that is known.
    pub label: Option<bool>,
    /// Height and width of the file.
    pub source_size: (usize, usize),
}

/// The image of a sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Pixels {
    /// There are features instead.
    #[default]
    None,
    /// 3 x height x width, normalised.
    Float(Vec<f32>),
    /// Levels of 0..=255 that stand for 0..1, not normalised.
    Byte {
        /// 1 for a grey file, whose level is that of all three channels; 3 for one in colour.
        channels: usize,
        /// Channels x height x width.
        values: Vec<u8>,
    },
}

impl Pixels {
    /// The normalised values, where they are such.
    pub fn float(&self) -> Option<&[f32]> {
        match self {
            Pixels::Float(values) => Some(values),
            Pixels::None | Pixels::Byte { .. } => None,
        }
    }
}

/// Where samples come from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A list or table, see [`list::read`], or a data set of shards.
    pub from: Location,
    /// The splits that are meant where `from` is a collection: the first of them that it has.
    pub splits: &'static [&'static str],
    /// Where shards are kept that have to be fetched.
    pub cache: CacheSettings,
    /// Folder that the relative paths of a list count from; none: its own.
    pub root: Option<PathBuf>,
    /// A table that adds labels and patients to a list; none: `labels.csv` in the list's folder, where there is one.
    pub labels: Option<PathBuf>,
    /// Which patients of the list are meant; none: all.
    pub part: Option<Part>,
}

/// A part of a list, by patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The fold that is held out.
    pub fold: Fold,
    /// Whether the fold itself is meant, or all but it.
    pub held_out: bool,
}

/// The samples of a list, or of shards.
#[derive(Debug)]
pub struct Dataset {
    list: PathBuf,
    store: Store,
    /// Ids, in the order of their first sample.
    patients: Vec<String>,
    /// Place in `patients` of each sample's.
    patient_of: Vec<Option<usize>>,
    geometry: Geometry,
    fingerprint: String,
}

impl Dataset {
    /// Opens a list or shards. Every entry of a list is checked in parallel: image and mask exist, have a
    /// readable header and the same size. Of shards on this machine it is checked that they are there with their size, and of
    /// all that every sample has what the geometry needs; the bytes of a sample are compared with their checksums when it
    /// is loaded. Of a remote data set nothing but the index is fetched.
    ///
    /// # Errors
    /// Those of [`list::read`] and [`Set::find`]; [`Error::Lacking`] where folds are asked for and a patient is not known, or a sample of
    /// shards lacks image or features; [`Error::Fold`]; [`Error::Entries`] with the first offending lines in list order
    /// and the number of others.
    pub fn open(source: &Source, geometry: Geometry) -> Result<Dataset, Error> {
        let Source { from, splits, cache, root, part, .. } = source;
        match from.local() {
            Some(list) if !list.is_dir() => {
                let mut written = list::read_written(list, root.as_deref())?;
                add_labels(&mut written, list, named_labels(source))?;
                Dataset::of_store(Store::files(list, written), *part, geometry)
            }
            _ => {
                if let Some(labels) = named_labels(source) {
                    let dir = PathBuf::from(from.to_string());
                    return Err(shard::Error::Labels { dir, labels: labels.to_owned() }.into());
                }
                let Set { index, shards, .. } = Set::find(from, splits, cache)?;
                Dataset::of_shards(index, shards, *part, geometry)
            }
        }
    }

    /// Opens shards, wherever they are to be had.
    ///
    /// # Errors
    /// As [`Self::open`], and those of `shards`.
    pub fn of_shards(
        index: Index,
        shards: Arc<dyn Shards>,
        part: Option<Part>,
        geometry: Geometry,
    ) -> Result<Dataset, Error> {
        Dataset::of_store(Store::shards(index, shards), part, geometry)
    }

    fn of_store(mut store: Store, part: Option<Part>, geometry: Geometry) -> Result<Dataset, Error> {
        if let Some(part) = part {
            let keep = members_of(part, &store)?;
            store.retain(&keep);
        }
        let fingerprint = store.fingerprint();
        let (patients, patient_of) = number_patients(&store);
        let dataset = Dataset { list: store.list(), store, patients, patient_of, geometry, fingerprint };
        dataset.check()?;
        Ok(dataset)
    }

    fn check(&self) -> Result<(), Error> {
        if let Some(kind) = (0..self.len()).find_map(|i| self.store.lacks(i, self.geometry.fit)) {
            let remedy = "pack again from a source that has it";
            lacking(&self.store, kind.extension(), remedy, |i| self.store.lacks(i, self.geometry.fit).is_none())?;
        }
        self.store.check(self.geometry.fit)
    }

    /// Sees that every sample has a mask.
    ///
    /// # Errors
    /// [`Error::Lacking`].
    pub fn require_masks(&self) -> Result<(), Error> {
        lacking(&self.store, "mask", self.store.masks_remedy(), |i| self.store.has_mask(i))
    }

    /// Sees that every sample has a label. From here on the labels count in [`Self::fingerprint`].
    ///
    /// # Errors
    /// [`Error::Lacking`].
    pub fn require_labels(&mut self) -> Result<(), Error> {
        lacking(&self.store, "label", self.store.labels_remedy(), |i| self.store.label(i).is_some())?;
        let labels = (0..self.len()).map(|i| if self.store.label(i) == Some(true) { '1' } else { '0' });
        let text = format!("{} {}", self.fingerprint, labels.collect::<String>());
        self.fingerprint = hex(&Sha256::digest(text.as_bytes()));
        Ok(())
    }

    /// Decodes up to 32 masks spread over the list, or over the first shard with masks, and checks that lesions are marked
    /// by 255. Of remote shards one is fetched for that.
    ///
    /// # Errors
    /// [`Error::MaskValues`] where some masks have values other than 0 but none has 255 (16 bits: 65535);
    /// [`Error::Read`] and [`Error::Decode`].
    pub fn check_masks(&self) -> Result<(), Error> {
        let all = self.store.with_masks();
        let count = all.len().min(MASKS_CHECKED);
        let chosen: Vec<usize> = (0..count).filter_map(|at| all.get(at * all.len() / count).copied()).collect();
        let values = chosen.par_iter().filter_map(|i| self.store.mask_file(*i).transpose());
        let values = values.map(|file| mask_values(file?)).collect::<Result<Vec<_>, Error>>()?;
        if values.iter().any(|mask| mask.lesion) {
            return Ok(());
        }
        match values.into_iter().find(|mask| mask.other) {
            Some(MaskValues { path, text, .. }) => Err(Error::MaskValues { path, values: text }),
            None => Ok(()),
        }
    }

    /// Lets every load that waits for a server, now or from now on, end with an error: for a reader that gives up, and must
    /// not wait for what others of its threads wait for.
    pub fn stop(&self) {
        self.store.stop();
    }

    /// What whoever reads it should know, if anything.
    pub fn remark(&self) -> Option<String> {
        self.store.remark()
    }

    /// Samples in the list.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is none; an opened data set is never empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Line `i` of the list, counted from 0 without blank lines. The paths of a sample of shards name its members behind
    /// their shard.
    ///
    /// # Panics
    /// Where `i` is not below [`Dataset::len`], as indexing a slice does.
    pub fn entry(&self, i: usize) -> Entry {
        match self.store.entry(i) {
            Some(entry) => entry,
            None => panic!("sample {i} was asked for, but there are {}", self.len()),
        }
    }

    /// Ids of the patients that are known, in the order of their first sample.
    pub fn patients(&self) -> &[String] {
        &self.patients
    }

    /// Place in [`Self::patients`] of the patient of sample `i`.
    pub fn patient_of(&self, i: usize) -> Option<usize> {
        self.patient_of.get(i).copied().flatten()
    }

    /// Whether sample `i` is COVID-19, where that is known.
    pub fn label_of(&self, i: usize) -> Option<bool> {
        self.store.label(i)
    }

    /// The file of sample `i`, or the list where there is no such sample.
    pub(crate) fn path_of(&self, i: usize) -> PathBuf {
        self.store.entry(i).map_or_else(|| self.list.clone(), |entry| entry.image)
    }

    /// The numbers of all samples in the order of an epoch: [`crate::order::epoch_order`] for a list,
    /// [`shard::blocks::epoch_order`] for shards, which are fetched ahead in this order from now on where they are remote.
    pub fn epoch_order(&self, seed: u64, epoch: u64, shuffle: bool) -> Vec<u32> {
        self.store.epoch_order(seed, epoch, shuffle)
    }

    /// Size and normalisation of the samples.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// SHA-256, in hexadecimal, over the image and mask of every line as written, or over the table of the samples of shards:
    /// equal where two runs read the same data, wherever the files lie.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Loads a sample in the official order of operations: decode, brightness and contrast, normalise, crop, resize, flips;
    /// see [`Augment`] for scale, rotation and noise. (The normalisation is applied after the resize: the same within 1e-5. As
    /// [`PixelType::Byte`] it is not applied at all.)
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Read`], [`Error::Decode`], [`Error::MaskSize`]; [`Error::Shard`] where the bytes of a
    /// sample are not those that were packed.
    pub fn load(&self, index: usize, epoch: u64, seed: u64, augment: &Augment) -> Result<Sample, Error> {
        self.load_into(None, index, epoch, seed, augment)
    }

    /// As [`Self::load`], in the memory of a sample that is no longer needed. Nothing of it is left.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn load_into(
        &self,
        spare: Option<Sample>,
        index: usize,
        epoch: u64,
        seed: u64,
        augment: &Augment,
    ) -> Result<Sample, Error> {
        if index >= self.len() {
            return Err(Error::Index { list: self.list.clone(), index, len: self.len() });
        }
        let draw = augment.draw(seed, epoch, index);
        let Loaded { picture, mask } = self.store.load(index, self.geometry.fit)?;
        let (has_mask, label, mask) = (mask.is_some(), self.store.label(index), mask.as_ref());
        let spare = Buffers::of(spare);
        let (image, features, mask, source_size) = match picture {
            Picture::Features(mut features) => {
                let mask = prepare::featured(&mut features, mask, &draw, spare.mask);
                let size = features.size();
                (Pixels::None, Some(features), mask, size)
            }
            Picture::Image(image) => {
                let (pixels, mask) = prepare::pixels(&image, mask, &draw, &self.geometry, spare);
                (pixels, None, mask, (image.height, image.width))
            }
        };
        Ok(Sample { index, image, features, mask, has_mask, label, source_size })
    }
}

/// Loads an image for prediction: 3 x height x width, normalised, at the geometry's size, and the decoded original. Always
/// [`PixelType::Float`].
///
/// # Errors
/// [`Error::Read`], [`Error::Decode`].
pub fn load_image(path: &Path, geometry: &Geometry) -> Result<(Vec<f32>, Rgb), Error> {
    let image = decode::image_of(&decode::read(path)?, path)?;
    let nothing = Augment::NONE.draw(0, 0, 0);
    Ok((prepare::normalised(&image, &nothing, geometry, Vec::new()), image.rgb()))
}

/// A table that is named must be right; one that merely lies beside the list may be of another kind, which its columns
/// tell, and is then passed over.
fn add_labels(written: &mut [Written], list: &Path, named: Option<&Path>) -> Result<(), Error> {
    if let Some(named) = named {
        if list::add_labels(written, named)? == 0 {
            let of_list = written.first().map(|w| w.entry.image.clone()).unwrap_or_default();
            return Err(Error::OtherLabels { table: named.to_owned(), list: list.to_owned(), image: of_list });
        }
        return Ok(());
    }
    let beside = list.with_file_name("labels.csv");
    if beside != list && beside.is_file() {
        return match list::add_labels(written, &beside) {
            Ok(_) | Err(Error::Columns { .. }) => Ok(()),
            Err(error) => Err(error),
        };
    }
    Ok(())
}

fn named_labels(source: &Source) -> Option<&Path> {
    source.labels.as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// Which samples belong to a part.
fn members_of(part: Part, store: &Store) -> Result<Vec<bool>, Error> {
    lacking(store, "patient", store.labels_remedy(), |i| store.patient(i).is_some())?;
    let Fold { number, of } = part.fold;
    let held_out = |i| store.patient(i).map(|id| fold::of_patient(id, of)) == Some(number);
    let keep: Vec<bool> = (0..store.len()).map(|i| held_out(i) == part.held_out).collect();
    let problem = if part.held_out { "holds out no patient" } else { "leaves no patient to train on" };
    if keep.contains(&true) { Ok(keep) } else { Err(Error::Fold { list: store.list(), number, of, problem }) }
}

fn lacking(store: &Store, what: &'static str, remedy: &'static str, has: impl Fn(usize) -> bool) -> Result<(), Error> {
    let mut without = (0..store.len()).filter(|i| !has(*i));
    let Some(Entry { image, line, .. }) = without.next().and_then(|first| store.entry(first)) else { return Ok(()) };
    Err(Error::Lacking {
        list: store.list(),
        line,
        image,
        what,
        count: 1 + without.count(),
        total: store.len(),
        remedy,
    })
}

fn number_patients(store: &Store) -> (Vec<String>, Vec<Option<usize>>) {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut patients = Vec::new();
    let of = (0..store.len()).map(|i| {
        let id = store.patient(i)?;
        Some(*numbers.entry(id).or_insert_with(|| {
            patients.push(id.to_owned());
            patients.len() - 1
        }))
    });
    let of = of.collect();
    (patients, of)
}

struct MaskValues {
    path: PathBuf,
    lesion: bool,
    other: bool,
    text: String,
}

fn mask_values((file, path): (Vec<u8>, PathBuf)) -> Result<MaskValues, Error> {
    let lesion = decode::mask_of(&file, &path)?.data.contains(&1);
    let values = decode::mask_values(&file, &path)?;
    let mut text = values.iter().take(8).map(u16::to_string).collect::<Vec<_>>().join(",");
    if values.len() > 8 {
        text.push_str(",…");
    }
    Ok(MaskValues { path, lesion, other: values.iter().any(|&value| value != 0), text })
}
