//! From candidates to findings.
//!
//! Duty: read every image once for its code, and those of promising pairs once more for a portrait; put together what was
//! found. Must not: print, or hold more than a few hundred bytes an image and [`GROUP`] portraits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::code::Code;
use super::compare::{self, COPY, Compared, Flip, KIN, LEAST_IN_FULL, Portrait};
use super::grey::Grey;
use super::search::{self, Hit};

/// Portraits that are held at a time.
const GROUP: usize = 2048;

/// An image of a split.
pub struct Candidate<'a> {
    /// The split.
    pub split: String,
    /// Its file or key, for the findings.
    pub name: String,
    /// Whose it is, where that is known.
    pub patient: Option<String>,
    /// Reads its pixels; may be called twice, from any thread. The error says what is wrong with the image.
    pub load: Box<dyn Fn() -> Result<Grey, String> + Send + Sync + 'a>,
}

impl fmt::Debug for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate").field("split", &self.split).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What two images of different splits have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Both are of the same patient, by the ids given: a leak.
    SamePatient,
    /// Every pixel: a leak.
    SamePixels,
    /// One is a copy of the other, encoded again, resized or flipped: a leak.
    NearlySame,
    /// They may be neighbouring slices of one scan: a warning.
    Neighbours,
}

/// An image of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Its split.
    pub split: String,
    /// Its file or key.
    pub name: String,
}

/// Two images of different splits that have something in common.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// What.
    pub kind: Kind,
    /// How similar they are: 1 for equal pixels; none for a patient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f32>,
    /// How the first was flipped to become the second.
    pub flip: Flip,
    /// The image of the earlier split; of a patient, the first there.
    pub one: Place,
    /// The image of the later split, likewise.
    pub two: Place,
    /// The patient that they share, and how many images of it each split has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patient: Option<(String, [usize; 2])>,
}

/// A split, as it was compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Split {
    /// Its name.
    pub name: String,
    /// Its images.
    pub images: usize,
}

/// An image that could not be read, and was compared with none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The image.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong with it.
    pub problem: String,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Findings {
    /// The splits, in the order in which they came.
    pub splits: Vec<Split>,
    /// The leaks: patients, then equal pixels, then copies.
    pub leaks: Vec<Pair>,
    /// Pairs that may be neighbouring slices of one scan.
    pub warnings: Vec<Pair>,
    /// Images that could not be read.
    pub unreadable: Vec<Unreadable>,
    /// Images with too little in them to be like another.
    pub without_content: usize,
}

/// [`find_with`] without a word on progress.
pub fn find(candidates: &[Candidate<'_>]) -> Findings {
    find_with(candidates, &|_, _| {})
}

/// What leaks between the splits of the candidates, and what may. An image that cannot be read is among the findings.
/// `progress` is told, from any thread, how many images were read and how many there are.
pub fn find_with(candidates: &[Candidate<'_>], progress: &(dyn Fn(usize, usize) + Sync)) -> Findings {
    let cohort = Cohort::of(candidates);
    let done = AtomicUsize::new(0);
    let sketches: Vec<Result<Sketch, String>> = cohort
        .order
        .par_iter()
        .map(|candidate| {
            let sketch = (candidate.load)().map(|image| Sketch::of(&image));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, candidates.len());
            sketch
        })
        .collect();
    let mut findings = Findings { splits: cohort.splits(), ..Findings::default() };
    findings.leaks = cohort.patients();
    findings.leaks.extend(cohort.pixels(&sketches));
    let hits = cohort.hits(&sketches);
    cohort.verify(&hits, &mut findings);
    findings.without_content = sketches.iter().flatten().filter(|sketch| sketch.code.is_none()).count();
    let failed = sketches.into_iter().enumerate().filter_map(|(at, sketch)| Some((at, sketch.err()?)));
    findings.unreadable = failed.map(|(at, problem)| Unreadable { place: cohort.place(at), problem }).collect();
    findings
}

/// What is kept of an image until all are read.
struct Sketch {
    hash: [u8; 32],
    /// Whether equal pixels mean anything.
    varied: bool,
    code: Option<Code>,
}

impl Sketch {
    fn of(image: &Grey) -> Sketch {
        let varied = image.is_varied();
        Sketch { hash: image.hash(), varied, code: if varied { compare::code_of(image) } else { None } }
    }
}

/// The candidates split by split, in the order in which the splits first came.
struct Cohort<'a> {
    names: Vec<&'a str>,
    order: Vec<&'a Candidate<'a>>,
    ranges: Vec<Range<usize>>,
}

