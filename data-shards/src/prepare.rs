//! From decoded pixels to what the network receives.
//!
//! Duty: crop, resize, turn, add noise, normalise or round, and flip, of image, mask and features alike. Must not: read files.

use crate::affine::{Affine, Change};
use crate::augment::Draw;
use crate::dataset::{Fit, Geometry, PixelType, Pixels, Sample};
use crate::decode::{Image, Mask};
use crate::features::Features;
use crate::noise::Noise;
use crate::resize::{self, Rect};
use crate::thumbnail;
use crate::tone::{Tone, Toned};

/// Memory to write a sample into; whatever it holds is overwritten.
#[derive(Default)]
pub(crate) struct Buffers {
    floats: Vec<f32>,
    bytes: Vec<u8>,
    pub(crate) mask: Vec<u8>,
}

impl Buffers {
    /// Those of a sample that is no longer needed.
    pub(crate) fn of(sample: Option<Sample>) -> Buffers {
        let Some(Sample { image, mask, .. }) = sample else { return Buffers::default() };
        match image {
            Pixels::None => Buffers { mask, ..Buffers::default() },
            Pixels::Float(floats) => Buffers { floats, mask, ..Buffers::default() },
            Pixels::Byte { values, .. } => Buffers { bytes: values, mask, ..Buffers::default() },
        }
    }
}

/// Image and mask at the geometry's size. Without a mask all its pixels are 0.
pub(crate) fn pixels(
    image: &Image,
    mask: Option<&Mask>,
    draw: &Draw,
    geometry: &Geometry,
    spare: Buffers,
) -> (Pixels, Vec<u8>) {
    let drawn_mask = self::mask(image, mask, draw, geometry, spare.mask);
    let pixels = match geometry.pixels {
        PixelType::Float => Pixels::Float(normalised(image, draw, geometry, spare.floats)),
        PixelType::Byte => {
            Pixels::Byte { channels: image.channels, values: rounded(image, draw, geometry, spare.bytes) }
        }
    };
    (pixels, drawn_mask)
}

/// 3 x height x width, normalised, in the memory of `out`.
pub(crate) fn normalised(image: &Image, draw: &Draw, geometry: &Geometry, out: Vec<f32>) -> Vec<f32> {
    let (plane, width) = (geometry.height * geometry.width, geometry.width);
    let [red, green, blue] = [0, 1, 2].map(|channel| Scale::of(geometry, channel));
    let mut out = sized(out, 3 * plane);
    rows(image, draw, geometry, |y, row| {
        let channels = row.len() / width;
        let source = |channel: usize| &row[channel.min(channels - 1) * width..][..width];
        for (channel, scale) in [red, green, blue].into_iter().enumerate() {
            let target = &mut out[channel * plane + y * width..][..width];
            target.iter_mut().zip(source(channel)).for_each(|(out, &value)| *out = scale.apply(value));
        }
    });
    out
}

/// Channels x height x width, as the nearest of 256 levels, in the memory of `out`.
fn rounded(image: &Image, draw: &Draw, geometry: &Geometry, out: Vec<u8>) -> Vec<u8> {
    let (plane, width) = (geometry.height * geometry.width, geometry.width);
    let mut out = sized(out, image.channels * plane);
    rows(image, draw, geometry, |y, row| {
        for (channel, source) in row.chunks_exact(width).enumerate() {
            let target = &mut out[channel * plane + y * width..][..width];
            target.iter_mut().zip(source).for_each(|(out, &value)| *out = level(value));
        }
    });
    out
}

/// `(value - mean) / std` as one product and sum.
#[derive(Clone, Copy)]
struct Scale {
    factor: f32,
    shift: f32,
}

impl Scale {
    fn of(geometry: &Geometry, channel: usize) -> Scale {
        let (mean, std) = (f64::from(geometry.mean[channel]), f64::from(geometry.std[channel]));
        Scale { factor: (1.0 / std) as f32, shift: (-mean / std) as f32 }
    }

    fn apply(self, value: f32) -> f32 {
        value * self.factor + self.shift
    }
}

/// The nearest level of a value of 0..1. Added to 2^23, a float has no room for fractions, and its lowest bits are the whole
/// number: this way the compiler finds instructions for many pixels at once.
fn level(value: f32) -> u8 {
    (value * 255.0 + 8_388_608.0).to_bits() as u8
}

fn sized<T: Clone + Default>(mut out: Vec<T>, length: usize) -> Vec<T> {
    out.resize(length, T::default());
    out
}

