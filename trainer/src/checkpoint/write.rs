//! Writing a checkpoint.

use super::manifest::{FORMAT, FileEntry, Manifest};
use super::{BEST, DISPLACED, Error, LATEST, MANIFEST, TEMPORARY, folder_name};
use crate::files::{replace, sync_parent, write_durably};
use std::io;
use std::path::Path;

/// Writes a checkpoint into `checkpoints` and points `latest` at it; its size in bytes. On an error nothing of it is left.
///
/// `files`, by name, are asked for one after the other, so that they need not all be in memory; `may_publish` is asked
/// before anything gets its final name.
pub fn write<'a, E: From<Error>>(
    checkpoints: &Path,
    step: u64,
    files: impl IntoIterator<Item = (&'a str, Result<Vec<u8>, E>)>,
    may_publish: impl FnOnce() -> Result<(), E>,
) -> Result<u64, E> {
    let name = folder_name(step);
    let temporary = checkpoints.join(format!("{TEMPORARY}{name}-{}", std::process::id()));
    let result = write_folder(&temporary, step, files).and_then(|bytes| {
        may_publish()?;
        put_in_place(checkpoints, &temporary, &name)?;
        Ok(bytes)
    });
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    result
}

fn write_folder<'a, E: From<Error>>(
    folder: &Path,
    step: u64,
    files: impl IntoIterator<Item = (&'a str, Result<Vec<u8>, E>)>,
) -> Result<u64, E> {
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let mut manifest = Manifest { format: FORMAT, step, files: Default::default() };
    for (name, bytes) in files {
        let (file, bytes) = (folder.join(name), bytes?);
        write_durably(&file, &bytes).map_err(at(&file))?;
        manifest.files.insert(name.into(), FileEntry::of(&bytes));
    }
    let file = folder.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other).map_err(at(&file))?;
    write_durably(&file, &text).map_err(at(&file))?;
    sync_parent(&file).map_err(at(folder))?;
    Ok(manifest.files.values().map(|file| file.bytes).sum())
}

/// Gives a complete folder its final name, and points `latest` at it.
pub(super) fn put_in_place(checkpoints: &Path, temporary: &Path, name: &str) -> Result<(), Error> {
    let folder = checkpoints.join(name);
    // One that is damaged, that a run left which was resumed before it, or that an evaluation made better. Until the new one
    // has its name, a crash leaves this one, and `clean` gives it its name back.
    let displaced = checkpoints.join(format!("{DISPLACED}{name}"));
    if folder.exists() {
        std::fs::rename(&folder, &displaced).map_err(at(&folder))?;
    }
    std::fs::rename(temporary, &folder).map_err(at(&folder)).inspect_err(|_| {
        let _ = std::fs::rename(&displaced, &folder);
    })?;
    let _ = std::fs::remove_dir_all(&displaced);
    sync_parent(&folder).map_err(at(&folder))?;
    point(checkpoints, LATEST, name)
}

/// Points `best` at the checkpoint of `step`.
pub fn set_best(checkpoints: &Path, step: u64) -> Result<(), Error> {
    point(checkpoints, BEST, &folder_name(step))
}

/// Makes `latest`, and `best` where there is one, name complete checkpoints again: a crash between a checkpoint and its pointer,
/// or one that was set aside, leaves them behind. A `best` that would name nothing goes. Steps whose folders are elsewhere are passed over.
pub fn repoint(checkpoints: &Path, latest: u64, best: Option<u64>) -> Result<(), Error> {
    let named = |pointer: &str| std::fs::read_to_string(checkpoints.join(pointer)).ok();
    for (pointer, step) in [(LATEST, Some(latest)), (BEST, best)] {
        let name = step.map(folder_name).filter(|name| checkpoints.join(name).is_dir());
        match (name, named(pointer)) {
            (Some(name), Some(old)) if old.trim() == name => {}
            (Some(name), _) => point(checkpoints, pointer, &name)?,
            (None, Some(old)) if !checkpoints.join(old.trim()).is_dir() => {
                let file = checkpoints.join(pointer);
                std::fs::remove_file(&file).map_err(at(&file))?;
            }
            (None, _) => {}
        }
    }
    Ok(())
}

fn point(checkpoints: &Path, pointer: &str, name: &str) -> Result<(), Error> {
    let file = checkpoints.join(pointer);
    replace(&file, format!("{name}\n").as_bytes()).map_err(at(&file))
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path: path.clone(), source }
}
