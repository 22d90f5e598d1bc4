//! Writing files so that nothing half-written is ever left in place of something good.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Writes a new file and waits until it is on disk.
pub(crate) fn write_durably(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut f = OpenOptions::new().write(true).create(true).truncate(true).open(file)?;
    f.write_all(bytes)?;
    f.sync_all()
}

/// What becomes `file` once it is complete.
fn temporary(file: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".tmp-");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!("-{}", std::process::id()));
    file.with_file_name(name)
}

/// Replaces a file in one go: readers see the old content or the new one.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(file);
    let result = write_durably(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, file));
    match result {
        Ok(()) => sync_parent(file),
        Err(e) => {
            let _ = std::fs::remove_file(&temporary);
            Err(e)
        }
    }
}

/// Where an output goes that the user has named.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A file of its own, found through links; it is replaced in one go.
    Plain(PathBuf),
    /// What this process says goes there, too (`/dev/stdout`): it comes after it.
    StandardOutput,
    /// A pipe or a device, written into.
    Stream(PathBuf),
}

impl Target {
    /// What `file` is, or would be. An error where nothing can be written: a folder, or a link to nothing.
    pub(crate) fn of(file: &Path) -> io::Result<Target> {
        if file.symlink_metadata().is_err() {
            return Ok(Target::Plain(file.to_owned()));
        }
        let known = file.metadata()?;
        match known.file_type() {
            _ if is_standard_output(&known) => Ok(Target::StandardOutput),
            kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            kind if kind.is_file() => Ok(Target::Plain(file.canonicalize()?)),
            _ => Ok(Target::Stream(file.to_owned())),
        }
    }

    /// Whether it can be written again and again, each time anew.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Target::Plain(_))
    }

    /// Writes all of it.
    pub(crate) fn put(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Plain(file) => replace(file, bytes),
            Target::StandardOutput => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Target::Stream(file) => OpenOptions::new().write(true).open(file)?.write_all(bytes),
        }
    }
}

fn is_standard_output(known: &Metadata) -> bool {
    let out = io::stdout().as_fd().try_clone_to_owned().and_then(|out| File::from(out).metadata());
    out.is_ok_and(|out| (out.dev(), out.ino()) == (known.dev(), known.ino()))
}

/// Makes a rename or removal in the file's folder durable.
pub(crate) fn sync_parent(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
