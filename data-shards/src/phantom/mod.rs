//! A phantom data set: synthetic axial chest CT in a lung window, with exact lesion masks, by patient.
//!
//! Duty: a folder that the whole product can be tried on, free of any patient's data; the same bytes for the same settings
//! on any number of threads. Must not: overwrite anything, or leave a half-written folder under the name asked for.

mod anatomy;
mod lesion;
mod noise;
mod render;
mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::{ExtendedColorType, ImageFormat};
use rayon::prelude::*;

use crate::order::epoch_order;
use render::Patient;

/// Slices of each patient.
pub const SLICES: usize = 4;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Patients, half of them with COVID-19; from 4 on both classes are in both lists.
    pub patients: u32,
    /// Pixels a side.
    pub size: u32,
    /// Another seed gives other patients.
    pub seed: u64,
}

/// What was generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Patients in `train.txt` and in `eval.txt`.
    pub patients: [usize; 2],
    /// Slices in `train.txt` and in `eval.txt`.
    pub slices: [usize; 2],
}

/// Why no phantom was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PhantomError {
    /// Something is there already.
    #[error("{} exists and is not empty; name a new folder, or remove it first", out.display())]
    Occupied {
        /// The folder asked for.
        out: PathBuf,
    },
    /// The path ends in `.`, `..` or `/`, which cannot be created.
    #[error("{} does not name a folder to create", out.display())]
    NoName {
        /// The folder asked for.
        out: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes `images/`, `masks/`, `labels.csv` (`file,label,patient_id`), `train.txt` and `eval.txt` (about a quarter of the
/// patients of each class) into `out`, by way of a temporary folder beside it. `progress` is called from any thread with
/// the slices done and their total.
///
/// # Errors
/// [`PhantomError`]; nothing is left behind then.
pub fn generate(
    out: &Path,
    settings: Settings,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Summary, PhantomError> {
    let partial = Partial::create(out)?;
    for folder in ["images", "masks"] {
        create(&partial.path.join(folder))?;
    }
    let cohort = cohort(settings.patients, settings.seed);
    let done = AtomicUsize::new(0);
    let total = cohort.len() * SLICES;
    cohort.par_iter().try_for_each(|member| {
        let patient = Patient::draw(settings.seed, u64::from(member.number), member.covid, SLICES);
        (0..SLICES).into_par_iter().try_for_each(|at| {
            write_slice(&partial.path, member, &patient, at, settings)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
            Ok(())
        })
    })?;
    write(&partial.path.join("labels.csv"), &labels(&cohort))?;
    write(&partial.path.join("train.txt"), &list(&cohort, false))?;
    write(&partial.path.join("eval.txt"), &list(&cohort, true))?;
    partial.finish(out)?;
    let eval = cohort.iter().filter(|member| member.eval).count();
    let patients = [cohort.len() - eval, eval];
    Ok(Summary { patients, slices: patients.map(|count| count * SLICES) })
}

/// A patient's place in the study.
#[derive(Debug)]
struct Member {
    number: u32,
    covid: bool,
    eval: bool,
}

impl Member {
    fn name(&self) -> String {
        format!("p{:04}", self.number + 1)
    }

    fn file(&self, slice: usize) -> String {
        format!("{}_s{}.png", self.name(), slice + 1)
    }
}

/// Who has COVID-19 (half, rounded up) and who is in the evaluation list (of each class a quarter, rounded, and at least
/// one where the class has two).
fn cohort(patients: u32, seed: u64) -> Vec<Member> {
    let count = patients as usize;
    let shuffled = epoch_order(count, seed, 0, true);
    let positive = count.div_ceil(2);
    let in_eval = |place: usize, of: usize| of > 1 && place < ((of + 2) / 4).max(1);
    let mut cohort: Vec<Member> = shuffled
        .into_iter()
        .enumerate()
        .map(|(place, number)| {
            let covid = place < positive;
            let eval = if covid { in_eval(place, positive) } else { in_eval(place - positive, count - positive) };
            Member { number, covid, eval: eval || (count == 2 && !covid) }
        })
        .collect();
    cohort.sort_by_key(|member| member.number);
    cohort
}

fn labels(cohort: &[Member]) -> String {
    let mut text = String::from("file,label,patient_id\n");
    for member in cohort {
        for slice in 0..SLICES {
            text += &format!("images/{},{},{}\n", member.file(slice), u8::from(member.covid), member.name());
        }
    }
    text
}

fn list(cohort: &[Member], eval: bool) -> String {
    let members = cohort.iter().filter(|member| member.eval == eval);
    let files = members.flat_map(|member| (0..SLICES).map(|slice| member.file(slice)));
    files.map(|file| format!("images/{file} masks/{file}\n")).collect()
}

fn write_slice(
    folder: &Path,
    member: &Member,
    patient: &Patient,
    at: usize,
    settings: Settings,
) -> Result<(), PhantomError> {
    let slice = patient.render(at, settings.size as usize, settings.seed, u64::from(member.number));
    for (kind, pixels) in [("images", &slice.image), ("masks", &slice.mask)] {
        let path = folder.join(kind).join(member.file(at));
        let size = settings.size;
        image::save_buffer_with_format(&path, pixels, size, size, ExtendedColorType::L8, ImageFormat::Png)
            .map_err(|error| PhantomError::Write { path, source: io::Error::other(error) })?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), PhantomError> {
    fs::write(path, text).map_err(|source| PhantomError::Write { path: path.to_owned(), source })
}

fn create(path: &Path) -> Result<(), PhantomError> {
    fs::create_dir_all(path).map_err(|source| PhantomError::Write { path: path.to_owned(), source })
}

/// The folder under a temporary name; removed unless it is finished.
struct Partial {
    path: PathBuf,
    finished: bool,
}

impl Partial {
    fn create(out: &Path) -> Result<Self, PhantomError> {
        let Some(name) = out.file_name() else { return Err(PhantomError::NoName { out: out.to_owned() }) };
        refuse_occupied(out)?;
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".partial-{}", std::process::id()));
        let path = out.with_file_name(partial);
        create(&path)?;
        Ok(Partial { path, finished: false })
    }

    /// Gives the folder its name; a folder that was filled meanwhile stays as it is.
    fn finish(mut self, out: &Path) -> Result<(), PhantomError> {
        refuse_occupied(out)?;
        fs::rename(&self.path, out).map_err(|source| PhantomError::Write { path: out.to_owned(), source })?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed stays under its temporary name; the error under way says more.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn refuse_occupied(out: &Path) -> Result<(), PhantomError> {
    let occupied = match fs::read_dir(out) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => true,
        Err(source) => return Err(PhantomError::Write { path: out.to_owned(), source }),
    };
    if occupied { Err(PhantomError::Occupied { out: out.to_owned() }) } else { Ok(()) }
}
