//! The files below a folder.
//!
//! Duty: all of them, in the order of their paths, hidden ones aside, through links as well, though never in a circle. Must
//! not: open them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::pack::PackError;

pub(super) fn files(root: &Path) -> Result<Vec<PathBuf>, PackError> {
    let mut found = Vec::new();
    walk(root, &mut Vec::new(), &mut found)?;
    Ok(found)
}

/// `above` are the folders that this one lies in, as they are without links.
fn walk(folder: &Path, above: &mut Vec<PathBuf>, found: &mut Vec<PathBuf>) -> Result<(), PackError> {
    let failed = |source| PackError::Read { path: folder.to_owned(), source };
    let real = folder.canonicalize().map_err(failed)?;
    if above.contains(&real) {
        return Ok(());
    }
    above.push(real);
    let entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<PathBuf> = entries
        .iter()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(fs::DirEntry::path)
        .collect();
    paths.sort();
    for path in paths {
        match fs::metadata(&path) {
            Ok(there) if there.is_dir() => walk(&path, above, found)?,
            // A pipe would be waited for.
            Ok(there) if !there.is_file() => {}
            // A link to nothing is found out when it is opened.
            _ => found.push(path),
        }
    }
    above.pop();
    Ok(())
}
