//! `data-shards verify`.

use std::process::ExitCode;

use data_shards::Error;
use data_shards::remote::Location;
use data_shards::sets::Set;
use data_shards::shard::{self, Report};

use super::{ServerArgs, answer, failed, several};
use crate::{BAD_DATA, progress};

/// Reads everything, prints every problem (up to a bounded number) and whether there was one.
pub(crate) fn verify(location: &Location, server: ServerArgs) -> ExitCode {
    let cache = server.cache();
    let sets = match Set::all(location, &cache) {
        Ok(sets) => sets,
        Err(error) => return failed(&error),
    };
    let mut worst = ExitCode::SUCCESS;
    for set in sets {
        match set {
            Ok(set) if verify_set(&set) => {}
            Ok(_) => worst = ExitCode::from(BAD_DATA),
            Err(error) => worst = failed(&error),
        }
    }
    worst
}

fn verify_set(set: &Set) -> bool {
    let Set { index, shards, .. } = set;
    let Report { mut problems, others } = shard::verify(index, &**shards, &progress("samples"));
    match set.unlisted() {
        Ok(unlisted) => problems.extend(unlisted),
        Err(error) => problems.push(error),
    }
    problems.iter().for_each(|problem: &Error| eprintln!("data-shards: {problem}"));
    if others > 0 {
        eprintln!("data-shards: and {} more", several(others, "problem"));
    }
    let found = match problems.len() + others {
        0 => "all as they were written".to_owned(),
        count => several(count, "problem"),
    };
    let (samples, shards) = (several(index.len(), "sample"), several(index.shards().len(), "shard"));
    answer(format_args!("{}: {samples} in {shards}, {found}", index.dir().display()));
    problems.is_empty()
}
