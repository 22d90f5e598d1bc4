//! The chest of one patient as fields over space.
//!
//! Duty: what tissue is where, outside lesions and lung vessels. Must not: rasterise or know lesions.
//!
//! Coordinates: x to the image's right and y down in -1..1 over the image, z in 0..1 from the upper to the lower slice and of
//! the same scale. Shapes are levels: about the distance to the border, positive inside. Densities are in Hounsfield units.

use rand_chacha::ChaCha8Rng;

use super::noise::{self, length};
use crate::rng::{between, unit};

pub(super) const AIR: f64 = -1000.0;
const FAT: f64 = -95.0;
const MUSCLE: f64 = 48.0;

/// What differs from patient to patient.
pub(super) struct Anatomy {
    seed: u64,
    body: [f64; 2],
    roundness: f64,
    fat: f64,
    centre_y: f64,
    cage: [f64; 2],
    heart: [f64; 2],
    heart_x: f64,
    aorta: f64,
    ribs: f64,
    liver: f64,
    table: f64,
}

impl Anatomy {
    pub(super) fn draw(seed: u64, rng: &mut ChaCha8Rng) -> Self {
        let size = between(rng, 0.84, 0.95);
        let fat = between(rng, 0.03, 0.085);
        let body = [size, size * between(rng, 0.72, 0.84)];
        let wall = fat + between(rng, 0.075, 0.095);
        Anatomy {
            seed,
            body,
            roundness: between(rng, 2.2, 2.6),
            fat,
            centre_y: between(rng, -0.04, 0.05),
            cage: [body[0] - wall, body[1] - wall - 0.005],
            heart: [between(rng, 0.22, 0.28), between(rng, 0.20, 0.25)],
            heart_x: between(rng, 0.06, 0.12),
            aorta: between(rng, 0.06, 0.085),
            ribs: unit(rng),
            liver: between(rng, 0.72, 0.95),
            table: between(rng, 0.04, 0.08),
        }
    }

    /// Level of the skin.
    pub(super) fn body(&self, [x, y, z]: [f64; 3]) -> f64 {
        let ripple = 0.030 * noise::smooth(self.seed ^ 1, [1.6 * x, 1.6 * y, 0.5 * z]);
        superellipse([x, y - self.centre_y], self.body, self.roundness) + ripple
    }

    /// Level of the lungs: inside the rib cage and outside what lies between them.
    pub(super) fn lung(&self, place: [f64; 3]) -> f64 {
        let pleura = 0.026 * noise::fractal(self.seed ^ 2, place, 2.6, 3);
        -smooth_max(-self.rib_cage(place), self.mediastinum(place), 0.035) + pleura
    }

    fn rib_cage(&self, [x, y, z]: [f64; 3]) -> f64 {
        // The chest widens from the apex down.
        let widening = 0.86 + 0.14 * (3.0 * z + 0.25).min(1.0);
        superellipse([x, y - self.centre_y], self.cage.map(|side| side * widening), 2.3)
    }

    /// Where the lungs' vessels and airways enter, by side (-1 or 1).
    pub(super) fn hilum(&self, side: f64) -> [f64; 3] {
        [side * 0.19 + 0.03, self.centre_y + 0.06, 0.45]
    }

    fn heart_shape(&self, [x, y, z]: [f64; 3]) -> f64 {
        let growth = 0.55 + 0.55 * smoothstep(0.15, 0.75, z);
        let bulge = 0.035 * noise::smooth(self.seed ^ 3, [3.0 * x, 3.0 * y, 2.0 * z]);
        let centre = [self.heart_x + 0.06 * z, self.centre_y - 0.13 + 0.02 * z];
        ellipse([x, y], centre, self.heart.map(|side| side * growth)) + bulge
    }

    fn aorta(&self, [x, y, _]: [f64; 3]) -> f64 {
        self.aorta - length([x - 0.14, y - self.spine_y() + 0.12])
    }

    fn spine_y(&self) -> f64 {
        self.centre_y + 0.80 * self.cage[1]
    }

