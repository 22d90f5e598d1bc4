//! Asks every host, this one included and all at once, whether the job can start there. Prints nothing and decides nothing:
//! what is asked and how an answer reads is for [`script`], what it means for [`mod@judge`], how it looks for [`report`].

pub mod exchange;
pub mod judge;
pub mod pairs;
pub mod report;
pub mod script;
pub mod wanted;
mod witness;

use crate::machine::Machine;
use crate::nodes::Reach;
use crate::plan::Share;
use crate::remote::{self, Patience, RemoteError};
use judge::{Heard, judge};
use script::{Answer, Expected};
use std::time::{Duration, Instant, SystemTime};
use witness::Witness;

pub use report::{Report, Unfit};

/// How long hosts may take to answer before the first start.
pub const WITHIN: Duration = Duration::from_secs(13);

/// Finds out whether every one of `hosts` can take part, and returns at the latest when `patience` is over and a moment later.
/// Of this machine alone ([`Reach::Here`]) less is asked, because there is nothing to compare it with.
pub fn examine(hosts: &[Share], expected: &Expected, reach: Reach, machine: &Machine, patience: Patience) -> Report {
    let began = Instant::now();
    let alone = reach == Reach::Here;
    let run_dir = expected.run_dir.as_ref().filter(|_| !alone);
    let witness = run_dir.and_then(|run_dir| Witness::leave(&machine.folder.join(run_dir)));
    let script = expected.script(witness.as_ref().map(Witness::path), !alone, patience.whole);
    // This machine is asked in any case: the others are compared with it.
    let mut targets = vec![None];
    targets.extend(hosts.iter().filter(|_| !alone).map(|share| Some(share.host.as_str())));
    let mut heard = remote::in_parallel(&targets, |target| match target {
        Some(host) if remote::way_to(host, reach, machine) == Reach::Here => None,
        Some(host) => Some(hear(reach, host, &script, patience.after(began.elapsed()))),
        None => Some(hear(Reach::Here, &machine.host, &script, patience.after(began.elapsed()))),
    })
    .into_iter();
    let here = heard.next().flatten().unwrap_or_else(|| Heard::silent("was not asked"));
    let named = |share: &Share| if alone { machine.host.clone() } else { share.host.clone() };
    let asked: Vec<Share> = hosts.iter().map(|share| Share { host: named(share), workers: share.workers }).collect();
    let answers: Vec<Heard> = match alone {
        true => vec![here.clone(); hosts.len()],
        false => heard.map(|heard| heard.unwrap_or_else(|| here.clone())).collect(),
    };
    judge(&asked, &answers, expected, &judge::Here { host: &machine.host, heard: &here })
}

fn hear(reach: Reach, host: &str, script: &str, patience: Patience) -> Heard {
    let began = now();
    let result = remote::run(reach, host, script, patience);
    Heard { answer: result.map(|text| Answer::read(&text)).map_err(|e| reason(&e)), began, ended: now() }
}

/// A host that breaks off says at least what it was doing.
fn reason(error: &RemoteError) -> String {
    match error {
        RemoteError::Late { said, .. } => match Answer::last_station(said) {
            Some(station) => format!("{error}: it hangs at {station}"),
            None => error.to_string(),
        },
        _ => error.to_string(),
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
