//! Folders of files: images by class and patient, volumes, series, features.
//!
//! Duty: files to units, with what their places say of them. Must not: guess: a class of another name is no label.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::labels::Labels;
use super::{Found, Input, Kind, MaskFile, Unit, relative, stem, volumes, walk};
use crate::pack::report::{LeftOut, Why};
use crate::pack::{Format, Options, PackError, Watch};

/// Folders that are splits by their names, at the top.
const SPLITS: [&str; 7] = ["train", "val", "valid", "validation", "eval", "dev", "test"];
const COVID: [&str; 7] = ["covid", "covid-19", "covid19", "covid_19", "positive", "pos", "1"];
const OTHERS: [&str; 14] = [
    "normal",
    "healthy",
    "non-covid",
    "noncovid",
    "non_covid",
    "non-covid-19",
    "noncovid19",
    "negative",
    "neg",
    "control",
    "controls",
    "cap",
    "no-covid",
    "0",
];
const MASKS: [&str; 4] = ["mask", "masks", "label", "labels"];

/// Packs what the folder holds.
pub(super) fn find(root: &Path, options: &Options, watch: &Watch) -> Result<Found, PackError> {
    let masks = options.masks.as_deref();
    let mut files = walk::files(root)?;
    // Masks may lie within the source; as a folder of its own they are no images.
    if let Some(masks) = masks.filter(|masks| *masks != root && !same(masks, root)) {
        let masks = masks.canonicalize().unwrap_or_else(|_| masks.to_owned());
        files.retain(|file| !file.canonicalize().is_ok_and(|file| file.starts_with(&masks)));
    }
    let mut found = Found::default();
    let labels = super::labels(root, options, &mut found.notes)?;
    found.left_out.extend(labels.absent());
    let by_kind = by_kind(&files);
    let kind = choose(root, &by_kind, options.format)?;
    for (other, files) in by_kind.iter().filter(|(other, _)| **other != Some(kind)) {
        // Tables and notes beside the data are no inputs.
        if other.is_some() {
            let reason = "of another kind than what is packed";
            found
                .left_out
                .extend(files.iter().map(|file| LeftOut::new(file.display().to_string(), Why::Other, reason)));
        }
    }
    let files = by_kind.get(&Some(kind)).cloned().unwrap_or_default();
    match kind {
        Kind::Image | Kind::Mat => flat(root, &files, masks, &labels, &mut found)?,
        Kind::Nifti => volumes::of_nifti(root, &files, masks, &labels, &mut found)?,
        Kind::Dicom => volumes::of_dicom(files, masks, &labels, &mut found, watch)?,
    }
    Ok(found)
}

/// Packs a single file that is no list.
pub(super) fn of_file(path: &Path, options: &Options, watch: &Watch) -> Result<Found, PackError> {
    let mut found = Found::default();
    let root = path.parent().unwrap_or(Path::new(""));
    let labels = super::labels(root, options, &mut found.notes)?;
    let files = [path.to_owned()];
    let masks = options.masks.as_deref();
    match Kind::of(path) {
        Some(Kind::Nifti) => volumes::of_nifti(root, &files, masks, &labels, &mut found)?,
        Some(Kind::Dicom) => volumes::of_dicom(files.to_vec(), masks, &labels, &mut found, watch)?,
        _ => flat(root, &files, masks, &labels, &mut found)?,
    }
    Ok(found)
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn by_kind(files: &[PathBuf]) -> BTreeMap<Option<Kind>, Vec<PathBuf>> {
    let mut by_kind: BTreeMap<Option<Kind>, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        by_kind.entry(Kind::of(file)).or_default().push(file.clone());
    }
    by_kind
}

fn choose(root: &Path, found: &BTreeMap<Option<Kind>, Vec<PathBuf>>, format: Format) -> Result<Kind, PackError> {
    let kinds: Vec<Kind> = found.keys().copied().flatten().collect();
    if let Some(kind) = kinds.iter().copied().find(|kind| kind.format() == format) {
        return Ok(kind);
    }
    match (&kinds[..], format) {
        ([kind], Format::Auto) => Ok(*kind),
        ([], _) | (_, Format::Folder | Format::Dicom | Format::Nifti | Format::Mat | Format::List) => {
            let problem = match format {
                Format::Auto => "no image (.png, .jpg), DICOM, NIfTI or .mat file found".to_owned(),
                _ => format!("no file for --format {format} found"),
            };
            Err(PackError::Nothing { from: root.to_owned(), problem, left_out: Vec::new() })
        }
        (_, Format::Auto) => {
            let counted =
                |kind: &Kind| format!("{} for --format {}", found.get(&Some(*kind)).map_or(0, Vec::len), kind.format());
            let found =
                format!("several kinds of files ({})", kinds.iter().map(counted).collect::<Vec<_>>().join(", "));
            Err(PackError::Mixed { from: root.to_owned(), found })
        }
    }
}

/// What the place of a file says.
struct Place {
    split: Option<String>,
    class: Option<String>,
    patient: Option<String>,
}

/// `[SPLIT/]CLASS/FILE` or `[SPLIT/]CLASS/PATIENT/…/FILE`.
fn place(name: &str, with_splits: bool) -> Place {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    let split = with_splits.then(|| parts.first().map(|split| (*split).to_owned())).flatten();
    let parts = parts.get(usize::from(with_splits)..).unwrap_or_default();
    let at = |at: usize| parts.get(at).map(|part| (*part).to_owned());
    Place { split, class: at(0), patient: at(1) }
}

