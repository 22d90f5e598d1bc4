//! Findings in words.
//!
//! Duty: lines for people. Must not: judge.

use std::fmt;

use super::compare::Flip;
use super::find::{Findings, Kind, Pair, Place, Unreadable};

/// Findings of one sort that are listed; the others are counted.
const LISTED: usize = 100;

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let splits: Vec<String> =
            self.splits.iter().map(|split| format!("{} ({})", split.name, split.images)).collect();
        writeln!(f, "compared the images of {}", splits.join(", "))?;
        listed(f, &self.leaks, "leaks")?;
        listed(f, &self.warnings, "warnings")?;
        listed(f, &self.unreadable, "images that could not be read, and were not compared")?;
        if self.without_content > 0 {
            writeln!(f, "{} images have too little in them to be like others", self.without_content)?;
        }
        let count = |kind: Kind| self.leaks.iter().chain(&self.warnings).filter(|pair| pair.kind == kind).count();
        write!(
            f,
            "leaks: {} ({} of patients, {} of equal pixels, {} of nearly the same image); warnings: {}",
            self.leaks.len(),
            count(Kind::SamePatient),
            count(Kind::SamePixels),
            count(Kind::NearlySame),
            self.warnings.len()
        )
    }
}

fn listed<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T], what: &str) -> fmt::Result {
    items.iter().take(LISTED).try_for_each(|item| writeln!(f, "{item}"))?;
    match items.len().checked_sub(LISTED) {
        Some(others) if others > 0 => writeln!(f, "and {others} more {what}; --json FILE lists all"),
        _ => Ok(()),
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pair { one, two, .. } = self;
        match (&self.patient, self.kind) {
            (Some((patient, [first, second])), _) => write!(
                f,
                "leak: patient {patient} is in {} ({first} images: {}) and in {} ({second} images: {})",
                one.split, one.name, two.split, two.name
            ),
            (None, Kind::SamePatient) => write!(f, "leak: the same patient: {one} and {two}"),
            (None, Kind::SamePixels) => write!(f, "leak: the same pixels: {one} and {two}"),
            (None, Kind::NearlySame) => {
                write!(f, "leak: nearly the same image{}: {one} and {two}", flipped(self.flip))?;
                similarity(f, self.similarity)
            }
            (None, Kind::Neighbours) => {
                write!(f, "warning: perhaps neighbouring slices of one scan: {one} and {two}")?;
                similarity(f, self.similarity)
            }
        }
    }
}

fn similarity(f: &mut fmt::Formatter<'_>, value: Option<f32>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, " (similarity {value:.3})"))
}

fn flipped(flip: Flip) -> &'static str {
    match flip {
        Flip::None => "",
        Flip::Mirrored => ", mirrored",
        Flip::UpsideDown => ", upside down",
        Flip::Turned => ", turned by half a turn",
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.split)
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not compared: {}: {}", self.place, self.problem)
    }
}
