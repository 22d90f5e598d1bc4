//! Which checkpoints go.

use super::{TEMPORARY, folder_name, read};
use std::path::Path;

/// Of `steps` (ascending), those to remove: all but the `keep_last` newest and the best. Pure.
pub fn to_remove(steps: &[u64], keep_last: usize, best: Option<u64>) -> Vec<u64> {
    let old = steps.len().saturating_sub(keep_last.max(1));
    steps[..old].iter().copied().filter(|s| Some(*s) != best).collect()
}

/// Removes old checkpoints. What cannot be removed stays: it takes space, but harms nothing.
pub fn remove_old(checkpoints: &Path, keep_last: usize, best: Option<u64>) {
    let steps = read::steps(checkpoints).unwrap_or_default();
    for step in to_remove(&steps, keep_last, best) {
        let folder = checkpoints.join(folder_name(step));
        // First under a temporary name, so that a half-removed one is never taken for a checkpoint.
        let going = checkpoints.join(format!("{TEMPORARY}old-{}", folder_name(step)));
        let removed = std::fs::rename(&folder, &going).and_then(|()| std::fs::remove_dir_all(&going));
        if let Err(e) = removed {
            tracing::warn!("cannot remove the old checkpoint {}: {e}", folder.display());
        }
    }
}

/// Takes a damaged checkpoint out of the sequence, so that it neither counts as one that is kept nor
/// is tried again; it stays for whoever wants to look.
pub fn set_aside(folder: &Path) {
    let Some(name) = folder.file_name().map(|n| n.to_string_lossy()) else { return };
    if let Err(e) = std::fs::rename(folder, folder.with_file_name(format!("damaged-{name}"))) {
        tracing::warn!("cannot set the damaged checkpoint {} aside: {e}", folder.display());
    }
}

/// Removes what an interrupted writer left.
pub fn remove_temporary(checkpoints: &Path) {
    let entries = std::fs::read_dir(checkpoints).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with(TEMPORARY)) {
        let path = entry.path();
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_and_the_best_stay() {
        assert_eq!(to_remove(&[1, 2, 3, 4, 5], 2, Some(2)), [1, 3]);
        assert_eq!(to_remove(&[1, 2], 5, None), Vec::<u64>::new());
        assert_eq!(to_remove(&[1, 2], 0, None), [1]);
    }
}
