//! A list with a geometry: samples ready for the network.
//!
//! Duty: check the whole list before the first step, and load single samples. Must not: choose which samples (that is
//! [`crate::order`] and [`crate::partition`]) or keep them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::augment::{Augment, Draw};
use crate::decode::{self, Mask, Rgb};
use crate::features::{self, Features, Wanted};
use crate::fold::{self, Fold};
use crate::list::{self, Entry, Written};
use crate::resize::{self, Rect};
use crate::thumbnail;

/// Offending lines that one message shows; the others are counted.
const SHOWN: usize = 5;
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
        Geometry { height, width, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], fit: Fit::Stretch }
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
    /// 3 x height x width, normalised; empty where there are features instead.
    pub image: Vec<f32>,
    /// Features in place of the image.
    pub features: Option<Features>,
    /// Height x width; 1 where there is lesion, else 0; all 0 where [`Self::has_mask`] is not set.
    pub mask: Vec<f32>,
    /// Whether there is a mask.
    pub has_mask: bool,
    /// Whether it is COVID-19, where that is known.
    pub label: Option<bool>,
    /// Height and width of the file.
    pub source_size: (usize, usize),
}

/// Where samples come from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A list or table, see [`list::read`].
    pub list: PathBuf,
    /// Folder that its relative paths count from; none: its own.
    pub root: Option<PathBuf>,
    /// A table that adds labels and patients; none: `labels.csv` in the list's folder, where there is one.
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

/// The samples of a list.
#[derive(Debug)]
pub struct Dataset {
    list: PathBuf,
    entries: Vec<Entry>,
    /// Ids, in the order of their first sample.
    patients: Vec<String>,
    /// Place in `patients` of each entry.
    patient_of: Vec<Option<usize>>,
    geometry: Geometry,
    fingerprint: String,
}

impl Dataset {
    /// Reads a list and checks every entry in parallel: image and mask exist, have a readable header and the same size.
    ///
    /// # Errors
    /// Those of [`list::read`]; [`Error::Lacking`] where folds are asked for and a patient is not known; [`Error::Fold`];
    /// [`Error::Entries`] with the first offending lines in list order and the number of others.
    pub fn open(source: &Source, geometry: Geometry) -> Result<Dataset, Error> {
        let list = &source.list;
        let mut written = list::read_written(list, source.root.as_deref())?;
        add_labels(&mut written, source)?;
        if let Some(part) = source.part {
            written = take_part(written, part, list)?;
        }
        let fingerprint = fingerprint(&written);
        let entries: Vec<Entry> = written.into_iter().map(|written| written.entry).collect();
        let (patients, patient_of) = number_patients(&entries);
        let dataset = Dataset { list: list.clone(), entries, patients, patient_of, geometry, fingerprint };
        dataset.check_headers()?;
        Ok(dataset)
    }

    /// Sees that every sample has a mask.
    ///
    /// # Errors
    /// [`Error::Lacking`].
    pub fn require_masks(&self) -> Result<(), Error> {
        self.require("mask", "add a column `mask`, or train the classifier (model.kind = \"cls\")", |e| {
            e.mask.is_some()
        })
    }

    /// Sees that every sample has a label. From here on the labels count in [`Self::fingerprint`].
    ///
    /// # Errors
    /// [`Error::Lacking`].
    pub fn require_labels(&mut self) -> Result<(), Error> {
        self.require("label", "name a table `file,label,patient_id` by data.labels", |e| e.label.is_some())?;
        let labels = self.entries.iter().map(|entry| if entry.label == Some(true) { '1' } else { '0' });
        let text = format!("{} {}", self.fingerprint, labels.collect::<String>());
        self.fingerprint = hex(&Sha256::digest(text.as_bytes()));
        Ok(())
    }

    fn require(&self, what: &'static str, remedy: &'static str, has: impl Fn(&Entry) -> bool) -> Result<(), Error> {
        lacking(&self.list, &self.entries, what, remedy, has)
    }

