//! Two images side by side: is one a copy of the other, or another slice of the same scan?
//!
//! Duty: the measures on pairs and their thresholds. Must not: choose pairs.
//!
//! A copy that was encoded again, resized or flipped differs from its original a little, everywhere alike. A neighbouring
//! slice differs most where vessels and airways run. So a pair is as much of a copy as its *worst* places agree:
//! [`Portrait::agreement`]. Different people can be alike as a whole, and neighbouring slices can differ more than they
//! do; so a neighbour must agree in the lungs, too ([`Portrait::kinship`]), or stand out among all other images.

use serde::Serialize;

use super::code::{self, Code};
use super::field;
use super::grey::Grey;

/// Cells a side of the finer field; the coarser one has half as many.
const SIDE: usize = 128;
const HALF: usize = SIDE / 2;
/// Images with a shorter side than this are compared by their pixels alone.
const SMALLEST: usize = 48;
/// The range of an image without content, of a full scale of 1.
const FLAT: f32 = 0.012;
/// Cells a side of the blocks whose agreement counts.
const BLOCK: usize = 4;
/// Blocks with less than this share of the mean strength have no content.
const FAINT: f32 = 0.1;
/// Fewer blocks with content than this are no evidence.
const FEWEST_BLOCKS: usize = 16;
/// The share of blocks that may agree less than the others.
const WORST: f32 = 0.1;
/// Copies are shifted against each other by less than a cell, where programs disagree on what a pixel's centre is.
const SHIFT: f32 = 0.75;

/// Agreement from which on two images are one and the same.
pub(crate) const COPY: f32 = 0.92;
/// Likeness of codes below which no copy lies; of a flip, and of images as they are.
pub(crate) const FLIPPED: f32 = 0.985;
/// As [`FLIPPED`], for images as they are: low enough for neighbouring slices.
pub(crate) const ALIKE: f32 = 0.945;
/// Kinship from which on two images may be neighbouring slices.
pub(crate) const KIN: f32 = 0.47;
/// How far the likeness of a pair must stand out above what is usual for both of its images.
pub(crate) const STANDS_OUT: f32 = 0.39;
/// The least likeness of codes of a pair that stands out.
pub(crate) const LEAST: f32 = 0.8;
/// The least likeness of the fields of a pair that stands out.
pub(crate) const LEAST_IN_FULL: f32 = 0.7;

/// How one image was flipped to become the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Flip {
    /// Not at all.
    None,
    /// Left and right exchanged.
    Mirrored,
    /// Top and bottom exchanged.
    UpsideDown,
    /// Both: turned by half a turn.
    Turned,
}

impl Flip {
    /// All four.
    pub const ALL: [Flip; 4] = [Flip::None, Flip::Mirrored, Flip::UpsideDown, Flip::Turned];

    fn apply(self, field: &[f32], side: usize) -> Vec<f32> {
        match self {
            Flip::None => field.to_vec(),
            Flip::Mirrored => field.chunks_exact(side).flat_map(|row| row.iter().rev().copied()).collect(),
            Flip::UpsideDown => field.chunks_exact(side).rev().flatten().copied().collect(),
            Flip::Turned => field.iter().rev().copied().collect(),
        }
    }
}

/// What is kept of an image to compare it with others: about 120 KB.
#[derive(Clone, Debug)]
pub struct Portrait {
    /// Detail of the coarser field.
    detail: Vec<f32>,
    /// Evened detail of the coarser field.
    coarse: Vec<f32>,
    /// Evened detail of the finer field.
    fine: Vec<f32>,
    lungs: Vec<bool>,
}

/// The measures on a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// [`Portrait::agreement`] of the first image, flipped, with the second.
    pub agreement: f32,
    /// [`Portrait::kinship`] of the two as they are.
    pub kinship: f32,
    /// [`Portrait::likeness`] of the two as they are.
    pub likeness: f32,
}

