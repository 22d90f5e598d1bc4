//! The order of samples in shards: frozen, and the same samples for any number of workers.

use std::collections::BTreeSet;

use data_shards::partition::{micro_batches_of, samples_of_micro_batch, steps_per_epoch};
use data_shards::shard::blocks::{BLOCK, epoch_order};

/// Layouts with a shard, with many, with empty ones and with as many as a block has.
fn layouts() -> Vec<Vec<usize>> {
    let ragged = (0..37).map(|at| (at * 7919) % 23).collect();
    vec![vec![0], vec![1], vec![240], vec![3, 0, 0, 5, 1], vec![10; BLOCK], vec![4; 3 * BLOCK + 1], ragged]
}

const WORLDS: [usize; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 60];

#[test]
fn the_order_never_changes() {
    // By tests/suite/golden.py, an implementation of its own. A change breaks every run under way.
    assert_eq!(epoch_order(&[3, 1, 0, 4, 2], 0, 0, true, 2), GOLDEN[0]);
    assert_eq!(epoch_order(&[3, 1, 0, 4, 2], 7, 5, true, 2), GOLDEN[1]);
    assert_eq!(BLOCK, 8);
}

const GOLDEN: [[u32; 10]; 2] = [[3, 4, 6, 5, 7, 8, 9, 2, 1, 0], [8, 9, 6, 5, 7, 4, 3, 1, 0, 2]];

#[test]
fn an_order_is_a_permutation_that_differs_by_epoch_and_seed() {
    for shards in layouts() {
        let ascending = epoch_order(&shards, 7, 3, false, BLOCK);
        assert!(ascending.iter().copied().eq(0..shards.iter().sum::<usize>() as u32));
        for block in [0, 1, 2, BLOCK, 1000] {
            let order = epoch_order(&shards, 7, 3, true, block);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, ascending);
            assert_eq!(order, epoch_order(&shards, 7, 3, true, block));
            if order.len() > 30 {
                assert_ne!(order, epoch_order(&shards, 7, 4, true, block));
                assert_ne!(order, epoch_order(&shards, 8, 3, true, block));
            }
        }
    }
    assert!(epoch_order(&[], 0, 0, true, BLOCK).is_empty());
}

#[test]
fn only_a_block_of_shards_is_in_use_at_a_time() {
    let shards = vec![11; 5 * BLOCK + 3];
    for block in [1, 3, BLOCK] {
        let order = epoch_order(&shards, 1, 2, true, block);
        let mut seen = BTreeSet::new();
        for part in order.chunks(11 * block) {
            let used: BTreeSet<u32> = part.iter().map(|sample| sample / 11).collect();
            assert_eq!(used.len(), part.len() / 11);
            assert!(used.iter().all(|shard| seen.insert(*shard)), "a shard is needed again after its block");
        }
        assert!(order.windows(2).any(|pair| pair[0] > pair[1]));
    }
}

/// What all workers of a world take in a step, worker after worker.
fn taken(order: &[u32], step: usize, world: usize, global: usize, micro: usize) -> Vec<u32> {
    let of = |rank| micro_batches_of(rank, world, global, micro);
    let micro_batches = (0..world).flat_map(of);
    micro_batches.flat_map(|index| samples_of_micro_batch(order, step, global, micro, index).to_vec()).collect()
}

#[test]
fn every_world_takes_the_same_global_order() {
    for shards in layouts() {
        let order = epoch_order(&shards, 3, 1, true, BLOCK);
        for (global, micro) in [(60, 1), (12, 1), (12, 3), (10, 4), (7, 2)] {
            let steps = steps_per_epoch(order.len(), global);
            for world in WORLDS {
                let all: Vec<u32> = (0..steps).flat_map(|step| taken(&order, step, world, global, micro)).collect();
                assert_eq!(all, order[..steps * global], "{world} workers");
            }
        }
    }
}

/// The state of a run is how many steps it has taken: with it any other world goes on. Of an epoch the samples of its whole
/// global batches are taken once each; those of the last incomplete one, fewer than a global batch, are left out.
#[test]
fn going_on_with_another_world_gives_just_what_was_left() {
    for shards in layouts() {
        let epochs: Vec<Vec<u32>> = (0..2).map(|epoch| epoch_order(&shards, 9, epoch, true, BLOCK)).collect();
        let (len, global, micro) = (epochs[0].len(), 6, 1);
        let steps = steps_per_epoch(len, global);
        let take = |step: usize, world| taken(&epochs[step / steps], step % steps, world, global, micro);
        for stop in 0..2 * steps {
            for (before, after) in WORLDS.into_iter().zip(WORLDS.into_iter().cycle().skip(1 + stop % WORLDS.len())) {
                let mut count = vec![0; len];
                let steps_taken =
                    (0..stop).map(|step| take(step, before)).chain((stop..2 * steps).map(|step| take(step, after)));
                steps_taken.flatten().for_each(|sample| count[sample as usize] += 1);
                let left_out = |epoch: &Vec<u32>| epoch[steps * global..].iter().copied().collect::<BTreeSet<u32>>();
                let expected = |sample: u32| epochs.iter().filter(|epoch| !left_out(epoch).contains(&sample)).count();
                assert!(
                    (0..).zip(&count).all(|(sample, count)| *count == expected(sample)),
                    "{before} to {after} at {stop}"
                );
                assert!(len - steps * global < global);
            }
        }
    }
}
