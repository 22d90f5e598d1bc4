//! Random changes of a sample: crop, flips, scale, rotation, brightness, contrast and noise.
//!
//! Duty: draw what to do with a sample from (seed, epoch, index) alone. Must not: touch pixels, or depend on the thread, the
//! rank or the samples before; switching one augmentation off leaves the draws of the others alone.

use rand_chacha::rand_core::Rng as _;

use crate::affine::Change;
use crate::noise::Noise;
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
    /// The part that is kept is enlarged by 1 ± up to this about its middle.
    pub scale: f64,
    /// Degrees by up to which it is turned about its middle, either way.
    pub rotation: f64,
    /// Largest standard deviation of the Gaussian noise that is added to the 0..1 image at the network's size; each sample's
    /// is uniform between 0 and this.
    pub noise: f64,
}

/// Factors by which a part is enlarged, whatever was drawn: what was asked for may be more than there can be.
const SCALES: (f64, f64) = (0.05, 20.0);

impl Augment {
    /// Nothing happens.
    pub const NONE: Augment = Augment {
        crop: 0.0,
        crop_probability: 0.0,
        flip_vertical: 0.0,
        flip_horizontal: 0.0,
        brightness: 0.0,
        contrast: 0.0,
        scale: 0.0,
        rotation: 0.0,
        noise: 0.0,
    };

    /// As the official code: up to 7/224 cut from each side with probability 0.5, top to bottom with probability 0.5.
    /// (There both bounds come from the width; here that of the height comes from the height.)
    pub const OFFICIAL: Augment =
        Augment { crop: 7.0 / 224.0, crop_probability: 0.5, flip_vertical: 0.5, ..Augment::NONE };

    /// Draws what happens to sample `index` in this epoch: always eleven numbers in one order.
    pub fn draw(&self, seed: u64, epoch: u64, index: usize) -> Draw {
        let mut rng = rng::stream(b"augment\0", seed, epoch, index as u64);
        let [crop, crop_x, crop_y, vertical, horizontal, brightness, contrast] =
            std::array::from_fn(|_| rng::unit(&mut rng));
        // What came later is drawn later, so that runs without it stay as they were.
        let [scale, rotation, noise] = std::array::from_fn(|_| rng::unit(&mut rng));
        let grain = rng.next_u64();
        let share = if crop < self.crop_probability { self.crop.max(0.0) } else { 0.0 };
        Draw {
            share,
            crop_x,
            crop_y,
            flip_vertical: vertical < self.flip_vertical,
            flip_horizontal: horizontal < self.flip_horizontal,
            brightness: 1.0 + self.brightness * (2.0 * brightness - 1.0),
            contrast: 1.0 + self.contrast * (2.0 * contrast - 1.0),
            scale: (1.0 + self.scale * (2.0 * scale - 1.0)).clamp(SCALES.0, SCALES.1),
            rotation: self.rotation * (2.0 * rotation - 1.0),
            noise: self.noise.max(0.0) * noise,
            grain,
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
    /// Factor by which the part that is kept is enlarged.
    pub scale: f64,
    /// Degrees by which it is turned, counter-clockwise.
    pub rotation: f64,
    /// Standard deviation of the noise.
    pub noise: f64,
    grain: u64,
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

    /// Flips, rotation and scale; none where flips are all.
    pub(crate) fn change(&self) -> Option<Change> {
        let Draw { scale, rotation, flip_vertical, flip_horizontal, .. } = *self;
        let turned = (scale != 1.0 || rotation != 0.0) && scale.is_finite() && rotation.is_finite();
        turned.then_some(Change { rotation, scale, flip_vertical, flip_horizontal })
    }

    /// The noise to add; none where it has no strength.
    pub(crate) fn grain(&self) -> Option<Noise> {
        (self.noise > 0.0).then_some(Noise { key: self.grain, strength: self.noise as f32 })
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
