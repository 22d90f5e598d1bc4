//! Checkpoints in an object store: each a folder there, complete once it has its `MANIFEST.json`, which comes last.
//!
//! `PREFIX/step-00000123/` holds what the folder of this name in the run directory does; `PREFIX/latest` and `PREFIX/best`
//! name such folders. Must not: change anything in the run directory.

use super::{BEST, Error, LATEST, MANIFEST, MODEL, OPTIMIZER, STATE, folder_name, step_of, to_remove};
use data_shards::remote::Store;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most bytes of a file that holds a name.
const NAME: u64 = 1 << 12;

/// What is to be uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The checkpoint's step.
    pub step: u64,
    /// The best one's, which goes along where the store lacks it.
    pub best: Option<u64>,
    /// How many of the newest the store keeps, besides the best one.
    pub keep_last: usize,
}

/// Uploads a checkpoint of `checkpoints`, points the store's `latest` at it, and removes old ones there; its bytes.
/// `may_publish` is asked before anything in the store is replaced.
pub fn upload<E: From<Error>>(
    store: &Store,
    checkpoints: &Path,
    request: &Request,
    may_publish: impl Fn() -> Result<(), E>,
) -> Result<u64, E> {
    let Request { step, best, keep_last } = *request;
    may_publish()?;
    let bytes = put(store, checkpoints, step)?;
    may_publish()?;
    point(store, LATEST, step)?;
    let named = best_in(store)?;
    if let Some(best) = best.filter(|best| named != Some(*best))
        && (best == step || also(store, checkpoints, best)?)
    {
        may_publish()?;
        point(store, BEST, best)?;
    }
    may_publish()?;
    if let Err(e) = retire(store, step, keep_last) {
        tracing::warn!("cannot remove old checkpoints: {e}");
    }
    Ok(bytes)
}

/// The best one that the store names.
fn best_in(store: &Store) -> Result<Option<u64>, Error> {
    let name = store.get(BEST, NAME)?.and_then(|name| String::from_utf8(name).ok());
    Ok(name.and_then(|name| step_of(name.trim())))
}

/// Uploads another one; false where the run directory no longer has it.
fn also(store: &Store, checkpoints: &Path, step: u64) -> Result<bool, Error> {
    match put(store, checkpoints, step) {
        Err(Error::Read { .. } | Error::Damaged { .. }) => Ok(false),
        done => done.map(|_| true),
    }
}

fn point(store: &Store, pointer: &str, step: u64) -> Result<(), Error> {
    Ok(store.put(pointer, format!("{}\n", folder_name(step)).as_bytes())?)
}

fn put(store: &Store, checkpoints: &Path, step: u64) -> Result<u64, Error> {
    let name = folder_name(step);
    let (manifest, files) = open(&checkpoints.join(&name))?;
    let manifest_there = format!("{name}/{MANIFEST}");
    if store.files(&name)?.iter().any(|file| file == MANIFEST) {
        // One of an earlier time at this step. It must not vouch for a mixture.
        store.remove(&manifest_there)?;
    }
    let mut bytes = 0;
    for (file, mut content) in files {
        bytes += store.put_file(&format!("{name}/{file}"), &mut content)?;
    }
    store.put(&manifest_there, &manifest)?;
    Ok(bytes)
}

/// A file of a checkpoint, open, by its name.
type Open = (&'static str, File);

/// The manifest, and the files that it is of: a folder may be replaced by another of its name at any time.
fn open(folder: &Path) -> Result<(Vec<u8>, Vec<Open>), Error> {
    let of = |name: &str| {
        let path = folder.join(name);
        File::open(&path).map_err(|source| Error::Read { path, source })
    };
    let failed = |source| Error::Read { path: folder.join(MANIFEST), source };
    let mut manifest = of(MANIFEST)?;
    let mut files = Vec::new();
    for name in [MODEL, OPTIMIZER, STATE] {
        files.push((name, of(name)?));
    }
    let (first, last) = (manifest.metadata().map_err(failed)?, of(MANIFEST)?.metadata().map_err(failed)?);
    if first.ino() != last.ino() {
        return Err(Error::Damaged { folder: folder.into(), problem: "it was replaced before it was uploaded".into() });
    }
    let mut text = Vec::new();
    manifest.read_to_end(&mut text).map_err(failed)?;
    Ok((text, files))
}

fn retire(store: &Store, newest: u64, keep_last: usize) -> Result<(), Error> {
    let mut found = Vec::new();
    for name in store.folders()? {
        if let Some(step) = step_of(&name) {
            found.push((step, store.files(&name)?.iter().any(|file| file == MANIFEST)));
        }
    }
    found.sort_unstable();
    for step in retired(&found, newest, keep_last, best_in(store)?) {
        let name = folder_name(step);
        // The manifest first, so that a half-removed one is never taken for a checkpoint.
        store.remove(&format!("{name}/{MANIFEST}"))?;
        for file in store.files(&name)? {
            store.remove(&format!("{name}/{file}"))?;
        }
    }
    Ok(())
}

/// Of the folders in a store (step, and whether it is complete; ascending), those to remove once `newest` is there. What is
/// later than that is of another start, and none of ours to judge. Pure.
fn retired(found: &[(u64, bool)], newest: u64, keep_last: usize, best: Option<u64>) -> Vec<u64> {
    let earlier = || found.iter().filter(|(step, _)| *step <= newest);
    let complete: Vec<u64> = earlier().filter(|(_, complete)| *complete).map(|(step, _)| *step).collect();
    let given_up = earlier().filter(|(_, complete)| !complete).map(|(step, _)| *step);
    given_up.chain(to_remove(&complete, keep_last, best.as_slice())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_the_newest_complete_ones_and_the_best() {
        let found = [(1, true), (2, true), (3, false), (4, true), (5, true), (6, true), (9, true)];
        assert_eq!(retired(&found, 6, 2, Some(1)), [3, 2, 4]);
        assert_eq!(retired(&found, 6, 9, None), [3]);
        assert_eq!(retired(&[(6, true)], 6, 1, None), Vec::<u64>::new());
    }

    #[test]
    fn only_files_of_one_folder_are_uploaded_together() {
        let dir = std::env::temp_dir().join(format!("jcs-upload-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for name in [MODEL, OPTIMIZER, STATE, MANIFEST] {
            std::fs::write(dir.join(name), name).unwrap();
        }
        let (manifest, files) = open(&dir).unwrap();
        assert_eq!((manifest.as_slice(), files.len()), (MANIFEST.as_bytes(), 3));
        std::fs::remove_dir_all(&dir).unwrap();
        // What is open stays what it was.
        let mut text = String::new();
        files.into_iter().next().unwrap().1.read_to_string(&mut text).unwrap();
        assert_eq!(text, MODEL);
        assert!(matches!(open(&dir), Err(Error::Read { .. })));
    }
}
