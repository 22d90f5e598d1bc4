//! Lattice noise: smooth random fields that are functions of a seed and a place.
//!
//! Duty: texture that varies smoothly from slice to slice. Must not: keep state, or depend on the order of calls.

/// A number in [-1, 1] for a lattice point (finalizer of SplitMix64 over the mixed coordinates).
fn lattice(seed: u64, x: i64, y: i64, z: i64) -> f64 {
    let mut bits = seed;
    for part in [x, y, z] {
        bits = (bits ^ part as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
    }
    (bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn fade(t: f64) -> f64 {
    t * t * (3.0 - 2.0 * t)
}

fn mix(a: f64, b: f64, t: f64) -> f64 {
    a + (b - a) * t
}

/// Value noise in [-1, 1] with one lattice cell a unit.
pub(super) fn smooth(seed: u64, [x, y, z]: [f64; 3]) -> f64 {
    let (x0, y0, z0) = (x.floor(), y.floor(), z.floor());
    let (tx, ty, tz) = (fade(x - x0), fade(y - y0), fade(z - z0));
    let (x0, y0, z0) = (x0 as i64, y0 as i64, z0 as i64);
    let row = |y, z| mix(lattice(seed, x0, y, z), lattice(seed, x0 + 1, y, z), tx);
    let sheet = |z| mix(row(y0, z), row(y0 + 1, z), ty);
    mix(sheet(z0), sheet(z0 + 1), tz)
}

/// Octaves of [`smooth`] at doubled frequency and halved weight, in about [-1, 1].
pub(super) fn fractal(seed: u64, place: [f64; 3], frequency: f64, octaves: u32) -> f64 {
    let (mut sum, mut weight, mut total, mut scale) = (0.0, 1.0, 0.0, frequency);
    for octave in 0..octaves {
        sum += weight * smooth(seed ^ u64::from(octave) << 32, place.map(|part| part * scale));
        total += weight;
        weight *= 0.5;
        scale *= 2.0;
    }
    sum / total
}

/// The length of a vector. A square root is exact to the last bit with every C library, which `f64::hypot` is not.
pub(super) fn length<const N: usize>(vector: [f64; N]) -> f64 {
    vector.iter().map(|part| part * part).sum::<f64>().sqrt()
}

/// How far a place is from the nearest wall between irregular cells of unit size: 0 on a wall, growing to about 0.5.
pub(super) fn wall(seed: u64, x: f64, y: f64) -> f64 {
    let (mut nearest, mut second) = (f64::MAX, f64::MAX);
    let (cell_x, cell_y) = (x.floor() as i64, y.floor() as i64);
    for cy in cell_y - 1..=cell_y + 1 {
        for cx in cell_x - 1..=cell_x + 1 {
            let dx = cx as f64 + 0.5 + 0.5 * lattice(seed, cx, cy, 0) - x;
            let dy = cy as f64 + 0.5 + 0.5 * lattice(seed, cx, cy, 1) - y;
            let distance = length([dx, dy]);
            second = second.min(distance.max(nearest));
            nearest = nearest.min(distance);
        }
    }
    0.5 * (second - nearest)
}
