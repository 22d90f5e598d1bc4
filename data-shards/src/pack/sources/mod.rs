//! Where samples come from.
//!
//! Duty: a source (a list, a table, a folder) to the units that are packed, each with what is known of it, and to every input
//! that is left out. Headers are read, pixels are not. Must not: choose splits, write, or depend on the order in which a
//! folder lists its files.

pub(crate) mod dicom;
mod folder;
mod kind;
mod labels;
mod list;
pub(crate) mod nifti;
mod volumes;
mod walk;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use self::dicom::Series;
use super::guard::guarded;
use super::report::{LeftOut, Why};
use super::{Options, PackError, Watch};
use crate::decode;
pub(crate) use kind::Kind;
use labels::Labels;

/// What stays together in a shard.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    /// Its name within the source, whichever machine that lies on.
    pub(crate) name: String,
    pub(crate) input: Input,
    pub(crate) mask: Option<MaskFile>,
    /// The split that the source gives it.
    pub(crate) split: Option<String>,
    pub(crate) label: Option<bool>,
    pub(crate) patient: Option<String>,
    /// Samples that it becomes.
    pub(crate) slices: usize,
    /// About how many bytes they take.
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum Input {
    Image(PathBuf),
    Features(PathBuf),
    Volume(PathBuf),
    Series(Series),
}

impl Unit {
    /// What it is called on terminals and in reports: its file, where its name holds a UID.
    pub(crate) fn shown(&self) -> String {
        match &self.input {
            Input::Series(series) => {
                series.slices.first().map_or_else(String::new, |slice| slice.path.display().to_string())
            }
            _ => self.name.clone(),
        }
    }
}

