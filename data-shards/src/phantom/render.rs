//! One slice of a patient as pixels.
//!
//! Duty: put anatomy, vessels, lesions, noise and the lung window together. Must not: write files, or draw what belongs to the
//! patient rather than to the slice.

use rand_chacha::ChaCha8Rng;

use super::anatomy::{AIR, Anatomy, lerp, smoothstep};
use super::lesion::{Distractors, Lesion};
use super::noise::{self, length};
use super::tree::{Trees, Tube};
use crate::rng::{self, between, unit};

/// Half the thickness of a slice.
const SLAB: f64 = 0.014;
const BLOOD: f64 = 40.0;

/// All that is the same in the slices of a patient.
pub(super) struct Patient {
    key: u64,
    pub(super) slices: Vec<f64>,
    anatomy: Anatomy,
    trees: Trees,
    lesions: Vec<Lesion>,
    distractors: Distractors,
    parenchyma: f64,
    noise: f64,
    window: [f64; 2],
    round_view: bool,
}

/// Eight-bit gray image and mask (0 and 255), row-major, square.
pub(super) struct Slice {
    pub(super) image: Vec<u8>,
    pub(super) mask: Vec<u8>,
}

impl Patient {
    pub(super) fn draw(seed: u64, number: u64, covid: bool, slices: usize) -> Self {
        let mut rng = rng::stream(b"phantom\0", seed, number, 0);
        let key = seed.rotate_left(32) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let [top, bottom] = [between(&mut rng, 0.18, 0.30), between(&mut rng, 0.74, 0.86)];
        let slices: Vec<f64> = (0..slices).map(|at| lerp(top, bottom, (at as f64 + 0.5) / slices as f64)).collect();
        let anatomy = Anatomy::draw(key, &mut rng);
        let mut trees = Trees::grow(&anatomy, &mut rng);
        if !covid {
            for &z in &slices {
                trees.cluster(&anatomy, z, &mut rng);
            }
        }
        let lesions = if covid { Lesion::draw_all(&anatomy, &slices, key, &mut rng) } else { Vec::new() };
        let distractors = Distractors::draw(&anatomy, &slices, !covid, &mut rng);
        Patient {
            key,
            slices,
            anatomy,
            trees,
            lesions,
            distractors,
            parenchyma: between(&mut rng, -890.0, -840.0),
            noise: between(&mut rng, 22.0, 48.0),
            window: [between(&mut rng, -620.0, -520.0), between(&mut rng, 1350.0, 1600.0)],
            round_view: unit(&mut rng) < 0.5,
        }
    }

    /// Renders slice `at` of `self.slices` with `size` x `size` pixels.
    pub(super) fn render(&self, at: usize, size: usize, seed: u64, number: u64) -> Slice {
        let z = self.slices[at];
        let pixel = 2.0 / size as f64;
        let vessels = coverage(&self.trees.vessels, z, size, 1.0);
        let walls = coverage(&self.trees.airways, z, size, 1.35);
        let lumens = coverage(&self.trees.airways, z, size, 1.0);
        let mut rng = rng::stream(b"phantom\0", seed, number, 1 + at as u64);
        let grain = grain(size, &mut rng);
        let mut slice = Slice { image: Vec::with_capacity(size * size), mask: Vec::with_capacity(size * size) };
        for (index, grain) in grain.into_iter().enumerate() {
            let [row, column] = [index / size, index % size];
            let place = [pixel * (column as f64 + 0.5) - 1.0, pixel * (row as f64 + 0.5) - 1.0, z];
            let tubes = [vessels[index], walls[index], lumens[index]];
            let (density, lesion) = self.density(place, pixel, tubes);
            slice.image.push(self.windowed(place, density + self.noise * grain));
            slice.mask.push(if lesion { 255 } else { 0 });
        }
        slice
    }

    /// Density at a place, and whether it is lesion.
    fn density(&self, place: [f64; 3], pixel: f64, tubes: [f64; 3]) -> (f64, bool) {
        let level = self.anatomy.lung(place);
        let lung = smoothstep(-0.6 * pixel, 0.6 * pixel, level);
        let around = if lung < 1.0 { self.anatomy.around_lungs(place) } else { 0.0 };
        if lung == 0.0 {
            return (around, false);
        }
        let (tissue, share) = self.lung_tissue(place, level, pixel, tubes);
        (lerp(around, tissue, lung), share >= 0.5 && lung >= 0.5)
    }

