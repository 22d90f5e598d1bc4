//! A unit to the samples that it becomes.
//!
//! Duty: decode, window, mask, encode. Must not: write, or know which shard it is for.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::geometry::{Affine, View};
use super::guard::guarded;
use super::ids::Ids;
use super::masks::{self, MaskValues, MaskVolume};
use super::plan::Planned;
use super::report::{LeftOut, Why};
use super::sources::dicom::{NOWHERE, Series, Values};
use super::sources::{Input, MaskFile, Unit, nifti};
use super::{Window, pixels};
use crate::mat::{self, Array};
use crate::shard::{Feature, Record};
use crate::{Error, npy};

/// What the samples are made by.
pub(crate) struct Maker<'a> {
    pub(crate) ids: &'a Ids,
    pub(crate) window: Window,
    pub(crate) mask_values: Option<&'a MaskValues>,
}

/// Samples, and what could not become any.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) records: Vec<Record>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl Maker<'_> {
    pub(crate) fn make(&self, planned: &Planned) -> Made {
        let Planned { unit, key } = planned;
        let path = unit.input.files().first().map_or_else(Default::default, |path| path.to_path_buf());
        let made = guarded(&path, || match &unit.input {
            Input::Image(path) => self.image(unit, key, path).map(one),
            Input::Features(path) => self.features(unit, key, path).map(one),
            Input::Volume(path) => self.volume(unit, key, path),
            Input::Series(series) => self.series(unit, key, series),
        });
        made.unwrap_or_else(|left_out| Made { records: Vec::new(), left_out: vec![left_out] })
    }

    fn image(&self, unit: &Unit, key: &str, path: &Path) -> Result<Record, LeftOut> {
        let png = pixels::of_file(path).map_err(|error| LeftOut::unreadable(path, error))?;
        let mask = self.mask_image(unit, path, Some((png.width, png.height)))?;
        let mut facts = self.facts(unit);
        facts.insert("width".to_owned(), json!(png.width));
        facts.insert("height".to_owned(), json!(png.height));
        Ok(Record { image: Some(png.bytes), mask, facts, ..self.record(unit, key.to_owned()) })
    }

    fn features(&self, unit: &Unit, key: &str, path: &Path) -> Result<Record, LeftOut> {
        let features = features(path)?;
        let mask = self.mask_image(unit, path, None)?;
        Ok(Record { features, mask, facts: self.facts(unit), ..self.record(unit, key.to_owned()) })
    }

    fn mask_image(&self, unit: &Unit, image: &Path, size: Option<(usize, usize)>) -> Result<Option<Vec<u8>>, LeftOut> {
        let Some(MaskFile::Image(path)) = &unit.mask else { return Ok(None) };
        let wrong = |reason: String| LeftOut::new(image.display().to_string(), Why::Mask, reason);
        let drawn = masks::of_image(path, self.mask_values).map_err(|error| wrong(error.to_string()))?;
        let masks::Drawn { width, height, pixels, unmeant } = drawn;
        if let Some(values) = unmeant {
            return Err(wrong(format!("its mask {} holds {values} and no 255; see --mask-values", path.display())));
        }
        if size.is_some_and(|size| size != (width, height)) {
            return Err(wrong(format!("its mask {} is {width}x{height}, unlike it", path.display())));
        }
        pixels::grey(&pixels, width, height).map(|png| Some(png.bytes)).map_err(wrong)
    }

    fn volume(&self, unit: &Unit, key: &str, path: &Path) -> Result<Made, LeftOut> {
        let volume = nifti::Volume::read(path).map_err(|problem| LeftOut::unreadable(path, problem))?;
        let mask = self.mask_volume(unit, path)?;
        let affine = volume.header.affine;
        let view = View::axial(&affine, volume.header.dims);
        let mut made = Made::default();
        let mut met = false;
        for slice in 0..view.size[2] {
            let seen = Seen { view: &view, affine: &affine, slice };
            let image = seen.image(self.window, |voxel| volume.value(voxel));
            let mask = mask.as_ref().and_then(|mask| seen.mask(mask));
            met |= mask.is_some();
            let facts = self.slice_facts(unit, &unit.name, &seen, (slice, view.size[2]));
            let record = self.record(unit, format!("{key}-{slice:04}"));
            made.records.push(
                finished(record, &image, mask.as_deref(), &view, facts).map_err(|e| LeftOut::unreadable(path, e))?,
            );
        }
        made.left_out.extend(elsewhere(unit, met));
        Ok(made)
    }

    fn series(&self, unit: &Unit, key: &str, series: &Series) -> Result<Made, LeftOut> {
        let first = series.slices.first().map_or_else(Default::default, |slice| slice.path.clone());
        let mask = self.mask_volume(unit, &first)?;
        let (name, count) = (series.name(), series.slices.len());
        let mut made = Made::default();
        let mut met = false;
        for (at, slice) in series.slices.iter().enumerate() {
            let path = &slice.path;
            let record = guarded(path, || {
                let values = Values::read(path).map_err(|problem| problem.left_out(path))?;
                let slice = &values.slice;
                let (affine, view) = (slice.affine.unwrap_or(NOWHERE), values.view());
                let seen = Seen { view: &view, affine: &affine, slice: 0 };
                let image = seen.image(self.window, |[column, row, _]| values.at(column, row));
                let mask = slice.affine.and(mask.as_ref()).and_then(|mask| seen.mask(mask));
                met |= mask.is_some();
                let mut facts = self.slice_facts(unit, &name, &seen, (at, count));
                facts.insert("spacing".to_owned(), spacing(&view, slice.affine, between(series, at)));
                let record = self.record(unit, format!("{key}-{at:04}"));
                finished(record, &image, mask.as_deref(), &view, facts)
                    .map_err(|error| LeftOut::unreadable(path, error))
            });
            match record {
                Ok(record) => made.records.push(record),
                Err(one) => made.left_out.push(one),
            }
        }
        made.left_out.extend(elsewhere(unit, met || made.records.is_empty()));
        Ok(made)
    }

    fn mask_volume(&self, unit: &Unit, volume: &Path) -> Result<Option<MaskVolume>, LeftOut> {
        let Some(MaskFile::Volume(path)) = &unit.mask else { return Ok(None) };
        let wrong = |problem: String| {
            LeftOut::new(volume.display().to_string(), Why::Mask, format!("its mask {}: {problem}", path.display()))
        };
        let mask = MaskVolume::open(path, self.mask_values).map_err(|problem| wrong(problem.to_string()))?;
        match mask.unmeant() {
            Some(values) => Err(wrong(format!("it holds {values} and no 255; see --mask-values"))),
            None => Ok(Some(mask)),
        }
    }

    fn record(&self, unit: &Unit, key: String) -> Record {
        let patient = unit.patient.as_deref().map(|patient| self.ids.patient(patient)).filter(|id| !id.is_empty());
        Record { key, label: unit.label, patient, ..Record::default() }
    }

    fn facts(&self, unit: &Unit) -> Map<String, Value> {
        let mut facts = Map::new();
        if matches!(self.ids, Ids::Kept) {
            facts.insert("file".to_owned(), json!(unit.name));
        }
        facts
    }

    fn slice_facts(
        &self,
        unit: &Unit,
        series: &str,
        seen: &Seen,
        (slice, slices): (usize, usize),
    ) -> Map<String, Value> {
        let mut facts = self.facts(unit);
        let Window { level, width } = self.window;
        facts.extend([
            ("width".to_owned(), json!(seen.view.size[0])),
            ("height".to_owned(), json!(seen.view.size[1])),
            ("series".to_owned(), json!(self.ids.series(series))),
            ("slice".to_owned(), json!(slice)),
            ("slices".to_owned(), json!(slices)),
            ("spacing".to_owned(), json!(seen.view.spacing(seen.affine))),
            ("window".to_owned(), json!([level, width])),
        ]);
        facts
    }
}