impl Input {
    /// Its files.
    pub(crate) fn files(&self) -> Vec<&Path> {
        match self {
            Input::Image(path) | Input::Features(path) | Input::Volume(path) => vec![path],
            Input::Series(series) => series.slices.iter().map(|slice| slice.path.as_path()).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MaskFile {
    Image(PathBuf),
    Volume(PathBuf),
}

impl MaskFile {
    pub(crate) fn path(&self) -> &Path {
        match self {
            MaskFile::Image(path) | MaskFile::Volume(path) => path,
        }
    }
}

/// What a source holds.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) units: Vec<Unit>,
    /// The splits that the source gives, in their order.
    pub(crate) splits: Vec<String>,
    pub(crate) left_out: Vec<LeftOut>,
    pub(crate) notes: Vec<String>,
    /// The files in the folder of masks. A list chooses what it names, so that there nothing is left out.
    masks: Vec<PathBuf>,
}

/// Searches a source.
pub(crate) fn find(sources: &[PathBuf], out: &Path, options: &Options, watch: &Watch) -> Result<Found, PackError> {
    let Some(first) = sources.first() else { return Ok(Found::default()) };
    if first.is_dir() {
        refuse_within(first, out)?;
    }
    let mut found = match list::lists(sources, options.format)? {
        Some(lists) => list::find(&lists, options)?,
        None if first.is_dir() => folder::find(first, options, watch)?,
        None => folder::of_file(first, options, watch)?,
    };
    let without = found.units.iter().filter(|unit| unit.mask.is_none()).count();
    if options.masks.is_some() && without > 0 {
        found.notes.push(format!("{without} of {} inputs have no mask", found.units.len()));
    }
    finish(found, first, watch)
}

/// Does work on all of many files at once, shows how far it is, and stops where that is asked for.
fn each<T: Send, U: Send>(all: Vec<T>, watch: &Watch, work: impl Fn(T) -> U + Sync) -> Result<Vec<U>, PackError> {
    let (done, total) = (AtomicUsize::new(0), all.len());
    let one = |item| {
        watch.stopped()?;
        let result = work(item);
        (watch.progress)(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        Ok(result)
    };
    all.into_par_iter().map(one).collect()
}

/// Each unit once in a split, in the order of their names; what cannot be used is left out.
fn finish(mut found: Found, source: &Path, watch: &Watch) -> Result<Found, PackError> {
    let unused = unused(&found);
    found.left_out.extend(unused);
    let mut all = each(std::mem::take(&mut found.units), watch, checked)?;
    all.sort_by_cached_key(|unit| unit.as_ref().ok().map(|unit| (unit.split.clone(), unit.name.clone())));
    for unit in all {
        match unit {
            Err(one) => found.left_out.push(one),
            Ok(unit)
                if found.units.last().is_some_and(|last| (&last.split, &last.name) == (&unit.split, &unit.name)) =>
            {
                found.left_out.push(LeftOut::new(unit.shown(), Why::Duplicate, "named more than once"));
            }
            Ok(unit) => found.units.push(unit),
        }
    }
    found.left_out.sort();
    if !found.units.is_empty() {
        return Ok(found);
    }
    let problem = match found.left_out.len() {
        0 => "no image, volume or feature file found".to_owned(),
        count => format!("nothing can be packed; {count} inputs cannot be used:"),
    };
    Err(PackError::Nothing { from: source.to_owned(), problem, left_out: found.left_out })
}

/// Masks that were offered and that nothing has taken, nor is packed itself.
fn unused(found: &Found) -> Vec<LeftOut> {
    let used: HashSet<&Path> = found.units.iter().filter_map(|unit| Some(unit.mask.as_ref()?.path())).collect();
    let mut rest: Vec<&PathBuf> = found.masks.iter().filter(|mask| !used.contains(mask.as_path())).collect();
    if !rest.is_empty() {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let inputs: HashSet<PathBuf> =
            found.units.iter().flat_map(|unit| unit.input.files()).chain(used).map(real).collect();
        rest.retain(|mask| !inputs.contains(&real(mask)));
    }
    let reason = "no input has its name or its place, or several masks have it; it is not used";
    rest.into_iter().map(|mask| LeftOut::new(mask.display().to_string(), Why::Mask, reason)).collect()
}

fn checked(unit: Unit) -> Result<Unit, LeftOut> {
    let path = unit.input.files().first().map_or_else(PathBuf::new, |path| path.to_path_buf());
    guarded(&path, || check(unit))
}

/// Reads the headers of a unit, and with them its size.
fn check(mut unit: Unit) -> Result<Unit, LeftOut> {
    match &unit.input {
        Input::Image(path) => {
            let (width, height) = decode::dimensions(path).map_err(|error| LeftOut::unreadable(path, error))?;
            check_mask_size(&unit, path, (width, height))?;
            (unit.slices, unit.bytes) = (1, (width as u64).saturating_mul(height as u64));
        }
        Input::Features(path) => {
            crate::mat::read(path, &[]).map_err(|error| LeftOut::unreadable(path, error))?;
            (unit.slices, unit.bytes) = (1, std::fs::metadata(path).map_or(0, |found| found.len().saturating_mul(2)));
        }
        Input::Volume(path) => {
            let header = nifti::Header::read(path).map_err(|problem| volumes::left_out(path, &problem))?;
            let [columns, rows, slices] = super::geometry::View::axial(&header.affine, header.dims).size;
            (unit.slices, unit.bytes) = (slices, (columns * rows) as u64 * slices as u64 / 2);
        }
        Input::Series(series) => {
            let pixels = series.slices.first().map_or(0, |slice| slice.rows * slice.columns);
            (unit.slices, unit.bytes) = (series.slices.len(), (pixels * series.slices.len() / 2) as u64);
        }
    }
    Ok(unit)
}

fn check_mask_size(unit: &Unit, image: &Path, (width, height): (usize, usize)) -> Result<(), LeftOut> {
    let Some(mask) = &unit.mask else { return Ok(()) };
    let wrong = |reason: String| LeftOut::new(image.display().to_string(), Why::Mask, reason);
    let (mask_width, mask_height) = decode::dimensions(mask.path()).map_err(|error| wrong(error.to_string()))?;
    if (mask_width, mask_height) == (width, height) {
        return Ok(());
    }
    let mask = mask.path().display();
    Err(wrong(format!("its mask {mask} is {mask_width}x{mask_height} and it is {width}x{height}; they must be equal")))
}

fn refuse_within(source: &Path, out: &Path) -> Result<(), PackError> {
    // What is still to be made does not exist yet.
    let here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let parent = out.ancestors().skip(1).find_map(|path| here(path).canonicalize().ok());
    let within = match (source.canonicalize(), parent) {
        (Ok(source), Some(parent)) => parent.starts_with(source),
        _ => false,
    };
    if within { Err(PackError::Within { out: out.to_owned(), from: source.to_owned() }) } else { Ok(()) }
}

/// A name without its extension (`.nii.gz` is one).
pub(crate) fn stem(name: &str) -> &str {
    let name = name.strip_suffix(".gz").filter(|rest| rest.ends_with(".nii")).unwrap_or(name);
    let file = name.rfind('/').map_or(0, |at| at + 1);
    match name.rfind('.') {
        Some(dot) if dot > file => name.get(..dot).unwrap_or(name),
        _ => name,
    }
}

/// A path below a folder, with `/` between its parts.
pub(crate) fn relative(path: &Path, root: &Path) -> String {
    let rest = path.strip_prefix(root).unwrap_or(path);
    rest.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The table of labels that is named, or that lies in the folder.
fn labels(root: &Path, options: &Options, notes: &mut Vec<String>) -> Result<Labels, PackError> {
    if let Some(named) = &options.labels {
        return Ok(Labels::read(named, root)?);
    }
    let beside = root.join("labels.csv");
    if !beside.is_file() {
        return Ok(Labels::default());
    }
    // One that merely lies there may be of another kind.
    Ok(Labels::read(&beside, root).unwrap_or_else(|error| {
        notes.push(format!("labels.csv is passed over: {error}"));
        Labels::default()
    }))
}
