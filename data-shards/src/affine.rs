//! Turning, scaling, cropping and flipping in one resampling.
//!
//! Duty: where each output pixel lies in the source, and what is there: bilinear for images, nearest for masks, 0 outside of the
//! image. Must not: draw random numbers.

use crate::decode::Mask;
use crate::resize::Rect;
use crate::tone::{self, Toned, Values};

/// Places are whole numbers of so many parts of a pixel.
const BITS: u32 = 24;
const ONE: i64 = 1 << BITS;
/// Within a group, of so many parts, so that they fit into 32 bits and the compiler finds instructions for many at once.
const FINE: u32 = 16;
/// Pixels that are computed together.
const GROUP: usize = 16;
/// Sides from here on do not fit.
const LONG: usize = 1 << (31 - FINE);

/// What is done with the part of an image that is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Change {
    /// Degrees, counter-clockwise.
    pub(crate) rotation: f64,
    /// Above 1 enlarges.
    pub(crate) scale: f64,
    pub(crate) flip_vertical: bool,
    pub(crate) flip_horizontal: bool,
}

/// From output pixels to places in the source, whose pixel centres are whole numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine {
    /// Output height and width.
    size: (usize, usize),
    /// Shares of column, row and 1 in the source's column.
    column: [f64; 3],
    /// Likewise, in the source's row.
    row: [f64; 3],
}

impl Affine {
    /// The part `rect` turned and scaled about its middle, in pixels of the source, then stretched to height x width and flipped.
    pub(crate) fn new(rect: Rect, (height, width): (usize, usize), change: Change) -> Affine {
        let sign = |flip: bool| if flip { -1.0 } else { 1.0 };
        let (sin, cos) = sine_and_cosine(change.rotation);
        // Distances from the middle of the output to distances from the middle of the part.
        let across = sign(change.flip_horizontal) * rect.width as f64 / width as f64 / change.scale;
        let down = sign(change.flip_vertical) * rect.height as f64 / height as f64 / change.scale;
        let to = |along_columns: f64, along_rows: f64, middle: f64| {
            let half = along_columns * (width as f64 - 1.0) / 2.0 + along_rows * (height as f64 - 1.0) / 2.0;
            [along_columns, along_rows, middle - half]
        };
        let middle = |start: usize, length: usize| start as f64 + (length as f64 - 1.0) / 2.0;
        Affine {
            size: (height, width),
            column: to(across * cos, -down * sin, middle(rect.left, rect.width)),
            row: to(across * sin, down * cos, middle(rect.top, rect.height)),
        }
    }

    fn line(&self, y: usize) -> Line {
        let start = |axis: &[f64; 3]| parts(axis[1] * y as f64 + axis[2]);
        Line {
            column: start(&self.column),
            row: start(&self.row),
            columns: parts(self.column[0]),
            rows: parts(self.row[0]),
        }
    }

    /// Hands each output row (channels x width) to `deliver` with its number, top to bottom.
    pub(crate) fn bilinear_rows(&self, image: &Toned, deliver: impl FnMut(usize, &mut [f32])) {
        match &image.values {
            Values::Bytes(levels, table) => self.rows_of(image, |at| table[usize::from(levels[at])], deliver),
            Values::Words(levels, tone) => self.rows_of(image, |at| tone::of_word(levels[at], *tone), deliver),
            Values::Floats(values) => self.rows_of(image, |at| values[at], deliver),
        }
    }

    fn rows_of(&self, image: &Toned, value: impl Fn(usize) -> f32, mut deliver: impl FnMut(usize, &mut [f32])) {
        let (height, width) = self.size;
        if width == 0 {
            return;
        }
        let mut out = vec![0.0; width * image.channels];
        for y in 0..height {
            let line = self.line(y);
            let inside = line.inside(width, (image.width.saturating_sub(1), image.height.saturating_sub(1)));
            for (channel, out) in out.chunks_exact_mut(width).enumerate() {
                let plane = Plane { image, channel, value: &value };
                let (before, rest) = out.split_at_mut(inside.start);
                let (within, after) = rest.split_at_mut(inside.len());
                plane.checked(&line, 0, before);
                plane.within(&line, inside.start, within);
                plane.checked(&line, inside.end, after);
            }
            deliver(y, &mut out);
        }
    }

    /// The nearest pixel of `mask` for each output pixel, row after row.
    pub(crate) fn nearest(&self, mask: &Mask, out: &mut Vec<u8>) {
        let (height, width) = self.size;
        out.clear();
        out.resize(height * width, 0);
        for (y, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
            let mut line = self.line(y);
            line.column = line.column.wrapping_add(ONE / 2);
            line.row = line.row.wrapping_add(ONE / 2);
            let inside = line.inside(width, (mask.width, mask.height));
            for (group, out) in out[inside.clone()].chunks_mut(GROUP).enumerate() {
                let places = line.group(inside.start + group * GROUP);
                let pixels = places.lefts.iter().zip(&places.tops).map(|(&x, &y)| (y as usize, x as usize));
                out.iter_mut().zip(pixels).for_each(|(out, (y, x))| *out = mask.data[y * mask.width + x]);
            }
        }
    }
}

