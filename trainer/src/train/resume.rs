//! Going on from a checkpoint.

use super::changes;
use crate::checkpoint::{self, Buckets, DataState, State, Versions};
use crate::ddp::{self, Flats, Layout};
use crate::job::Job;
use crate::model::Store;
use crate::{Error, weights};
use collectives::Label;
use data_shards::Dataset;
use protocol::config::{Config, Resume};
use std::path::{Path, PathBuf};

/// Name in `optimizer.safetensors`; the others are `SLOT.PARAMETER`.
pub(super) const GENERATOR: &str = "generator";

/// Where training begins.
pub(super) struct Start {
    /// State of the checkpoint to go on from; none: from the beginning. The same on all ranks.
    pub(super) state: Option<State>,
    /// Folder of that checkpoint, on rank 0.
    pub(super) folder: Option<PathBuf>,
}

/// Finds the newest usable checkpoint on rank 0, tells all ranks, and sees whether it fits.
pub(super) fn find(config: &Config, job: &Job, train: &Dataset, eval: Option<&Dataset>) -> Result<Start, Error> {
    let mut folder = None;
    let mut message = Vec::new();
    // An error on rank 0 ends the job; the others then wait in the gathering below, and are ended with it.
    if job.is_chief()
        && let Some(found) = find_here(config)?
    {
        message = serde_json::to_vec(&found.state).unwrap_or_default();
        folder = Some(found.folder);
    }
    let all = job.collective.all_gather(message, Label::new(0, "where to go on from"))?;
    let state: Option<State> = match all[0].as_slice() {
        [] => None,
        bytes => Some(serde_json::from_slice(bytes).map_err(|e| Error::Usage(format!("state of rank 0: {e}")))?),
    };
    if let Some(state) = &state {
        changes::check(config, state, &data_state(train), eval.map(data_state).as_ref())?;
        warn_of_other_sums(state, job);
    }
    Ok(Start { state, folder })
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

fn find_here(config: &Config) -> Result<Option<checkpoint::Found>, Error> {
    let checkpoints = config.run.dir.join("checkpoints");
    let (found, refused) = checkpoint::newest(&checkpoints)?;
    for e in refused {
        tracing::warn!("{e}; it is set aside, and an earlier one used");
        if let checkpoint::Error::Damaged { folder, .. } = &e {
            checkpoint::set_aside(folder);
        }
    }
    match (config.run.resume, found) {
        (Resume::Must, None) => {
            Err(Error::Usage(format!("run.resume = must, but {} holds no checkpoint", checkpoints.display())))
        }
        (Resume::Never, Some(found)) => Err(Error::Usage(format!(
            "run.resume = never, but {} exists; choose another run.dir, or remove the run",
            found.folder.display()
        ))),
        (_, found) => Ok(found),
    }
}

/// Loads weights, optimizer and generator state of a checkpoint.
pub(super) fn load_tensors(folder: &Path, store: &Store, flats: &mut Flats) -> Result<(), Error> {
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
    torch_ext::set_generator_state(find(GENERATOR)?)?;
    Ok(())
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
pub(super) fn versions(job: &Job) -> Versions {
    Versions {
        jcs: env!("CARGO_PKG_VERSION").into(),
        commit: env!("JCS_COMMIT").into(),
        libtorch: "2.13.0".into(),
        collectives: job.collective.name(),
        threads: i64::from(tch::get_num_threads()),
    }
}
