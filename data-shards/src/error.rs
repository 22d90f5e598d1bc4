//! What can go wrong with a list, an image or a mask, and what to do about it.
//!
//! Duty: one message a failure that names the file (and the line of a list). Must not: decide an exit code.

use std::path::PathBuf;

/// Bad input data, or a fault of this crate in handling it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A list file that is not UTF-8 text.
    #[error("{}: not UTF-8 text; expected a list file with `image mask` on each line", list.display())]
    NotText {
        /// The list file.
        list: PathBuf,
    },
    /// A line of a list that does not hold exactly two fields.
    #[error(
        "{}:{line}: expected `image mask` (two fields, paths without spaces), found {found} field{}: `{text}`",
        list.display(), if *found == 1 { "" } else { "s" }
    )]
    Line {
        /// The list file.
        list: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Number of fields found.
        found: usize,
        /// The line as written, shortened.
        text: String,
    },
    /// A list without a single entry.
    #[error("{}: the list is empty; expected `image mask` on each line", list.display())]
    Empty {
        /// The list file.
        list: PathBuf,
    },
    /// Entries of a list that cannot be used.
    #[error("{}: {} of {total} entries cannot be used:\n  {}{}", list.display(), shown.len() + others, shown.join("\n  "), and_others(*others))]
    Entries {
        /// The list file.
        list: PathBuf,
        /// Entries in the list.
        total: usize,
        /// The first offending lines in list order: `list:line: path: problem`.
        shown: Vec<String>,
        /// How many more there are.
        others: usize,
    },
    /// A file that is no PNG or JPEG, or a damaged one.
    #[error("{}: cannot decode as PNG or JPEG: {problem}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        problem: String,
    },
    /// A mask whose size is not its image's.
    #[error("{}: mask is {}x{} (width x height) but its image {} is {}x{}; they must be equal",
        mask.display(), mask_size.0, mask_size.1, image.display(), image_size.0, image_size.1)]
    MaskSize {
        /// The mask.
        mask: PathBuf,
        /// Its width and height.
        mask_size: (usize, usize),
        /// The image.
        image: PathBuf,
        /// Its width and height.
        image_size: (usize, usize),
    },
    /// Masks that mark lesions by another value than full scale.
    #[error("{}: only 255 counts as lesion; these masks hold {values}: rewrite lesion pixels as 255, all others as 0 \
        (16 bits: 65535 and 0)", path.display())]
    MaskValues {
        /// The first mask with other values.
        path: PathBuf,
        /// The values found in it, ascending, separated by commas.
        values: String,
    },
    /// A sample that the data set does not have.
    #[error("{}: sample {index} was asked for, but the list has {len} (0 to {})", list.display(), len.saturating_sub(1))]
    Index {
        /// The list file.
        list: PathBuf,
        /// The index asked for.
        index: usize,
        /// Samples in the list.
        len: usize,
    },
    /// The decoder panicked: a fault of a library or of this crate, set off by this file.
    #[error("{}: loading it panicked: {message}; please report this file, and take it out of the list meanwhile", path.display())]
    Panic {
        /// The image that was being loaded.
        path: PathBuf,
        /// The panic's message.
        message: String,
    },
    /// A loader thread ended without an answer, or could not be started.
    #[error("a loader thread is not available: {problem}; lower data.workers")]
    Worker {
        /// What happened.
        problem: String,
    },
}

fn and_others(others: usize) -> String {
    if others == 0 { String::new() } else { format!("\n  and {others} more") }
}
