//! Levels of a file to values: 0..1, after brightness and contrast.
//!
//! Duty: rows of an image as values, whatever its depth. Must not: resample, or draw random numbers.

use crate::decode::{self, Image, Levels, Rgb};

/// Brightness and contrast: `value * factor + shift`, clamped to 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tone {
    factor: f32,
    shift: f32,
}

impl Tone {
    /// Brightness, then contrast about the mean of `image`; none where both factors are 1.
    pub(crate) fn of(image: &Image, brightness: f64, contrast: f64) -> Option<Tone> {
        if brightness == 1.0 && contrast == 1.0 {
            return None;
        }
        let factor = (brightness * contrast) as f32;
        let shift = (mean(image) * brightness * (1.0 - contrast)) as f32;
        Some(Tone { factor, shift })
    }

    fn apply(self, value: f32) -> f32 {
        (value * self.factor + self.shift).clamp(0.0, 1.0)
    }
}

/// Of all channels. Exact before the one division, so that a grey image has the same mean with one channel and with three.
fn mean(image: &Image) -> f64 {
    let (sum, count, full): (u64, usize, f64) = match &image.levels {
        Levels::Bytes(levels) => (levels.iter().map(|&level| u64::from(level)).sum(), levels.len(), 255.0),
        Levels::Words(levels) => (levels.iter().map(|&level| u64::from(level)).sum(), levels.len(), 65535.0),
    };
    if count == 0 { 0.0 } else { sum as f64 / (count as f64 * full) }
}

/// The values of the 256 levels of a byte.
pub(crate) fn table(tone: Option<Tone>) -> [f32; 256] {
    let mut table = [0.0; 256];
    for (value, level) in table.iter_mut().zip(0..=u8::MAX) {
        let plain = decode::of_byte(level);
        *value = tone.map_or(plain, |tone| tone.apply(plain));
    }
    table
}

pub(crate) fn of_word(level: u16, tone: Option<Tone>) -> f32 {
    let plain = decode::of_word(level);
    tone.map_or(plain, |tone| tone.apply(plain))
}

/// A value of 0..1 as the nearest of 256 levels.
pub(crate) fn byte(value: f32) -> u8 {
    (value * 255.0).round() as u8
}

/// An image whose values are asked for.
pub(crate) struct Toned<'a> {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 or 3.
    pub(crate) channels: usize,
    pub(crate) values: Values<'a>,
}

/// Where values come from: height x width x channels, interleaved.
pub(crate) enum Values<'a> {
    /// Levels, and the value of each.
    Bytes(&'a [u8], Box<[f32; 256]>),
    Words(&'a [u16], Option<Tone>),
    Floats(&'a [f32]),
}

impl<'a> Toned<'a> {
    pub(crate) fn of(image: &'a Image, tone: Option<Tone>) -> Toned<'a> {
        let values = match &image.levels {
            Levels::Bytes(levels) => Values::Bytes(levels, Box::new(table(tone))),
            Levels::Words(levels) => Values::Words(levels, tone),
        };
        Toned { width: image.width, height: image.height, channels: image.channels, values }
    }

    pub(crate) fn of_rgb(image: &'a Rgb) -> Toned<'a> {
        Toned { width: image.width, height: image.height, channels: 3, values: Values::Floats(&image.data) }
    }

    /// As many values of row `y` from column `left` on as `out` holds, of one channel.
    pub(crate) fn row(&self, channel: usize, y: usize, left: usize, out: &mut [f32]) {
        let start = (y * self.width + left) * self.channels;
        let end = start + out.len() * self.channels;
        match &self.values {
            Values::Bytes(levels, table) => {
                pick(&levels[start..end], self.channels, channel, out, |level| table[usize::from(level)]);
            }
            Values::Words(levels, tone) => {
                pick(&levels[start..end], self.channels, channel, out, |level| of_word(level, *tone));
            }
            Values::Floats(values) => pick(&values[start..end], self.channels, channel, out, |value| value),
        }
    }
}

fn pick<T: Copy>(pixels: &[T], channels: usize, channel: usize, out: &mut [f32], value: impl Fn(T) -> f32) {
    if channels == 1 {
        out.iter_mut().zip(pixels).for_each(|(out, &level)| *out = value(level));
        return;
    }
    out.iter_mut().zip(pixels.chunks_exact(channels)).for_each(|(out, pixel)| *out = value(pixel[channel]));
}
