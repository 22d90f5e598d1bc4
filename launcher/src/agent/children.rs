//! The processes below an agent: what it has started, and what has come of that, also where a daemon has left its parent.

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use std::collections::{BTreeSet, HashMap};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often is looked for what has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Those below this process.
#[derive(Default)]
pub struct Children {
    /// Whom somebody waits for.
    awaited: Mutex<BTreeSet<i32>>,
}

impl Children {
    /// Whoever loses its parent below this process becomes its child, and can be found and ended.
    pub fn adopt() -> std::io::Result<Children> {
        prctl::set_child_subreaper(true)?;
        Ok(Children::default())
    }

    fn awaited(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a child that somebody waits for until [`Self::left`].
    pub fn start(&self, command: &mut Command) -> std::io::Result<Child> {
        // Nobody may look for what has ended before it is known that this one is waited for.
        let mut awaited = self.awaited();
        let child = command.spawn()?;
        awaited.insert(child.id().cast_signed());
        Ok(child)
    }

    /// It was waited for.
    pub fn left(&self, pid: u32) {
        self.awaited().remove(&pid.cast_signed());
    }

    /// Lets go of those that have ended and that nobody waits for.
    pub fn bury(&self) {
        let (own, awaited) = (getpid().as_raw(), self.awaited());
        for (pid, parent, state) in processes() {
            if parent == own && state == 'Z' && !awaited.contains(&pid) {
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            }
        }
    }

    /// Ends everything below this process: asks, and after `patience` does not ask.
    pub fn end(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut asked = BTreeSet::new();
        loop {
            self.bury();
            let alive = below(getpid().as_raw(), &processes());
            if alive.is_empty() {
                return;
            }
            let late = Instant::now() > until;
            // Whoever was started meanwhile is asked, too.
            for pid in alive.into_iter().filter(|pid| late || asked.insert(*pid)) {
                let _ = kill(Pid::from_raw(pid), if late { Signal::SIGKILL } else { Signal::SIGTERM });
            }
            if Instant::now() > until + patience {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Process, parent and state (`Z` has ended) of all that can be seen.
fn processes() -> Vec<(i32, i32, char)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        stat(pid, &std::fs::read_to_string(entry.path().join("stat")).ok()?)
    });
    stats.collect()
}

/// Of `12 (name with ) and blanks) S 1 …`.
fn stat(pid: i32, text: &str) -> Option<(i32, i32, char)> {
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some((pid, words.next()?.parse().ok()?, state))
}

/// The living below `ancestor`.
fn below(ancestor: i32, all: &[(i32, i32, char)]) -> Vec<i32> {
    let parents: HashMap<i32, i32> = all.iter().map(|(pid, parent, _)| (*pid, *parent)).collect();
    let leads = |pid: i32| {
        let mut next = parents.get(&pid).copied();
        // Processes that come and go while this is read cannot make it endless.
        for _ in 0..all.len() {
            match next {
                Some(parent) if parent == ancestor => return true,
                Some(parent) => next = parents.get(&parent).copied(),
                None => return false,
            }
        }
        false
    };
    all.iter().filter(|(pid, _, state)| *state != 'Z' && leads(*pid)).map(|(pid, _, _)| *pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_process_is_read_whatever_its_name() {
        assert_eq!(stat(7, "7 (a) b) (c) S 3 7 7 0"), Some((7, 3, 'S')));
        assert_eq!(stat(7, "7 (a"), None);
    }

    #[test]
    fn those_below_are_found_over_generations_and_the_dead_are_not() {
        let all = [
            (1, 0, 'S'),
            (5, 1, 'S'),
            (6, 5, 'Z'),
            (7, 5, 'S'),
            (8, 7, 'R'),
            (9, 1, 'S'),
            (10, 11, 'S'),
            (11, 10, 'S'),
        ];
        assert_eq!(below(5, &all), [7, 8]);
        assert_eq!(below(9, &all), [0i32; 0]);
    }
}
