//! A short code of an image, which similar images share and which a flip changes in its signs alone.
//!
//! Duty: a field to 128 numbers. Must not: compare more than two codes; that is [`super::search`].
//!
//! The numbers are the coarse terms of a cosine transform of the field's evened detail. A term whose column number is odd
//! changes its sign where the image is mirrored, one whose row number is odd where it is turned upside down, so that sums
//! of products by the four kinds of term give the similarity to all four flips of an image at once.

use super::field;

/// Cells a side of the field that a code is made of.
const SIDE: usize = 64;
/// Detail coarser than so many cells is no part of the code.
pub(crate) const SIGMA: f32 = 4.0;
/// Strength of detail, on a scale of 255, that counts as noise.
pub(crate) const FLOOR: f32 = 4.0;
/// Terms of each of the four kinds.
const KIND: usize = 32;
/// Of these, so many lead: they are compared first.
const LEAD: usize = 16;
/// Numbers of a code's first part, and of its second.
pub const WIDTH: usize = 4 * LEAD;
/// Rows and columns of the transform that codes draw on.
const TERMS: usize = 24;
/// The squared distance from the constant term below which a term is too coarse to tell images apart.
const COARSEST: usize = 9;

/// The code of an image: a vector of length 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Code {
    /// The coarser half: 16 terms each with even row and column, odd column, odd row, both odd.
    pub lead: [f32; WIDTH],
    /// The finer half, likewise.
    pub rest: [f32; WIDTH],
}

impl Code {
    /// The code of a field of 64 x 64 cells; none where nothing is in it.
    pub(crate) fn of(field: &[f32]) -> Option<Code> {
        let terms = transform(&field::even_detail(field, SIDE, SIGMA, FLOOR));
        let (mut lead, mut rest) = ([0.0; WIDTH], [0.0; WIDTH]);
        for (kind, places) in places().iter().enumerate() {
            for (at, place) in places.iter().enumerate() {
                let half = if at < LEAD { &mut lead } else { &mut rest };
                if let (Some(slot), Some(term)) = (half.get_mut(kind * LEAD + at % LEAD), terms.get(*place)) {
                    *slot = *term;
                }
            }
        }
        let length = lead.iter().chain(&rest).map(|term| term * term).sum::<f32>().sqrt();
        (length > 1e-6).then(|| Code { lead: lead.map(|term| term / length), rest: rest.map(|term| term / length) })
    }

    /// The similarity to another image, -1..1.
    pub fn likeness(&self, other: &Code) -> f32 {
        dot(&self.lead, &other.lead) + dot(&self.rest, &other.rest)
    }

    /// Sums of products of the finer halves by kind of term.
    pub(crate) fn rest_by_kind(&self, other: &Code) -> [f32; 4] {
        let mut sums = [0.0; 4];
        let kinds = self.rest.chunks_exact(LEAD).zip(other.rest.chunks_exact(LEAD));
        for (sum, (one, two)) in sums.iter_mut().zip(kinds) {
            *sum = dot(one, two);
        }
        sums
    }
}

fn dot(one: &[f32], two: &[f32]) -> f32 {
    one.iter().zip(two).map(|(one, two)| one * two).sum()
}

/// Where the terms of each kind lie in the transform, the coarser first.
fn places() -> [Vec<usize>; 4] {
    [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(odd_row, odd_column)| {
        let rows = (0..TERMS).filter(|row| row % 2 == odd_row);
        let squared = |row: usize, column: usize| row * row + column * column;
        let of_row = |row: usize| {
            let columns = (0..TERMS).filter(|column| column % 2 == odd_column);
            columns.map(move |column| (squared(row, column), row, column)).collect::<Vec<_>>()
        };
        let mut terms: Vec<_> = rows.flat_map(of_row).filter(|(size, ..)| *size >= COARSEST).collect();
        terms.sort_unstable();
        terms.into_iter().take(KIND).map(|(_, row, column)| row * TERMS + column).collect()
    })
}

/// The first rows and columns of the cosine transform of a field of 64 x 64.
fn transform(field: &[f32]) -> Vec<f32> {
    let wave = |term: usize, at: usize| (std::f32::consts::PI * (at as f32 + 0.5) * term as f32 / SIDE as f32).cos();
    let waves: Vec<Vec<f32>> = (0..TERMS).map(|term| (0..SIDE).map(|at| wave(term, at)).collect()).collect();
    let columns: Vec<Vec<f32>> =
        waves.iter().map(|wave| field.chunks_exact(SIDE).map(|row| dot(row, wave)).collect()).collect();
    waves.iter().flat_map(|wave| columns.iter().map(move |column| dot(column, wave))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_changes_signs_alone() {
        let field: Vec<f32> = (0..SIDE * SIDE).map(|at| ((at * at) % 977) as f32 / 4.0).collect();
        let mirrored: Vec<f32> = field.chunks_exact(SIDE).flat_map(|row| row.iter().rev().copied()).collect();
        let (one, two) = (Code::of(&field).unwrap(), Code::of(&mirrored).unwrap());
        for kind in 0..4 {
            let sign = if kind % 2 == 0 { 1.0 } else { -1.0 };
            for at in kind * LEAD..(kind + 1) * LEAD {
                assert!(
                    (one.lead[at] - sign * two.lead[at]).abs() < 1e-4
                        && (one.rest[at] - sign * two.rest[at]).abs() < 1e-4
                );
            }
        }
        assert!((one.likeness(&one) - 1.0).abs() < 1e-5);
        assert_eq!(Code::of(&[7.0; SIDE * SIDE]), None);
    }
}
