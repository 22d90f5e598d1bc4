//! The pairs of codes that are alike, among all pairs of different splits.
//!
//! Duty: every pair above the thresholds, and no image read. Must not: verify them.
//!
//! All pairs are looked at, but by half a code at first: products of the leading halves for 16 images at a time, summed
//! by kind of term, give the four flips with no further products. As codes have length 1, what the other halves can add is
//! at most the product of their lengths; only pairs that could still pass are looked at in full, so none is lost.

use std::ops::Range;

use rayon::prelude::*;

use super::code::{Code, WIDTH};
use super::compare::{ALIKE, FLIPPED, Flip, LEAST, STANDS_OUT};

/// Images whose codes lie side by side, so that one instruction serves several.
const LANES: usize = 16;
/// Images that go through all blocks together, so that blocks are fetched once for all of them.
const TILE: usize = 32;
/// Pairs kept of one image, the likest.
const KEPT: usize = 24;
/// Images that stand for all others where it is asked what is usual.
const COHORT: usize = 256;
/// What is usual is the likeness that so many in a hundred of them do not reach.
const USUAL: usize = 90;
/// What is usual where there are no others, and how many others weigh as much.
const PRIOR: (f32, f32) = (0.53, 10.0);

/// Two images whose codes are alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The first, of an earlier split.
    pub one: usize,
    /// The second.
    pub two: usize,
    /// How the first is flipped to be like the second.
    pub flip: Flip,
    /// Likeness of the codes.
    pub likeness: f32,
    /// Whether the likeness stands out among those with all other images.
    pub stands_out: bool,
}

/// Codes of 16 images, number by number, and the lengths of their other halves.
struct Block {
    lead: Vec<[f32; LANES]>,
    rest: [f32; LANES],
}

/// The pairs of different splits that may be copies or neighbours, at most 24 an image. `splits` are consecutive ranges
/// of `codes`.
pub fn scan(codes: &[Option<Code>], splits: &[Range<usize>]) -> Vec<Hit> {
    let present: Vec<usize> = (0..codes.len()).filter(|at| codes.get(*at).is_some_and(Option::is_some)).collect();
    let code = |at: usize| codes.get(*present.get(at)?)?.as_ref();
    let codes: Vec<&Code> = (0..present.len()).filter_map(code).collect();
    // Where the images of the next split begin, among those with a code.
    let ends: Vec<usize> = splits.iter().map(|split| present.partition_point(|at| *at < split.end)).collect();
    let usual = usual(&codes);
    let blocks: Vec<Block> = codes.par_chunks(LANES).map(Block::of).collect();
    let search = Search { codes: &codes, usual: &usual, ends: &ends, blocks: &blocks };
    let tiles: Vec<usize> = (0..codes.len()).step_by(TILE).collect();
    let mut hits: Vec<Hit> = tiles.into_par_iter().flat_map_iter(|first| search.tile(first)).collect();
    for hit in &mut hits {
        let original = |at: usize| present.get(at).copied().unwrap_or_default();
        (hit.one, hit.two) = (original(hit.one), original(hit.two));
    }
    hits
}

impl Block {
    fn of(codes: &[&Code]) -> Block {
        let mut block = Block { lead: vec![[0.0; LANES]; WIDTH], rest: [0.0; LANES] };
        for (lane, code) in codes.iter().enumerate().take(LANES) {
            for (row, value) in block.lead.iter_mut().zip(code.lead) {
                row[lane] = value;
            }
            block.rest[lane] = length(&code.rest);
        }
        block
    }

    /// Sums of products with the leading half of a code, by kind of term and lane.
    fn sums(&self, lead: &[f32; WIDTH]) -> [[f32; LANES]; 4] {
        let mut sums = [[0.0; LANES]; 4];
        let kinds = self.lead.chunks_exact(WIDTH / 4).zip(lead.chunks_exact(WIDTH / 4));
        for (sum, (rows, values)) in sums.iter_mut().zip(kinds) {
            let mut lanes = [0.0; LANES];
            for (row, value) in rows.iter().zip(values) {
                for (lane, number) in lanes.iter_mut().zip(row) {
                    *lane += number * value;
                }
            }
            *sum = lanes;
        }
        sums
    }
}

fn length(values: &[f32]) -> f32 {
    values.iter().map(|value| value * value).sum::<f32>().sqrt()
}

/// Likeness under each flip, from the sums by kind of term.
fn by_flip([even, column, row, both]: [f32; 4]) -> [f32; 4] {
    [even + column + row + both, even - column + row - both, even + column - row - both, even - column - row + both]
}

