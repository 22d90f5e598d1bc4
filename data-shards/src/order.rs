//! The order of the samples of an epoch.
//!
//! Duty: a pure function of length, seed and epoch. Must not: know ranks, or change between versions: a resumed run
//! depends on it (golden values in the tests).

use crate::rng;

/// The indices 0..len in the order of this epoch: ascending, or shuffled by Fisher-Yates over ChaCha8 with unbiased
/// bounded draws. `len` above `u32::MAX` counts as `u32::MAX`.
pub fn epoch_order(len: usize, seed: u64, epoch: u64, shuffle: bool) -> Vec<u32> {
    let mut order: Vec<u32> = (0..u32::try_from(len).unwrap_or(u32::MAX)).collect();
    if shuffle {
        rng::shuffle(&mut rng::stream(b"order\0\0\0", seed, epoch, 0), &mut order);
    }
    order
}
