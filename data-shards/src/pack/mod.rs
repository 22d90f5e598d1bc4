//! Packing: from lists, folders, DICOM, NIfTI and feature files to shards.
//!
//! Duty: the same source, options and key give the same bytes on any number of threads, in one go or in several; every input
//! is in the data set or in the report. Must not: change pixels but by the window, divide a patient between splits, or write
//! a name that says who a patient is unless that is asked for.
//!
//! `sources` finds units, `split` and `plan` decide where each goes before anything is written, `run` writes.
//! `docs/pack.md` says what a user sees of it.

mod error;
mod geometry;
mod guard;
mod ids;
mod leaks;
mod masks;
mod outputs;
mod pixels;
mod plan;
mod records;
mod report;
mod run;
mod sources;
mod split;
mod window;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

pub use error::PackError;
pub use ids::key_file;
pub use masks::MaskValues;
pub use outputs::private_report;
pub use report::{LeftOut, Report, SplitReport, Why};
pub use split::Shares;
pub use window::Window;

use ids::Ids;
use outputs::{Output, State};
use plan::Plan;

/// What a source is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Found out by looking.
    #[default]
    Auto,
    /// A list file, a table, or a folder with lists.
    List,
    /// Images by class and patient.
    Folder,
    /// DICOM files.
    Dicom,
    /// NIfTI volumes.
    Nifti,
    /// MATLAB files with features.
    Mat,
}

const FORMATS: [(&str, Format); 6] = [
    ("auto", Format::Auto),
    ("list", Format::List),
    ("folder", Format::Folder),
    ("dicom", Format::Dicom),
    ("nifti", Format::Nifti),
    ("mat", Format::Mat),
];

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORMATS.iter().find(|(_, format)| format == self).map_or("auto", |(name, _)| name))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        let names = || FORMATS.map(|(name, _)| name).join(", ");
        let found = FORMATS.iter().find(|(name, _)| *name == text).map(|(_, format)| *format);
        found.ok_or_else(|| format!("`{text}` is no format; expected one of {}", names()))
    }
}

/// How to pack.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the source is.
    pub format: Format,
    /// A table with labels and patients; none: `labels.csv` in the source, where there is one.
    pub labels: Option<PathBuf>,
    /// A folder of masks, matched by name, or for volumes by their place.
    pub masks: Option<PathBuf>,
    /// Values that mean lesion; none: 255 (65535 in 16 bits).
    pub mask_values: Option<MaskValues>,
    /// From Hounsfield units to grey.
    pub window: Window,
    /// Shares of the patients; none: no splits but those that the source gives.
    pub split: Option<Shares>,
    /// Decides over splits and order.
    pub seed: u64,
    /// Threads.
    pub jobs: usize,
    /// Whether to go on where splits leak.
    pub allow_leaks: bool,
    /// Whether ids, file names and UIDs are written as they are.
    pub keep_ids: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            format: Format::Auto,
            labels: None,
            masks: None,
            mask_values: None,
            window: Window::LUNG,
            split: None,
            seed: 0,
            jobs: 1,
            allow_leaks: false,
            keep_ids: false,
        }
    }
}

/// How a pack is watched and stopped. All of it is called from any thread.
pub struct Watch<'a> {
    /// Says what comes next.
    pub stage: &'a (dyn Fn(&str) + Sync),
    /// Samples done, and their total.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
    /// Set to stop soon, with everything finished kept.
    pub stop: &'a AtomicBool,
}

impl Watch<'_> {
    /// Fails where it was asked to stop.
    pub(crate) fn stopped(&self) -> Result<(), PackError> {
        if self.stop.load(Ordering::Relaxed) { Err(PackError::Stopped) } else { Ok(()) }
    }
}

/// Packs `sources` (one of any kind, or several list files that are splits) into the new folder `out`, or goes on with what an
/// interrupted call of the same kind has left there.
///
/// # Errors
/// [`PackError`]; finished shards stay then.
pub fn pack(sources: &[PathBuf], out: &Path, options: &Options, watch: &Watch) -> Result<Report, PackError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(options.jobs.max(1)).build();
    let pool = pool.map_err(|error| PackError::Threads { jobs: options.jobs, problem: error.to_string() })?;
    pool.install(|| within_pool(sources, out, options, watch))
}

fn within_pool(sources: &[PathBuf], out: &Path, options: &Options, watch: &Watch) -> Result<Report, PackError> {
    let out = &outputs::named(out)?;
    (watch.stage)("reading the source");
    let found = sources::find(sources, out, options, watch)?;
    masks::check(&found.units, options.mask_values.as_ref())?;
    let source = sources.first().map_or_else(PathBuf::new, Clone::clone);
    watch.stopped()?;
    outputs::refuse_foreign(out)?;
    outputs::make_parent(out)?;
    let ids = Ids::open(out, options.keep_ids)?;
    let plan = Plan::make(found, &source, &ids, options)?;
    let output = match Output::open(out, &plan)? {
        State::Complete(report) => return Ok(*report),
        State::Fresh(output) => {
            let leaks = leaks::check(&plan, &ids, options, watch)?;
            output.begin(&plan, leaks)?
        }
        State::Begun(output) => output,
    };
    (watch.stage)("packing");
    let done = run::shards(&plan, &output, &ids, options, watch)?;
    output.finish(&plan, done, &ids)
}
