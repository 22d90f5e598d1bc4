//! Finding and verifying checkpoints.

use super::manifest::{FORMAT, FileEntry, Manifest};
use super::{BEST, Error, LATEST, MANIFEST, MODEL, OPTIMIZER, STATE, State, step_of};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// A checkpoint that verified.
#[derive(Debug)]
pub struct Found {
    /// Its folder.
    pub folder: PathBuf,
    /// Its state.
    pub state: State,
}

/// The newest checkpoint in `checkpoints` that verifies, and why newer ones did not. `None` where there is none at all; an
/// error where there are some and none of them verifies.
pub fn newest(checkpoints: &Path) -> Result<(Option<Found>, Vec<Error>), Error> {
    let (found, refused) = search(checkpoints)?;
    match refused.first().filter(|_| found.is_none()) {
        None => Ok((found, refused)),
        Some(newest) => Err(Error::NoneUsable { folder: checkpoints.into(), problem: newest.to_string() }),
    }
}

/// As [`newest`], for whom another place may have better ones. A checkpoint that cannot be read for now, or not by this
/// program, is no damaged one: that is an error.
pub fn search(checkpoints: &Path) -> Result<(Option<Found>, Vec<Error>), Error> {
    let mut refused = Vec::new();
    for step in steps(checkpoints)?.into_iter().rev() {
        match verify(&checkpoints.join(super::folder_name(step))) {
            Ok(found) => return Ok((Some(found), refused)),
            Err(e @ Error::Damaged { .. }) => refused.push(e),
            Err(e) => return Err(e),
        }
    }
    Ok((None, refused))
}

/// Steps of the folders in `checkpoints`, ascending.
pub(super) fn steps(checkpoints: &Path) -> Result<Vec<u64>, Error> {
    let entries = match std::fs::read_dir(checkpoints) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::Read { path: checkpoints.into(), source }),
    };
    let mut steps: Vec<u64> = entries.flatten().filter_map(|e| step_of(e.file_name().to_str()?)).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// Checks sizes and checksums of a checkpoint and reads its state.
pub fn verify(folder: &Path) -> Result<Found, Error> {
    let damaged = |problem: String| Error::Damaged { folder: folder.into(), problem };
    let read = |name: &str| {
        read(&folder.join(name)).map_err(|e| match &e {
            Error::Read { source, .. } if is_damage(source) => damaged(e.to_string()),
            _ => e,
        })
    };
    let manifest: Manifest =
        serde_json::from_slice(&read(MANIFEST)?).map_err(|e| damaged(format!("{MANIFEST}: {e}")))?;
    if manifest.format > FORMAT {
        return Err(Error::Newer { folder: folder.into(), format: manifest.format, known: FORMAT });
    }
    for name in FILES {
        let entry = entry(&manifest, name).map_err(damaged)?;
        check(name, entry, &read(name)?).map_err(damaged)?;
    }
    let text = read(STATE)?;
    let state = serde_json::from_slice(&text).map_err(|e| damaged(format!("{STATE}: {e}")))?;
    Ok(Found { folder: folder.into(), state })
}

/// Whether a file that cannot be read is not there as a file; anything else may pass.
fn is_damage(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

/// The files of a checkpoint, besides its manifest.
const FILES: [&str; 3] = [MODEL, OPTIMIZER, STATE];

/// Names and sizes of the files that make a checkpoint of this manifest.
pub(super) fn listed(manifest: &[u8]) -> Result<Vec<(&'static str, u64)>, String> {
    let manifest = understand(manifest)?;
    FILES.into_iter().map(|name| Ok((name, entry(&manifest, name)?.bytes))).collect()
}

fn understand(text: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest = serde_json::from_slice(text).map_err(|e| format!("{MANIFEST}: {e}"))?;
    match manifest.format > FORMAT {
        true => Err(format!("format {} is newer than this program ({FORMAT})", manifest.format)),
        false => Ok(manifest),
    }
}

fn entry<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a FileEntry, String> {
    manifest.files.get(name).ok_or_else(|| format!("{MANIFEST} does not list {name}"))
}

fn check(name: &str, expected: &FileEntry, content: &[u8]) -> Result<(), String> {
    let found = FileEntry::of(content);
    if found.bytes != expected.bytes {
        return Err(format!("{name} has {} bytes, {MANIFEST} says {}", found.bytes, expected.bytes));
    }
    if found.sha256 != expected.sha256 {
        return Err(format!(
            "{name} has checksum {}…, {MANIFEST} says {}…",
            &found.sha256[..12],
            &expected.sha256[..12.min(expected.sha256.len())]
        ));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })
}

/// The weights file that `path` means: a run (its best checkpoint, else the latest), a checkpoint, or a
/// file. What belongs to a checkpoint is verified first.
pub fn resolve_weights(path: &Path) -> Result<PathBuf, Error> {
    if path.is_file() {
        return match path.parent().filter(|p| p.join(MANIFEST).is_file()) {
            Some(folder) => verify(folder).map(|_| path.into()),
            None => Ok(path.into()),
        };
    }
    if path.join(MODEL).is_file() {
        return verify(path).map(|found| found.folder.join(MODEL));
    }
    let checkpoints = path.join("checkpoints");
    let mut refused = None;
    for pointer in [BEST, LATEST] {
        let Ok(name) = std::fs::read_to_string(checkpoints.join(pointer)) else { continue };
        match verify(&checkpoints.join(name.trim())) {
            Ok(found) => {
                if let Some(e) = refused {
                    tracing::warn!("{e}; the latest checkpoint is used in place of the best one");
                }
                return Ok(found.folder.join(MODEL));
            }
            Err(e) => refused = refused.or(Some(e)),
        }
    }
    if let Some(e) = refused {
        return Err(e);
    }
    let problem = if let Some(stages) = stages_of(path) {
        format!("a pipeline; name one of its stages: {stages}")
    } else if path.is_dir() {
        "neither a run with a complete checkpoint nor a checkpoint".into()
    } else {
        "no such file or directory; expected a run, a checkpoint or a weights file".into()
    };
    Err(Error::NoWeights { path: path.into(), problem })
}

/// The runs of a pipeline's stages that its summary names.
fn stages_of(path: &Path) -> Option<String> {
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(path.join("summary.json")).ok()?).ok()?;
    let runs = summary.get("stages")?.as_object()?.keys().map(|name| path.join(name).display().to_string());
    Some(runs.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_pipeline_a_stage_is_to_be_named() {
        let run = tempfile::tempdir().unwrap();
        let problem = || resolve_weights(run.path()).unwrap_err().to_string();
        assert!(problem().contains("neither a run with a complete checkpoint nor a checkpoint"), "{}", problem());
        std::fs::write(run.path().join("summary.json"), r#"{"stages": {"encoder": {}, "joint": {}}}"#).unwrap();
        let stages = ["encoder", "joint"].map(|stage| run.path().join(stage).display().to_string());
        assert!(problem().contains(&format!("name one of its stages: {}", stages.join(", "))), "{}", problem());
    }
}
