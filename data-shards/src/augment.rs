//! Random changes of a sample: crop, flips, brightness and contrast.
//!
//! Duty: draw what to do with a sample from (seed, epoch, index) alone, and the arithmetic of brightness. Must not: depend
//! on the thread, the rank or the samples before; switching one augmentation off leaves the draws of the others alone.

use crate::decode::Rgb;
use crate::resize::Rect;
use crate::rng;

/// What may happen to a sample, and how likely.
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    /// Largest share of a side cut from each edge (of the width from left and right, of the height from top and bottom),
    /// then resized back. 0.5 and more leave at least one pixel.
    pub crop: f64,
    /// Probability of the crop.
    pub crop_probability: f64,
    /// Probability of turning top to bottom.
    pub flip_vertical: f64,
    /// Probability of turning left to right.
    pub flip_horizontal: f64,
    /// Brightness is multiplied by 1 ± up to this.
    pub brightness: f64,
    /// Contrast about the image's mean is multiplied by 1 ± up to this.
    pub contrast: f64,
}

impl Augment {
    /// Nothing happens.
    pub const NONE: Augment = Augment {
        crop: 0.0,
        crop_probability: 0.0,
        flip_vertical: 0.0,
        flip_horizontal: 0.0,
        brightness: 0.0,
        contrast: 0.0,
    };

    /// As the official code: up to 7/224 cut from each side with probability 0.5, top to bottom with probability 0.5.
    /// (There both bounds come from the width; here that of the height comes from the height.)
    pub const OFFICIAL: Augment =
        Augment { crop: 7.0 / 224.0, crop_probability: 0.5, flip_vertical: 0.5, ..Augment::NONE };

    /// Draws what happens to sample `index` in this epoch: always seven numbers in one order.
    pub fn draw(&self, seed: u64, epoch: u64, index: usize) -> Draw {
        let mut rng = rng::stream(b"augment\0", seed, epoch, index as u64);
        let [crop, crop_x, crop_y, vertical, horizontal, brightness, contrast] =
            std::array::from_fn(|_| rng::unit(&mut rng));
        let share = if crop < self.crop_probability { self.crop.max(0.0) } else { 0.0 };
        Draw {
            share,
            crop_x,
            crop_y,
            flip_vertical: vertical < self.flip_vertical,
            flip_horizontal: horizontal < self.flip_horizontal,
            brightness: 1.0 + self.brightness * (2.0 * brightness - 1.0),
            contrast: 1.0 + self.contrast * (2.0 * contrast - 1.0),
        }
    }
}

/// What happens to one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Draw {
    share: f64,
    crop_x: f64,
    crop_y: f64,
    /// Whether to turn top to bottom.
    pub flip_vertical: bool,
    /// Whether to turn left to right.
    pub flip_horizontal: bool,
    /// Factor of brightness.
    pub brightness: f64,
    /// Factor of contrast about the mean.
    pub contrast: f64,
}

impl Draw {
    /// The part of a `width` x `height` image that is kept: one offset for left and right, one for top and bottom.
    pub fn rect(&self, width: usize, height: usize) -> Rect {
        let (left, top) = (offset(self.share, self.crop_x, width), offset(self.share, self.crop_y, height));
        Rect { left, top, width: width - 2 * left, height: height - 2 * top }
    }

    /// A window of this (width, height) in an image of that: in the middle, or anywhere where the crop was drawn.
    pub(crate) fn window(&self, (width, height): (usize, usize), window: (usize, usize)) -> Rect {
        let place = |draw: f64, length: usize, part: usize| {
            let room = length.saturating_sub(part);
            // The middle is rounded as Python does: halves to the even neighbour.
            let middle = (room as f64 / 2.0).round_ties_even() as usize;
            if self.share > 0.0 { ((draw * (room as f64 + 1.0)) as usize).min(room) } else { middle }
        };
        let (left, top) = (place(self.crop_x, width, window.0), place(self.crop_y, height, window.1));
        Rect { left, top, width: window.0.min(width), height: window.1.min(height) }
    }

    /// Brightness, then contrast about the image's mean, clamped to 0..1; nothing where both factors are 1.
    pub fn shade(&self, image: &mut Rgb) {
        if self.brightness == 1.0 && self.contrast == 1.0 || image.data.is_empty() {
            return;
        }
        let mean = image.data.iter().map(|&value| f64::from(value)).sum::<f64>() / image.data.len() as f64;
        let factor = (self.brightness * self.contrast) as f32;
        let shift = (mean * self.brightness * (1.0 - self.contrast)) as f32;
        for value in &mut image.data {
            *value = (*value * factor + shift).clamp(0.0, 1.0);
        }
    }
}

/// A whole number of pixels, uniform in 0..=floor(share x length), so small that a pixel is left.
fn offset(share: f64, draw: f64, length: usize) -> usize {
    let largest = ((share * length as f64 + 1e-9) as usize).min(length.saturating_sub(1) / 2);
    ((draw * (largest as f64 + 1.0)) as usize).min(largest)
}

/// Share of the first of two samples that are mixed, from Beta(alpha, alpha): a function of seed, step and the number of
/// the micro-batch. By Jöhnk's method, which takes 1 draw in 70 where `alpha` is 4, and hardly any far above.
pub fn mixing_share(alpha: f64, seed: u64, step: u64, micro_batch: u64) -> f64 {
    let mut rng = rng::stream(b"mixing\0\0", seed, step, micro_batch);
    // Bounded for any alpha.
    for _ in 0..10_000 {
        let [x, y] = [(); 2].map(|()| rng::unit(&mut rng).powf(1.0 / alpha));
        if x + y > 0.0 && x + y <= 1.0 {
            return x / (x + y);
        }
    }
    0.5
}