/// The likeness with others that each image hardly reaches. Where there are few others, a number that suits images of
/// many sources takes their place.
fn usual(codes: &[&Code]) -> Vec<f32> {
    let step = codes.len().div_ceil(COHORT).max(1);
    let cohort: Vec<(usize, &Code)> = codes.iter().copied().enumerate().step_by(step).collect();
    let of = |(at, code): (usize, &&Code)| {
        let others = cohort.iter().filter(|(other, _)| *other != at);
        let mut likeness: Vec<f32> = others.map(|(_, other)| code.likeness(other)).collect();
        let count = likeness.len() as f32;
        let place = likeness.len() * USUAL / 100;
        let found = if likeness.is_empty() { 0.0 } else { *likeness.select_nth_unstable_by(place, f32::total_cmp).1 };
        (count * found + PRIOR.1 * PRIOR.0) / (count + PRIOR.1)
    };
    codes.par_iter().enumerate().map(of).collect()
}

struct Search<'a> {
    codes: &'a [&'a Code],
    usual: &'a [f32],
    ends: &'a [usize],
    blocks: &'a [Block],
}

impl Search<'_> {
    /// The hits of [`TILE`] images with all of later splits.
    fn tile(&self, first: usize) -> Vec<Hit> {
        let queries: Vec<(usize, &Code)> = self.codes.iter().copied().enumerate().skip(first).take(TILE).collect();
        let starts: Vec<usize> = queries.iter().map(|(at, _)| self.end_of_split(*at)).collect();
        let mut found: Vec<Vec<Hit>> = vec![Vec::new(); queries.len()];
        let begin = starts.iter().copied().min().unwrap_or_default() / LANES;
        for (number, block) in self.blocks.iter().enumerate().skip(begin) {
            for ((query, start), hits) in queries.iter().zip(&starts).zip(&mut found) {
                if (number + 1) * LANES > *start {
                    self.block(*query, *start, (number, block), hits);
                }
            }
        }
        found.into_iter().flat_map(likest).collect()
    }

    fn end_of_split(&self, at: usize) -> usize {
        self.ends.iter().copied().find(|end| *end > at).unwrap_or(self.codes.len())
    }

    fn usual_of(&self, at: usize) -> f32 {
        self.usual.get(at).copied().unwrap_or(1.0)
    }

    fn block(&self, (one, code): (usize, &Code), start: usize, (number, block): (usize, &Block), hits: &mut Vec<Hit>) {
        let [even, column, row, both] = block.sums(&code.lead);
        let least = ALIKE.min(LEAST.max(self.usual_of(one) + STANDS_OUT));
        let rest = length(&code.rest);
        let mut possible = [0.0f32; LANES];
        for (lane, possible) in possible.iter_mut().enumerate() {
            let [plain, flipped @ ..] = by_flip([even[lane], column[lane], row[lane], both[lane]]);
            let flipped = flipped[0].max(flipped[1]).max(flipped[2]);
            let missing = rest * block.rest[lane];
            *possible = (plain + missing - least).max(flipped + missing - FLIPPED);
        }
        if possible.iter().all(|excess| *excess < 0.0) {
            return;
        }
        for lane in (0..LANES).filter(|lane| possible[*lane] >= 0.0) {
            let two = number * LANES + lane;
            if let Some(other) = self.codes.get(two).filter(|_| two >= start) {
                let halves = [[even[lane], column[lane], row[lane], both[lane]], code.rest_by_kind(other)];
                hits.extend(self.judged(one, two, halves));
            }
        }
        if hits.len() > 8 * KEPT {
            *hits = likest(std::mem::take(hits));
        }
    }

    /// The flips under which a pair is alike enough.
    fn judged(&self, one: usize, two: usize, [lead, rest]: [[f32; 4]; 2]) -> Vec<Hit> {
        let usual = self.usual_of(one).max(self.usual_of(two));
        let likeness = by_flip(lead).into_iter().zip(by_flip(rest)).map(|(lead, rest)| lead + rest);
        let hit = |(likeness, flip): (f32, Flip)| {
            let stands_out = flip == Flip::None && likeness >= LEAST.max(usual + STANDS_OUT);
            let least = if flip == Flip::None { ALIKE } else { FLIPPED };
            (likeness >= least || stands_out).then_some(Hit { one, two, flip, likeness, stands_out })
        };
        likeness.zip(Flip::ALL).filter_map(hit).collect()
    }
}

fn likest(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_by(|a, b| b.likeness.total_cmp(&a.likeness).then(a.two.cmp(&b.two)));
    hits.truncate(KEPT);
    hits
}