impl<'a> Cohort<'a> {
    fn of(candidates: &'a [Candidate<'a>]) -> Self {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut splits: Vec<(&str, Vec<&Candidate<'_>>)> = Vec::new();
        for candidate in candidates {
            let number = *numbers.entry(&candidate.split).or_insert(splits.len());
            match splits.get_mut(number) {
                Some((_, members)) => members.push(candidate),
                None => splits.push((&candidate.split, vec![candidate])),
            }
        }
        let (mut names, mut order, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        for (name, members) in splits {
            names.push(name);
            ranges.push(order.len()..order.len() + members.len());
            order.extend(members);
        }
        Cohort { names, order, ranges }
    }

    fn splits(&self) -> Vec<Split> {
        let split = |(name, range): (&&str, &Range<usize>)| Split { name: (*name).to_owned(), images: range.len() };
        self.names.iter().zip(&self.ranges).map(split).collect()
    }

    fn split_of(&self, at: usize) -> usize {
        self.ranges.partition_point(|range| range.end <= at)
    }

    fn place(&self, at: usize) -> Place {
        let texts = self.order.get(at).map(|candidate| (candidate.split.clone(), candidate.name.clone()));
        let (split, name) = texts.unwrap_or_default();
        Place { split, name }
    }

    fn pair(&self, kind: Kind, (one, two): (usize, usize), similarity: Option<f32>) -> Pair {
        let (one, two) = (self.place(one), self.place(two));
        Pair { kind, similarity, flip: Flip::None, one, two, patient: None }
    }

    /// Patients of more than one split: a pair of splits each, with their first images there.
    fn patients(&self) -> Vec<Pair> {
        // For each patient, each split's first image and their number.
        let mut seen: BTreeMap<&str, BTreeMap<usize, (usize, usize)>> = BTreeMap::new();
        for (at, candidate) in self.order.iter().enumerate() {
            if let Some(patient) = candidate.patient.as_deref() {
                seen.entry(patient).or_default().entry(self.split_of(at)).or_insert((at, 0)).1 += 1;
            }
        }
        let mut pairs = Vec::new();
        for (patient, splits) in seen {
            let firsts: Vec<(usize, usize)> = splits.into_values().collect();
            for (number, one) in firsts.iter().enumerate() {
                for two in firsts.iter().skip(number + 1) {
                    let patient = Some((patient.to_owned(), [one.1, two.1]));
                    pairs.push(Pair { patient, ..self.pair(Kind::SamePatient, (one.0, two.0), None) });
                }
            }
        }
        pairs
    }

    /// Images of equal pixels: each with the first of its like in each earlier split.
    fn pixels(&self, sketches: &[Result<Sketch, String>]) -> Vec<Pair> {
        let mut firsts: HashMap<[u8; 32], BTreeMap<usize, usize>> = HashMap::new();
        let mut pairs = Vec::new();
        for (two, sketch) in sketches.iter().enumerate() {
            let Some(sketch) = sketch.as_ref().ok().filter(|sketch| sketch.varied) else { continue };
            let split = self.split_of(two);
            let like = firsts.entry(sketch.hash).or_default();
            pairs.extend(like.range(..split).map(|(_, one)| self.pair(Kind::SamePixels, (*one, two), Some(1.0))));
            like.entry(split).or_insert(two);
        }
        pairs
    }

    /// Pairs to look at more closely, but for those of equal pixels.
    fn hits(&self, sketches: &[Result<Sketch, String>]) -> Vec<Hit> {
        let code = |sketch: &Result<Sketch, String>| sketch.as_ref().ok().and_then(|sketch| sketch.code.clone());
        let codes: Vec<Option<Code>> = sketches.iter().map(code).collect();
        let hash = |at: usize| sketches.get(at).and_then(|sketch| sketch.as_ref().ok()).map(|sketch| sketch.hash);
        let mut hits = search::scan(&codes, &self.ranges);
        hits.retain(|hit| hash(hit.one) != hash(hit.two));
        hits.sort_by_key(|hit| (hit.one, hit.two));
        hits
    }

    /// Adds what a closer look confirms, each pair once and as the gravest that it is.
    fn verify(&self, hits: &[Hit], findings: &mut Findings) {
        let mut rest = hits;
        while !rest.is_empty() {
            let (group, after) = rest.split_at(group_len(rest));
            let wanted: BTreeSet<usize> = group.iter().flat_map(|hit| [hit.one, hit.two]).collect();
            let wanted: Vec<usize> = wanted.into_iter().collect();
            let portraits: HashMap<usize, Portrait> =
                wanted.par_iter().filter_map(|at| Some((*at, self.portrait(*at)?))).collect();
            let compare = |hit: &Hit| Some(portraits.get(&hit.one)?.compare(portraits.get(&hit.two)?, hit.flip));
            let compared: Vec<Option<Compared>> = group.par_iter().map(compare).collect();
            for same in group
                .iter()
                .zip(compared)
                .collect::<Vec<_>>()
                .chunk_by(|(a, _), (b, _)| (a.one, a.two) == (b.one, b.two))
            {
                self.judge(same, findings);
            }
            rest = after;
        }
    }

    fn portrait(&self, at: usize) -> Option<Portrait> {
        Portrait::of(&(self.order.get(at)?.load)().ok()?)
    }

    /// One pair, under each flip under which it was a hit.
    fn judge(&self, same: &[(&Hit, Option<Compared>)], findings: &mut Findings) {
        let compared = same.iter().filter_map(|(hit, compared)| Some((*hit, (*compared)?)));
        let best = compared.max_by(|(_, a), (_, b)| a.agreement.total_cmp(&b.agreement));
        let Some((hit, measures)) = best else { return };
        let pair = (hit.one, hit.two);
        if measures.agreement >= COPY {
            let found = self.pair(Kind::NearlySame, pair, Some(measures.agreement));
            findings.leaks.push(Pair { flip: hit.flip, ..found });
        } else if same.iter().any(|(hit, compared)| compared.is_some_and(|measures| neighbours(hit, &measures))) {
            findings.warnings.push(self.pair(Kind::Neighbours, pair, Some(measures.likeness)));
        }
    }
}

/// Whether a pair may be of one scan. What is known of a flipped hit says nothing of the images as they are.
fn neighbours(hit: &Hit, measures: &Compared) -> bool {
    hit.flip == Flip::None && (measures.kinship >= KIN || (hit.stands_out && measures.likeness >= LEAST_IN_FULL))
}

/// How many of the hits need no more than [`GROUP`] portraits; at least one, and a pair's hits together.
fn group_len(hits: &[Hit]) -> usize {
    let mut wanted = BTreeSet::new();
    let mut end = 0;
    for same in hits.chunk_by(|a, b| (a.one, a.two) == (b.one, b.two)) {
        wanted.extend(same.iter().flat_map(|hit| [hit.one, hit.two]));
        if wanted.len() > GROUP && end > 0 {
            break;
        }
        end += same.len();
    }
    end
}
