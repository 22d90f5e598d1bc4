//! DICOM files: slices of CT series.
//!
//! Duty: a file to a slice (place, size, values), and files to series in the order of the body. Must not: window or encode.

mod elements;
mod pixels;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use elements::Elements;
pub(crate) use elements::is_dicom;
use pixels::Layout;

use crate::pack::geometry::{Affine, View, cross, dot, length};
use crate::pack::guard::guarded;
use crate::pack::report::{LeftOut, Why};
use crate::pack::{PackError, Watch};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The system's fault.
    #[error("cannot read: {0}")]
    Read(#[from] io::Error),
    /// The file's fault.
    #[error("no sound DICOM file: {0}")]
    Damaged(String),
    /// Nobody's fault.
    #[error("{0}")]
    Unsupported(String),
    /// It is something else.
    #[error("{0}")]
    NotCt(String),
}

impl Problem {
    fn damaged(problem: impl Into<String>) -> Problem {
        Problem::Damaged(problem.into())
    }

    fn why(&self) -> Why {
        match self {
            Problem::Read(_) | Problem::Damaged(_) => Why::Unreadable,
            Problem::Unsupported(_) => Why::Unsupported,
            Problem::NotCt(_) => Why::NotCt,
        }
    }

    pub(crate) fn left_out(&self, path: &Path) -> LeftOut {
        LeftOut::new(path.display().to_string(), self.why(), self.to_string())
    }
}

mod tags {
    use dicom_core::Tag;

    pub(super) const IMAGE_TYPE: Tag = Tag(0x0008, 0x0008);
    pub(super) const INSTANCE_UID: Tag = Tag(0x0008, 0x0018);
    pub(super) const MODALITY: Tag = Tag(0x0008, 0x0060);
    pub(super) const PATIENT_ID: Tag = Tag(0x0010, 0x0020);
    pub(super) const STUDY_UID: Tag = Tag(0x0020, 0x000d);
    pub(super) const SERIES_UID: Tag = Tag(0x0020, 0x000e);
    pub(super) const INSTANCE_NUMBER: Tag = Tag(0x0020, 0x0013);
    pub(super) const POSITION: Tag = Tag(0x0020, 0x0032);
    pub(super) const ORIENTATION: Tag = Tag(0x0020, 0x0037);
    pub(super) const SAMPLES: Tag = Tag(0x0028, 0x0002);
    pub(super) const FRAMES: Tag = Tag(0x0028, 0x0008);
    pub(super) const ROWS: Tag = Tag(0x0028, 0x0010);
    pub(super) const COLUMNS: Tag = Tag(0x0028, 0x0011);
    pub(super) const SPACING: Tag = Tag(0x0028, 0x0030);
    pub(super) const ALLOCATED: Tag = Tag(0x0028, 0x0100);
    pub(super) const STORED: Tag = Tag(0x0028, 0x0101);
    pub(super) const HIGH_BIT: Tag = Tag(0x0028, 0x0102);
    pub(super) const SIGNED: Tag = Tag(0x0028, 0x0103);
    pub(super) const INTERCEPT: Tag = Tag(0x0028, 0x1052);
    pub(super) const SLOPE: Tag = Tag(0x0028, 0x1053);

    pub(super) const ALL: [Tag; 20] = [
        IMAGE_TYPE,
        INSTANCE_UID,
        MODALITY,
        PATIENT_ID,
        STUDY_UID,
        SERIES_UID,
        INSTANCE_NUMBER,
        POSITION,
        ORIENTATION,
        SAMPLES,
        FRAMES,
        ROWS,
        COLUMNS,
        SPACING,
        ALLOCATED,
        STORED,
        HIGH_BIT,
        SIGNED,
        INTERCEPT,
        SLOPE,
    ];
}

/// A slice without its values.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) path: PathBuf,
    pub(crate) series: Option<String>,
    pub(crate) study: Option<String>,
    pub(crate) patient: Option<String>,
    instance: Option<String>,
    number: Option<f64>,
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    /// From (column, row, 0) to RAS millimetres; none where the file does not say.
    pub(crate) affine: Option<Affine>,
    slope: f64,
    intercept: f64,
}

