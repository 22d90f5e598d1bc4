//! First-stage features in place of images, as the public COVID-CS release has them: MATLAB files with the variables
//! `vgg_feats`, (1, C, H, W), and `res2net_feats`, (1, C, H/2, W/2); the leading 1 may be absent. Bytes hold 20 times
//! the value; any other class holds the value itself. Shards have the same arrays as `.npy` files.
//!
//! Duty: a file to maps. Must not: know which layers of a network they come from.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::mat::{self, Array, Values};
use crate::npy;
use crate::shard::Feature;

/// What a network takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `vgg_feats`
    pub vgg: bool,
    /// `res2net_feats`
    pub res2net: bool,
    /// Channels of each.
    pub channels: usize,
}

/// Maps of one kind of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Maps {
    /// How many.
    pub channels: usize,
    /// Rows of each.
    pub height: usize,
    /// Columns of each.
    pub width: usize,
    /// Channel after channel, row after row.
    pub values: Vec<f32>,
}

/// The features of a sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// `vgg_feats`, where it was wanted.
    pub vgg: Option<Maps>,
    /// `res2net_feats`, where it was wanted.
    pub res2net: Option<Maps>,
}

/// Factor between a value and the byte that holds it.
const SCALE: f32 = 20.0;
/// Sides of `res2net_feats` below which the networks pool to nothing; of `vgg_feats` twice that.
const LEAST: usize = 8;
const VGG: &str = "vgg_feats";
const RES2NET: &str = "res2net_feats";

impl Features {
    /// Height and width of the masks that belong to them: those of `vgg_feats`, or twice those of `res2net_feats`.
    pub fn size(&self) -> (usize, usize) {
        match (&self.vgg, &self.res2net) {
            (Some(maps), _) => (maps.height, maps.width),
            (None, Some(maps)) => (2 * maps.height, 2 * maps.width),
            (None, None) => (0, 0),
        }
    }

    /// Turns all maps.
    pub(crate) fn flip(&mut self, vertical: bool, horizontal: bool) {
        for maps in [&mut self.vgg, &mut self.res2net].into_iter().flatten() {
            let plane = maps.height * maps.width;
            if plane == 0 {
                continue;
            }
            for plane in maps.values.chunks_exact_mut(plane) {
                if horizontal {
                    plane.chunks_exact_mut(maps.width).for_each(<[f32]>::reverse);
                }
                if vertical {
                    let rows: Vec<f32> = plane.chunks_exact(maps.width).rev().flatten().copied().collect();
                    plane.copy_from_slice(&rows);
                }
            }
        }
    }
}

/// Sees that a file holds what is wanted, in shapes that fit, without reading its values.
///
/// # Errors
/// Those of [`mat::read`]; [`Error::Features`] where a variable is no stack of so many maps, or the two do not fit.
pub fn check(path: &Path, wanted: Wanted) -> Result<(), Error> {
    let names = names(wanted);
    let wrong = |name: &str, shape: &[usize]| Error::Features {
        path: path.to_owned(),
        name: name.to_owned(),
        shape: shape.to_vec(),
        channels: wanted.channels,
    };
    let mut sizes = Vec::new();
    for (name, shape) in names.iter().zip(mat::shapes(path, &names)?) {
        sizes.push((*name, size(name, &shape, wanted.channels).ok_or_else(|| wrong(name, &shape))?, shape));
    }
    match &sizes[..] {
        [(_, (h, w), _), (name, (half_h, half_w), shape)]
            if !(h / 2..=h.div_ceil(2)).contains(half_h) || !(w / 2..=w.div_ceil(2)).contains(half_w) =>
        {
            Err(wrong(name, shape))
        }
        _ => Ok(()),
    }
}

fn names(wanted: Wanted) -> Vec<&'static str> {
    [(wanted.vgg, VGG), (wanted.res2net, RES2NET)].iter().filter(|(wanted, _)| *wanted).map(|(_, name)| *name).collect()
}

/// Height and width of maps, where this is the shape of a stack of so many.
fn size(name: &str, shape: &[usize], wanted: usize) -> Option<(usize, usize)> {
    let ([1, channels, height, width] | [channels, height, width]) = *shape else { return None };
    let least = if name == VGG { 2 * LEAST } else { LEAST };
    (channels == wanted && height.min(width) >= least).then_some((height, width))
}

/// Reads a file.
///
/// # Errors
/// Those of [`mat::read`]; [`Error::Features`] where a variable is no stack of so many maps.
pub fn load(path: &Path, wanted: Wanted) -> Result<Features, Error> {
    // Before the values, which may be many.
    check(path, wanted)?;
    let mut features = Features::default();
    for array in mat::read(path, &names(wanted))? {
        let is_vgg = array.name == VGG;
        let maps = maps(path, array, wanted.channels)?;
        *(if is_vgg { &mut features.vgg } else { &mut features.res2net }) = Some(maps);
    }
    Ok(features)
}

/// Takes features out of the members of a shard that hold them: `file(kind)` has the bytes of each with what to call it.
///
/// # Errors
/// [`Error::Npy`]; [`Error::Features`]; those of `file`.
pub(crate) fn of_members<'a>(
    wanted: Wanted,
    file: impl Fn(Feature) -> Result<(&'a [u8], PathBuf), Error>,
) -> Result<Features, Error> {
    let read = |wanted_too: bool, feature: Feature, name: &str| -> Result<Option<Maps>, Error> {
        if !wanted_too {
            return Ok(None);
        }
        let (bytes, path) = file(feature)?;
        let (shape, values) = npy::read(&path, bytes)?;
        maps(&path, Array { name: name.to_owned(), shape, values }, wanted.channels).map(Some)
    };
    Ok(Features {
        vgg: read(wanted.vgg, Feature::Vgg, VGG)?,
        res2net: read(wanted.res2net, Feature::Res2Net, RES2NET)?,
    })
}

fn maps(path: &Path, array: Array, wanted: usize) -> Result<Maps, Error> {
    let Some((height, width)) = size(&array.name, &array.shape, wanted) else {
        return Err(Error::Features { path: path.to_owned(), name: array.name, shape: array.shape, channels: wanted });
    };
    let scale = if matches!(array.values, Values::U8(_)) { SCALE } else { 1.0 };
    let values = array.values.into_f32().into_iter().map(|value| value / scale).collect();
    Ok(Maps { channels: wanted, height, width, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_turned_each_on_its_own() {
        let values = vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let mut features = Features { vgg: Some(Maps { channels: 2, height: 2, width: 2, values }), res2net: None };
        features.flip(true, false);
        assert_eq!(features.vgg.as_ref().unwrap().values, [3.0, 4.0, 1.0, 2.0, 7.0, 8.0, 5.0, 6.0]);
        features.flip(false, true);
        assert_eq!(features.vgg.as_ref().unwrap().values, [4.0, 3.0, 2.0, 1.0, 8.0, 7.0, 6.0, 5.0]);
    }
}
