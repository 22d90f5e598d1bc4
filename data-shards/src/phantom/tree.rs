//! Vessels and airways of the lungs.
//!
//! Duty: trees in space from the hilum outward that branch and taper. Must not: rasterise.

use rand_chacha::ChaCha8Rng;

use super::anatomy::{self, Anatomy};
use crate::rng::{between, unit};

/// A straight piece of a vessel or airway.
pub(super) struct Tube {
    pub(super) from: [f64; 3],
    pub(super) to: [f64; 3],
    pub(super) radius: f64,
}

/// The tubes of both lungs.
#[derive(Default)]
pub(super) struct Trees {
    pub(super) vessels: Vec<Tube>,
    pub(super) airways: Vec<Tube>,
}

const FINEST: f64 = 0.0022;
const GENERATIONS: u32 = 9;
const PRIMARY: u32 = 11;

struct Branch {
    at: [f64; 3],
    way: [f64; 3],
    radius: f64,
    generation: u32,
}

impl Trees {
    pub(super) fn grow(anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> Self {
        let mut trees = Trees::default();
        for side in [-1.0, 1.0] {
            for primary in 0..PRIMARY {
                let angle = (f64::from(primary) + unit(rng)) / f64::from(PRIMARY) * std::f64::consts::PI;
                // From front to back on the lung's side, and alternately up and down.
                let rise = between(rng, 0.1, 0.8) * if primary % 2 == 0 { 1.0 } else { -1.0 };
                let way = unit_vector([side * (0.25 + angle.sin()), -angle.cos(), rise]);
                let radius = between(rng, 0.014, 0.023);
                trees.branch(anatomy, Branch { at: anatomy.hilum(side), way, radius, generation: 0 }, rng);
            }
        }
        trees
    }

    /// Some vessels that cross in a knot, as where several segments meet.
    pub(super) fn cluster(&mut self, anatomy: &Anatomy, z: f64, rng: &mut ChaCha8Rng) {
        let Some(at) =
            (0..200).map(|_| anatomy::anywhere(anatomy, rng)).find(|&[x, y, _]| anatomy.lung([x, y, z]) > 0.06)
        else {
            return;
        };
        for _ in 0..5 {
            let way = unit_vector([between(rng, -1.0, 1.0), between(rng, -1.0, 1.0), between(rng, -0.3, 0.3)]);
            let radius = between(rng, 0.005, 0.010);
            let start =
                std::array::from_fn(|axis| [at[0], at[1], z][axis] - 0.05 * way[axis] + 0.05 * between(rng, -1.0, 1.0));
            self.branch(anatomy, Branch { at: start, way, radius, generation: 5 }, rng);
        }
    }

    fn branch(&mut self, anatomy: &Anatomy, branch: Branch, rng: &mut ChaCha8Rng) {
        let Branch { at, way, radius, generation } = branch;
        if radius < FINEST || generation > GENERATIONS {
            return;
        }
        let length = 0.15 * 0.86f64.powi(generation as i32) * between(rng, 0.7, 1.2);
        let middle = step(at, way, 0.5 * length);
        let way = turned(way, 0.22, rng);
        let end = step(middle, way, 0.5 * length);
        self.vessels.push(Tube { from: at, to: middle, radius });
        self.vessels.push(Tube { from: middle, to: end, radius: 0.93 * radius });
        if generation <= 2 {
            let beside =
                |place: [f64; 3]| [place[0] + 1.5 * radius * way[1], place[1] - 1.5 * radius * way[0], place[2]];
            self.airways.push(Tube { from: beside(at), to: beside(middle), radius: 0.75 * radius });
            self.airways.push(Tube { from: beside(middle), to: beside(end), radius: 0.70 * radius });
        }
        if generation > 1 && anatomy.lung(end) < 0.012 {
            return;
        }
        for share in [between(rng, 0.76, 0.92), between(rng, 0.55, 0.80)] {
            let way = turned(way, 1.35 - share, rng);
            self.branch(anatomy, Branch { at: end, way, radius: share * radius, generation: generation + 1 }, rng);
        }
    }
}

fn step(at: [f64; 3], way: [f64; 3], length: f64) -> [f64; 3] {
    std::array::from_fn(|axis| at[axis] + length * way[axis])
}

fn turned(way: [f64; 3], by: f64, rng: &mut ChaCha8Rng) -> [f64; 3] {
    unit_vector(way.map(|part| part + by * between(rng, -1.0, 1.0)))
}

fn unit_vector(way: [f64; 3]) -> [f64; 3] {
    let length = way.iter().map(|part| part * part).sum::<f64>().sqrt().max(1e-9);
    way.map(|part| part / length)
}
