//! Going on from a checkpoint.

use super::changes;
use super::lock::Claim;
use super::together;
use crate::checkpoint::{self, Brought, Buckets, DataState, Found, State, Versions};
use crate::ddp::{self, Flats, Layout};
use crate::job::Job;
use crate::model::Store;
use crate::{Error, weights};
use collectives::Label;
use data_shards::Dataset;
use data_shards::remote;
use protocol::config::{Config, Resume};
use protocol::env;
use protocol::message::Phase;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name in `optimizer.safetensors`; the others are `SLOT.PARAMETER`.
pub(super) const GENERATOR: &str = "generator";

/// Where training begins. The same on all ranks, but for `folder`.
pub(super) struct Start {
    /// State of the checkpoint to go on from; none: from the beginning.
    pub(super) state: Option<State>,
    /// The rank that has this checkpoint.
    pub(super) source: usize,
    /// Its folder, on that rank.
    pub(super) folder: Option<PathBuf>,
    /// Whether all who keep checkpoints have this one.
    pub(super) everywhere: bool,
    /// Step of this rank's checkpoint, where training goes on from that: an object store may lack it, or its name.
    pub(super) unsent: Option<u64>,
    /// The number of this start.
    pub(super) generation: u64,
}

/// What a rank that keeps checkpoints has.
#[derive(Default, Serialize, Deserialize)]
struct Offer {
    /// Later than any start that this one knows of.
    generation: u64,
    /// State of the newest checkpoint that verifies.
    state: Option<State>,
    /// Why there is none, though there are some.
    problem: Option<String>,
}

/// Finds the newest usable checkpoint of all ranks that keep some, and of the object store, where there is one; tells all
/// ranks, and sees whether it fits. `claim` is this rank's where it keeps some; `store` is rank 0's.
pub(super) fn find(
    config: &Config,
    job: &Job,
    train: &Dataset,
    eval: Option<&Dataset>,
    claim: Option<&Claim>,
    store: Option<&remote::Store>,
) -> Result<Start, Error> {
    let checkpoints = config.run.dir.join("checkpoints");
    let (mut found, mut refused, mut mine) = (None, Vec::new(), None);
    // An error here ends the job; the others then wait in the gathering below, and are ended with it.
    if let Some(claim) = claim {
        (found, refused) = checkpoint::search(&checkpoints)?;
        mine = Some(Offer::of(claim, found.as_ref(), refused.first().map(ToString::to_string)));
    }
    let mut offers = gather(job, mine.as_ref())?;
    if config.checkpoint.upload.is_some() {
        let newest = choose(&offers).state.map(|state| state.step);
        let brought = ask_store(config, job, claim.zip(store), newest)?;
        if let (Some(claim), true) = (claim, brought.found.is_some() || brought.problem.is_some()) {
            let problem = refused.first().map(ToString::to_string).or(brought.problem);
            // A damaged one of its name is gone.
            refused.retain(|e| !matches!((e, &brought.found), (checkpoint::Error::Damaged { folder, .. }, Some(brought)) if *folder == brought.folder));
            found = brought.found.or(found);
            mine = Some(Offer::of(claim, found.as_ref(), problem));
        }
        offers = gather(job, mine.as_ref())?;
    }
    let start = choose(&offers);
    allowed(config, &offers, &start, &checkpoints)?;
    set_aside(&refused);
    if let Some(state) = &start.state {
        changes::check(config, state, &data_state(train), eval.map(data_state).as_ref())?;
        warn_of_other_sums(state, job);
    }
    let step = start.state.as_ref().map(|state| state.step);
    let unsent = found.as_ref().map(|found| found.state.step).filter(|mine| step == Some(*mine));
    let mine = start.state.is_some() && start.source == job.place.rank.0;
    Ok(Start { folder: found.filter(|_| mine).map(|found| found.folder), unsent, ..start })
}

impl Offer {
    /// `problem`: why there is none, if there is none.
    fn of(claim: &Claim, found: Option<&Found>, problem: Option<String>) -> Offer {
        let state = found.map(|found| found.state.clone());
        Offer { generation: claim.generation(), problem: problem.filter(|_| state.is_none()), state }
    }
}

/// What all ranks have; none where a rank keeps no checkpoints.
fn gather(job: &Job, mine: Option<&Offer>) -> Result<Vec<Option<Offer>>, Error> {
    let mine = mine.map(|mine| serde_json::to_vec(mine).unwrap_or_default()).unwrap_or_default();
    let all = job.collective.all_gather(mine, Label::new(0, "where to go on from"))?;
    let offers =
        all.iter().map(|offer| if offer.is_empty() { Ok(None) } else { serde_json::from_slice(offer).map(Some) });
    offers
        .collect::<Result<_, _>>()
        .map_err(|e| Error::Usage(format!("another rank's checkpoints cannot be understood: {e}")))
}