/// The finer field of an image on a scale of 0..255 from nearly its darkest to nearly its brightest cell; none where
/// there is no content or the image is too small.
fn field_of(image: &Grey) -> Option<Vec<f32>> {
    if image.width().min(image.height()) < SMALLEST {
        return None;
    }
    let cells = image.cells(SIDE);
    let mut sorted = cells.clone();
    let rank = |of: &mut [f32], share: usize| {
        let at = of.len() * share / 100;
        *of.select_nth_unstable_by(at, f32::total_cmp).1
    };
    let (low, high) = (rank(&mut sorted, 1), rank(&mut sorted, 99));
    let range = high - low;
    (range >= FLAT).then(|| cells.into_iter().map(|value| (value - low) / range * 255.0).collect())
}

/// The code of an image; none where it has too little content to be told from others.
pub fn code_of(image: &Grey) -> Option<Code> {
    let field = field::halved(&field_of(image)?, SIDE);
    let detail = field::detail(&field, HALF, 2.0);
    (blocks_with_content(&detail, &detail).count() >= FEWEST_BLOCKS).then(|| Code::of(&field)).flatten()
}

impl Portrait {
    /// Draws the portrait of an image; none where it has no code, either.
    pub fn of(image: &Grey) -> Option<Portrait> {
        let field = field_of(image)?;
        let half = field::halved(&field, SIDE);
        Some(Portrait {
            detail: field::detail(&half, HALF, 2.0),
            coarse: field::even_detail(&half, HALF, code::SIGMA, code::FLOOR),
            fine: field::even_detail(&field, SIDE, 2.0, 4.0),
            lungs: field::lungs(&field, SIDE),
        })
    }

    /// All measures on a pair, the first flipped for the agreement.
    pub fn compare(&self, other: &Portrait, flip: Flip) -> Compared {
        Compared {
            agreement: self.agreement(other, flip),
            kinship: self.kinship(other),
            likeness: self.likeness(other),
        }
    }

    /// The correlation within blocks of an eighth of a centimetre or so each (1/16 of the image), of which a tenth of
    /// the blocks with content fall short; after the first image is flipped and moved by part of a cell.
    pub fn agreement(&self, other: &Portrait, flip: Flip) -> f32 {
        let flipped = flip.apply(&self.detail, HALF);
        let moved = moved_onto(&flipped, &other.detail);
        worst_blocks(&flipped, &other.detail).max(worst_blocks(&moved, &other.detail))
    }

    /// The mean of the likeness in fine detail of the whole images and of their lungs. Bodies on tables in round fields of
    /// view are much alike; vessels are not.
    pub fn kinship(&self, other: &Portrait) -> f32 {
        let pairs = || self.fine.iter().copied().zip(other.fine.iter().copied());
        let inside = || self.lungs.iter().zip(&other.lungs).map(|(one, two)| *one || *two);
        let whole = field::cosine(pairs());
        // Without lungs less is known: the whole must make up for it.
        let lungs = if inside().filter(|inside| *inside).count() < SIDE * SIDE / 100 {
            whole - 0.2
        } else {
            field::cosine(pairs().zip(inside()).filter(|(_, inside)| *inside).map(|(pair, _)| pair))
        };
        (whole + lungs) / 2.0
    }

    /// The likeness in coarse detail.
    pub fn likeness(&self, other: &Portrait) -> f32 {
        field::cosine(self.coarse.iter().copied().zip(other.coarse.iter().copied()))
    }
}

/// The blocks of a field: the places of their cells' rows.
fn blocks(field: &[f32]) -> impl Iterator<Item = [f32; BLOCK * BLOCK]> + '_ {
    (0..HALF / BLOCK).flat_map(move |y| {
        (0..HALF / BLOCK).map(move |x| {
            let mut block = [0.0; BLOCK * BLOCK];
            for (row, cells) in block.chunks_exact_mut(BLOCK).enumerate() {
                let start = (y * BLOCK + row) * HALF + x * BLOCK;
                cells.copy_from_slice(field.get(start..start + BLOCK).unwrap_or(&[0.0; BLOCK]));
            }
            let mean = block.iter().sum::<f32>() / block.len() as f32;
            block.map(|value| value - mean)
        })
    })
}

