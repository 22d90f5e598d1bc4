//! Checkpoints from an object store into the run directory.
//!
//! What arrives is verified under a temporary name before it gets its own. What is incomplete or damaged in the store is
//! passed over; a store that cannot be asked is an error, because to go on from something older would lose work unnoticed.

use super::read::{self, Found};
use super::upload::MANIFEST_BYTES;
use super::write::put_in_place;
use super::{Error, MANIFEST, TEMPORARY, folder_name, set_best, step_of};
use crate::files::write_durably;
use data_shards::remote::{self, Fault, Store};
use std::path::{Path, PathBuf};

/// What a store had to offer.
#[derive(Debug, Default)]
pub struct Brought {
    /// The checkpoint that was fetched; it lies in the run directory.
    pub found: Option<Found>,
    /// What is wrong with the newest that is damaged.
    pub problem: Option<String>,
}

/// Fetches the newest checkpoint of the store that verifies, and the best one that it knows of, where it is newer than
/// `newer_than`. `may_publish` is asked before anything in `checkpoints` gets its final name.
pub fn bring<E: From<Error>>(
    store: &Store,
    checkpoints: &Path,
    newer_than: Option<u64>,
    may_publish: impl Fn() -> Result<(), E>,
) -> Result<Brought, E> {
    let mut brought = Brought::default();
    for step in steps(store)?.into_iter().rev() {
        let name = folder_name(step);
        let newer = Some(step) > newer_than;
        let arrived = match manifest(store, &name) {
            Ok(Some(_)) if !newer => return Ok(brought),
            Ok(None) if !newer => continue,
            Ok(None) => {
                tracing::warn!("{} has no {MANIFEST}: its upload never ended; it is passed over", store.url(&name));
                continue;
            }
            Ok(Some(text)) => {
                tracing::info!("fetching {}", store.url(&name));
                fetch(store, checkpoints, step, &text)
            }
            Err(e) => Err(e),
        };
        match arrived {
            Ok((folder, found)) => {
                if let Some(best) = found.state.best {
                    bring_best(store, checkpoints, step, best.step, &may_publish)?;
                }
                may_publish()?;
                put_in_place(checkpoints, &folder, &name)?;
                let found = Found { folder: checkpoints.join(&name), ..found };
                if found.state.best.is_some_and(|best| best.step == step) {
                    set_best(checkpoints, step)?;
                }
                return Ok(Brought { found: Some(found), ..brought });
            }
            Err(e) if is_damage(&e) => {
                tracing::warn!("{e}; it is passed over");
                brought.problem.get_or_insert_with(|| e.to_string());
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(brought)
}

/// Steps of the checkpoints in a store, complete or not; ascending.
pub fn steps(store: &Store) -> Result<Vec<u64>, Error> {
    let mut steps: Vec<u64> = store.folders()?.iter().filter_map(|name| step_of(name)).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// The best one, where it is neither `newest`, nor there already. One that cannot be had is none to go on from.
fn bring_best<E: From<Error>>(
    store: &Store,
    checkpoints: &Path,
    newest: u64,
    best: u64,
    may_publish: impl Fn() -> Result<(), E>,
) -> Result<(), E> {
    let name = folder_name(best);
    if best == newest || checkpoints.join(&name).exists() {
        return Ok(());
    }
    let Some(text) = manifest(store, &name)? else { return Ok(()) };
    match fetch(store, checkpoints, best, &text) {
        Ok((folder, _)) => {
            may_publish()?;
            put_in_place(checkpoints, &folder, &name)?;
            Ok(set_best(checkpoints, best)?)
        }
        Err(e) if is_damage(&e) => {
            tracing::warn!("{e}; the best checkpoint is left out");
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

fn manifest(store: &Store, name: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(store.get(&format!("{name}/{MANIFEST}"), MANIFEST_BYTES)?)
}

/// Fetches a checkpoint into a temporary folder and verifies it.
fn fetch(store: &Store, checkpoints: &Path, step: u64, manifest: &[u8]) -> Result<(PathBuf, Found), Error> {
    let name = folder_name(step);
    let temporary = checkpoints.join(format!("{TEMPORARY}{name}-{}", std::process::id()));
    let damaged = |problem: String| Error::Damaged { folder: store.url(&name).into(), problem };
    let fetched = fetch_into(store, &name, &temporary, manifest).and_then(|()| read::verify(&temporary));
    let fetched = fetched.and_then(|found| match found.state.step {
        of if of == step => Ok((temporary.clone(), found)),
        of => Err(damaged(format!("it holds step {of}"))),
    });
    fetched.map_err(|e| {
        let _ = std::fs::remove_dir_all(&temporary);
        match e {
            Error::Damaged { problem, .. } => damaged(problem),
            e => e,
        }
    })
}

fn fetch_into(store: &Store, name: &str, folder: &Path, manifest: &[u8]) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    let listed = read::listed(manifest).map_err(|problem| Error::Damaged { folder: folder.into(), problem })?;
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    for (file, bytes) in listed {
        store.fetch(&format!("{name}/{file}"), &folder.join(file), bytes)?;
    }
    let file = folder.join(MANIFEST);
    write_durably(&file, manifest).map_err(failed(&file))
}

/// Whether the fault is the checkpoint's, rather than the way's to it.
fn is_damage(e: &Error) -> bool {
    use remote::Error::Remote;
    match e {
        Error::Damaged { .. } => true,
        Error::Remote(Remote { fault, .. }) => {
            matches!(fault, Fault::Missing | Fault::Size { .. } | Fault::TooLarge { .. })
        }
        _ => false,
    }
}
