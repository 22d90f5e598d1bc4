//! A file by which another host shows that it sees the same folder: a shared run directory is found out, not assumed.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

/// An empty file of a name that nobody has seen before, removed when this goes.
#[derive(Debug)]
pub(super) struct Witness {
    path: PathBuf,
    text: String,
}

impl Witness {
    /// Leaves it in `folder`, or in the nearest folder above that is there. `None` where nothing can be written: the host's
    /// own answer says so.
    pub(super) fn leave(folder: &Path) -> Option<Witness> {
        let nearest = folder.ancestors().find(|folder| folder.exists())?;
        let path = nearest.join(format!(".jcs-witness-{:016x}", RandomState::new().hash_one(std::process::id())));
        let create =
            |path: &Path| -> std::io::Result<File> { OpenOptions::new().write(true).create_new(true).open(path) };
        create(&path).ok()?;
        // A name that is no text cannot be asked for; the file still goes.
        let text = path.to_string_lossy().into_owned();
        Some(Witness { path, text })
    }

    /// Its path, from the root.
    pub(super) fn path(&self) -> &str {
        &self.text
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_in_the_nearest_folder_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::leave(&folder.path().join("runs/new")).unwrap();
        assert_eq!(Path::new(witness.path()).parent(), Some(folder.path()));
        assert!(Path::new(witness.path()).exists());
        let other = Witness::leave(folder.path()).unwrap();
        assert_ne!(other.path(), witness.path());
        drop((witness, other));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(Witness::leave(Path::new("/proc/none/run")).is_none());
    }
}