/// The exact values where the turn is by right angles, so that pixels fall on pixels.
fn sine_and_cosine(degrees: f64) -> (f64, f64) {
    match degrees.rem_euclid(360.0) {
        0.0 => (0.0, 1.0),
        90.0 => (1.0, 0.0),
        180.0 => (0.0, -1.0),
        270.0 => (-1.0, 0.0),
        _ => degrees.to_radians().sin_cos(),
    }
}

fn parts(place: f64) -> i64 {
    (place * ONE as f64).round() as i64
}

/// An output row in the source: where it begins, and the way from pixel to pixel.
#[derive(Clone, Copy, Debug)]
struct Line {
    column: i64,
    row: i64,
    columns: i64,
    rows: i64,
}

impl Line {
    fn place(&self, at: usize) -> (i64, i64) {
        let at = at as i64;
        (self.column.wrapping_add(self.columns.wrapping_mul(at)), self.row.wrapping_add(self.rows.wrapping_mul(at)))
    }

    /// The places of the pixels from `first` on, which lie within an image.
    #[inline]
    fn group(&self, first: usize) -> Group {
        let (x, y) = self.place(first);
        let fine = |parts: i64| (parts >> (BITS - FINE)) as i32;
        let (x, y, columns, rows) = (fine(x), fine(y), fine(self.columns), fine(self.rows));
        let mut group = Group { lefts: [0; GROUP], tops: [0; GROUP], across: [0.0; GROUP], down: [0.0; GROUP] };
        for at in 0..GROUP {
            // Beyond the last pixel that is asked for it may wrap, and nothing is read.
            let x = x.wrapping_add(columns.wrapping_mul(at as i32));
            let y = y.wrapping_add(rows.wrapping_mul(at as i32));
            (group.lefts[at], group.tops[at]) = (x >> FINE, y >> FINE);
            (group.across[at], group.down[at]) = (share(x), share(y));
        }
        group
    }

    /// The output pixels that lie between 0 and this (column, row), which are excluded. Those that lie so close to 0 that
    /// a group's steps, which are rounded down, might end below it are left out, too.
    fn inside(&self, count: usize, (width, height): (usize, usize)) -> std::ops::Range<usize> {
        if width >= LONG || height >= LONG {
            return 0..0;
        }
        let margin = (GROUP as i64 + 1) << (BITS - FINE);
        let crossing = |start: i64, step: i64, side: usize| {
            crossing(start.saturating_sub(margin), step, side as i64 * ONE - margin, count)
        };
        let columns = crossing(self.column, self.columns, width);
        let rows = crossing(self.row, self.rows, height);
        let start = columns.start.max(rows.start);
        start..columns.end.min(rows.end).max(start)
    }
}

/// The steps below `count` at which `0 <= start + at * step < end`.
fn crossing(start: i64, step: i64, end: i64, count: usize) -> std::ops::Range<usize> {
    // Towards a bound that lies ahead: the first step that is not below it.
    let reach = |bound: i64, step: i64| {
        let way = i128::from(bound) - i128::from(start);
        let steps = (way.div_euclid(i128::from(step))) + i128::from(way.rem_euclid(i128::from(step)) != 0);
        usize::try_from(steps.max(0)).unwrap_or(count).min(count)
    };
    match step {
        0 if (0..end).contains(&start) => 0..count,
        0 => 0..0,
        1.. => reach(0, step)..reach(end, step),
        // Downwards, the first step below a bound: one that is not above the one before it.
        _ => reach_down(start, step, end, count)..reach_down(start, step, 0, count),
    }
}

/// The first step at which `start + at * step < bound`, where `step` is below 0.
fn reach_down(start: i64, step: i64, bound: i64, count: usize) -> usize {
    let way = i128::from(start) - i128::from(bound);
    if way < 0 {
        return 0;
    }
    let steps = way / -i128::from(step) + 1;
    usize::try_from(steps).unwrap_or(count).min(count)
}

/// Where some pixels next to each other lie in the source.
struct Group {
    lefts: [i32; GROUP],
    tops: [i32; GROUP],
    across: [f32; GROUP],
    down: [f32; GROUP],
}

/// The fraction of a place.
#[inline]
fn share(place: i32) -> f32 {
    (place & ((1 << FINE) - 1)) as f32 * (1.0 / (1 << FINE) as f32)
}

struct Plane<'a, V> {
    image: &'a Toned<'a>,
    channel: usize,
    value: &'a V,
}

