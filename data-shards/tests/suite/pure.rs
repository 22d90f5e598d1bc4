//! Order, partition and draws: frozen, for a resumed run depends on them.

use data_shards::augment::Augment;
use data_shards::order::epoch_order;
use data_shards::partition::{micro_batches_of, samples_of_micro_batch, steps_per_epoch};

#[test]
fn an_order_is_a_permutation_that_differs_by_epoch_and_seed() {
    let order = epoch_order(1000, 7, 3, true);
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, epoch_order(1000, 7, 3, false));
    assert_eq!(order, epoch_order(1000, 7, 3, true));
    assert_ne!(order, epoch_order(1000, 7, 4, true));
    assert_ne!(order, epoch_order(1000, 8, 3, true));
    assert!(epoch_order(0, 0, 0, true).is_empty());
}

#[test]
fn the_order_never_changes() {
    // By tests/suite/golden.py, an implementation of its own. A change breaks every run under way.
    assert_eq!(epoch_order(10, 0, 0, true), [4, 9, 7, 5, 8, 3, 1, 0, 2, 6]);
    assert_eq!(epoch_order(10, 1, 2, true), [4, 8, 9, 3, 0, 2, 1, 6, 5, 7]);
}

#[test]
fn the_draws_never_change() {
    // By tests/suite/golden.py: 0.648, 0.565, 0.366, 0.183, 0.218, 0.6727021480955747, 0.1009974302135842,
    // 0.593984330410594, 0.9803036201861157, 0.5301029752392694.
    let sure = Augment {
        flip_horizontal: 0.2,
        brightness: 1.0,
        contrast: 1.0,
        crop_probability: 0.7,
        scale: 0.5,
        rotation: 10.0,
        noise: 0.1,
        ..Augment::OFFICIAL
    };
    let draw = sure.draw(3, 1, 5);
    assert_eq!((draw.flip_vertical, draw.flip_horizontal), (true, false));
    assert_eq!((draw.brightness, draw.contrast), (2.0 * 0.6727021480955747, 2.0 * 0.1009974302135842));
    assert_eq!(draw.scale, 1.0 + 0.5 * (2.0 * 0.593984330410594 - 1.0));
    assert_eq!((draw.rotation, draw.noise), (10.0 * (2.0 * 0.9803036201861157 - 1.0), 0.1 * 0.5301029752392694));
    // floor(0.565 * 17) and floor(0.366 * 17) of up to 16 pixels.
    let rect = draw.rect(512, 512);
    assert_eq!((rect.left, rect.top), (9, 6));
}

#[test]
fn every_world_takes_the_whole_batch_in_order() {
    let order = epoch_order(50, 1, 1, true);
    for (global, micro) in [(16, 1), (16, 2), (24, 3), (10, 4), (50, 50)] {
        for step in 0..steps_per_epoch(order.len(), global) {
            for world in 1..=8 {
                let taken: Vec<u32> = (0..world)
                    .flat_map(|rank| micro_batches_of(rank, world, global, micro))
                    .flat_map(|index| samples_of_micro_batch(&order, step, global, micro, index).to_vec())
                    .collect();
                assert_eq!(taken, order[step * global..(step + 1) * global], "world {world}");
            }
        }
    }
}

#[test]
fn the_first_ranks_take_one_more() {
    let dealt: Vec<_> = (0..3).map(|rank| micro_batches_of(rank, 3, 16, 2)).collect();
    assert_eq!(dealt, [0..3, 3..6, 6..8]);
}

#[test]
fn impossible_arithmetic_gives_nothing() {
    assert_eq!(steps_per_epoch(79, 8), 9);
    assert_eq!((steps_per_epoch(7, 8), steps_per_epoch(7, 0)), (0, 0));
    assert_eq!((micro_batches_of(2, 2, 8, 1), micro_batches_of(0, 1, 8, 0)), (0..0, 0..0));
    assert!(samples_of_micro_batch(&[0, 1, 2], 1, 2, 1, 0).is_empty());
    assert!(samples_of_micro_batch(&[0, 1, 2], 0, 2, 1, 2).is_empty());
}

#[test]
fn draws_depend_on_the_sample_alone_and_not_on_each_other() {
    let all = Augment { flip_horizontal: 0.5, brightness: 0.1, contrast: 0.1, ..Augment::OFFICIAL };
    let fewer = Augment { crop: 0.0, brightness: 0.0, ..all.clone() };
    let mut flips = [0; 2];
    for index in 0..400 {
        let (draw, less) = (all.draw(3, 1, index), fewer.draw(3, 1, index));
        assert_eq!(draw, all.draw(3, 1, index));
        assert_eq!((draw.flip_vertical, draw.flip_horizontal), (less.flip_vertical, less.flip_horizontal));
        assert_eq!((draw.contrast, less.brightness), (less.contrast, 1.0));
        assert!((0.9..=1.1).contains(&draw.brightness));
        let rect = draw.rect(512, 256);
        assert!(rect.left <= 16 && rect.top <= 8);
        assert_eq!((rect.width, rect.height), (512 - 2 * rect.left, 256 - 2 * rect.top));
        flips[0] += usize::from(draw.flip_vertical);
        flips[1] += usize::from(draw.flip_horizontal);
    }
    assert!(flips.iter().all(|count| (160..240).contains(count)), "{flips:?}");
    assert_ne!(all.draw(3, 1, 0), all.draw(3, 2, 0));
}

#[test]
fn a_crop_always_leaves_a_pixel() {
    let greedy = Augment { crop: 3.0, crop_probability: 1.0, ..Augment::NONE };
    for index in 0..50 {
        for (width, height) in [(1, 1), (2, 3), (9, 4)] {
            let rect = greedy.draw(0, 0, index).rect(width, height);
            assert!(rect.width >= 1 && rect.height >= 1);
        }
    }
}
