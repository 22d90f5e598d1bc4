//! What earlier starts of a run left behind that a plan depends on. Reads, and takes nothing for granted.

use serde_json::Value;
use std::path::Path;

/// The global batch of the newest checkpoint in a run directory: `train.global_batch = auto` keeps it. None where this
/// machine sees no checkpoint.
pub fn global_batch(run: &Path) -> Option<usize> {
    let checkpoints = run.join("checkpoints");
    let latest = std::fs::read_to_string(checkpoints.join("latest")).ok()?;
    let state = std::fs::read(checkpoints.join(latest.trim()).join("state.json")).ok()?;
    let state: Value = serde_json::from_slice(&state).ok()?;
    state.get("global_batch")?.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_checkpoint_says_it() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(global_batch(run.path()), None);
        let folder = run.path().join("checkpoints/step-00000003");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(run.path().join("checkpoints/latest"), "step-00000003\n").unwrap();
        std::fs::write(folder.join("state.json"), r#"{"step": 3, "global_batch": 6}"#).unwrap();
        assert_eq!(global_batch(run.path()), Some(6));
        std::fs::write(folder.join("state.json"), r#"{"global_batch": "#).unwrap();
        assert_eq!(global_batch(run.path()), None);
    }
}