/// Output rows (channels x width) of 0..1 values with their numbers, finished but for the pixel type.
fn rows(image: &Image, draw: &Draw, geometry: &Geometry, deliver: impl FnMut(usize, &mut [f32])) {
    let tone = Tone::of(image, draw.brightness, draw.contrast);
    match geometry.fit {
        Fit::Stretch => {
            let rect = draw.rect(image.width, image.height);
            resampled(&Toned::of(image, tone), rect, draw, geometry, deliver);
        }
        Fit::CentreCrop | Fit::Features(_) => {
            let (tall, wide) = thumbnail::size((image.height, image.width), (geometry.height, geometry.width));
            let small = thumbnail::resize(image, tone, tall, wide);
            let rect = draw.window((wide, tall), (geometry.width, geometry.height));
            resampled(&Toned::of(&small, None), rect, draw, geometry, deliver);
        }
    }
}

fn resampled(image: &Toned, rect: Rect, draw: &Draw, geometry: &Geometry, deliver: impl FnMut(usize, &mut [f32])) {
    let Geometry { height, width, .. } = *geometry;
    let mut finish = Finish { noise: draw.grain(), grain: vec![0.0; width], deliver };
    if let Some(change) = draw.change() {
        // The flips are part of it.
        return Affine::new(rect, (height, width), change).bilinear_rows(image, |y, row| finish.row(y, row));
    }
    let flips = Flips::of(draw);
    resize::bilinear_rows(image, rect, height, width, |y, row| {
        if flips.horizontal {
            row.chunks_exact_mut(width).for_each(<[f32]>::reverse);
        }
        finish.row(flips.row(y, height), row);
    });
}

/// Adds the noise, the same to all channels of a pixel.
struct Finish<D> {
    noise: Option<Noise>,
    grain: Vec<f32>,
    deliver: D,
}

impl<D: FnMut(usize, &mut [f32])> Finish<D> {
    fn row(&mut self, y: usize, row: &mut [f32]) {
        if let Some(noise) = &self.noise {
            noise.row(y, &mut self.grain);
            for channel in row.chunks_exact_mut(self.grain.len()) {
                let grains = channel.iter_mut().zip(&self.grain);
                grains.for_each(|(value, grain)| *value = (*value + grain * noise.strength).clamp(0.0, 1.0));
            }
        }
        (self.deliver)(y, row);
    }
}

/// Turns features, and brings a mask to their size, in the memory of `out`; without one all pixels are 0.
pub(crate) fn featured(features: &mut Features, mask: Option<&Mask>, draw: &Draw, out: Vec<u8>) -> Vec<u8> {
    features.flip(draw.flip_vertical, draw.flip_horizontal);
    let (height, width) = features.size();
    match mask {
        None => zeros(out, height * width),
        Some(mask) => straight(mask, Rect::whole(mask.width, mask.height), Flips::of(draw), (height, width), out),
    }
}

/// The mask as its image is seen, in the memory of `out`.
fn mask(image: &Image, mask: Option<&Mask>, draw: &Draw, geometry: &Geometry, out: Vec<u8>) -> Vec<u8> {
    let size = (geometry.height, geometry.width);
    let Some(mask) = mask else { return zeros(out, size.0 * size.1) };
    match geometry.fit {
        Fit::Stretch => seen_mask(mask, draw.rect(image.width, image.height), draw, size, out),
        Fit::CentreCrop | Fit::Features(_) => {
            let (tall, wide) = thumbnail::size((image.height, image.width), size);
            let data = resize::nearest(mask, Rect::whole(mask.width, mask.height), tall, wide);
            let small = Mask { width: wide, height: tall, data };
            seen_mask(&small, draw.window((wide, tall), (size.1, size.0)), draw, size, out)
        }
    }
}

fn seen_mask(mask: &Mask, rect: Rect, draw: &Draw, size: (usize, usize), mut out: Vec<u8>) -> Vec<u8> {
    let turned = |change: Change| Affine::new(rect, size, change);
    match draw.change().map(turned) {
        None => straight(mask, rect, Flips::of(draw), size, out),
        Some(affine) => {
            affine.nearest(mask, &mut out);
            out
        }
    }
}

fn zeros(mut out: Vec<u8>, length: usize) -> Vec<u8> {
    out.clear();
    out.resize(length, 0);
    out
}

#[derive(Clone, Copy, Default)]
struct Flips {
    vertical: bool,
    horizontal: bool,
}

impl Flips {
    fn of(draw: &Draw) -> Flips {
        Flips { vertical: draw.flip_vertical, horizontal: draw.flip_horizontal }
    }

    fn row(self, y: usize, height: usize) -> usize {
        if self.vertical { height - 1 - y } else { y }
    }
}

/// Crop, resize and flips of a mask.
fn straight(mask: &Mask, rect: Rect, flips: Flips, (height, width): (usize, usize), out: Vec<u8>) -> Vec<u8> {
    let mut out = sized(out, height * width);
    resize::nearest_rows(mask, rect, height, width, |y, row| {
        let target = &mut out[flips.row(y, height) * width..][..width];
        target.copy_from_slice(row);
        if flips.horizontal {
            target.reverse();
        }
    });
    out
}

#[cfg(test)]
mod tests;
