//! Lesion masks: which values mean lesion, and from mask files to 0 and 255.
//!
//! Duty: a mask of the data set holds 0 and 255 alone, and no lesion is lost because it is marked by another value than
//! expected. Must not: know where images come from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use image::DynamicImage;
use rayon::prelude::*;

use super::PackError;
use super::geometry::Affine;
use super::guard::guarded;
use super::sources::{MaskFile, Unit, nifti};
use crate::{Error, decode};

/// Values that mean lesion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskValues(BTreeSet<u16>);

impl FromStr for MaskValues {
    type Err = String;

    fn from_str(text: &str) -> Result<MaskValues, String> {
        let wrong = || format!("`{text}`: expected values from 1 to 65535 with commas between them, as in 1,2");
        let value = |part: &str| part.trim().parse::<u16>().ok().filter(|value| *value > 0).ok_or_else(wrong);
        text.split(',').map(value).collect::<Result<_, _>>().map(MaskValues)
    }
}

impl MaskValues {
    /// With commas between them.
    pub(crate) fn text(&self) -> String {
        join(&self.0)
    }
}

/// A mask as it goes into the data set.
pub(crate) struct Drawn {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 255 at lesions, else 0.
    pub(crate) pixels: Vec<u8>,
    /// Values other than 0, where none of them means lesion.
    pub(crate) unmeant: Option<String>,
}

/// Reads a mask image.
pub(crate) fn of_image(path: &Path, values: Option<&MaskValues>) -> Result<Drawn, Error> {
    let file = decode::read(path)?;
    let seen = decode::mask_values(&file, path)?;
    let (width, height, lesion) = match values {
        None => {
            let mask = decode::mask_of(&file, path)?;
            (mask.width, mask.height, mask.data)
        }
        Some(values) => {
            let image = decode::decode(&file, path)?;
            let (width, height) = (image.width() as usize, image.height() as usize);
            (width, height, chosen(image, values))
        }
    };
    let pixels: Vec<u8> = lesion.into_iter().map(|lesion| 255 * lesion).collect();
    let others: BTreeSet<u16> = seen.into_iter().filter(|value| *value != 0).collect();
    let unmeant = (values.is_none() && !pixels.contains(&255) && !others.is_empty()).then(|| join(&others));
    Ok(Drawn { width, height, pixels, unmeant })
}

/// 1 where the brightest channel has a chosen value.
fn chosen(image: DynamicImage, values: &MaskValues) -> Vec<u8> {
    let of = |pixel: &[u16]| u8::from(pixel.iter().max().is_some_and(|value| values.0.contains(value)));
    match image {
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => image.into_rgb16().as_raw().chunks_exact(3).map(of).collect(),
        _ => {
            let words = |pixel: &[u8]| of(&[0, 1, 2].map(|at| pixel.get(at).copied().map_or(0, u16::from)));
            image.into_rgb8().as_raw().chunks_exact(3).map(words).collect()
        }
    }
}

/// A mask volume, to be looked up by place in space.
pub(crate) struct MaskVolume {
    volume: nifti::Volume,
    to_voxel: Affine,
    values: Option<MaskValues>,
}

/// What 255 is in a file without a choice of values.
const LESION: f64 = 255.0;

impl MaskVolume {
    pub(crate) fn open(path: &Path, values: Option<&MaskValues>) -> Result<MaskVolume, nifti::Problem> {
        let volume = nifti::Volume::read(path)?;
        let to_voxel =
            volume.header.affine.inverse().ok_or_else(|| nifti::Problem::damaged("its affine has no inverse"))?;
        Ok(MaskVolume { volume, to_voxel, values: values.cloned() })
    }

    /// Whether there is lesion at a point, by the nearest voxel; none outside of the mask.
    pub(crate) fn at(&self, point: [f64; 3]) -> Option<bool> {
        let mut voxel = [0; 3];
        for ((place, at), dim) in voxel.iter_mut().zip(self.to_voxel.apply(point)).zip(self.volume.header.dims) {
            // A point right between two voxels goes to one of them whatever the rounding of the maps.
            let nearest = (at + 1e-4).round();
            if !(0.0..dim as f64).contains(&nearest) {
                return None;
            }
            *place = nearest as usize;
        }
        let value = self.volume.value(voxel);
        Some(match &self.values {
            None => value == LESION,
            Some(values) => values.0.iter().any(|lesion| value == f64::from(*lesion)),
        })
    }

