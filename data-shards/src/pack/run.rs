//! Writing the shards of a plan.
//!
//! Duty: on all threads, skipping what an earlier run has finished; the bytes of a shard depend on its plan alone. Must not:
//! leave anything half-written under its final name, or hold more than a few units.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ids::Ids;
use super::outputs::Output;
use super::plan::{Plan, Planned, ShardPlan};
use super::records::{Made, Maker};
use super::report::LeftOut;
use super::sources::Input;
use super::{Options, PackError, Watch};
use crate::shard::{Finished, ShardWriter};

/// A shard that is done. It is written beside the shard, so that an interrupted pack finds it again.
#[derive(Serialize, Deserialize)]
pub(crate) struct Done {
    /// None where nothing of it could be packed.
    pub(crate) finished: Option<Finished>,
    pub(crate) left_out: Vec<LeftOut>,
}

/// The shards of a split, and how many of them an earlier run had finished.
pub(crate) struct SplitDone {
    pub(crate) shards: Vec<Done>,
    pub(crate) kept: usize,
}

/// Images that are decoded before they are written in their order.
const AHEAD: usize = 64;

pub(crate) fn shards(
    plan: &Plan,
    output: &Output,
    ids: &Ids,
    options: &Options,
    watch: &Watch,
) -> Result<Vec<SplitDone>, PackError> {
    let maker = Maker { ids, window: options.window, mask_values: options.mask_values.as_ref() };
    let (done, total) = (AtomicUsize::new(0), plan.samples());
    let advance = |samples: usize| {
        let before = done.fetch_add(samples, Ordering::Relaxed);
        (watch.progress)(before + samples, total);
    };
    let work = Work { maker, output, watch, advance: &advance };
    plan.splits
        .iter()
        .map(|split| {
            let dir = output.split_dir(split.split.as_deref())?;
            // Parallel work within parallel work would begin further units while it waits for one, and hold them all.
            let alone = split.shards.len() >= rayon::current_num_threads();
            let shards: Vec<(Done, bool)> = if alone {
                split.shards.par_iter().map(|shard| work.shard(shard, &dir, false)).collect::<Result<_, _>>()?
            } else {
                split.shards.iter().map(|shard| work.shard(shard, &dir, true)).collect::<Result<_, _>>()?
            };
            let kept = shards.iter().filter(|(_, kept)| *kept).count();
            Ok(SplitDone { shards: shards.into_iter().map(|(done, _)| done).collect(), kept })
        })
        .collect()
}

struct Work<'a> {
    maker: Maker<'a>,
    output: &'a Output,
    watch: &'a Watch<'a>,
    advance: &'a (dyn Fn(usize) + Sync),
}

impl Work<'_> {
    /// A shard, and whether it was there already.
    fn shard(&self, plan: &ShardPlan, dir: &Path, parallel: bool) -> Result<(Done, bool), PackError> {
        if let Some(done) = self.output.load(plan, dir) {
            (self.advance)(plan.units.iter().map(|planned| planned.unit.slices).sum());
            return Ok((done, true));
        }
        let mut writer = ShardWriter::create(dir, &plan.name).map_err(PackError::Shard)?;
        let mut left_out = Vec::new();
        for units in batches(&plan.units, parallel) {
            let make = |planned| self.make(planned);
            let made: Vec<Made> = if parallel {
                units.par_iter().map(make).collect::<Result<_, _>>()?
            } else {
                units.iter().map(make).collect::<Result<_, _>>()?
            };
            for made in made {
                made.records.iter().try_for_each(|record| writer.add(record)).map_err(PackError::Shard)?;
                left_out.extend(made.left_out);
            }
        }
        let finished = if writer.is_empty() { None } else { Some(writer.finish().map_err(PackError::Shard)?) };
        let done = Done { finished, left_out };
        self.output.save(plan, &done)?;
        Ok((done, false))
    }

    fn make(&self, planned: &Planned) -> Result<Made, PackError> {
        self.watch.stopped()?;
        let made = self.maker.make(planned);
        (self.advance)(planned.unit.slices);
        Ok(made)
    }
}

/// Consecutive units that are held at a time: many small ones, or a volume a thread.
fn batches(units: &[Planned], parallel: bool) -> Vec<&[Planned]> {
    let small = |planned: &Planned| matches!(planned.unit.input, Input::Image(_));
    let size = match (parallel, units.iter().all(small)) {
        (false, _) => 1,
        (true, true) => AHEAD.max(4 * rayon::current_num_threads()),
        (true, false) => rayon::current_num_threads(),
    };
    units.chunks(size).collect()
}
