//! A list with a geometry: samples ready for the network.
//!
//! Duty: check the whole list before the first step, and load single samples. Must not: choose which samples (that is
//! [`crate::order`] and [`crate::partition`]) or keep them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::augment::Augment;
use crate::decode::{self, Rgb};
use crate::list::{self, Entry};
use crate::resize::{self, Rect};

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
}

impl Geometry {
    /// The normalisation of ImageNet, which the official code uses, at this size.
    pub const fn imagenet(height: usize, width: usize) -> Self {
        Geometry { height, width, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
    }
}

/// A sample as the network receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its place in the list, from 0.
    pub index: usize,
    /// 3 x height x width, normalised.
    pub image: Vec<f32>,
    /// Height x width; 1 where there is lesion, else 0.
    pub mask: Vec<f32>,
    /// Height and width of the file.
    pub source_size: (usize, usize),
}

/// The samples of a list.
#[derive(Debug)]
pub struct Dataset {
    list: PathBuf,
    entries: Vec<Entry>,
    geometry: Geometry,
    fingerprint: String,
}

impl Dataset {
    /// Reads a list (see [`list::read`]) and checks every entry in parallel: image and mask exist, have a readable
    /// header and the same size.
    ///
    /// # Errors
    /// Those of [`list::read`]; [`Error::Entries`] with the first offending lines in list order and the number of others.
    pub fn open(list: &Path, root: Option<&Path>, geometry: Geometry) -> Result<Dataset, Error> {
        let text = list::text(list)?;
        let written = list::parse(list, &text)?;
        let mut hash = Sha256::new();
        for line in &written {
            // The fields hold no whitespace, so that different lists hash different texts.
            hash.update(format!("{} {}\n", line.image, line.mask));
        }
        let root = list::root_of(list, root);
        let entries = written.iter().map(|line| line.entry(root)).collect();
        let dataset = Dataset { list: list.to_owned(), entries, geometry, fingerprint: hex(&hash.finalize()) };
        dataset.check_headers()?;
        Ok(dataset)
    }

    /// Decodes up to 32 masks spread over the list and checks that lesions are marked by 255.
    ///
    /// # Errors
    /// [`Error::MaskValues`] where some masks have values other than 0 but none has 255 (16 bits: 65535);
    /// [`Error::Read`] and [`Error::Decode`].
    pub fn check_masks(&self) -> Result<(), Error> {
        let count = self.len().min(MASKS_CHECKED);
        let chosen: Vec<&Entry> = (0..count).map(|at| &self.entries[at * self.len() / count]).collect();
        let values: Vec<_> = chosen.par_iter().map(|entry| mask_values(&entry.mask)).collect::<Result<_, _>>()?;
        if values.iter().any(|mask| mask.lesion) {
            return Ok(());
        }
        match chosen.iter().zip(&values).find(|(_, mask)| mask.other) {
            Some((entry, mask)) => Err(Error::MaskValues { path: entry.mask.clone(), values: mask.text.clone() }),
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
        let mut image = decode::rgb(&entry.image)?;
        let mask = decode::mask(&entry.mask)?;
        same_size(entry, (image.width, image.height), (mask.width, mask.height))?;
        let draw = augment.draw(seed, epoch, index);
        draw.shade(&mut image);
        let rect = draw.rect(image.width, image.height);
        let flips = Flips { vertical: draw.flip_vertical, horizontal: draw.flip_horizontal };
        let Geometry { height, width, .. } = self.geometry;
        let nearest = resize::nearest(&mask, rect, height, width);
        Ok(Sample {
            index,
            image: planes(&image, rect, &self.geometry, flips),
            mask: flips.of_mask(&nearest, height, width),
            source_size: (image.height, image.width),
        })
    }

    fn check_headers(&self) -> Result<(), Error> {
        let problem = |entry: &Entry| check_header(entry).err().map(|error| (entry.line, error));
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
    let whole = Rect::whole(image.width, image.height);
    Ok((planes(&image, whole, geometry, Flips::default()), image))
}

fn check_header(entry: &Entry) -> Result<(), Error> {
    same_size(entry, decode::dimensions(&entry.image)?, decode::dimensions(&entry.mask)?)
}

fn same_size(entry: &Entry, image_size: (usize, usize), mask_size: (usize, usize)) -> Result<(), Error> {
    if image_size == mask_size {
        return Ok(());
    }
    Err(Error::MaskSize { mask: entry.mask.clone(), mask_size, image: entry.image.clone(), image_size })
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
    let Geometry { height, width, mean, std } = *geometry;
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
