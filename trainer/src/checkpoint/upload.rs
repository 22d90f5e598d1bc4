//! Checkpoints in an object store: each a folder there, complete once it has its `MANIFEST.json`, which comes last.
//!
//! `PREFIX/step-00000123/` holds what the folder of this name in the run directory does; `PREFIX/latest` and `PREFIX/best`
//! name such folders. Must not: change anything in the run directory.

use super::manifest::Manifest;
use super::{BEST, Error, LATEST, MANIFEST, MODEL, OPTIMIZER, STATE, folder_name, step_of, to_remove};
use data_shards::remote::Store;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Most bytes of a file that holds a name.
const NAME: u64 = 1 << 12;
/// Most bytes of a manifest.
pub(super) const MANIFEST_BYTES: u64 = 1 << 20;

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

/// Uploads a checkpoint of `checkpoints`, as far as the store does not have it, points the store's `latest` at it unless that names a
/// later one, and removes old ones there; the bytes that were sent. `may_publish` is asked before anything in the store is replaced.
pub fn upload<E: From<Error>>(
    store: &Store,
    checkpoints: &Path,
    request: &Request,
    may_publish: impl Fn() -> Result<(), E>,
) -> Result<u64, E> {
    let Request { step, best, keep_last } = *request;
    let bytes = put(store, checkpoints, step, &may_publish)?;
    let latest = named(store, LATEST)?;
    if latest.is_none_or(|latest| latest < step)
        || latest.is_some_and(|latest| latest != step && !is_complete(store, latest))
    {
        may_publish()?;
        point(store, LATEST, step)?;
    }
    let best_there = named(store, BEST)?;
    if let Some(best) = best.filter(|best| best_there != Some(*best))
        && (best == step || also(store, checkpoints, best, &may_publish)?)
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

/// The checkpoint that a pointer of the store names.
fn named(store: &Store, pointer: &str) -> Result<Option<u64>, Error> {
    let name = store.get(pointer, NAME)?.and_then(|name| String::from_utf8(name).ok());
    Ok(name.and_then(|name| step_of(name.trim())))
}

/// Whether a checkpoint has its manifest there; also where that cannot be found out.
fn is_complete(store: &Store, step: u64) -> bool {
    store.files(&folder_name(step)).map_or(true, |files| files.iter().any(|file| file == MANIFEST))
}

/// Uploads another one; false where the run directory no longer has it.
fn also<E: From<Error>>(
    store: &Store,
    checkpoints: &Path,
    step: u64,
    may_publish: impl Fn() -> Result<(), E>,
) -> Result<bool, E> {
    if open(&checkpoints.join(folder_name(step))).is_err() {
        return Ok(false);
    }
    put(store, checkpoints, step, may_publish).map(|_| true)
}

fn point(store: &Store, pointer: &str, step: u64) -> Result<(), Error> {
    Ok(store.put(pointer, format!("{}\n", folder_name(step)).as_bytes())?)
}

/// Sends what the store lacks of a checkpoint. Where it has one of an earlier time at this step, whose weights are mostly the same,
/// it is without a complete one only while the files are sent that differ.
fn put<E: From<Error>>(
    store: &Store,
    checkpoints: &Path,
    step: u64,
    may_publish: impl Fn() -> Result<(), E>,
) -> Result<u64, E> {
    let name = folder_name(step);
    let (manifest, mut files) = open(&checkpoints.join(&name))?;
    let manifest_there = format!("{name}/{MANIFEST}");
    let there = store.get(&manifest_there, MANIFEST_BYTES).map_err(Error::from)?;
    if there.as_ref() == Some(&manifest) {
        return Ok(0);
    }
    may_publish()?;
    if let Some(there) = there {
        files.retain(|(file, _)| !same_file(&there, &manifest, file));
        // It must not vouch for a mixture.
        store.remove(&manifest_there).map_err(Error::from)?;
    }
    let mut bytes = 0;
    for (file, mut content) in files {
        bytes += store.put_file(&format!("{name}/{file}"), &mut content).map_err(Error::from)?;
    }
    may_publish()?;
    store.put(&manifest_there, &manifest).map_err(Error::from)?;
    Ok(bytes)
}

/// Whether two manifests say the same of a file.
fn same_file(a: &[u8], b: &[u8], file: &str) -> bool {
    let entry = |text: &[u8]| {
        let manifest: Option<Manifest> = serde_json::from_slice(text).ok();
        manifest.and_then(|manifest| manifest.files.get(file).map(|entry| (entry.bytes, entry.sha256.clone())))
    };
    entry(a).is_some() && entry(a) == entry(b)
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
    for step in retired(&found, newest, keep_last, named(store, BEST)?) {
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
    use super::super::manifest::FileEntry;
    use super::*;

    #[test]
    fn a_store_keeps_the_newest_complete_ones_and_the_best() {
        let found = [(1, true), (2, true), (3, false), (4, true), (5, true), (6, true), (9, true)];
        assert_eq!(retired(&found, 6, 2, Some(1)), [3, 2, 4]);
        assert_eq!(retired(&found, 6, 9, None), [3]);
        assert_eq!(retired(&[(6, true)], 6, 1, None), Vec::<u64>::new());
    }

    #[test]
    fn a_file_is_the_same_where_both_manifests_say_so() {
        let entry = |text: &str| FileEntry::of(text.as_bytes());
        let manifest = |files: &[(&str, &str)]| {
            let files = files.iter().map(|(name, text)| ((*name).to_owned(), entry(text))).collect();
            serde_json::to_vec(&Manifest { format: 1, step: 1, files }).unwrap()
        };
        let there = manifest(&[(MODEL, "weights"), (OPTIMIZER, "moments")]);
        let here = manifest(&[(MODEL, "weights"), (OPTIMIZER, "others"), (STATE, "state")]);
        assert_eq!([MODEL, OPTIMIZER, STATE].map(|file| same_file(&there, &here, file)), [true, false, false]);
        assert!(!same_file(b"no manifest", b"no manifest", MODEL));
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