/// Lets rank 0 fetch what the store has that is newer than `newest`; the other ranks wait.
fn ask_store(
    config: &Config,
    job: &Job,
    mine: Option<(&Claim, &remote::Store)>,
    newest: Option<u64>,
) -> Result<Brought, Error> {
    let checkpoints = config.run.dir.join("checkpoints");
    let fetch = |claim: &Claim, store: &remote::Store| {
        if let (Resume::Never, Some(step)) = (wish(config)?, checkpoint::steps_in(store)?.last()) {
            let there = store.url(&checkpoint::folder_name(*step));
            return Err(Error::Usage(format!(
                "run.resume = never, but {there} exists; choose another checkpoint.upload, or remove what is there"
            )));
        }
        let brought = checkpoint::bring(store, &checkpoints, newest, || claim.check());
        match (brought, newest) {
            // The job had the run a moment ago: what is here is no older than what is there.
            (Err(Error::Checkpoint(e @ checkpoint::Error::Remote(_))), Some(_)) if is_restart()? => {
                tracing::warn!("{e}; training goes on from the run directory");
                Ok(Brought::default())
            }
            (brought, _) => brought,
        }
    };
    std::thread::scope(|scope| {
        let fetching = mine.map(|(claim, store)| scope.spawn(move || fetch(claim, store)));
        let is_done = |most| {
            let began = Instant::now();
            while began.elapsed() < most && fetching.as_ref().is_some_and(|thread| !thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(10));
            }
            fetching.as_ref().is_none_or(|thread| thread.is_finished())
        };
        let together = together::wait(job, (0, Phase::Start), "a checkpoint from the object store", is_done);
        if let (Err(_), Some((_, store))) = (&together, mine) {
            store.stop();
        }
        let fetched = fetching.map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Error::Panic("the thread that fetches a checkpoint panicked".into())))
        });
        together.and(fetched.unwrap_or_else(|| Ok(Brought::default())))
    })
}

/// The newest of the offers, by rank; of equal ones that of the lowest rank. Pure.
fn choose(offers: &[Option<Offer>]) -> Start {
    let step = |offer: &Option<Offer>| offer.as_ref().and_then(|offer| offer.state.as_ref()).map(|state| state.step);
    let newest = offers.iter().map(step).max().flatten();
    let source = newest.and_then(|newest| offers.iter().position(|offer| step(offer) == Some(newest)));
    let state = source.and_then(|source| offers.get(source)?.as_ref()?.state.clone());
    let later = state.as_ref().map_or(1, |state| state.generation + 1);
    Start {
        source: source.unwrap_or(0),
        folder: None,
        unsent: None,
        everywhere: offers.iter().flatten().all(|offer| offer.state.as_ref().map(|state| state.step) == newest),
        generation: offers.iter().flatten().map(|offer| offer.generation).max().unwrap_or(0).max(later),
        state,
    }
}

/// What `run.resume` says, for this start: `never` is meant for the first start of a job, not for those after a failure.
fn wish(config: &Config) -> Result<Resume, Error> {
    let again = is_restart()?;
    Ok(if again && config.run.resume == Resume::Never { Resume::Auto } else { config.run.resume })
}

/// Whether an earlier start of the same job has failed.
fn is_restart() -> Result<bool, Error> {
    let restarts: usize = env::number(env::JCS_RESTART, 0).map_err(|e| Error::Usage(e.to_string()))?;
    Ok(restarts > 0)
}

/// Whether `run.resume` lets this be, and whether it is no mistake to start afresh.
fn allowed(config: &Config, offers: &[Option<Offer>], start: &Start, checkpoints: &Path) -> Result<(), Error> {
    if let (None, Some(problem)) = (&start.state, offers.iter().flatten().find_map(|offer| offer.problem.clone())) {
        return Err(checkpoint::Error::NoneUsable { folder: checkpoints.into(), problem }.into());
    }
    match (wish(config)?, &start.state) {
        (Resume::Must, None) => {
            Err(Error::Usage(format!("run.resume = must, but {} holds no checkpoint", checkpoints.display())))
        }
        (Resume::Never, Some(state)) => Err(Error::Usage(format!(
            "run.resume = never, but {} exists; choose another run.dir, or remove the run",
            checkpoints.join(checkpoint::folder_name(state.step)).display()
        ))),
        _ => Ok(()),
    }
}

fn set_aside(refused: &[checkpoint::Error]) {
    for e in refused {
        tracing::warn!("{e}; it is set aside, and an earlier one used");
        if let checkpoint::Error::Damaged { folder, .. } = e {
            checkpoint::set_aside(folder);
        }
    }
}

