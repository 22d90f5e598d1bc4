//! List files and tables, alone, several, or in a folder.
//!
//! Duty: lists to units; a list among several is the split of its name. Must not: read what they name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::folder::Masks;
use super::{Found, Input, Kind, MaskFile, Unit, dicom};
use crate::list;
use crate::pack::guard::guarded;
use crate::pack::report::{LeftOut, Why};
use crate::pack::{Format, Options, PackError};

/// A list, and the split that it is.
pub(super) struct Named {
    path: PathBuf,
    split: Option<String>,
}

/// Lists, and those that were passed over for them.
pub(super) struct Lists {
    lists: Vec<Named>,
    unused: Vec<PathBuf>,
}

/// Lists in a folder that are splits by their names.
const SPLITS: [&str; 7] = ["train", "val", "valid", "validation", "eval", "dev", "test"];
/// How the names of a second set of lists begin.
const OTHER: &str = "split_";

/// The lists that the source stands for; none where it is something else.
pub(super) fn lists(sources: &[PathBuf], format: Format) -> Result<Option<Lists>, PackError> {
    let [source] = sources else {
        let mut seen: BTreeMap<String, &PathBuf> = BTreeMap::new();
        for path in sources {
            if let Some(one) = seen.insert(split_of(path), path) {
                return Err(PackError::SameSplit { one: one.clone(), two: path.clone(), split: split_of(path) });
            }
        }
        let lists = sources.iter().map(|path| Named { path: path.clone(), split: Some(split_of(path)) }).collect();
        return Ok(Some(Lists { lists, unused: Vec::new() }));
    };
    if !matches!(format, Format::Auto | Format::List) {
        return Ok(None);
    }
    if source.is_dir() {
        return in_folder(source, format);
    }
    let is_list = format == Format::List || Kind::of(source).is_none();
    let list = Named { path: source.clone(), split: None };
    Ok(is_list.then(|| Lists { lists: vec![list], unused: Vec::new() }))
}

fn in_folder(folder: &Path, format: Format) -> Result<Option<Lists>, PackError> {
    let failed = |source| PackError::Read { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt") && path.is_file());
    paths.sort();
    let rank = |path: &Path| SPLITS.iter().position(|name| path.file_stem().is_some_and(|stem| stem == *name));
    let other = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().starts_with(OTHER);
    let mut plain: Vec<PathBuf> = paths.iter().filter(|path| rank(path).is_some()).cloned().collect();
    plain.sort_by_key(|path| rank(path));
    let others: Vec<PathBuf> = paths.into_iter().filter(other).collect();
    let (chosen, unused) = if plain.is_empty() { (others, Vec::new()) } else { (plain, others) };
    if chosen.is_empty() && format == Format::List {
        let problem = "no train.txt, val.txt, eval.txt, test.txt or split_*.txt; name a list".to_owned();
        return Err(PackError::Nothing { from: folder.to_owned(), problem, left_out: Vec::new() });
    }
    let lists = chosen.into_iter().map(|path| Named { split: Some(split_of(&path)), path }).collect::<Vec<_>>();
    Ok((!lists.is_empty()).then_some(Lists { lists, unused }))
}

fn split_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.strip_prefix(OTHER).unwrap_or(&stem);
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).take(40).collect()
}

pub(super) fn find(lists: &Lists, options: &Options) -> Result<Found, PackError> {
    let mut found = Found::default();
    let add = |named| read(named, options, &mut found.notes);
    let lists_read = lists.lists.iter().map(add).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = lists_read
        .iter()
        .flat_map(|list| list.entries.iter().map(|entry| super::relative(&entry.image, list.root)))
        .collect();
    let index = |folder: &Path| Masks::index(folder, names.iter().map(String::as_str));
    let masks = options.masks.as_deref().map(index).transpose()?;
    for Read { split, root, entries } in lists_read {
        if let Some(split) = split
            && !found.splits.contains(split)
        {
            found.splits.push(split.clone());
        }
        for mut entry in entries {
            if entry.mask.is_none() && !matches!(Kind::of(&entry.image), Some(Kind::Nifti | Kind::Dicom)) {
                entry.mask = masks.as_ref().and_then(|masks| masks.of(&super::relative(&entry.image, root)));
            }
            match unit(entry, root, split.cloned()) {
                Ok(unit) => found.units.push(unit),
                Err(one) => found.left_out.push(one),
            }
        }
    }
    found.notes.extend(unused(lists));
    Ok(found)
}

/// A list with what the table of labels adds to it.
struct Read<'a> {
    split: Option<&'a String>,
    /// What its paths count from.
    root: &'a Path,
    entries: Vec<list::Entry>,
}

fn read<'a>(named: &'a Named, options: &Options, notes: &mut Vec<String>) -> Result<Read<'a>, PackError> {
    let Named { path, split } = named;
    let root = path.parent().unwrap_or(Path::new(""));
    let labels = super::labels(root, options, notes)?;
    let mut entries = list::read(path, None)?;
    for entry in &mut entries {
        let Some(row) = labels.of(&entry.image) else { continue };
        entry.label = entry.label.or(row.label);
        entry.patient = entry.patient.take().or_else(|| row.patient.clone());
        entry.mask = entry.mask.take().or_else(|| row.mask.as_ref().map(|mask| root.join(mask)));
    }
    Ok(Read { split: split.as_ref(), root, entries })
}

/// What is said about lists that were passed over: two sets of lists divide the same images in two ways.
fn unused(lists: &Lists) -> Option<String> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let used: Vec<String> = lists.lists.iter().map(|list| name(&list.path)).collect();
    let unused: Vec<String> = lists.unused.iter().map(name).collect();
    (!unused.is_empty()).then(|| {
        format!(
            "{} are packed; {} are not: to pack those, name them in place of the folder",
            used.join(", "),
            unused.join(", ")
        )
    })
}

fn unit(entry: list::Entry, root: &Path, split: Option<String>) -> Result<Unit, LeftOut> {
    let list::Entry { image, mask, label, mut patient, .. } = entry;
    let mask = mask.map(|path| match Kind::of(&path) {
        Some(Kind::Nifti) => MaskFile::Volume(path),
        _ => MaskFile::Image(path),
    });
    let name = super::relative(&image, root);
    // By what it is called: that it is not there is found out later, for each kind alike.
    let input = match Kind::of(&image) {
        Some(Kind::Nifti) => Input::Volume(image),
        Some(Kind::Mat) => Input::Features(image),
        Some(Kind::Dicom) => {
            let read = || dicom::Slice::read(&image).map_err(|problem| problem.left_out(&image));
            let slice = guarded(&image, read)?;
            patient = patient.or_else(|| slice.patient.clone());
            Input::Series(dicom::Series { slices: vec![slice] })
        }
        _ => Input::Image(image),
    };
    let fits = match (&input, &mask) {
        (Input::Image(_) | Input::Features(_), Some(MaskFile::Volume(_))) => {
            Err("a volume is no mask of a single image")
        }
        (Input::Volume(_) | Input::Series(_), Some(MaskFile::Image(_))) => {
            Err("the mask of a volume must be a NIfTI volume")
        }
        _ => Ok(()),
    };
    fits.map_err(|reason| LeftOut::new(name.clone(), Why::Mask, reason))?;
    Ok(Unit { name, input, mask, split, label, patient, slices: 0, bytes: 0 })
}
