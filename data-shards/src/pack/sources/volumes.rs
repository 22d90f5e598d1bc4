//! Volumes and their masks.
//!
//! Duty: which mask belongs to which volume: by name, else by place in space. Must not: read voxels.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::dicom::{self, Series};
use super::labels::Labels;
use super::{Found, Input, Kind, MaskFile, Unit, nifti, relative, stem, walk};
use crate::pack::report::{LeftOut, Why};
use crate::pack::{PackError, Watch};

/// What the names of volumes and of masks end in beside what they have in common.
const IMAGE: [&str; 8] = ["_image", "-image", "_img", "_ct", "-ct", "_0000", "_vol", "_volume"];
const MASK: [&str; 12] = [
    "_label",
    "-label",
    "_labels",
    "_mask",
    "-mask",
    "_masks",
    "_seg",
    "-seg",
    "_segmentation",
    "_lesion",
    "_lesions",
    "_infection",
];

pub(super) fn left_out(path: &Path, problem: &nifti::Problem) -> LeftOut {
    let why = if matches!(problem, nifti::Problem::Unsupported(_)) { Why::Unsupported } else { Why::Unreadable };
    LeftOut::new(path.display().to_string(), why, problem.to_string())
}

pub(super) fn of_nifti(
    root: &Path,
    files: &[PathBuf],
    masks: Option<&Path>,
    labels: &Labels,
    found: &mut Found,
) -> Result<(), PackError> {
    let masks = masks.map(mask_files).transpose()?.unwrap_or_default();
    // Where volumes and masks share a folder, those called masks are no volumes.
    let shared: BTreeSet<PathBuf> = masks.iter().filter_map(|mask| mask.canonicalize().ok()).collect();
    let is_mask = |path: &PathBuf| ends(path, &MASK) && path.canonicalize().is_ok_and(|path| shared.contains(&path));
    let candidates: Vec<&PathBuf> =
        masks.iter().filter(|mask| ends(mask, &MASK) || !files.iter().any(|file| same(file, mask))).collect();
    for path in files.iter().filter(|path| !is_mask(path)) {
        if ends(path, &MASK) && files.iter().any(|other| other != path && common(other) == common(path)) {
            let reason = "called a mask of another volume; name its folder by --masks";
            found.left_out.push(LeftOut::new(path.display().to_string(), Why::Other, reason));
            continue;
        }
        let mut matching = candidates.iter().filter(|mask| common(mask) == common(path) && !same(mask, path));
        let mask = match (matching.next(), matching.next()) {
            (Some(_), Some(_)) => {
                found.notes.push(format!("{}: several masks have its name; none is taken", path.display()));
                None
            }
            (mask, _) => mask.map(|mask| MaskFile::Volume((*mask).clone())),
        };
        let (name, row) = (relative(path, root), labels.of(path));
        let (label, patient) = (row.and_then(|row| row.label), row.and_then(|row| row.patient.clone()));
        let input = Input::Volume(path.clone());
        found.units.push(Unit { name, input, mask, split: None, label, patient, slices: 0, bytes: 0 });
    }
    found.masks = masks;
    Ok(())
}

pub(super) fn of_dicom(
    files: Vec<PathBuf>,
    masks: Option<&Path>,
    labels: &Labels,
    found: &mut Found,
    watch: &Watch,
) -> Result<(), PackError> {
    let (series, left_out) = dicom::series(files, watch)?;
    found.left_out.extend(left_out);
    let masks = masks.map(mask_files).transpose()?.unwrap_or_default();
    let matched = matched(&series, &masks, &mut found.notes);
    for (series, mask) in series.into_iter().zip(matched) {
        let paths: Vec<PathBuf> = series.slices.iter().map(|slice| slice.path.clone()).collect();
        let row = labels.of_any(paths.iter().flat_map(|path| [Some(path.as_path()), path.parent()]).flatten());
        let patient = row.and_then(|row| row.patient.clone());
        let patient = patient.or_else(|| series.slices.iter().find_map(|slice| slice.patient.clone()));
        let by_patient = || patient.as_deref().and_then(|patient| labels.of_patient(patient));
        let label = row.and_then(|row| row.label).or_else(by_patient);
        let size = series.slices.first().map_or(0, |slice| slice.rows);
        // Series of one UID may differ in size or direction.
        let name = format!("{}/{size}/{}", series.name(), relative_first(&paths));
        let mask = mask.map(MaskFile::Volume);
        found.units.push(Unit {
            name,
            input: Input::Series(series),
            mask,
            split: None,
            label,
            patient,
            slices: 0,
            bytes: 0,
        });
    }
    if labels.is_empty() {
        found
            .notes
            .push("no labels: name a table `file,label,patient_id` by --labels, with a file of each series".to_owned());
    }
    found.masks = masks;
    Ok(())
}

