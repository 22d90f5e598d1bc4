//! List files as the official code reads them: `image mask` a line.
//!
//! Duty: text to entries, with the line of each. Must not: open what the entries name.

use std::path::{Path, PathBuf};

use crate::Error;

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The image, with the root before it where the list has a relative path.
    pub image: PathBuf,
    /// The mask, likewise.
    pub mask: PathBuf,
    /// Line number in the list file, from 1.
    pub line: usize,
}

/// A line as it is written, before the root is put before its paths.
pub(crate) struct Written<'a> {
    pub(crate) image: &'a str,
    pub(crate) mask: &'a str,
    line: usize,
}

impl Written<'_> {
    pub(crate) fn entry(&self, root: &Path) -> Entry {
        Entry { image: root.join(self.image), mask: root.join(self.mask), line: self.line }
    }
}

/// Reads a list: `image mask` a line, split on whitespace, LF or CRLF; blank lines are skipped. Relative paths count from
/// `root`, or from the list file's folder.
///
/// # Errors
/// [`Error::Read`], [`Error::NotText`], [`Error::Line`] at a line without exactly two fields, [`Error::Empty`].
pub fn read(list: &Path, root: Option<&Path>) -> Result<Vec<Entry>, Error> {
    let text = text(list)?;
    let root = root_of(list, root);
    Ok(parse(list, &text)?.iter().map(|written| written.entry(root)).collect())
}

pub(crate) fn text(list: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(list).map_err(|source| Error::Read { path: list.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|_| Error::NotText { list: list.to_owned() })
}

pub(crate) fn root_of<'a>(list: &'a Path, root: Option<&'a Path>) -> &'a Path {
    root.or_else(|| list.parent()).unwrap_or(Path::new(""))
}

pub(crate) fn parse<'a>(list: &Path, text: &'a str) -> Result<Vec<Written<'a>>, Error> {
    // Editors on Windows put a byte order mark first; it is no part of the first path.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let entries = lines.map(|(at, line)| parse_line(list, at + 1, line)).collect::<Result<Vec<_>, _>>()?;
    if entries.is_empty() { Err(Error::Empty { list: list.to_owned() }) } else { Ok(entries) }
}

fn parse_line<'a>(list: &Path, line: usize, text: &'a str) -> Result<Written<'a>, Error> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields[..] {
        [image, mask] => Ok(Written { image, mask, line }),
        _ => Err(Error::Line {
            list: list.to_owned(),
            line,
            found: fields.len(),
            text: text.trim().chars().take(120).collect(),
        }),
    }
}
