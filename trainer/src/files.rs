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

/// Whether [`replace`] could begin; leaves nothing, and the file as it is.
pub(crate) fn check_replaceable(file: &Path) -> io::Result<()> {
    if file.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let temporary = temporary(file);
    File::create(&temporary)?;
    std::fs::remove_file(&temporary)
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

/// Makes a rename or removal in the file's folder durable.
pub(crate) fn sync_parent(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