fn relative_first(paths: &[PathBuf]) -> String {
    paths.iter().filter_map(|path| path.file_name()).min().unwrap_or_default().to_string_lossy().into_owned()
}

fn mask_files(folder: &Path) -> Result<Vec<PathBuf>, PackError> {
    let files = if folder.is_dir() { walk::files(folder)? } else { vec![folder.to_owned()] };
    Ok(files.into_iter().filter(|path| Kind::of(path) == Some(Kind::Nifti)).collect())
}

fn same(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn bare(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    stem(&name).to_owned()
}

fn ends(path: &Path, suffixes: &[&str]) -> bool {
    let name = bare(path);
    suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// What the names of a volume and its mask have in common.
fn common(path: &Path) -> String {
    let name = bare(path);
    let suffix = MASK.iter().chain(&IMAGE).find(|suffix| name.ends_with(**suffix) && name.len() > suffix.len());
    suffix.and_then(|suffix| name.strip_suffix(suffix)).unwrap_or(&name).to_owned()
}

/// The mask of each series: by a name that is the series', its study's, its patient's or its folder's; else by place, where
/// no other patient's series lies in the same place; else the only mask of the only series.
fn matched(series: &[Series], masks: &[PathBuf], notes: &mut Vec<String>) -> Vec<Option<PathBuf>> {
    let headers: Vec<(&PathBuf, Option<nifti::Header>)> =
        masks.iter().map(|mask| (mask, nifti::Header::read(mask).ok())).collect();
    let fits =
        |one: &Series, header: &Option<nifti::Header>| header.as_ref().is_some_and(|header| in_place(one, header));
    let mut chosen = Vec::new();
    for one in series {
        let named: Vec<&PathBuf> = masks.iter().filter(|mask| names(one).contains(&common(mask))).collect();
        if let [mask] = named[..] {
            chosen.push(Some(mask.clone()));
            continue;
        }
        let placed: Vec<_> = headers.iter().filter(|(_, header)| fits(one, header)).collect();
        chosen.push(match placed[..] {
            [(mask, header)] => {
                let patients: BTreeSet<Option<&String>> =
                    series.iter().filter(|other| fits(other, header)).map(patient).collect();
                if patients.len() > 1 {
                    notes.push(format!(
                        "{}: fits the series of several patients, and is taken for none",
                        mask.display()
                    ));
                }
                (patients.len() == 1).then(|| (*mask).clone())
            }
            [] if series.len() == 1 => masks.first().filter(|_| masks.len() == 1).cloned(),
            _ => None,
        });
    }
    chosen
}

fn patient(series: &Series) -> Option<&String> {
    series.slices.iter().find_map(|slice| slice.patient.as_ref())
}

fn names(series: &Series) -> BTreeSet<String> {
    let of = |slice: &dicom::Slice| {
        let folder = slice.path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        [slice.series.clone(), slice.study.clone(), slice.patient.clone(), folder]
    };
    series.slices.first().map(of).into_iter().flatten().flatten().map(|name| name.to_ascii_lowercase()).collect()
}

/// Whether the first and the last voxel of the series are corners of the mask, within a quarter of a voxel.
fn in_place(series: &Series, mask: &nifti::Header) -> bool {
    let (Some(first), Some(last), Some(back)) = (series.slices.first(), series.slices.last(), mask.affine.inverse())
    else {
        return false;
    };
    let (Some(from), Some(to)) = (first.affine, last.affine) else { return false };
    let far = [last.columns.saturating_sub(1) as f64, last.rows.saturating_sub(1) as f64, 0.0];
    let corners = [back.apply(from.apply([0.0; 3])), back.apply(to.apply(far))];
    (0..3).all(|axis| {
        let end = mask.dims[axis].saturating_sub(1) as f64;
        let near = |at: f64, place: f64| (at - place).abs() < 0.25;
        let [a, b] = [corners[0][axis], corners[1][axis]];
        near(a, 0.0) && near(b, end) || near(a, end) && near(b, 0.0)
    })
}