fn label(class: &str) -> Option<bool> {
    let class = class.to_ascii_lowercase();
    if COVID.contains(&class.as_str()) { Some(true) } else { OTHERS.contains(&class.as_str()).then_some(false) }
}

/// Images, or features in their place.
fn flat(
    root: &Path,
    files: &[PathBuf],
    masks: Option<&Path>,
    labels: &Labels,
    found: &mut Found,
) -> Result<(), PackError> {
    let names: Vec<String> = files.iter().map(|file| relative(file, root)).collect();
    let masks = masks.map(|folder| Masks::index(folder, names.iter().map(String::as_str))).transpose()?;
    found.masks = masks.as_ref().map_or_else(Vec::new, Masks::files);
    let top = |name: &String| name.split_once('/').is_some_and(|(top, _)| SPLITS.contains(&top));
    let with_splits = names.iter().all(top);
    let mut classes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    let mut unlisted = 0;
    for (name, path) in names.into_iter().zip(files) {
        let Place { split, class, patient } = place(&name, with_splits);
        let row = labels.of(path);
        if row.is_none() && class.as_ref().is_some_and(|class| MASKS.contains(&class.to_ascii_lowercase().as_str())) {
            let reason = "in a folder of masks; name that folder by --masks";
            found.left_out.push(LeftOut::new(path.display().to_string(), Why::Other, reason));
            continue;
        }
        unlisted += usize::from(row.is_none());
        if let (Some(patient), Some(class)) = (&patient, &class) {
            classes.entry(patient.clone()).or_default().insert(class.clone());
        }
        let by_class = class.as_deref().and_then(label);
        let said = row.and_then(|row| row.label);
        if said.is_none() && by_class.is_none() {
            unknown.extend(class);
        }
        let mask = row.and_then(|row| row.mask.as_ref()).map(|mask| root.join(mask));
        let mask = mask.or_else(|| masks.as_ref().and_then(|masks| masks.of(&name)));
        let input = if Kind::of(path) == Some(Kind::Mat) { Input::Features } else { Input::Image }(path.clone());
        found.splits.extend(split.iter().filter(|split| !found.splits.contains(split)).cloned().collect::<Vec<_>>());
        let patient = row.and_then(|row| row.patient.clone()).or(patient);
        let mask = mask.map(MaskFile::Image);
        found.units.push(Unit { name, input, mask, split, label: said.or(by_class), patient, slices: 0, bytes: 0 });
    }
    found.splits.sort_by_key(|split| SPLITS.iter().position(|name| name == split));
    if unlisted > 0 && !labels.is_empty() {
        found.notes.push(format!("{unlisted} of {} inputs have no row in the table of labels", files.len()));
    }
    note(found, &classes, &unknown);
    Ok(())
}

fn note(found: &mut Found, classes: &BTreeMap<String, BTreeSet<String>>, unknown: &BTreeSet<String>) {
    let twice = classes.values().filter(|classes| classes.len() > 1).count();
    if twice > 0 {
        found
            .notes
            .push(format!("{twice} names of patients are in several classes, and are taken for the same person"));
    }
    if !unknown.is_empty() {
        let names: Vec<&str> = unknown.iter().take(5).map(String::as_str).collect();
        found.notes.push(format!(
            "no label for what is in {}: label 1 is for folders like `covid` and `positive`, 0 for `normal`, `healthy` and \
             `negative`; or name a table by --labels",
            names.join(", ")
        ));
    }
}

/// Masks by the names of their images: by the path below the folder, or where that is another, by the last part of it alone,
/// if a single mask and a single image have that: `0.png` may be a slice of anybody.
pub(super) struct Masks {
    by_path: BTreeMap<String, PathBuf>,
    by_name: BTreeMap<String, PathBuf>,
}

impl Masks {
    /// The masks below a folder, for images of these names.
    pub(super) fn index<'a>(folder: &Path, images: impl Iterator<Item = &'a str>) -> Result<Masks, PackError> {
        let images: BTreeSet<&str> = images.map(stem).collect();
        let mut shared = shared(images.into_iter());
        let files = walk::files(folder)?.into_iter().filter(|path| Kind::of(path) == Some(Kind::Image));
        let by_path: BTreeMap<String, PathBuf> =
            files.map(|path| (stem(&relative(&path, folder)).to_owned(), path)).collect();
        shared.extend(self::shared(by_path.keys().map(String::as_str)));
        let named = by_path.iter().map(|(name, path)| (last(name).to_owned(), path.clone()));
        let by_name = named.filter(|(name, _)| !shared.contains(name)).collect();
        Ok(Masks { by_path, by_name })
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.by_path.values().cloned().collect()
    }

    pub(super) fn of(&self, image: &str) -> Option<PathBuf> {
        let name = stem(image);
        self.by_path.get(name).or_else(|| self.by_name.get(last(name))).cloned()
    }
}

/// The last part of a path.
fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// Last parts that several of these paths have.
fn shared<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.map(last).filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_say_class_and_patient() {
        let said = |name: &str, splits| {
            let Place { split, class, patient } = place(name, splits);
            [split, class, patient].map(Option::unwrap_or_default)
        };
        assert_eq!(said("covid/P1/a.jpg", false), ["", "covid", "P1"]);
        assert_eq!(said("covid/P1/study/a.jpg", false), ["", "covid", "P1"]);
        assert_eq!(said("covid/a.jpg", false), ["", "covid", ""]);
        assert_eq!(said("a.jpg", false), ["", "", ""]);
        assert_eq!(said("train/covid/P1/a.jpg", true), ["train", "covid", "P1"]);
        assert_eq!([label("COVID-19"), label("Normal"), label("misc")], [Some(true), Some(false), None]);
    }
}
