//! Grain: Gaussian noise that is a function of a key and a place.
//!
//! Duty: the same numbers for the same key, row and column, on any thread. Must not: keep state or draw keys.

use std::sync::LazyLock;

/// Bits of a random number that choose a quantile.
const BITS: u32 = 12;
const LEVELS: usize = 1 << BITS;

/// The normal distribution as so many equally likely values, with mean 0 and variance 1.
static QUANTILES: LazyLock<Box<[f32; LEVELS]>> = LazyLock::new(quantiles);

/// The noise of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Noise {
    /// What the numbers are made of.
    pub(crate) key: u64,
    /// Standard deviation, of values that go from 0 to 1.
    pub(crate) strength: f32,
}

impl Noise {
    /// The noise of row `y` before it is multiplied by the strength, as many columns as `out` holds.
    pub(crate) fn row(&self, y: usize, out: &mut [f32]) {
        let table = &**QUANTILES;
        let quantile = |bits: u64| table[(bits % LEVELS as u64) as usize];
        let group = |counter: u64| {
            let bits = mixed(self.key.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            [quantile(bits >> 4), quantile(bits >> 20), quantile(bits >> 36), quantile(bits >> 52)]
        };
        // Row and group of columns share no number with another: the group is the lower half.
        let mut counter = (y as u64) << 32;
        let mut groups = out.chunks_exact_mut(4);
        for out in &mut groups {
            out.copy_from_slice(&group(counter));
            counter = counter.wrapping_add(1);
        }
        groups.into_remainder().iter_mut().zip(group(counter)).for_each(|(out, value)| *out = value);
    }
}

/// Finalizer of SplitMix64.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The middle of each of `LEVELS` parts of equal probability: the density is summed in small steps outwards from 0, and the
/// place is noted where the sum passes each. Scaled to variance 1.
fn quantiles() -> Box<[f32; LEVELS]> {
    const STEP: f64 = 1e-4;
    let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let half = LEVELS / 2;
    let mut upper = Vec::with_capacity(half);
    let (mut x, mut below) = (0.0, 0.0);
    while upper.len() < half {
        let part = density(x + 0.5 * STEP) * STEP;
        let wanted = (upper.len() as f64 + 0.5) / LEVELS as f64;
        if below + part >= wanted {
            upper.push(x + STEP * (wanted - below) / part);
            continue;
        }
        below += part;
        x += STEP;
    }
    let scale = (upper.iter().map(|x| x * x).sum::<f64>() / half as f64).sqrt().recip();
    let mut table = Box::new([0.0; LEVELS]);
    let (lower_half, upper_half) = table.split_at_mut(half);
    for ((lower, higher), x) in lower_half.iter_mut().rev().zip(upper_half).zip(upper) {
        (*lower, *higher) = ((-x * scale) as f32, (x * scale) as f32);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_are_those_of_the_normal_distribution() {
        // scipy.stats.norm.ppf((numpy.array([2048, 3000, 4000, 4095]) + 0.5) / 4096), scipy 1.17
        let expected = [0.00030598490158027114, 0.620525137760183, 1.9896377062395003, 3.6683292851213234];
        for (at, want) in [2048, 3000, 4000, 4095].into_iter().zip(expected) {
            assert!((f64::from(QUANTILES[at]) - want).abs() < 1e-3 * want, "{at}: {} is not {want}", QUANTILES[at]);
            assert_eq!(QUANTILES[at], -QUANTILES[LEVELS - 1 - at]);
        }
        assert!(QUANTILES.is_sorted());
        let variance = QUANTILES.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / LEVELS as f64;
        assert!((variance - 1.0).abs() < 1e-6, "{variance}");
    }

    #[test]
    fn the_grain_is_white() {
        let noise = Noise { key: 7, strength: 1.0 };
        let mut rows = vec![[0.0_f32; 509]; 509];
        rows.iter_mut().enumerate().for_each(|(y, row)| noise.row(y, row));
        let count = (509 * 509) as f64;
        let product = |dx: usize, dy: usize| {
            let at = |x: usize, y: usize| f64::from(rows[y % 509][x % 509]);
            (0..509)
                .flat_map(|y| (0..509).map(move |x| (x, y)))
                .map(|(x, y)| at(x, y) * at(x + dx, y + dy))
                .sum::<f64>()
                / count
        };
        let mean = rows.iter().flatten().map(|&x| f64::from(x)).sum::<f64>() / count;
        assert!(mean.abs() < 8e-3, "{mean}");
        assert!((product(0, 0) - 1.0).abs() < 0.012, "{}", product(0, 0));
        for (dx, dy) in [(1, 0), (2, 0), (4, 0), (0, 1), (1, 1), (4, 1)] {
            assert!(product(dx, dy).abs() < 8e-3, "{dx} {dy}: {}", product(dx, dy));
        }
    }

    #[test]
    fn another_key_is_other_grain_and_a_longer_row_begins_alike() {
        let row = |key: u64, y: usize, width: usize| {
            let mut out = vec![0.0; width];
            Noise { key, strength: 1.0 }.row(y, &mut out);
            out
        };
        assert_eq!(row(1, 0, 9)[..6], row(1, 0, 6));
        assert_ne!(row(1, 0, 9), row(2, 0, 9));
        assert_ne!(row(1, 0, 9), row(1, 1, 9));
    }
}
