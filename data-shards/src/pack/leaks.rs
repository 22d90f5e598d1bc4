//! The check of splits before they are packed.
//!
//! Duty: every sample of every split goes through [`crate::leak`]; splits that leak are refused, unless that is allowed. Must
//! not: find leaks itself, or hold more than a few volumes.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::geometry::View;
use super::guard::guarded;
use super::ids::Ids;
use super::plan::{Plan, Planned};
use super::report::LeftOut;
use super::sources::dicom::Values;
use super::sources::{Input, nifti};
use super::{Options, PackError, Watch, Window};
use crate::leak::{self, Candidate, Findings, Grey};

/// Findings that are listed; the others are counted.
const LISTED: usize = 100;

/// What is to be noted of splits that may be packed.
pub(crate) fn check(plan: &Plan, ids: &Ids, options: &Options, watch: &Watch) -> Result<Vec<String>, PackError> {
    if plan.splits.len() < 2 {
        return Ok(Vec::new());
    }
    (watch.stage)("looking for leaks between splits");
    let volumes = Volumes { held: Mutex::new(Vec::new()), most: options.jobs + 1 };
    let look = Look { volumes: &volumes, ids, window: options.window, watch };
    let mut units: Vec<(Option<&str>, &Planned)> = plan.units().collect();
    // Findings are for people: split by split, in the order of the names.
    let place = |split: Option<&str>| plan.splits.iter().position(|other| other.split.as_deref() == split);
    units.sort_by_cached_key(|(split, planned)| (place(*split), planned.unit.name.clone()));
    let candidates: Vec<Candidate> = units
        .into_iter()
        .flat_map(|(split, planned)| (0..planned.unit.slices).map(move |slice| (split, planned, slice)))
        .map(|(split, planned, slice)| look.candidate(split.unwrap_or_default(), planned, slice))
        .collect();
    let findings = leak::find_with(&candidates, watch.progress);
    watch.stopped()?;
    if !findings.leaks.is_empty() && !options.allow_leaks {
        return Err(PackError::Leaks { count: findings.leaks.len(), shown: listed(&findings.leaks) });
    }
    let features = plan.units().filter(|(_, planned)| matches!(planned.unit.input, Input::Features(_))).count();
    Ok(notes(&findings, features))
}

fn notes(findings: &Findings, features: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if features > 0 {
        notes.push(format!("{features} inputs are features: of these, splits were compared by their patients alone"));
    }
    if !findings.leaks.is_empty() {
        notes.push(format!("{} leaks between splits, which were allowed", findings.leaks.len()));
        notes.extend(listed(&findings.leaks));
    }
    notes.extend(listed(&findings.warnings));
    notes
}

fn listed(pairs: &[leak::Pair]) -> Vec<String> {
    let mut lines: Vec<String> = pairs.iter().take(LISTED).map(ToString::to_string).collect();
    if pairs.len() > LISTED {
        lines.push(format!("and {} more", pairs.len() - LISTED));
    }
    lines
}

#[derive(Clone, Copy)]
struct Look<'a> {
    volumes: &'a Volumes,
    ids: &'a Ids,
    window: Window,
    watch: &'a Watch<'a>,
}

impl<'a> Look<'a> {
    fn candidate(self, split: &str, planned: &'a Planned, slice: usize) -> Candidate<'a> {
        let unit = &planned.unit;
        let name = if unit.slices > 1 { format!("{} slice {slice}", unit.shown()) } else { unit.shown() };
        Candidate {
            split: split.to_owned(),
            name,
            // Findings reach terminals and logs.
            patient: unit.patient.as_deref().map(|patient| self.ids.patient(patient)),
            load: Box::new(move || self.load(&unit.input, slice)),
        }
    }

    /// Inputs that cannot be read are left out when they are packed.
    fn load(&self, input: &Input, slice: usize) -> Result<Grey, String> {
        if self.watch.stop.load(Ordering::Relaxed) {
            return Err("stopped".to_owned());
        }
        let path = input.files().first().map_or_else(PathBuf::new, |path| path.to_path_buf());
        guarded(&path, || self.grey(input, slice).map_err(|problem| LeftOut::unreadable(&path, problem)))
            .map_err(|left_out| left_out.to_string())
    }

    fn grey(&self, input: &Input, slice: usize) -> Result<Grey, String> {
        match input {
            Input::Image(path) => Grey::read(path).map_err(|error| error.to_string()),
            Input::Features(_) => Err("features have no pixels to compare".to_owned()),
            Input::Volume(path) => {
                let volume = self.volumes.get(path)?;
                let view = View::axial(&volume.header.affine, volume.header.dims);
                self.seen(&view, slice, |voxel| volume.value(voxel))
            }
            Input::Series(series) => {
                let path = &series.slices.get(slice).ok_or("no such slice")?.path;
                let values = Values::read(path).map_err(|problem| problem.to_string())?;
                self.seen(&values.view(), 0, |[column, row, _]| values.at(column, row))
            }
        }
    }

    fn seen(&self, view: &View, slice: usize, value: impl Fn([usize; 3]) -> f64) -> Result<Grey, String> {
        let grey = view.voxels(slice).map(|voxel| f32::from(self.window.grey(value(voxel))) / 255.0).collect();
        Grey::new(view.size[0], view.size[1], grey).ok_or_else(|| "no pixels".to_owned())
    }
}

/// The volumes that were used last: slices of one come one after the other.
struct Volumes {
    held: Mutex<Vec<(PathBuf, Arc<nifti::Volume>)>>,
    most: usize,
}

impl Volumes {
    fn get(&self, path: &Path) -> Result<Arc<nifti::Volume>, String> {
        let lock = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, volume)) = lock().iter().find(|(held, _)| held == path) {
            return Ok(Arc::clone(volume));
        }
        let volume = Arc::new(nifti::Volume::read(path).map_err(|problem| problem.to_string())?);
        let mut held = lock();
        held.push((path.to_owned(), Arc::clone(&volume)));
        let over = held.len().saturating_sub(self.most);
        held.drain(..over);
        Ok(volume)
    }
}
