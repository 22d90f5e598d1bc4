//! Resampling as the official code does it with OpenCV.
//!
//! Duty: a rectangle of an image to another size in one pass, row by row. Must not: know about lesions or normalisation.

use crate::decode::{Mask, Rgb};
use crate::tone::Toned;

/// A part of an image, in pixels; always within the image it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// The whole of an image.
    pub fn whole(width: usize, height: usize) -> Self {
        Rect { left: 0, top: 0, width, height }
    }
}

/// Where one output pixel reads: two neighbours and the weight of the second.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

/// Resizes `rect` of `image` to `height` x `width` (interleaved, 3 channels): bilinear with half-pixel centres, no
/// antialiasing, edges clamped at the rectangle, as OpenCV's `INTER_LINEAR`.
pub fn bilinear(image: &Rgb, rect: Rect, height: usize, width: usize) -> Rgb {
    let mut data = Vec::with_capacity(height * width * 3);
    bilinear_rows(&Toned::of_rgb(image), rect, height, width, |_, row| {
        let (red, rest) = row.split_at(width);
        let (green, blue) = rest.split_at(width);
        data.extend(red.iter().zip(green).zip(blue).flat_map(|((&red, &green), &blue)| [red, green, blue]));
    });
    Rgb { width, height, data }
}

/// Resizes as [`bilinear`] does, handing each output row (channels x width) to `deliver` with its number, top to bottom.
pub(crate) fn bilinear_rows(
    image: &Toned,
    rect: Rect,
    height: usize,
    width: usize,
    mut deliver: impl FnMut(usize, &mut [f32]),
) {
    if rect.width == 0 || rect.height == 0 || width == 0 {
        return;
    }
    let mut rows = RowCache::new(image, rect, width);
    let mut out = vec![0.0; width * image.channels];
    for (y, tap) in taps(rect.height, height).into_iter().enumerate() {
        let (first, second) = rows.pair(tap);
        if tap.weight == 0.0 {
            out.copy_from_slice(first);
        } else {
            let rest = 1.0 - tap.weight;
            for ((out, &first), &second) in out.iter_mut().zip(first).zip(second) {
                *out = first * rest + second * tap.weight;
            }
        }
        deliver(y, &mut out);
    }
}

/// Resizes `rect` of `mask` to `height` x `width`, row-major: nearest, source = floor(output x (source length / output
/// length)), clamped.
pub fn nearest(mask: &Mask, rect: Rect, height: usize, width: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(height * width);
    nearest_rows(mask, rect, height, width, |_, row| out.extend_from_slice(row));
    out
}

/// As [`nearest`], handing each output row to `deliver` with its number, top to bottom. Of nothing all pixels are 0.
pub(crate) fn nearest_rows(
    mask: &Mask,
    rect: Rect,
    height: usize,
    width: usize,
    mut deliver: impl FnMut(usize, &[u8]),
) {
    let mut out = vec![0; width];
    if rect.width == 0 || rect.height == 0 {
        return (0..height).for_each(|y| deliver(y, &out));
    }
    let columns = (rect.width != width).then(|| nearest_sources(rect.width, width));
    let mut held = None;
    for (at, y) in nearest_sources(rect.height, height).into_iter().enumerate() {
        let row = &mask.data[(rect.top + y) * mask.width + rect.left..][..rect.width];
        match &columns {
            None => out.copy_from_slice(row),
            Some(_) if held == Some(y) => {}
            Some(columns) => out.iter_mut().zip(columns).for_each(|(out, &x)| *out = row[x]),
        }
        held = Some(y);
        deliver(at, &out);
    }
}

/// Source rows already resized in width; neighbouring output rows share them.
struct RowCache<'a> {
    image: &'a Toned<'a>,
    rect: Rect,
    /// None where the width stays as it is.
    columns: Option<Vec<Tap>>,
    held: [Option<usize>; 2],
    /// Channels x width.
    rows: [Vec<f32>; 2],
    /// A row of one channel before it is resized.
    source: Vec<f32>,
}

impl RowCache<'_> {
    fn new<'a>(image: &'a Toned<'a>, rect: Rect, width: usize) -> RowCache<'a> {
        let columns = (rect.width != width).then(|| taps(rect.width, width));
        let rows = [(); 2].map(|()| vec![0.0; width * image.channels]);
        RowCache { image, rect, columns, held: [None; 2], rows, source: vec![0.0; rect.width] }
    }

    /// The rows that a tap reads; the second only where it has a weight.
    fn pair(&mut self, tap: Tap) -> (&[f32], &[f32]) {
        if self.held[0] != Some(tap.first) && self.held[1] == Some(tap.first) {
            self.held.swap(0, 1);
            self.rows.swap(0, 1);
        }
        let wanted = if tap.weight == 0.0 { 1 } else { 2 };
        for (slot, y) in [tap.first, tap.second].into_iter().enumerate().take(wanted) {
            if self.held[slot] != Some(y) {
                self.fill(slot, y);
            }
        }
        (&self.rows[0], &self.rows[1])
    }

    fn fill(&mut self, slot: usize, y: usize) {
        let row = &mut self.rows[slot];
        let width = row.len() / self.image.channels;
        for (channel, out) in row.chunks_exact_mut(width).enumerate() {
            let Some(columns) = &self.columns else {
                self.image.row(channel, self.rect.top + y, self.rect.left, out);
                continue;
            };
            let source = &mut self.source[..];
            self.image.row(channel, self.rect.top + y, self.rect.left, source);
            for (out, tap) in out.iter_mut().zip(columns) {
                *out = source[tap.first] * (1.0 - tap.weight) + source[tap.second] * tap.weight;
            }
        }
        self.held[slot] = Some(y);
    }
}

/// `source` must not be 0.
fn taps(source: usize, target: usize) -> Vec<Tap> {
    let scale = source as f64 / target as f64;
    let last = source - 1;
    let tap = |at: usize| {
        // Float after the subtraction, as OpenCV does it.
        let position = ((at as f64 + 0.5) * scale - 0.5) as f32;
        let floor = position.floor();
        if floor < 0.0 {
            return Tap { first: 0, second: 0, weight: 0.0 };
        }
        let first = (floor as usize).min(last);
        let weight = if first == last { 0.0 } else { position - floor };
        Tap { first, second: (first + 1).min(last), weight }
    };
    (0..target).map(tap).collect()
}

fn nearest_sources(source: usize, target: usize) -> Vec<usize> {
    let scale = source as f64 / target as f64;
    (0..target).map(|at| ((at as f64 * scale) as usize).min(source - 1)).collect()
}
