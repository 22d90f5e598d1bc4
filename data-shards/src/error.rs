//! What can go wrong with a list, an image, a mask or a MATLAB file, and what to do about it.
//!
//! Duty: one message a failure that names the file (and the line of a list). Must not: decide an exit code.

use std::path::PathBuf;

use crate::remote::Blame;
use crate::shard;

/// Bad input data, or a fault of this crate in handling it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something about shards or their index.
    #[error(transparent)]
    Shard(#[from] crate::shard::Error),
    /// Something about a remote data set or its cache.
    #[error(transparent)]
    Remote(#[from] crate::remote::Error),
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
    /// A line of a table that makes no sense.
    #[error("{}:{line}: {problem}", table.display())]
    Table {
        /// The table.
        table: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A table of something else.
    #[error("{}:1: no column `file` among `{found}`; expected `file,label,patient_id` or more", table.display())]
    Columns {
        /// The table.
        table: PathBuf,
        /// Its columns.
        found: String,
    },
    /// A table of labels that names no image of the list.
    #[error("{} names no image of {}, of which the first is {}: its paths count from its own folder", table.display(), list.display(), image.display())]
    OtherLabels {
        /// The table.
        table: PathBuf,
        /// The list.
        list: PathBuf,
        /// The list's first image.
        image: PathBuf,
    },
    /// Samples without something that is needed.
    #[error("{}:{line}: {} has no {what}, and {count} of {total} samples have none; {remedy}", list.display(), image.display())]
    Lacking {
        /// The list.
        list: PathBuf,
        /// Line of the first such sample, from 1.
        line: usize,
        /// Its image.
        image: PathBuf,
        /// `mask`, `label` or `patient`.
        what: &'static str,
        /// How many samples lack it.
        count: usize,
        /// Of so many.
        total: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// A fold without samples.
    #[error("{}: fold {number} of {of} {problem}; use fewer folds", list.display())]
    Fold {
        /// The list.
        list: PathBuf,
        /// The fold, from 1.
        number: usize,
        /// Folds in all.
        of: usize,
        /// What is wrong.
        problem: &'static str,
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
    /// A file that is no MATLAB 5 file.
    #[error("{}: {found}; expected a MATLAB 5 file: save it again with `save -v7` (or scipy.io.savemat)", path.display())]
    MatVersion {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A MATLAB file that is cut short or contradicts itself.
    #[error("{}: the variable at byte {at} is damaged: {problem}", path.display())]
    MatDamaged {
        /// The file.
        path: PathBuf,
        /// Where in the file the variable starts.
        at: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A MATLAB file without a variable that is needed.
    #[error("{}: there is no variable `{name}`; the file holds {}", path.display(), names(present, *others))]
    MatMissing {
        /// The file.
        path: PathBuf,
        /// The variable that is needed.
        name: String,
        /// The first variables of the file, in its order.
        present: Vec<String>,
        /// How many more there are.
        others: usize,
    },
    /// A variable of another kind than real numbers.
    #[error("{}: variable `{name}` is {kind}; expected an array of real numbers", path.display())]
    MatUnsupported {
        /// The file.
        path: PathBuf,
        /// The variable.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// A variable beyond the limit of [`crate::mat::LIMIT`].
    #[error("{}: variable `{name}` is {shape:?}, which takes more than the {limit} bytes that are allowed", path.display())]
    MatTooLarge {
        /// The file.
        path: PathBuf,
        /// The variable.
        name: String,
        /// Its dimensions.
        shape: Vec<usize>,
        /// Bytes allowed.
        limit: u64,
    },
    /// A variable that holds no features of this network.
    #[error("{}: variable `{name}` is {shape:?}; expected [1, {channels}, height, width], 16 x 16 or more (res2net_feats half of that): another model.width, or other features", path.display())]
    Features {
        /// The file.
        path: PathBuf,
        /// The variable.
        name: String,
        /// Its dimensions.
        shape: Vec<usize>,
        /// Channels of the network's first stage.
        channels: usize,
    },
    /// A `.npy` file that is damaged, or of another kind than bytes and floats.
    #[error("{}: no .npy file that can be used: {problem}", path.display())]
    Npy {
        /// The file, or the member of a shard.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Two variables of one name.
    #[error("{}: there are two variables `{name}`; keep one of them", path.display())]
    MatTwice {
        /// The file.
        path: PathBuf,
        /// Their name.
        name: String,
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

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Error::Remote(error) => error.blame(),
            Error::Shard(shard::Error::Labels { .. } | shard::Error::Splits { .. }) => Blame::Usage,
            Error::Worker { .. } => Blame::Machine,
            _ => Blame::Input,
        }
    }
}

fn and_others(others: usize) -> String {
    if others == 0 { String::new() } else { format!("\n  and {others} more") }
}

fn names(present: &[String], others: usize) -> String {
    match (present, others) {
        ([], _) => "none".to_owned(),
        (_, 0) => format!("`{}`", present.join("`, `")),
        _ => format!("`{}` and {others} more", present.join("`, `")),
    }
}