    fn lung_tissue(&self, place: [f64; 3], level: f64, pixel: f64, [vessel, wall, lumen]: [f64; 3]) -> (f64, f64) {
        let texture = 24.0 * noise::fractal(self.key ^ 11, place, 6.0, 4);
        let gravity = 35.0 * self.anatomy.depth(place[1]);
        let mut density = self.parenchyma + texture + gravity + self.distractors.add(&self.anatomy, place, level);
        let healthy = density;
        let mut most: f64 = 0.0;
        for lesion in &self.lesions {
            let share = lesion.share(place);
            if share > 0.0 {
                density = density.max(lesion.density(place, healthy, share));
                most = most.max(share);
            }
        }
        density += 130.0 * self.anatomy.fissure(place, pixel) * smoothstep(0.3, 0.0, most);
        density = lerp(density, density.max(BLOOD), vessel);
        density = lerp(density, density.max(-330.0), wall);
        density = lerp(density, AIR + 40.0, lumen);
        (lerp(density, 420.0, self.distractors.calcified(place, pixel)), most)
    }

    fn windowed(&self, [x, y, _]: [f64; 3], density: f64) -> u8 {
        if self.round_view && length([x, y]) > 1.0 {
            return 0;
        }
        let [level, width] = self.window;
        // Rounded and clamped, so that it fits.
        (255.0 * ((density - level) / width + 0.5)).round().clamp(0.0, 255.0) as u8
    }
}

/// How much of each pixel of the slice the tubes cover, 0..1.
fn coverage(tubes: &[Tube], z: f64, size: usize, thicker: f64) -> Vec<f64> {
    let mut covered = vec![0.0; size * size];
    for tube in tubes {
        cover(&mut covered, tube, z, size, thicker * tube.radius);
    }
    covered
}

fn cover(covered: &mut [f64], tube: &Tube, z: f64, size: usize, radius: f64) {
    let [low, high] = [tube.from[2].min(tube.to[2]), tube.from[2].max(tube.to[2])];
    if z < low - radius - SLAB || z > high + radius + SLAB {
        return;
    }
    let pixel = 2.0 / size as f64;
    let index = |at: f64| ((at + 1.0) / pixel).clamp(0.0, size as f64) as usize;
    let range = |axis: usize| {
        let [low, high] = [tube.from[axis].min(tube.to[axis]), tube.from[axis].max(tube.to[axis])];
        index(low - radius - pixel)..(index(high + radius + pixel) + 1).min(size)
    };
    // A tube thinner than a pixel leaves a fainter trace.
    let strength = (1.6 * radius / pixel).min(1.0);
    for row in range(1) {
        for column in range(0) {
            let place = [pixel * (column as f64 + 0.5) - 1.0, pixel * (row as f64 + 0.5) - 1.0, z];
            let share = ((radius - distance(tube, place)) / pixel + 0.5).clamp(0.0, 1.0) * strength;
            let covered = &mut covered[row * size + column];
            *covered = covered.max(share);
        }
    }
}

/// Distance from a place to a tube's axis, anything within the slice's thickness counted as in its plane.
fn distance(tube: &Tube, place: [f64; 3]) -> f64 {
    let way: [f64; 3] = std::array::from_fn(|axis| tube.to[axis] - tube.from[axis]);
    let from: [f64; 3] = std::array::from_fn(|axis| place[axis] - tube.from[axis]);
    let square = way.iter().map(|part| part * part).sum::<f64>().max(1e-12);
    let along = (0..3).map(|axis| way[axis] * from[axis]).sum::<f64>() / square;
    let along = along.clamp(0.0, 1.0);
    let [dx, dy, dz] = std::array::from_fn(|axis| from[axis] - along * way[axis]);
    length([dx, dy, (dz.abs() - SLAB).max(0.0)])
}

/// Noise of unit deviation whose grain is about two pixels at 256 x 256, as a scanner's reconstruction filter leaves it.
fn grain(size: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut grain: Vec<f64> = (0..size * size).map(|_| rng::normal(rng)).collect();
    for _ in 0..(size / 256).clamp(1, 4) {
        blur(&mut grain, size, 1);
        blur(&mut grain, size, size);
    }
    let power = grain.iter().map(|value| value * value).sum::<f64>() / grain.len() as f64;
    let scale = 1.0 / power.sqrt().max(1e-9);
    grain.iter_mut().for_each(|value| *value *= scale);
    grain
}

/// 1-2-1 along one axis, wrapping around (noise has no border).
fn blur(values: &mut Vec<f64>, size: usize, stride: usize) {
    let count = values.len();
    let neighbour = |index: usize, forward: bool| {
        let place = index / stride % size;
        let next = if forward { (place + 1) % size } else { (place + size - 1) % size };
        index - place * stride + next * stride
    };
    *values = (0..count)
        .map(|at| 0.25 * values[neighbour(at, false)] + 0.5 * values[at] + 0.25 * values[neighbour(at, true)])
        .collect();
}