    /// The values other than 0, where nobody said which of them mean lesion and none is 255.
    pub(crate) fn unmeant(&self) -> Option<String> {
        if self.values.is_some() || self.volume.values().any(|value| value == LESION) {
            return None;
        }
        let others: BTreeSet<u16> = self.values().into_iter().filter(|value| *value != 0).collect();
        (!others.is_empty()).then(|| join(&others))
    }

    /// Its values, as far as they could be asked for: whole numbers of 16 bits.
    fn values(&self) -> BTreeSet<u16> {
        let (mut values, mut last) = (BTreeSet::new(), f64::NAN);
        for value in self.volume.values() {
            // Neighbours mostly agree.
            if value != last && (0.0..=f64::from(u16::MAX)).contains(&value) {
                values.insert(value.round() as u16);
            }
            last = value;
        }
        values
    }
}

/// Mask images, and mask volumes, that are looked at before packing.
const CHECKED: [usize; 2] = [512, 64];

/// Looks at masks spread over the set: some must hold lesions by the values that mean lesion, unless all are empty.
pub(crate) fn check(units: &[Unit], values: Option<&MaskValues>) -> Result<(), PackError> {
    let of = |volume: bool| -> Vec<&MaskFile> {
        let all: BTreeSet<&MaskFile> = units.iter().filter_map(|unit| unit.mask.as_ref()).collect();
        let all: Vec<&MaskFile> =
            all.into_iter().filter(|mask| matches!(mask, MaskFile::Volume(_)) == volume).collect();
        let count = all.len().min(CHECKED[usize::from(volume)]);
        (0..count).filter_map(|at| all.get(at * all.len() / count).copied()).collect()
    };
    for masks in [of(false), of(true)] {
        let seen: Vec<Option<Seen>> = masks.par_iter().map(|mask| seen(mask, values)).collect();
        if seen.iter().flatten().any(|seen| seen.lesion) {
            continue;
        }
        if let Some(seen) = seen.into_iter().flatten().find(|seen| seen.values.iter().any(|value| *value != 0)) {
            let others = seen.values.iter().copied().filter(|value| *value != 0).collect();
            let meant = values.map_or_else(|| "255 (65535 in 16 bits)".to_owned(), MaskValues::text);
            let (path, values, others) = (seen.path, join(&seen.values), join(&others));
            return Err(PackError::MaskValues { path, meant, values, others });
        }
    }
    Ok(())
}

struct Seen {
    path: PathBuf,
    values: BTreeSet<u16>,
    lesion: bool,
}

/// None where it cannot be read, which is said when its sample is left out.
fn seen(mask: &MaskFile, values: Option<&MaskValues>) -> Option<Seen> {
    guarded(mask.path(), || Ok(values_of(mask, values))).ok().flatten()
}

fn values_of(mask: &MaskFile, values: Option<&MaskValues>) -> Option<Seen> {
    let found = match mask {
        MaskFile::Image(path) => {
            let lesion = of_image(path, values).ok()?.pixels.contains(&255);
            Seen { path: path.clone(), values: decode::mask_values(&decode::read(path).ok()?, path).ok()?, lesion }
        }
        MaskFile::Volume(path) => {
            let found = MaskVolume::open(path, values).ok()?.values();
            let lesion = found.iter().any(|value| values.map_or(*value == 255, |values| values.0.contains(value)));
            Seen { path: path.clone(), values: found, lesion }
        }
    };
    Some(found)
}

fn join(values: &BTreeSet<u16>) -> String {
    let mut text = values.iter().take(8).map(u16::to_string).collect::<Vec<_>>().join(",");
    if values.len() > 8 {
        text.push_str(",…");
    }
    text
}