/// Where a slice is put that does not say where it is; only its ways matter.
pub(crate) const NOWHERE: Affine = Affine([[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]);

/// A slice's values.
pub(crate) struct Values {
    pub(crate) slice: Slice,
    stored: Vec<i64>,
}

impl Values {
    pub(crate) fn read(path: &Path) -> Result<Values, Problem> {
        let elements = Elements::read(path, &tags::ALL, true)?;
        let slice = Slice::of(path, &elements)?;
        let stored = pixels::decode(&elements, &Layout::of(&elements)?)?;
        Ok(Values { slice, stored })
    }

    /// The slice as radiology shows it.
    pub(crate) fn view(&self) -> View {
        View::of_slice(&self.slice.affine.unwrap_or(NOWHERE), self.slice.columns, self.slice.rows)
    }

    /// In Hounsfield units.
    pub(crate) fn at(&self, column: usize, row: usize) -> f64 {
        let stored = self.stored.get(row * self.slice.columns + column).copied().unwrap_or_default();
        self.slice.slope * stored as f64 + self.slice.intercept
    }
}

impl Slice {
    pub(crate) fn read(path: &Path) -> Result<Slice, Problem> {
        Slice::of(path, &Elements::read(path, &tags::ALL, false)?)
    }

    fn of(path: &Path, elements: &Elements) -> Result<Slice, Problem> {
        match elements.text(tags::MODALITY).as_deref() {
            None | Some("CT") => {}
            Some(other) => return Err(Problem::NotCt(format!("modality {other}; only CT is packed"))),
        }
        if elements.text(tags::IMAGE_TYPE).is_some_and(|kind| kind.contains("LOCALIZER")) {
            return Err(Problem::NotCt("a localizer, no slice".to_owned()));
        }
        let layout = Layout::of(elements)?;
        if !elements.has_pixels {
            return Err(Problem::Unsupported("it has no pixels".to_owned()));
        }
        let affine = affine(elements);
        if affine.is_some_and(|affine| !is_axial(&affine)) {
            return Err(Problem::NotCt("no axial slice".to_owned()));
        }
        let one = |tag, otherwise| elements.decimals::<1>(tag).map_or(otherwise, |[number]| number);
        Ok(Slice {
            path: path.to_owned(),
            series: elements.text(tags::SERIES_UID),
            study: elements.text(tags::STUDY_UID),
            patient: elements.text(tags::PATIENT_ID),
            instance: elements.text(tags::INSTANCE_UID),
            number: elements.decimals::<1>(tags::INSTANCE_NUMBER).map(|[number]| number),
            columns: layout.columns,
            rows: layout.rows,
            affine,
            slope: one(tags::SLOPE, 1.0),
            intercept: one(tags::INTERCEPT, 0.0),
        })
    }

    /// Where the slice is along its normal, in millimetres.
    pub(crate) fn position(&self) -> Option<f64> {
        let affine = self.affine?;
        Some(dot(affine.apply([0.0; 3]), affine.step(2)))
    }

    /// Slices of one series that lie in parallel and are of one size belong together.
    fn group(&self) -> (String, usize, usize, Option<[i64; 6]>) {
        let name = self.series.clone().unwrap_or_else(|| self.path.display().to_string());
        let way = |affine: Affine, axis: usize| {
            let step = affine.step(axis);
            // At most 1000 in size: the parts of a unit vector.
            step.map(|part| (part / length(step) * 1000.0).round() as i64)
        };
        let ways = self.affine.map(|affine| {
            let ([a, b, c], [d, e, f]) = (way(affine, 0), way(affine, 1));
            [a, b, c, d, e, f]
        });
        (name, self.rows, self.columns, ways)
    }
}

/// DICOM's axes run to the left, to the back and to the head.
fn affine(elements: &Elements) -> Option<Affine> {
    let [x, y, z] = elements.decimals::<3>(tags::POSITION)?;
    let [a, b, c, d, e, f] = elements.decimals::<6>(tags::ORIENTATION)?;
    let [between_rows, between_columns] = elements.decimals::<2>(tags::SPACING)?;
    let ras = |[x, y, z]: [f64; 3]| [-x, -y, z];
    let (along_row, along_column) = (ras([a, b, c]), ras([d, e, f]));
    let normal = cross(along_row, along_column);
    let sound = (length(along_row) - 1.0).abs() < 0.01
        && (length(along_column) - 1.0).abs() < 0.01
        && (length(normal) - 1.0).abs() < 0.01
        && between_rows > 0.0
        && between_columns > 0.0;
    let scaled = |way: [f64; 3], by: f64| way.map(|part| part * by);
    sound.then(|| {
        Affine::new([scaled(along_row, between_columns), scaled(along_column, between_rows), normal], ras([x, y, z]))
    })
}

fn is_axial(affine: &Affine) -> bool {
    affine.step(2)[2].abs() > 0.7
}

/// A series: slices from the feet to the head.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) slices: Vec<Slice>,
}

/// Reads the headers of all files and sorts them into series.
pub(crate) fn series(files: Vec<PathBuf>, watch: &Watch) -> Result<(Vec<Series>, Vec<LeftOut>), PackError> {
    let header = |path: PathBuf| {
        let slice = guarded(&path, || Slice::read(&path).map_err(|one| one.left_out(&path)));
        (std::fs::metadata(&path).map_or(0, |file| file.len()), slice)
    };
    let mut read = super::each(files, watch, header)?;
    // Of two files of one instance a copy that was cut short must not be the one that is taken.
    read.sort_by_key(|(bytes, _)| Reverse(*bytes));
    let mut left_out = Vec::new();
    let mut groups: BTreeMap<_, Vec<Slice>> = BTreeMap::new();
    let mut instances: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (_, slice) in read {
        match slice {
            Err(one) => left_out.push(one),
            Ok(slice) => match slice.instance.as_ref().and_then(|uid| instances.get(uid)) {
                Some(first) => {
                    let reason = format!("the same instance as {}", first.display());
                    left_out.push(LeftOut::new(slice.path.display().to_string(), Why::Duplicate, reason));
                }
                None => {
                    slice.instance.iter().for_each(|uid| drop(instances.insert(uid.clone(), slice.path.clone())));
                    groups.entry(slice.group()).or_default().push(slice);
                }
            },
        }
    }
    Ok((groups.into_values().map(sorted).collect(), left_out))
}

/// By place; those of one place, or of none, by their number and name.
fn sorted(mut slices: Vec<Slice>) -> Series {
    let height = |slice: &Slice| {
        let up = slice.affine.map_or(1.0, |affine| affine.step(2)[2].signum());
        slice.position().map_or(f64::NEG_INFINITY, |position| up * position)
    };
    slices.sort_by(|a, b| {
        let number = |slice: &Slice| slice.number.unwrap_or(f64::NEG_INFINITY);
        height(a).total_cmp(&height(b)).then(number(a).total_cmp(&number(b))).then_with(|| a.path.cmp(&b.path))
    });
    Series { slices }
}

impl Series {
    /// What names it: its UID, or its first file.
    pub(crate) fn name(&self) -> String {
        self.slices.first().map_or_else(String::new, |slice| slice.group().0)
    }
}