fn one(record: Record) -> Made {
    Made { records: vec![record], left_out: Vec::new() }
}

/// Columns, rows, slices; null where the files do not say.
fn spacing(view: &View, affine: Option<Affine>, between: Option<f64>) -> Value {
    match affine {
        None => Value::Null,
        Some(affine) => {
            let [columns, rows, _] = view.spacing(&affine);
            json!([columns, rows, between])
        }
    }
}

/// Millimetres to the next slice, or for the last one from the one before.
fn between(series: &Series, at: usize) -> Option<f64> {
    let position = |at: usize| series.slices.get(at).and_then(super::sources::dicom::Slice::position);
    let pair = if at + 1 < series.slices.len() { (at, at + 1) } else { (at.checked_sub(1)?, at) };
    Some((position(pair.1)? - position(pair.0)?).abs())
}

/// A mask that was never met lies somewhere else.
fn elsewhere(unit: &Unit, met: bool) -> Option<LeftOut> {
    let mask = unit.mask.as_ref().filter(|_| !met)?;
    let reason = format!("lies nowhere in its volume {}; its slices have no mask", unit.shown());
    Some(LeftOut::new(mask.path().display().to_string(), Why::Mask, reason))
}

/// A slice of a view.
struct Seen<'a> {
    view: &'a View,
    affine: &'a Affine,
    slice: usize,
}

