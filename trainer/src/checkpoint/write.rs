//! Writing a checkpoint.

use super::manifest::{FORMAT, FileEntry, Manifest};
use super::{BEST, Error, LATEST, MANIFEST, MODEL, OPTIMIZER, STATE, TEMPORARY, folder_name};
use crate::files::{replace, sync_parent, write_durably};
use std::io;
use std::path::{Path, PathBuf};

/// The files of a checkpoint, as bytes.
pub struct Contents {
    /// Its step.
    pub step: u64,
    /// `model.safetensors`
    pub model: Vec<u8>,
    /// `optimizer.safetensors`
    pub optimizer: Vec<u8>,
    /// `state.json`
    pub state: Vec<u8>,
}

/// Writes a checkpoint into `checkpoints` and points `latest` at it. On an error nothing of it is left.
pub fn write(checkpoints: &Path, contents: &Contents) -> Result<PathBuf, Error> {
    let name = folder_name(contents.step);
    let temporary = checkpoints.join(format!("{TEMPORARY}{name}-{}", std::process::id()));
    let result = write_folder(&temporary, contents).and_then(|()| put_in_place(checkpoints, &temporary, &name));
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&temporary);
    }
    result
}

fn write_folder(folder: &Path, contents: &Contents) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    let mut manifest = Manifest { format: FORMAT, step: contents.step, files: Default::default() };
    for (name, bytes) in [(MODEL, &contents.model), (OPTIMIZER, &contents.optimizer), (STATE, &contents.state)] {
        let file = folder.join(name);
        write_durably(&file, bytes).map_err(at(&file))?;
        manifest.files.insert(name.into(), FileEntry::of(bytes));
    }
    let file = folder.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other).map_err(at(&file))?;
    write_durably(&file, &text).map_err(at(&file))?;
    sync_parent(&file).map_err(at(folder))
}

fn put_in_place(checkpoints: &Path, temporary: &Path, name: &str) -> Result<PathBuf, Error> {
    let folder = checkpoints.join(name);
    // Only a damaged checkpoint, or one of a run that was resumed before it, can be there.
    let displaced = checkpoints.join(format!("{TEMPORARY}old-{name}"));
    if folder.exists() {
        std::fs::rename(&folder, &displaced).map_err(at(&folder))?;
    }
    std::fs::rename(temporary, &folder).map_err(at(&folder))?;
    let _ = std::fs::remove_dir_all(&displaced);
    sync_parent(&folder).map_err(at(&folder))?;
    point(checkpoints, LATEST, name)?;
    Ok(folder)
}

/// Points `best` at the checkpoint of `step`.
pub fn set_best(checkpoints: &Path, step: u64) -> Result<(), Error> {
    point(checkpoints, BEST, &folder_name(step))
}

fn point(checkpoints: &Path, pointer: &str, name: &str) -> Result<(), Error> {
    let file = checkpoints.join(pointer);
    replace(&file, format!("{name}\n").as_bytes()).map_err(at(&file))
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path: path.clone(), source }
}
