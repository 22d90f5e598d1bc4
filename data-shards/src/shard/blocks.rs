//! The order of the samples of an epoch where they lie in shards.
//!
//! Duty: a pure function of the shards' lengths, seed and epoch, in which only a few shards are in use at a time, so that
//! shards that come over a network stream. Must not: know ranks, or change between versions: a resumed run depends on it
//! (golden values in the tests).

use crate::rng;

/// Shards that are mixed with each other. A data set of up to so many is shuffled as a whole.
pub const BLOCK: usize = 8;

/// The numbers of all samples in the order of this epoch: ascending; or, shuffled, the shards in an order of their own,
/// taken `block` at a time (0 counts as 1), and the samples of each block shuffled. `shards` holds the samples of each
/// shard. Samples beyond `u32::MAX` are left out.
pub fn epoch_order(shards: &[usize], seed: u64, epoch: u64, shuffle: bool, block: usize) -> Vec<u32> {
    let ranges = ranges(shards);
    if !shuffle {
        return ranges.into_iter().flatten().collect();
    }
    let mut shards = ranges;
    rng::shuffle(&mut rng::stream(b"shards\0\0", seed, epoch, 0), &mut shards);
    let mut order = Vec::new();
    for (number, block) in (0..).zip(shards.chunks(block.max(1))) {
        let start = order.len();
        order.extend(block.iter().cloned().flatten());
        let samples = order.get_mut(start..).unwrap_or_default();
        rng::shuffle(&mut rng::stream(b"block\0\0\0", seed, epoch, number), samples);
    }
    order
}

/// The numbers of each shard's samples.
fn ranges(shards: &[usize]) -> Vec<std::ops::Range<u32>> {
    let mut next = 0u32;
    let range = |samples: &usize| {
        let start = next;
        next = start.saturating_add(u32::try_from(*samples).unwrap_or(u32::MAX));
        start..next
    };
    shards.iter().map(range).collect()
}
