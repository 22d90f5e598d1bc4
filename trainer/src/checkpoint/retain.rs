//! Which checkpoints go.

use super::{DISPLACED, TEMPORARY, folder_name, read};
use std::path::Path;

/// Of `steps` (ascending), those to remove: all but the `keep_last` newest and those that are `spared`. Pure.
pub fn to_remove(steps: &[u64], keep_last: usize, spared: &[u64]) -> Vec<u64> {
    let old = steps.len().saturating_sub(keep_last.max(1));
    steps[..old].iter().copied().filter(|s| !spared.contains(s)).collect()
}

/// Removes old checkpoints once that of `newest` is there. What is later than that is none of this run's, and left alone. What
/// cannot be removed stays: it takes space, but harms nothing.
pub fn remove_old(checkpoints: &Path, newest: u64, keep_last: usize, spared: &[u64]) {
    let mut steps = read::steps(checkpoints).unwrap_or_default();
    steps.retain(|step| *step <= newest);
    for step in to_remove(&steps, keep_last, spared) {
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
    let names = (0..).map(|n| if n == 0 { format!("damaged-{name}") } else { format!("damaged-{name}.{n}") });
    let free = names.map(|name| folder.with_file_name(name)).find(|path| !path.exists());
    if let Some(Err(e)) = free.map(|free| std::fs::rename(folder, free)) {
        tracing::warn!("cannot set the damaged checkpoint {} aside: {e}", folder.display());
    }
}

/// Removes what an interrupted writer left, and gives a checkpoint that it was about to replace its name back.
pub fn clean(checkpoints: &Path) {
    for entry in std::fs::read_dir(checkpoints).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        let replaced = name.strip_prefix(DISPLACED).map(|name| checkpoints.join(name));
        match replaced.filter(|folder| !folder.exists()) {
            Some(folder) => drop(std::fs::rename(path, folder)),
            None if name.starts_with(TEMPORARY) || name.starts_with(DISPLACED) => {
                let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_writer_left_goes_and_what_it_displaced_comes_back() {
        let dir = std::env::temp_dir().join(format!("jcs-clean-{}", std::process::id()));
        for folder in ["step-00000001", ".displaced-step-00000001", ".displaced-step-00000002", ".tmp-step-00000003-7"]
        {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        clean(&dir);
        let mut left: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(left, ["step-00000001", "step-00000002"]);
    }

    #[test]
    fn what_is_later_than_the_newest_is_left_alone_and_damaged_ones_get_names_of_their_own() {
        let dir = std::env::temp_dir().join(format!("jcs-retain-{}", std::process::id()));
        let make = |name: &str| std::fs::create_dir_all(dir.join(name).join("content")).unwrap();
        ["step-00000001", "step-00000002", "step-00000003", "step-00000009", "step-5"].into_iter().for_each(make);
        remove_old(&dir, 3, 1, &[1]);
        make("step-00000008");
        set_aside(&dir.join("step-00000008"));
        make("step-00000008");
        set_aside(&dir.join("step-00000008"));
        let names = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<_> = names.collect();
        left.sort();
        std::fs::remove_dir_all(&dir).unwrap();
        let damaged = ["damaged-step-00000008", "damaged-step-00000008.1"];
        assert_eq!(left, [&damaged[..], &["step-00000001", "step-00000003", "step-00000009", "step-5"]].concat());
    }

    #[test]
    fn the_newest_and_those_that_are_spared_stay() {
        assert_eq!(to_remove(&[1, 2, 3, 4, 5], 2, &[2]), [1, 3]);
        assert_eq!(to_remove(&[1, 2], 5, &[]), Vec::<u64>::new());
        assert_eq!(to_remove(&[1, 2], 0, &[]), [1]);
    }
}
