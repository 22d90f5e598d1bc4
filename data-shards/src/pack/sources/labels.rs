//! A table that adds labels and patients to files.
//!
//! Duty: the row of a file, and the rows of files that are not there. Must not: open the files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::pack::report::{LeftOut, Why};
use crate::table::{self, Row};

/// Rows by their files.
#[derive(Default)]
pub(super) struct Labels {
    path: PathBuf,
    rows: HashMap<PathBuf, Row>,
    /// The label of a patient, where all its rows agree.
    patients: HashMap<String, Option<bool>>,
}

impl Labels {
    /// Reads a table. Its paths count from its own folder, and from the source.
    pub(super) fn read(path: &Path, source: &Path) -> Result<Labels, Error> {
        let own = path.parent().unwrap_or(Path::new(""));
        let mut labels = Labels { path: path.to_owned(), ..Labels::default() };
        for row in table::read(path)? {
            if let Some(patient) = &row.patient {
                let label = labels.patients.entry(patient.clone()).or_insert(row.label);
                *label = label.filter(|label| Some(*label) == row.label);
            }
            for root in [source, own] {
                labels.rows.insert(root.join(&row.image), row.clone());
            }
        }
        Ok(labels)
    }

    pub(super) fn of(&self, path: &Path) -> Option<&Row> {
        self.rows.get(path)
    }

    /// The row of the first of the files that has one.
    pub(super) fn of_any<'a>(&self, mut paths: impl Iterator<Item = &'a Path>) -> Option<&Row> {
        paths.find_map(|path| self.of(path))
    }

    pub(super) fn of_patient(&self, patient: &str) -> Option<bool> {
        self.patients.get(patient).copied().flatten()
    }

    /// What the rows name that is not there.
    pub(super) fn absent(&self) -> Vec<LeftOut> {
        // Each row stands under the two places that its file may have.
        let mut there: BTreeMap<(usize, &str), bool> = BTreeMap::new();
        let rows = self.rows.iter().map(|(path, row)| ((row.line, row.image.as_str()), path.exists()));
        rows.for_each(|(row, exists)| *there.entry(row).or_default() |= exists);
        let absent = there.into_iter().filter(|(_, exists)| !exists);
        let reason = |line: usize| format!("{}:{line} names it, and it is not there", self.path.display());
        absent.map(|((line, name), _)| LeftOut::new(name, Why::Unreadable, reason(line))).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