impl<V: Fn(usize) -> f32> Plane<'_, V> {
    /// Bilinear where all four neighbours are in the image, which whoever asks has made sure of.
    fn within(&self, line: &Line, first: usize, out: &mut [f32]) {
        let (channels, below) = (self.image.channels, self.image.width * self.image.channels);
        for (group, out) in out.chunks_mut(GROUP).enumerate() {
            let places = line.group(first + group * GROUP);
            let mut corners = Corners::default();
            for at in 0..out.len().min(GROUP) {
                let place = places.tops[at] as usize * below + places.lefts[at] as usize * channels + self.channel;
                corners.upper_left[at] = (self.value)(place);
                corners.upper_right[at] = (self.value)(place + channels);
                corners.lower_left[at] = (self.value)(place + below);
                corners.lower_right[at] = (self.value)(place + below + channels);
            }
            let mixed = corners.mixed(&places.across, &places.down);
            match <&mut [f32; GROUP]>::try_from(&mut *out) {
                Ok(whole) => *whole = mixed,
                Err(_) => out.iter_mut().zip(mixed).for_each(|(out, value)| *out = value),
            }
        }
    }

    /// Bilinear, with 0 for neighbours outside.
    fn checked(&self, line: &Line, first: usize, out: &mut [f32]) {
        for (at, out) in (first..).zip(out) {
            let (x, y) = line.place(at);
            let (left, top) = (x >> BITS, y >> BITS);
            let corner = |x: i64, y: i64| match (usize::try_from(x), usize::try_from(y)) {
                (Ok(x), Ok(y)) if x < self.image.width && y < self.image.height => {
                    (self.value)((y * self.image.width + x) * self.image.channels + self.channel)
                }
                _ => 0.0,
            };
            let fine = |place: i64| share((place >> (BITS - FINE) & ((1 << FINE) - 1)) as i32);
            let upper = between(corner(left, top), corner(left + 1, top), fine(x));
            let lower = between(corner(left, top + 1), corner(left + 1, top + 1), fine(x));
            *out = between(upper, lower, fine(y));
        }
    }
}

/// The four neighbours of some places.
#[derive(Default)]
struct Corners {
    upper_left: [f32; GROUP],
    upper_right: [f32; GROUP],
    lower_left: [f32; GROUP],
    lower_right: [f32; GROUP],
}

impl Corners {
    #[inline]
    fn mixed(&self, across: &[f32; GROUP], down: &[f32; GROUP]) -> [f32; GROUP] {
        let mut mixed = [0.0; GROUP];
        for at in 0..GROUP {
            let upper = between(self.upper_left[at], self.upper_right[at], across[at]);
            let lower = between(self.lower_left[at], self.lower_right[at], across[at]);
            mixed[at] = between(upper, lower, down[at]);
        }
        mixed
    }
}

#[inline]
fn between(first: f32, second: f32, share: f32) -> f32 {
    first + (second - first) * share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inside_is_what_a_search_finds() {
        for (start, step, end) in [
            (0, 3, 10),
            (-7, 3, 10),
            (-9, 3, 0),
            (5, 0, 6),
            (6, 0, 6),
            (20, -3, 10),
            (9, -3, 10),
            (10, -5, 10),
            (-1, -1, 5),
        ] {
            let found: Vec<usize> = (0..8).filter(|at| (0..end).contains(&(start + *at as i64 * step))).collect();
            let range = crossing(start, step, end, 8);
            assert_eq!(range.clone().collect::<Vec<_>>(), found, "{start} {step} {end}: {range:?}");
        }
    }

    #[test]
    fn groups_stay_within_the_image() {
        let (width, height) = (23, 31);
        let mut pixels = 0;
        for seed in 0..20_000_i64 {
            // Lines that begin at an edge, some a hair beside it, in all directions.
            let number =
                |salt: i64, most: i64| (seed * 7 + salt).wrapping_mul(2_654_435_761).rem_euclid(2 * most + 1) - most;
            let line = Line {
                column: (seed % 3) * (width as i64 * ONE / 2) + number(1, 9),
                row: (seed % 2) * (height as i64 * ONE) + number(2, 300),
                columns: number(3, [9, ONE / 100, 3 * ONE][seed as usize % 3]),
                rows: number(4, [ONE / 9, 99, ONE][seed as usize / 3 % 3]),
            };
            let inside = line.inside(300, (width, height));
            for first in inside.clone().step_by(GROUP) {
                let group = line.group(first);
                for at in 0..GROUP.min(inside.end - first) {
                    let (x, y) = (usize::try_from(group.lefts[at]).unwrap(), usize::try_from(group.tops[at]).unwrap());
                    assert!(x < width && y < height, "{line:?}: {x} {y}");
                    pixels += 1;
                }
            }
        }
        assert!(pixels > 100_000, "hardly any of them is inside: {pixels}");
    }
}
