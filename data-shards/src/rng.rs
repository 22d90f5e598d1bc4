//! Seeded streams of random numbers: ChaCha8 keyed by what the numbers are for.
//!
//! Duty: the same numbers for the same key, for good: no distribution code of another crate is used, so that its next
//! version cannot move a run. Must not: keep state between calls or read the clock.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of its own for every (purpose, seed, a, b): the four are the 32 bytes of the key.
pub(crate) fn stream(purpose: &[u8; 8], seed: u64, a: u64, b: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (place, part) in key.chunks_exact_mut(8).zip([*purpose, seed.to_le_bytes(), a.to_le_bytes(), b.to_le_bytes()]) {
        place.copy_from_slice(&part);
    }
    ChaCha8Rng::from_seed(key)
}

/// Uniform in [0, 1), from the upper 53 bits of one 64-bit draw.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform in [low, high).
pub(crate) fn between(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(rng)
}

/// Uniform in 0..n without bias (draws below 2^64 mod n are drawn again); 0 where n is 0.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: u64) -> u64 {
    if n == 0 {
        return 0;
    }
    let rejected = n.wrapping_neg() % n;
    loop {
        let draw = rng.next_u64();
        if draw >= rejected {
            return draw % n;
        }
    }
}

/// Fisher-Yates from the end, with unbiased bounded draws.
pub(crate) fn shuffle<T>(rng: &mut ChaCha8Rng, values: &mut [T]) {
    for last in (1..values.len()).rev() {
        // Below last + 1, so it is an index.
        let other = below(rng, last as u64 + 1) as usize;
        values.swap(last, other);
    }
}

/// Standard normal, by the sum of twelve uniforms (exact enough for image noise, and without `ln`).
pub(crate) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    (0..6).map(|_| rng.next_u64()).map(|bits| (bits >> 32) as f64 + (bits & 0xffff_ffff) as f64).sum::<f64>()
        / 4_294_967_296.0
        - 6.0
}