/// Says so where sums will be taken in another order than before.
fn warn_of_other_sums(state: &State, job: &Job) {
    let now = versions(job);
    let then = &state.versions;
    let same = (now.threads, &now.collectives, &now.libtorch) == (then.threads, &then.collectives, &then.libtorch);
    if job.is_chief() && !(same && state.world_size == job.place.world_size) {
        tracing::warn!(
            "going on with {} workers × {} threads ({}) after {} × {} ({}): close to the uninterrupted run, but not \
             bit for bit",
            job.place.world_size,
            now.threads,
            now.collectives,
            state.world_size,
            then.threads,
            then.collectives
        );
    }
}

/// Loads weights and optimizer state of a checkpoint; the generator's state, as bytes.
pub(super) fn load_tensors(folder: &Path, store: &Store, flats: &mut Flats) -> Result<Vec<u8>, Error> {
    weights::load_into(store, &weights::read(&folder.join(checkpoint::MODEL))?)?;
    let optimizer = weights::read(&folder.join(checkpoint::OPTIMIZER))?;
    let find = |name: &str| {
        optimizer.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t).ok_or_else(|| weights::Error::Mismatch {
            file: optimizer.file.clone(),
            problem: format!("tensor '{name}' is missing"),
        })
    };
    for p in 0..flats.parameters().len() {
        let name = flats.parameters()[p].name.clone();
        let slots = flats.slots().iter().map(|slot| find(&format!("{slot}.{name}")));
        let state = slots.collect::<Result<Vec<_>, _>>()?;
        flats.set_state_of(p, &state);
    }
    let failed = |source| weights::Error::Tensor { name: GENERATOR.into(), source };
    Ok(weights::bytes_of(find(GENERATOR)?).map_err(failed)?)
}

/// The bucket layout of a checkpoint, for this network.
pub(super) fn layout(buckets: &Buckets, store: &Store) -> Result<Layout, Error> {
    let names: Vec<&str> = store.trainable().map(|e| e.name.as_str()).collect();
    let index = |name: &String| {
        let unknown = || ddp::Error::Layout(format!("the network has no parameter '{name}'"));
        names.iter().position(|n| n == name).ok_or_else(unknown)
    };
    let bucket = |members: &Vec<String>| members.iter().map(index).collect::<Result<Vec<_>, _>>();
    let buckets_ = buckets.parameters.iter().map(bucket).collect::<Result<_, _>>()?;
    Ok(Layout { buckets: buckets_, settled: buckets.settled })
}

/// The layout in force, by parameter name.
pub(super) fn buckets(flats: &Flats) -> Buckets {
    let name = |p: &usize| flats.parameters()[*p].name.clone();
    let layout = flats.layout();
    Buckets {
        parameters: layout.buckets.iter().map(|b| b.iter().map(name).collect()).collect(),
        settled: layout.settled,
    }
}

/// Which samples `dataset` has.
pub(super) fn data_state(dataset: &Dataset) -> DataState {
    DataState { samples: dataset.len(), fingerprint: dataset.fingerprint() }
}

/// What runs here.
pub(crate) fn versions(job: &Job) -> Versions {
    Versions {
        jcs: env!("CARGO_PKG_VERSION").into(),
        commit: env!("JCS_COMMIT").into(),
        libtorch: torch_ext::version(),
        collectives: job.collective.name(),
        threads: i64::from(tch::get_num_threads()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(generation: u64, step: Option<u64>) -> Option<Offer> {
        let data = serde_json::json!({ "samples": 1, "fingerprint": "" });
        let versions = serde_json::json!({ "jcs": "", "commit": "", "libtorch": "", "collectives": "", "threads": 1 });
        let state = |step| {
            // As it was written before there were generations.
            let text = serde_json::json!({
                "step": step, "epoch": 0, "samples": 0, "seed": 0, "max_steps": 9, "global_batch": 1, "micro_batch": 1,
                "world_size": 1, "data": data, "evaluated": null, "buckets": { "parameters": [], "settled": true },
                "best": null, "config": {}, "versions": versions
            });
            serde_json::from_value(text).unwrap()
        };
        Some(Offer { generation, state: step.map(state), problem: None })
    }

    #[test]
    fn the_newest_checkpoint_of_all_wins_and_the_start_is_later_than_all() {
        let chosen = |offers: &[Option<Offer>]| {
            let start = choose(offers);
            (start.state.map(|state| state.step), start.source, start.everywhere, start.generation)
        };
        assert_eq!(chosen(&[offer(3, Some(8)), None]), (Some(8), 0, true, 3));
        assert_eq!(chosen(&[offer(1, Some(6)), None, offer(7, Some(8)), offer(2, Some(8))]), (Some(8), 2, false, 7));
        assert_eq!(chosen(&[offer(1, None), offer(5, Some(2))]), (Some(2), 1, false, 5));
        assert_eq!(chosen(&[offer(4, Some(8)), offer(5, Some(8))]), (Some(8), 0, true, 5));
        assert_eq!(chosen(&[offer(1, None), offer(2, None)]), (None, 0, true, 2));
    }
}
