//! Which samples make a step, and which of them a rank takes.
//!
//! Duty: pure arithmetic, the same on every rank. Must not: know the data or the network. The last incomplete global
//! batch of an epoch is left out, so that each step consumes exactly `global_batch` samples on any number of workers.

use std::ops::Range;

/// Optimizer steps in an epoch: `len / global_batch`, the incomplete last global batch left out. 0 where `global_batch`
/// is 0.
pub fn steps_per_epoch(len: usize, global_batch: usize) -> usize {
    len.checked_div(global_batch).unwrap_or(0)
}

/// The micro-batches of a global batch dealt to `rank`, as indices for [`samples_of_micro_batch`]: contiguous, in rank
/// order; the first `micro_batches % world` ranks take one more. Where `global_batch` is no multiple of `micro_batch`,
/// the last micro-batch is shorter. Empty for a rank outside the world, and where `micro_batch` is 0.
pub fn micro_batches_of(rank: usize, world: usize, global_batch: usize, micro_batch: usize) -> Range<usize> {
    if rank >= world || micro_batch == 0 {
        return 0..0;
    }
    let micro_batches = global_batch.div_ceil(micro_batch);
    let (each, longer) = (micro_batches / world, micro_batches % world);
    let start = rank * each + rank.min(longer);
    start..start + each + usize::from(rank < longer)
}

/// The samples of micro-batch `index` of a step, `step_in_epoch` counted from 0. Empty beyond the end of the global
/// batch, and in a step that the epoch does not have.
pub fn samples_of_micro_batch(
    order: &[u32],
    step_in_epoch: usize,
    global_batch: usize,
    micro_batch: usize,
    index: usize,
) -> &[u32] {
    if step_in_epoch >= steps_per_epoch(order.len(), global_batch) {
        return &[];
    }
    let start = index.saturating_mul(micro_batch).min(global_batch);
    let end = start.saturating_add(micro_batch).min(global_batch);
    let step = step_in_epoch * global_batch;
    &order[step + start..step + end]
}
