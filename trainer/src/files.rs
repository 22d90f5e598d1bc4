//! Writing files so that nothing half-written is ever left in place of something good.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
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

/// Whether a file is, or would be, one of its own: not a link, a pipe or a device, which [`put`] writes into.
pub(crate) fn is_plain(file: &Path) -> bool {
    file.symlink_metadata().map_or(true, |known| known.is_file())
}

/// Replaces a plain file in one go, and writes into what is none (`/dev/stdout`).
pub(crate) fn put(file: &Path, bytes: &[u8]) -> io::Result<()> {
    match is_plain(file) {
        true => replace(file, bytes),
        false => OpenOptions::new().write(true).truncate(true).open(file)?.write_all(bytes),
    }
}

/// Makes a rename or removal in the file's folder durable.
pub(crate) fn sync_parent(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
