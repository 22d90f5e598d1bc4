//! Which workers keep the run's checkpoints: rank 0, and one for each run directory that is not rank 0's.
//!
//! Whether nodes share the run directory is found out, not assumed: rank 0 leaves a mark in it, and the first worker of every
//! other node looks for it. Those that do not find it look for each other's.

use crate::Error;
use crate::job::Job;
use collectives::Label;
use protocol::side_channel::host_name;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Network file systems show a new file to other nodes with a delay.
const DELAY: Duration = Duration::from_secs(2);

/// The ranks that keep checkpoints, ascending; rank 0 is the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keepers(Vec<usize>);

impl Keepers {
    /// Whether this rank is one.
    pub(super) fn has(&self, rank: usize) -> bool {
        self.0.contains(&rank)
    }

    /// Whether there is one besides rank 0.
    pub(super) fn are_several(&self) -> bool {
        self.0.len() > 1
    }
}

/// A mark in a folder, gone when it is dropped.
struct Mark(PathBuf);

impl Mark {
    fn leave(checkpoints: &Path, name: String) -> Result<Mark, std::io::Error> {
        let path = checkpoints.join(name);
        std::fs::write(&path, b"")?;
        Ok(Mark(path))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Finds out who keeps checkpoints of the run in `dir`; all ranks get the same answer. Keepers have the folder when it returns,
/// and can write to it.
pub(super) fn find(dir: &Path, job: &Job) -> Result<Keepers, Error> {
    let checkpoints = dir.join("checkpoints");
    let failed = |source| Error::RunDirectory { dir: dir.into(), source };
    let gather = |bytes: Vec<u8>| job.collective.all_gather(bytes, Label::new(0, "who shares the run directory"));
    let (rank, leads) = (job.place.rank.0, job.is_chief() || job.place.local_rank == 0);
    let mut mark = None;
    let token = if job.is_chief() { nonce() } else { String::new() };
    if job.is_chief() {
        std::fs::create_dir_all(&checkpoints).map_err(failed)?;
        mark = Some(Mark::leave(&checkpoints, name(rank, &token)).map_err(failed)?);
    }
    let said = gather([&job.place.node_rank.to_le_bytes()[..], token.as_bytes()].concat())?;
    let node = |bytes: &Vec<u8>| bytes.get(..8).map(<[u8]>::to_vec);
    if said.iter().all(|other| node(other) == said.first().and_then(node)) {
        return Ok(Keepers(vec![0]));
    }
    let token = said.first().and_then(|first| first.get(8..)).map(|token| String::from_utf8_lossy(token).into_owned());
    let token = token.unwrap_or_default();
    let alone = leads && !job.is_chief() && !appears(&checkpoints.join(name(0, &token)));
    if alone {
        std::fs::create_dir_all(&checkpoints).map_err(failed)?;
        mark = Some(Mark::leave(&checkpoints, name(rank, &token)).map_err(failed)?);
    }
    let lonely = ranks_with(&gather(vec![u8::from(alone)])?);
    let first = lonely.iter().copied().take_while(|other| *other < rank);
    let keeps =
        job.is_chief() || alone && !first.into_iter().any(|other| appears(&checkpoints.join(name(other, &token))));
    let said = gather(if keeps { [b"k", host_name().as_bytes()].concat() } else { Vec::new() })?;
    drop(mark);
    let keepers: Vec<usize> = (0..said.len()).filter(|rank| said.get(*rank).is_some_and(|s| !s.is_empty())).collect();
    if job.is_chief() {
        say(&keepers, &said);
    }
    Ok(Keepers(keepers))
}

fn say(keepers: &[usize], hosts: &[Vec<u8>]) {
    let host = |rank: &usize| hosts.get(*rank)?.get(1..).map(|host| String::from_utf8_lossy(host).into_owned());
    let hosts: Vec<String> = keepers.iter().filter(|rank| **rank > 0).filter_map(host).collect();
    match hosts.as_slice() {
        [] => {}
        [one] => tracing::info!("the run directory is not shared by {one}: it keeps copies of the checkpoints"),
        several => {
            let several = several.join(", ");
            tracing::info!("the run directory is not shared by {several}: they keep copies of the checkpoints");
        }
    }
}

fn ranks_with(flags: &[Vec<u8>]) -> Vec<usize> {
    flags.iter().enumerate().filter(|(_, flag)| flag.first() == Some(&1)).map(|(rank, _)| rank).collect()
}

/// The name of a mark. One that a crash leaves behind goes with the other temporary files.
fn name(rank: usize, token: &str) -> String {
    format!(".tmp-here-{token}-{rank}")
}

/// A number that no other start has.
fn nonce() -> String {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{random:016x}")
}

fn appears(file: &Path) -> bool {
    let began = Instant::now();
    loop {
        // To list the folder makes a network file system ask its server.
        let listed = file.parent().and_then(|folder| std::fs::read_dir(folder).ok());
        if listed.is_some_and(|mut entries| {
            entries.any(|e| e.is_ok_and(|e| Some(e.file_name().as_os_str()) == file.file_name()))
        }) {
            return true;
        }
        if began.elapsed() >= DELAY {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
