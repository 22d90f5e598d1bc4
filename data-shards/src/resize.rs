//! Resampling as the official code does it with OpenCV.
//!
//! Duty: a rectangle of an image to another size in one pass, row by row. Must not: know about lesions or normalisation.

use crate::decode::{Mask, Rgb};

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
    bilinear_rows(image, rect, height, width, |_, row| data.extend_from_slice(row));
    Rgb { width, height, data }
}

/// As [`bilinear`], handing each output row (width x 3 interleaved) to `deliver` with its number, top to bottom.
pub fn bilinear_rows(image: &Rgb, rect: Rect, height: usize, width: usize, mut deliver: impl FnMut(usize, &[f32])) {
    if rect.width == 0 || rect.height == 0 {
        return;
    }
    let columns = taps(rect.width, width);
    let mut rows = RowCache {
        image,
        rect,
        columns: &columns,
        held: [None; 2],
        rows: [vec![0.0; width * 3], vec![0.0; width * 3]],
    };
    let mut out = vec![0.0; width * 3];
    for (y, tap) in taps(rect.height, height).into_iter().enumerate() {
        let (first, second) = rows.pair(tap.first, tap.second);
        for ((out, &first), &second) in out.iter_mut().zip(first).zip(second) {
            *out = first * (1.0 - tap.weight) + second * tap.weight;
        }
        deliver(y, &out);
    }
}

/// Resizes `rect` of `mask` to `height` x `width`, row-major: nearest, source = floor(output x (source length / output
/// length)), clamped.
pub fn nearest(mask: &Mask, rect: Rect, height: usize, width: usize) -> Vec<u8> {
    if rect.width == 0 || rect.height == 0 {
        return vec![0; height * width];
    }
    let columns = nearest_sources(rect.width, width);
    let mut out = Vec::with_capacity(height * width);
    for y in nearest_sources(rect.height, height) {
        let row = &mask.data[(rect.top + y) * mask.width + rect.left..][..rect.width];
        out.extend(columns.iter().map(|&x| row[x]));
    }
    out
}

/// Source rows already resized in width; neighbouring output rows share them.
struct RowCache<'a> {
    image: &'a Rgb,
    rect: Rect,
    columns: &'a [Tap],
    held: [Option<usize>; 2],
    rows: [Vec<f32>; 2],
}

impl RowCache<'_> {
    fn pair(&mut self, first: usize, second: usize) -> (&[f32], &[f32]) {
        if self.held[0] != Some(first) && self.held[1] == Some(first) {
            self.held.swap(0, 1);
            self.rows.swap(0, 1);
        }
        for (slot, y) in [first, second].into_iter().enumerate() {
            if self.held[slot] != Some(y) {
                self.fill(slot, y);
            }
        }
        (&self.rows[0], &self.rows[1])
    }

    fn fill(&mut self, slot: usize, y: usize) {
        let start = ((self.rect.top + y) * self.image.width + self.rect.left) * 3;
        let source = &self.image.data[start..start + self.rect.width * 3];
        for (out, tap) in self.rows[slot].chunks_exact_mut(3).zip(self.columns) {
            let (first, second) = (&source[tap.first * 3..][..3], &source[tap.second * 3..][..3]);
            for channel in 0..3 {
                out[channel] = first[channel] * (1.0 - tap.weight) + second[channel] * tap.weight;
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