    fn mediastinum(&self, place: [f64; 3]) -> f64 {
        let [x, y, _] = place;
        let column = ellipse([x, y], [0.02, self.centre_y - 0.02], [0.13, self.cage[1] * 0.98]);
        let spine = ellipse([x, y], [0.0, self.spine_y() + 0.06], [0.20, 0.21]);
        let vessels = ellipse([x, y], [0.03, self.centre_y - 0.02], [0.22, 0.17]);
        let round_spine = smooth_max(smooth_max(column, spine, 0.05), self.aorta(place) + 0.012, 0.04);
        let middle = smooth_max(smooth_max(self.heart_shape(place) + 0.015, vessels, 0.06), round_spine, 0.06);
        smooth_max(middle, self.dome(place), 0.02)
    }

    /// The liver under the right half of the diaphragm (on the image's left).
    fn dome(&self, [x, y, z]: [f64; 3]) -> f64 {
        let below = z - self.liver;
        if below <= 0.0 {
            return -1.0;
        }
        let radius = (1.4 * below).sqrt();
        ellipse([x, y], [-0.42, self.centre_y - 0.02], [0.85 * radius, 0.80 * radius])
    }

    /// Density of everything but lung tissue.
    pub(super) fn around_lungs(&self, place: [f64; 3]) -> f64 {
        let skin = self.body(place);
        if skin <= 0.0 {
            return self.outside(place, skin);
        }
        let grain = 14.0 * noise::fractal(self.seed ^ 4, place, 9.0, 2);
        let [bone, strength] = self.bone(place);
        let soft = if self.rib_cage(place) > 0.0 { self.inside(place) } else { self.wall(place, skin) };
        lerp(soft + grain, bone + 3.0 * grain, strength)
    }

    fn outside(&self, [x, y, _]: [f64; 3], skin: f64) -> f64 {
        let table = self.centre_y + self.body[1] + self.table - 0.16 * x * x;
        let surface = (y - table).abs();
        if skin < -0.004 && surface < 0.009 && x.abs() < 0.9 { -480.0 } else { AIR }
    }

    fn wall(&self, place: [f64; 3], skin: f64) -> f64 {
        let muscle = smoothstep(-0.006, 0.006, skin - self.fat);
        let planes = smoothstep(0.25, 0.45, noise::fractal(self.seed ^ 5, place, 5.0, 2));
        let rim = smoothstep(0.010, 0.004, skin);
        lerp(FAT, lerp(MUSCLE, FAT, planes), muscle) + rim * (10.0 - FAT) * (1.0 - muscle)
    }

    fn inside(&self, place: [f64; 3]) -> f64 {
        let [x, y, z] = place;
        let organs = smooth_max(self.heart_shape(place), self.aorta(place), 0.005).max(self.dome(place));
        let superior = 0.055 - length([x + 0.10, y - self.centre_y + 0.10]);
        let pulmonary = ellipse([x, y], [0.02, self.centre_y + 0.03], [0.20, 0.055]) - 0.3 * (z - 0.45).abs();
        let spine = ellipse([x, y], [0.0, self.spine_y() + 0.06], [0.17, 0.17]);
        let vessel = organs.max(superior).max(pulmonary).max(spine);
        let tissue = lerp(FAT, MUSCLE, smoothstep(-0.005, 0.005, vessel));
        self.airway(place).map_or(tissue, |[level, wall]| {
            let walled = lerp(tissue, 20.0, smoothstep(-wall, 0.0, level));
            lerp(walled, AIR + 20.0, smoothstep(-0.003, 0.006, level))
        })
    }

    /// Level and wall thickness of the trachea, or of the main bronchi below its fork.
    fn airway(&self, [x, y, z]: [f64; 3]) -> Option<[f64; 2]> {
        let y = y - self.centre_y - 0.075;
        if z < 0.32 {
            return Some([0.052 - length([x - 0.01, y]), 0.014]);
        }
        let spread = 0.05 + 0.45 * (z - 0.32);
        (spread < 0.21).then(|| {
            let left = ellipse([x, y], [0.01 - spread, 0.0], [0.048, 0.038]);
            [left.max(ellipse([x, y], [0.01 + spread, 0.0], [0.044, 0.036])), 0.012]
        })
    }