impl Seen<'_> {
    fn image(&self, window: Window, value: impl Fn([usize; 3]) -> f64) -> Vec<u8> {
        self.view.voxels(self.slice).map(|voxel| window.grey(value(voxel))).collect()
    }

    /// None where the mask ends before the slice.
    fn mask(&self, mask: &MaskVolume) -> Option<Vec<u8>> {
        let mut met = false;
        let mut at = |voxel: [usize; 3]| {
            let lesion = mask.at(self.affine.apply(voxel.map(|at| at as f64)));
            met |= lesion.is_some();
            if lesion == Some(true) { 255 } else { 0 }
        };
        let pixels = self.view.voxels(self.slice).map(&mut at).collect();
        met.then_some(pixels)
    }
}

fn finished(
    record: Record,
    image: &[u8],
    mask: Option<&[u8]>,
    view: &View,
    facts: Map<String, Value>,
) -> Result<Record, String> {
    let [columns, rows, _] = view.size;
    let image = pixels::grey(image, columns, rows)?.bytes;
    let mask = mask.map(|mask| pixels::grey(mask, columns, rows)).transpose()?.map(|png| png.bytes);
    Ok(Record { image: Some(image), mask, facts, ..record })
}

const VARIABLES: [(&str, Feature); 2] = [("vgg_feats", Feature::Vgg), ("res2net_feats", Feature::Res2Net)];

/// Both kinds of features, or the one that the file has.
fn features(path: &Path) -> Result<Vec<(Feature, Vec<u8>)>, LeftOut> {
    let unreadable = |error: Error| LeftOut::unreadable(path, error);
    let names = VARIABLES.map(|(name, _)| name);
    let arrays = match mat::read(path, &names) {
        Err(Error::MatMissing { name, .. }) => {
            let others: Vec<&str> = names.into_iter().filter(|other| *other != name).collect();
            mat::read(path, &others).map_err(unreadable)?
        }
        arrays => arrays.map_err(unreadable)?,
    };
    arrays.into_iter().map(|array| feature(path, array)).collect()
}

fn feature(path: &Path, array: Array) -> Result<(Feature, Vec<u8>), LeftOut> {
    let wrong = |reason: String| LeftOut::new(path.display().to_string(), Why::Unsupported, reason);
    let name = array.name.clone();
    let kind = VARIABLES.iter().find(|(other, _)| *other == name).map(|(_, feature)| *feature);
    let kind = kind.ok_or_else(|| wrong(format!("an unexpected variable `{name}`")))?;
    let shape = match array.shape[..] {
        [1, channels, height, width] | [channels, height, width] => [channels, height, width],
        _ => return Err(wrong(format!("`{name}` is {:?}; expected [1, channels, height, width]", array.shape))),
    };
    let values = match array.values {
        mat::Values::U8(values) => values,
        mat::Values::F32(values) => {
            let bytes: Option<Vec<u8>> = values.into_iter().map(byte).collect();
            bytes.ok_or_else(|| {
                wrong(format!("`{name}` holds values that a byte (20 times the value) does not; save it as uint8"))
            })?
        }
    };
    npy::write(path, &shape, &values).map(|bytes| (kind, bytes)).map_err(|error| LeftOut::unreadable(path, error))
}

/// 20 times the value, where that is a byte but for rounding.
fn byte(value: f32) -> Option<u8> {
    let scaled = value * 20.0;
    let whole = scaled.round();
    ((scaled - whole).abs() < 1e-3 && (0.0..=255.0).contains(&whole)).then_some(whole as u8)
}