/// Correlation of each block in which at least one of the two has content.
fn blocks_with_content<'a>(one: &'a [f32], two: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    let strength = |block: &[f32]| block.iter().map(|value| value * value).sum::<f32>();
    let strengths = move || blocks(one).zip(blocks(two)).map(move |(a, b)| strength(&a).max(strength(&b)));
    let mean = strengths().sum::<f32>() / (HALF * HALF / BLOCK / BLOCK) as f32;
    let with_content = move |strength: f32| strength > FAINT * mean && strength > 1e-6;
    let pairs = blocks(one).zip(blocks(two)).zip(strengths()).filter(move |(_, strength)| with_content(*strength));
    pairs.map(|((a, b), _)| field::cosine(a.into_iter().zip(b)))
}

fn worst_blocks(one: &[f32], two: &[f32]) -> f32 {
    let mut values: Vec<f32> = blocks_with_content(one, two).collect();
    if values.len() < FEWEST_BLOCKS {
        return 0.0;
    }
    let at = (values.len() as f32 * WORST) as usize;
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}

/// `one` moved by the part of a cell that brings it nearest to `two`, as far as its slopes tell.
fn moved_onto(one: &[f32], two: &[f32]) -> Vec<f32> {
    let slope = |at: usize, step: usize| {
        let value = |at: Option<usize>| at.and_then(|at| one.get(at)).copied();
        match (value(at.checked_sub(step)), value(at.checked_add(step))) {
            (Some(before), Some(after)) => (after - before) / 2.0,
            _ => 0.0,
        }
    };
    // Normal equations of `two` = scale x `one` + across x (slope in the row) + down x (slope in the column).
    let mut normal = [[0f64; 4]; 3];
    for (at, (one, two)) in one.iter().zip(two).enumerate() {
        let terms = [*one, slope(at, 1), slope(at, HALF), *two].map(f64::from);
        for (row, first) in normal.iter_mut().zip(terms) {
            for (sum, second) in row.iter_mut().zip(terms) {
                *sum += first * second;
            }
        }
    }
    let Some([scale, across, down]) = solved(normal).filter(|[scale, ..]| *scale > 1e-3) else { return one.to_vec() };
    let share = |term: f64| ((term / scale) as f32).clamp(-SHIFT, SHIFT);
    let (across, down) = (share(across), share(down));
    one.iter().enumerate().map(|(at, value)| value + across * slope(at, 1) + down * slope(at, HALF)).collect()
}

/// Solves three equations whose matrix is positive; none where it is singular.
fn solved(mut rows: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for pivot in 0..3 {
        let row = *rows.get(pivot)?;
        let lead = *row.get(pivot)?;
        if lead.abs() < 1e-9 {
            return None;
        }
        let row = row.map(|value| value / lead);
        for (at, other) in rows.iter_mut().enumerate() {
            if at == pivot {
                *other = row;
            } else {
                let factor = *other.get(pivot)?;
                other.iter_mut().zip(row).for_each(|(value, term)| *value -= factor * term);
            }
        }
    }
    Some(rows.map(|[.., right]| right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_solved() {
        let [x, y, z] = solved([[2.0, 1.0, 0.0, 4.0], [1.0, 3.0, 1.0, 10.0], [0.0, 1.0, 2.0, 8.0]]).unwrap();
        assert!((x - 1.0).abs() < 1e-12 && (y - 2.0).abs() < 1e-12 && (z - 3.0).abs() < 1e-12);
        assert_eq!(solved([[0.0; 4]; 3]), None);
    }
}