    /// Density of bone and how much of it there is.
    fn bone(&self, place: [f64; 3]) -> [f64; 2] {
        let [x, y, z] = place;
        let at = y - self.spine_y();
        let vertebra = ellipse([x, at], [0.0, 0.02], [0.13, 0.105]);
        let process = ellipse([x, at], [0.0, 0.245], [0.022, 0.085]);
        let [across, along] = [x.abs(), at - 0.135];
        let arch = ellipse([across - 0.085, along - 0.25 * (across - 0.085)], [0.0, 0.0], [0.10, 0.026]);
        let lamina = ellipse([across - 0.035, along - 0.045 + 0.5 * (across - 0.035)], [0.0, 0.0], [0.05, 0.018]);
        let sternum = ellipse([x, y], [0.0, self.centre_y - self.cage[1] - 0.03], [0.13, 0.028]);
        let canal = 0.05 - length([x, at - 0.155]);
        let level = vertebra.max(process).max(arch).max(lamina).max(sternum).max(self.rib(place)).min(-canal);
        let cortex = smoothstep(0.020, 0.008, level);
        let marrow = 190.0 + 60.0 * noise::fractal(self.seed ^ 6, [x, y, z], 22.0, 2);
        [lerp(marrow, 620.0, cortex), smoothstep(-0.004, 0.004, level)]
    }

    /// Ribs cross the slice at a slant: short arcs that wander along the chest wall from slice to slice.
    fn rib(&self, place: [f64; 3]) -> f64 {
        let [x, y, z] = place;
        let angle = x.abs().atan2(y - self.centre_y);
        let phase = angle / 0.43 + self.ribs + 0.9 * z + if x < 0.0 { 0.35 } else { 0.0 };
        let along = (phase - phase.round()) * 0.43 / 0.115;
        if !(0.35..2.75).contains(&angle) {
            return -1.0;
        }
        let across = (self.rib_cage(place) + 0.042 + 0.012 * along) / 0.025;
        0.025 * (1.0 - length([along, across]))
    }
}

/// A random place within the rib cage; z in 0..1.
pub(super) fn anywhere(anatomy: &Anatomy, rng: &mut ChaCha8Rng) -> [f64; 3] {
    let x = anatomy.cage[0] * between(rng, -1.0, 1.0);
    let y = anatomy.centre_y + anatomy.cage[1] * between(rng, -1.0, 1.0);
    [x, y, unit(rng)]
}

impl Anatomy {
    /// How much of the thin line between two lobes is at a place of the lungs, 0..1.
    pub(super) fn fissure(&self, place: [f64; 3], pixel: f64) -> f64 {
        let [x, y, z] = place;
        let slant = 0.55 * (0.55 - z) + if x < 0.0 { 0.06 } else { 0.0 };
        let bend = 0.07 * noise::fractal(self.seed ^ 8, place, 3.0, 2) - 0.25 * (x.abs() - 0.4);
        let distance = (y - self.centre_y - slant - bend).abs();
        smoothstep(0.004 + 0.6 * pixel, 0.002, distance)
    }

    /// Height of a place in the chest: -1 at the front, 1 at the back.
    pub(super) fn depth(&self, y: f64) -> f64 {
        (y - self.centre_y) / self.cage[1]
    }
}

fn ellipse([x, y]: [f64; 2], [cx, cy]: [f64; 2], [a, b]: [f64; 2]) -> f64 {
    a.min(b) * (1.0 - length([(x - cx) / a, (y - cy) / b]))
}

fn superellipse([x, y]: [f64; 2], [a, b]: [f64; 2], power: f64) -> f64 {
    a.min(b) * (1.0 - ((x / a).abs().powf(power) + (y / b).abs().powf(power)).powf(1.0 / power))
}

fn smooth_max(a: f64, b: f64, blend: f64) -> f64 {
    let h = (blend - (a - b).abs()).max(0.0) / blend;
    a.max(b) + 0.25 * h * h * blend
}

pub(super) fn lerp(a: f64, b: f64, t: f64) -> f64 {
    a + (b - a) * t
}

/// 0 at `from`, 1 at `to`, smooth between; `from` may be the larger.
pub(super) fn smoothstep(from: f64, to: f64, value: f64) -> f64 {
    let t = ((value - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
