//! Images and people that stand in more than one split.
//!
//! Duty: from candidates (a split, a name, perhaps a patient, and a way to the pixels) to what leaks between splits and
//! what may: the same patient, the same pixels and nearly the same image are leaks; what looks like another slice of the
//! same scan is a warning. Must not: decide what follows from a finding, or change anything.
//!
//! `docs/leak.md` explains the measures, and tabulates what was seen of copies, of neighbouring slices and of different
//! people; the thresholds in `compare` stand between these.

mod code;
mod compare;
mod field;
mod find;
mod grey;
mod report;
mod search;
mod sources;

pub use code::{Code, WIDTH};
pub use compare::{Compared, Flip, Portrait, code_of};
pub use find::{Candidate, Findings, Kind, Pair, Place, Split, Unreadable, find, find_with};
pub use grey::{Grey, MOST};
pub use search::{Hit, scan};
pub use sources::{SourceError, candidates};
