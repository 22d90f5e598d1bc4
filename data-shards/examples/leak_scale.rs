//! How long the search for leaks takes on codes alone: `leak_scale [IMAGES]`, COVID-CS's 144,167 if left out.
//!
//! The codes are made up: people with 192 slices each, whose codes wander slowly, all around a common mean as chests are.
#![expect(clippy::print_stdout, reason = "a measurement")]

use std::ops::Range;
use std::time::Instant;

use data_shards::leak::{Code, WIDTH, scan};
use rayon::prelude::*;

const SLICES: usize = 192;

fn main() {
    let images = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(144_167);
    let codes: Vec<Option<Code>> = (0..images).into_par_iter().map(|image| Some(code(image))).collect();
    for shares in [&[80, 10, 10][..], &[20; 5][..]] {
        let splits = ranges(images, shares);
        let start = Instant::now();
        let hits = scan(&codes, &splits);
        println!("{images} codes, splits {shares:?}: {} pairs in {:.1} s", hits.len(), start.elapsed().as_secs_f64());
    }
}

fn ranges(images: usize, shares: &[usize]) -> Vec<Range<usize>> {
    let ends = shares.iter().scan(0, |sum, share| {
        *sum += share;
        Some(images * *sum / 100)
    });
    let ends: Vec<usize> = ends.collect();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(start, end)| start..*end).collect()
}

/// Half common to all, the rest between two random points of the person's own.
fn code(image: usize) -> Code {
    let (person, slice) = ((image / SLICES) as u64, (image % SLICES) as f32 / SLICES as f32);
    let value = |at: usize| {
        let at = at as u64;
        random(at) + (1.0 - slice) * random(1000 + person * 1000 + at) + slice * random(7_000_000 + person * 1000 + at)
    };
    let values: Vec<f32> = (0..2 * WIDTH).map(value).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let half = |from: usize| std::array::from_fn(|at| values[from + at] / length);
    Code { lead: half(0), rest: half(WIDTH) }
}

/// -1..1, from a well mixed number (SplitMix64).
fn random(seed: u64) -> f32 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}