    /// Decodes up to 32 masks spread over the list and checks that lesions are marked by 255.
    ///
    /// # Errors
    /// [`Error::MaskValues`] where some masks have values other than 0 but none has 255 (16 bits: 65535);
    /// [`Error::Read`] and [`Error::Decode`].
    pub fn check_masks(&self) -> Result<(), Error> {
        let all: Vec<&Path> = self.entries.iter().filter_map(|entry| entry.mask.as_deref()).collect();
        let count = all.len().min(MASKS_CHECKED);
        let chosen: Vec<&Path> = (0..count).map(|at| all[at * all.len() / count]).collect();
        let values: Vec<_> = chosen.par_iter().map(|mask| mask_values(mask)).collect::<Result<_, _>>()?;
        if values.iter().any(|mask| mask.lesion) {
            return Ok(());
        }
        match chosen.iter().zip(&values).find(|(_, mask)| mask.other) {
            Some((path, mask)) => Err(Error::MaskValues { path: (*path).to_owned(), values: mask.text.clone() }),
            None => Ok(()),
        }
    }

    /// Samples in the list.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none; an opened data set is never empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Line `i` of the list, counted from 0 without blank lines.
    ///
    /// # Panics
    /// Where `i` is not below [`Dataset::len`], as indexing a slice does.
    pub fn entry(&self, i: usize) -> &Entry {
        &self.entries[i]
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
        self.entries.get(i).and_then(|entry| entry.label)
    }

    /// The file of sample `i`, or the list where there is no such sample.
    pub(crate) fn path_of(&self, i: usize) -> &Path {
        self.entries.get(i).map_or(&self.list, |entry| &entry.image)
    }

    /// Size and normalisation of the samples.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// SHA-256, in hexadecimal, over the image and mask of every line as written: equal where two runs read the same list,
    /// wherever the files lie.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    /// Loads a sample in the official order of operations: decode, brightness and contrast, normalise, crop, resize, flips.
    /// (The normalisation is applied after the resize: the same within 1e-5.)
    ///
    /// # Errors
    /// [`Error::Index`], [`Error::Read`], [`Error::Decode`], [`Error::MaskSize`].
    pub fn load(&self, index: usize, epoch: u64, seed: u64, augment: &Augment) -> Result<Sample, Error> {
        let missing = || Error::Index { list: self.list.clone(), index, len: self.len() };
        let entry = self.entries.get(index).ok_or_else(missing)?;
        let draw = augment.draw(seed, epoch, index);
        let mask = entry.mask.as_deref().map(decode::mask).transpose()?;
        if let Fit::Features(wanted) = self.geometry.fit {
            return featured(index, entry, mask.as_ref(), &draw, wanted);
        }
        let mut image = decode::rgb(&entry.image)?;
        if let (Some(mask), Some(path)) = (&mask, &entry.mask) {
            same_size(entry, path, (image.width, image.height), (mask.width, mask.height))?;
        }
        let source_size = (image.height, image.width);
        draw.shade(&mut image);
        let (image, mask_values) = match self.geometry.fit {
            Fit::Stretch => stretched(&image, mask.as_ref(), &draw, &self.geometry),
            Fit::CentreCrop | Fit::Features(_) => cropped(&image, mask.as_ref(), &draw, &self.geometry),
        };
        let (has_mask, label) = (mask.is_some(), entry.label);
        Ok(Sample { index, image, features: None, mask: mask_values, has_mask, label, source_size })
    }

    fn check_headers(&self) -> Result<(), Error> {
        let problem = |entry: &Entry| check_header(entry, self.geometry.fit).err().map(|error| (entry.line, error));
        let mut problems: Vec<_> = self.entries.par_iter().filter_map(problem).collect();
        let others = problems.len().saturating_sub(SHOWN);
        problems.truncate(SHOWN);
        if problems.is_empty() {
            return Ok(());
        }
        let shown = problems.iter().map(|(line, error)| format!("{}:{line}: {error}", self.list.display())).collect();
        Err(Error::Entries { list: self.list.clone(), total: self.len(), shown, others })
    }
}

/// Loads an image for prediction: 3 x height x width, normalised, at the geometry's size, and the decoded original.
///
/// # Errors
/// [`Error::Read`], [`Error::Decode`].
pub fn load_image(path: &Path, geometry: &Geometry) -> Result<(Vec<f32>, Rgb), Error> {
    let image = decode::rgb(path)?;
    let nothing = Augment::NONE.draw(0, 0, 0);
    let (pixels, _) = match geometry.fit {
        Fit::Stretch => stretched(&image, None, &nothing, geometry),
        Fit::CentreCrop | Fit::Features(_) => cropped(&image, None, &nothing, geometry),
    };
    Ok((pixels, image))
}

