//! Lists of samples: text as the official code reads it (`image mask` a line), or a table (`file,label,patient_id`).
//!
//! Duty: a file to entries, with the line of each. Must not: open what the entries name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::table::{self, Row};

/// One sample of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The image, with the root before it where the list has a relative path.
    pub image: PathBuf,
    /// The mask, likewise; none where no pixel was labelled.
    pub mask: Option<PathBuf>,
    /// Whether it is COVID-19; none where nobody said.
    pub label: Option<bool>,
    /// Whose image it is; none where nobody said.
    pub patient: Option<String>,
    /// Line number in the list file, from 1.
    pub line: usize,
}

/// An entry with image and mask as they are written, before the root is put before its paths: what identifies a sample
/// wherever the files lie.
pub(crate) struct Written {
    pub(crate) text: String,
    pub(crate) entry: Entry,
}

/// Reads a list. In text each line has `image mask`, split on whitespace, LF or CRLF; blank lines are skipped. A table
/// (`.csv`) has the columns `file`, `label`, `patient_id` and, where there are any, `mask`. Relative paths count from `root`, or from the list file's folder.
///
/// # Errors
/// [`Error::Read`], [`Error::NotText`], [`Error::Line`] at a line without exactly two fields, [`Error::Table`],
/// [`Error::Empty`].
pub fn read(list: &Path, root: Option<&Path>) -> Result<Vec<Entry>, Error> {
    Ok(read_written(list, root)?.into_iter().map(|written| written.entry).collect())
}

pub(crate) fn read_written(list: &Path, root: Option<&Path>) -> Result<Vec<Written>, Error> {
    let root = root.or_else(|| list.parent()).unwrap_or(Path::new(""));
    if table::is_table(list) {
        return Ok(table::read(list)?.into_iter().map(|row| of_row(row, root)).collect());
    }
    parse(list, &text(list)?, root)
}

pub(crate) fn text(list: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(list).map_err(|source| Error::Read { path: list.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| Error::NotText { list: list.to_owned() })
}

/// Label and patient of the entries that `labels`, a table, names; its paths count from its folder.
/// Returns how many of the entries these are.
pub(crate) fn add_labels(written: &mut [Written], labels: &Path) -> Result<usize, Error> {
    let root = labels.parent().unwrap_or(Path::new(""));
    let rows = table::read(labels)?.into_iter().map(|row| (root.join(&row.image), row));
    let rows: HashMap<PathBuf, Row> = rows.collect();
    let mut named = 0;
    for entry in written.iter_mut().map(|written| &mut written.entry) {
        let Some(row) = rows.get(&entry.image) else { continue };
        named += 1;
        entry.label = entry.label.or(row.label);
        entry.patient = entry.patient.take().or_else(|| row.patient.clone());
    }
    Ok(named)
}

fn of_row(row: Row, root: &Path) -> Written {
    let label = row.label.map_or("-", |label| if label { "1" } else { "0" });
    let text = format!("{} {} {label}", row.image, row.mask.as_deref().unwrap_or("-"));
    let mask = row.mask.map(|mask| root.join(mask));
    let Row { image, label, patient, line, .. } = row;
    Written { text, entry: Entry { image: root.join(image), mask, label, patient, line } }
}

fn parse(list: &Path, text: &str, root: &Path) -> Result<Vec<Written>, Error> {
    // Editors on Windows put a byte order mark first; it is no part of the first path.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let entries = lines.map(|(at, line)| parse_line(list, at + 1, line, root)).collect::<Result<Vec<_>, _>>()?;
    if entries.is_empty() { Err(Error::Empty { list: list.to_owned() }) } else { Ok(entries) }
}

fn parse_line(list: &Path, line: usize, text: &str, root: &Path) -> Result<Written, Error> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields[..] {
        [image, mask] => {
            let (text, image, mask) = (format!("{image} {mask}"), root.join(image), Some(root.join(mask)));
            Ok(Written { text, entry: Entry { image, mask, label: None, patient: None, line } })
        }
        _ => Err(Error::Line {
            list: list.to_owned(),
            line,
            found: fields.len(),
            text: text.trim().chars().take(120).collect(),
        }),
    }
}
