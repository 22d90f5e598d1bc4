//! What COVID-19 does to the lungs, and what only looks like it.
//!
//! Duty: where lesions are and how they change the density. Must not: rasterise, or mark a distractor as lesion.

use rand_chacha::ChaCha8Rng;

use super::anatomy::{self, Anatomy, lerp, smoothstep};
use super::noise::{self, length};
use crate::rng::{below, between, unit};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    GroundGlass,
    Consolidation,
    CrazyPaving,
    Nodule,
}

/// One lesion, an irregular ellipsoid.
pub(super) struct Lesion {
    kind: Kind,
    seed: u64,
    centre: [f64; 3],
    radii: [f64; 3],
    turn: [f64; 2],
    density: f64,
}

impl Lesion {
    /// The lesions of a patient: at least one in each slice of `slices`, and some that reach through several.
    pub(super) fn draw_all(anatomy: &Anatomy, slices: &[f64], seed: u64, rng: &mut ChaCha8Rng) -> Vec<Lesion> {
        let mut lesions = Vec::new();
        for &z in slices {
            let count = 1 + below(rng, 3);
            lesions.extend((0..count).filter_map(|at| Lesion::draw(anatomy, z, at == 0, seed ^ at, rng)));
        }
        lesions
    }

    /// `certain` asks for a lesion large enough to be seen whatever its outline.
    fn draw(anatomy: &Anatomy, z: f64, certain: bool, seed: u64, rng: &mut ChaCha8Rng) -> Option<Lesion> {
        let kind = match below(rng, 10) {
            0..=4 => Kind::GroundGlass,
            5 | 6 => Kind::Consolidation,
            7 | 8 => Kind::CrazyPaving,
            _ if certain => Kind::GroundGlass,
            _ => Kind::Nodule,
        };
        let centre = place(anatomy, z, kind != Kind::Nodule, rng)?;
        let radius = match kind {
            Kind::GroundGlass | Kind::CrazyPaving => between(rng, 0.09, 0.20),
            Kind::Consolidation => between(rng, 0.05, 0.11),
            Kind::Nodule => between(rng, 0.018, 0.034),
        };
        let angle = between(rng, 0.0, std::f64::consts::PI);
        let density = match kind {
            Kind::GroundGlass => between(rng, 190.0, 360.0),
            Kind::CrazyPaving => between(rng, 200.0, 300.0),
            Kind::Consolidation => between(rng, -130.0, 20.0),
            Kind::Nodule => between(rng, -250.0, -20.0),
        };
        let radii = [radius, radius * between(rng, 0.55, 0.9), (1.6 * radius).max(0.04)];
        let turn = [angle.cos(), angle.sin()];
        Some(Lesion { kind, seed: seed ^ (lesion_key(centre)), centre, radii, turn, density })
    }

    /// How much of the lesion is at a place, 0..1; the mask is where it is at least one half.
    pub(super) fn share(&self, place: [f64; 3]) -> f64 {
        let [dx, dy, dz] = std::array::from_fn(|axis| place[axis] - self.centre[axis]);
        let reach = 1.6 * self.radii[0];
        if dx.abs() > reach || dy.abs() > reach || dz.abs() > self.radii[2] {
            return 0.0;
        }
        let along = (dx * self.turn[0] + dy * self.turn[1]) / self.radii[0];
        let across = (dy * self.turn[0] - dx * self.turn[1]) / self.radii[1];
        let (ragged, soft) = match self.kind {
            Kind::GroundGlass => (0.85, 0.32),
            Kind::CrazyPaving => (0.80, 0.24),
            Kind::Consolidation => (0.80, 0.12),
            Kind::Nodule => (0.15, 0.20),
        };
        let distance = length([along, across, dz / self.radii[2]]);
        // The outline leaves the middle alone: a lesion that was placed is there.
        let ragged = ragged * smoothstep(0.0, 0.6, distance);
        let distance = distance + ragged * noise::fractal(self.seed, place, 1.3 / self.radii[0], 4);
        smoothstep(1.0 + soft, 1.0 - soft, distance)
    }

    /// The density of lung tissue of density `lung` where the lesion has this share.
    pub(super) fn density(&self, place: [f64; 3], lung: f64, share: f64) -> f64 {
        let grain = noise::fractal(self.seed ^ 7, place, 14.0, 3);
        let [x, y, _] = place;
        match self.kind {
            Kind::GroundGlass => lung + share * self.density * (1.0 + 0.35 * grain),
            Kind::CrazyPaving => {
                let wobble = 0.25 * grain;
                let net =
                    smoothstep(0.13, 0.03, noise::wall(self.seed, 40.0 * x + 2.0 * wobble, 40.0 * y - 2.0 * wobble));
                lung + share * (self.density * (1.0 + 0.2 * grain) + 170.0 * net)
            }
            Kind::Consolidation => lerp(lung, self.density + 70.0 * grain, share),
            Kind::Nodule => lerp(lung, self.density, share),
        }
    }
}

fn lesion_key(centre: [f64; 3]) -> u64 {
    centre.iter().fold(0, |key: u64, part| key.rotate_left(21) ^ part.to_bits())
}

/// A place in the lungs of slice `z`: most under the pleura and more at the back than at the front.
fn place(anatomy: &Anatomy, z: f64, peripheral: bool, rng: &mut ChaCha8Rng) -> Option<[f64; 3]> {
    let wanted = |x: f64, y: f64, dice: f64| {
        let level = anatomy.lung([x, y, z]);
        let outer = !peripheral || x.abs() > 0.3;
        let likely = if anatomy.depth(y) > -0.1 { 1.0 } else { 0.35 };
        level > 0.02 && (!peripheral || level < 0.11) && outer && dice < likely
    };
    (0..2000).find_map(|_| {
        let [x, y, _] = anatomy::anywhere(anatomy, rng);
        wanted(x, y, unit(rng)).then_some([x, y, z])
    })
}

/// Benign findings: density that gravity makes at the back, and a calcified nodule. Neither is lesion.
pub(super) struct Distractors {
    gravity: f64,
    calcified: Option<[f64; 4]>,
}

impl Distractors {
    pub(super) fn draw(anatomy: &Anatomy, slices: &[f64], healthy: bool, rng: &mut ChaCha8Rng) -> Self {
        let gravity = between(rng, 0.0, 1.0) * if healthy { 300.0 } else { 180.0 };
        let z = slices.get(below(rng, slices.len() as u64) as usize).copied().unwrap_or(0.5);
        let nodule = unit(rng) < if healthy { 0.7 } else { 0.4 };
        let centre = place(anatomy, z, false, rng).filter(|_| nodule);
        let radius = between(rng, 0.012, 0.022);
        Distractors { gravity, calcified: centre.map(|[x, y, z]| [x, y, z, radius]) }
    }

    /// Density added to lung tissue; `level` is that of the lung there.
    pub(super) fn add(&self, anatomy: &Anatomy, [x, y, _]: [f64; 3], level: f64) -> f64 {
        let back = smoothstep(0.35, 0.85, anatomy.depth(y) + 0.05 * (9.0 * x).sin());
        self.gravity * back * smoothstep(0.13, 0.0, level)
    }

    /// How much of the calcified nodule is at a place, 0..1.
    pub(super) fn calcified(&self, place: [f64; 3], pixel: f64) -> f64 {
        self.calcified.map_or(0.0, |[x, y, z, radius]| {
            let distance = length([place[0] - x, place[1] - y, place[2] - z]);
            smoothstep(-0.5 * pixel, 0.5 * pixel, radius - distance)
        })
    }
}