/// A table that is named must be right; one that merely lies beside the list may be of another kind, which its columns
/// tell, and is then passed over.
fn add_labels(written: &mut [Written], source: &Source) -> Result<(), Error> {
    if let Some(named) = source.labels.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        if list::add_labels(written, named)? == 0 {
            let of_list = written.first().map(|w| w.entry.image.clone()).unwrap_or_default();
            return Err(Error::OtherLabels { table: named.to_owned(), list: source.list.clone(), image: of_list });
        }
        return Ok(());
    }
    let beside = source.list.with_file_name("labels.csv");
    if beside != source.list && beside.is_file() {
        return match list::add_labels(written, &beside) {
            Ok(_) | Err(Error::Columns { .. }) => Ok(()),
            Err(error) => Err(error),
        };
    }
    Ok(())
}

fn take_part(written: Vec<Written>, part: Part, list: &Path) -> Result<Vec<Written>, Error> {
    let remedy = "name a table `file,label,patient_id` by data.labels";
    let entries: Vec<Entry> = written.iter().map(|written| written.entry.clone()).collect();
    lacking(list, &entries, "patient", remedy, |entry| entry.patient.is_some())?;
    let held_out = |written: &Written| {
        let of_patient = |id: &String| fold::of_patient(id, part.fold.of);
        written.entry.patient.as_ref().map(of_patient) == Some(part.fold.number)
    };
    let chosen: Vec<Written> = written.into_iter().filter(|w| held_out(w) == part.held_out).collect();
    let Fold { number, of } = part.fold;
    let problem = if part.held_out { "holds out no patient" } else { "leaves no patient to train on" };
    if chosen.is_empty() { Err(Error::Fold { list: list.to_owned(), number, of, problem }) } else { Ok(chosen) }
}

fn lacking(
    list: &Path,
    entries: &[Entry],
    what: &'static str,
    remedy: &'static str,
    has: impl Fn(&Entry) -> bool,
) -> Result<(), Error> {
    let mut without = entries.iter().filter(|entry| !has(entry));
    let Some(first) = without.next() else { return Ok(()) };
    let (image, count) = (first.image.clone(), 1 + without.count());
    Err(Error::Lacking { list: list.to_owned(), line: first.line, image, what, count, total: entries.len(), remedy })
}

fn fingerprint(written: &[Written]) -> String {
    let mut hash = Sha256::new();
    for line in written {
        hash.update(format!("{}\n", line.text));
    }
    hex(&hash.finalize())
}

fn number_patients(entries: &[Entry]) -> (Vec<String>, Vec<Option<usize>>) {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut patients = Vec::new();
    let of = entries.iter().map(|entry| {
        let id = entry.patient.as_deref()?;
        Some(*numbers.entry(id).or_insert_with(|| {
            patients.push(id.to_owned());
            patients.len() - 1
        }))
    });
    let of = of.collect();
    (patients, of)
}

fn check_header(entry: &Entry, fit: Fit) -> Result<(), Error> {
    if let Fit::Features(wanted) = fit {
        features::check(&entry.image, wanted)?;
        return entry.mask.as_deref().map_or(Ok(()), |mask| decode::dimensions(mask).map(drop));
    }
    let image = decode::dimensions(&entry.image)?;
    match &entry.mask {
        Some(mask) => same_size(entry, mask, image, decode::dimensions(mask)?),
        None => Ok(()),
    }
}

fn same_size(entry: &Entry, mask: &Path, image_size: (usize, usize), mask_size: (usize, usize)) -> Result<(), Error> {
    if image_size == mask_size {
        return Ok(());
    }
    Err(Error::MaskSize { mask: mask.to_owned(), mask_size, image: entry.image.clone(), image_size })
}

/// A sample of features.
fn featured(index: usize, entry: &Entry, mask: Option<&Mask>, draw: &Draw, wanted: Wanted) -> Result<Sample, Error> {
    let mut features = features::load(&entry.image, wanted)?;
    features.flip(draw.flip_vertical, draw.flip_horizontal);
    let (height, width) = features.size();
    let flips = Flips { vertical: draw.flip_vertical, horizontal: draw.flip_horizontal };
    let of_mask = |mask: &Mask| {
        let whole = Rect::whole(mask.width, mask.height);
        flips.of_mask(&resize::nearest(mask, whole, height, width), height, width)
    };
    Ok(Sample {
        index,
        image: Vec::new(),
        features: Some(features),
        mask: mask.map_or_else(|| vec![0.0; height * width], of_mask),
        has_mask: mask.is_some(),
        label: entry.label,
        source_size: (height, width),
    })
}

/// Image and mask as [`Fit::Stretch`] has them. Without a mask all pixels are 0.
fn stretched(image: &Rgb, mask: Option<&Mask>, draw: &Draw, geometry: &Geometry) -> (Vec<f32>, Vec<f32>) {
    let Geometry { height, width, .. } = *geometry;
    let rect = draw.rect(image.width, image.height);
    let flips = Flips { vertical: draw.flip_vertical, horizontal: draw.flip_horizontal };
    let mask = mask.map(|mask| flips.of_mask(&resize::nearest(mask, rect, height, width), height, width));
    (planes(image, rect, geometry, flips), mask.unwrap_or_else(|| vec![0.0; height * width]))
}

/// Image and mask as [`Fit::CentreCrop`] has them; where the augmentation crops, the crop is anywhere.
fn cropped(image: &Rgb, mask: Option<&Mask>, draw: &Draw, geometry: &Geometry) -> (Vec<f32>, Vec<f32>) {
    let Geometry { height, width, .. } = *geometry;
    let flips = Flips { vertical: draw.flip_vertical, horizontal: draw.flip_horizontal };
    let (tall, wide) = thumbnail::size((image.height, image.width), (height, width));
    let small = thumbnail::resize(image, tall, wide);
    let rect = draw.window((wide, tall), (width, height));
    let mask = mask.map(|mask| {
        let whole = Mask {
            width: wide,
            height: tall,
            data: resize::nearest(mask, Rect::whole(mask.width, mask.height), tall, wide),
        };
        flips.of_mask(&resize::nearest(&whole, rect, height, width), height, width)
    });
    (planes(&small, rect, geometry, flips), mask.unwrap_or_else(|| vec![0.0; height * width]))
}

#[derive(Clone, Copy, Default)]
struct Flips {
    vertical: bool,
    horizontal: bool,
}

impl Flips {
    fn row(self, y: usize, height: usize) -> usize {
        if self.vertical { height - 1 - y } else { y }
    }

    fn of_mask(self, mask: &[u8], height: usize, width: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(height * width);
        for y in 0..height {
            let row = mask[self.row(y, height) * width..][..width].iter().map(|&value| f32::from(value));
            if self.horizontal { out.extend(row.rev()) } else { out.extend(row) }
        }
        out
    }
}

/// Crop, resize, normalise, flip and take the channels apart, in one pass over the decoded image.
fn planes(image: &Rgb, rect: Rect, geometry: &Geometry, flips: Flips) -> Vec<f32> {
    let Geometry { height, width, mean, std, .. } = *geometry;
    let plane = height * width;
    let mut out = vec![0.0; 3 * plane];
    resize::bilinear_rows(image, rect, height, width, |y, row| {
        let start = flips.row(y, height) * width;
        for channel in 0..3 {
            let target = &mut out[channel * plane + start..][..width];
            let source = row.chunks_exact(3).map(|pixel| (pixel[channel] - mean[channel]) / std[channel]);
            if flips.horizontal {
                target.iter_mut().rev().zip(source).for_each(|(target, value)| *target = value);
            } else {
                target.iter_mut().zip(source).for_each(|(target, value)| *target = value);
            }
        }
    });
    out
}

struct MaskValues {
    lesion: bool,
    other: bool,
    text: String,
}

fn mask_values(path: &Path) -> Result<MaskValues, Error> {
    let lesion = decode::mask(path)?.data.contains(&1);
    let values = decode::mask_values(path)?;
    let mut text = values.iter().take(8).map(u16::to_string).collect::<Vec<_>>().join(",");
    if values.len() > 8 {
        text.push_str(",…");
    }
    Ok(MaskValues { lesion, other: values.iter().any(|&value| value != 0), text })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
