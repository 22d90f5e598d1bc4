//! Why a data set cannot be packed, and what to do about it.
//!
//! Duty: one message a failure. Must not: decide an exit code (but [`PackError::is_input`] says whose fault it is).

use std::io;
use std::path::PathBuf;

use super::report::LeftOut;

/// Nothing, or nothing complete, was packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// A list, a table or a folder cannot be used.
    #[error(transparent)]
    Input(#[from] crate::Error),
    /// A folder cannot be searched.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no sample in the source, or nothing is left of it.
    #[error("{}: {problem}{}", from.display(), first(left_out))]
    Nothing {
        /// The source.
        from: PathBuf,
        /// What was looked for.
        problem: String,
        /// What was left out.
        left_out: Vec<LeftOut>,
    },
    /// The source is of several kinds.
    #[error("{}: holds {found}; say which by --format", from.display())]
    Mixed {
        /// The source.
        from: PathBuf,
        /// The kinds.
        found: String,
    },
    /// Splits are asked for, and some patients are not known.
    #[error("{}: {count} of {total} inputs have no patient ({example}), and a split must not divide a patient; name a \
        table `file,label,patient_id` by --labels, or leave --split out", from.display())]
    NoPatient {
        /// The source.
        from: PathBuf,
        /// Such inputs.
        count: usize,
        /// Of so many.
        total: usize,
        /// The first of them.
        example: String,
    },
    /// Splits are asked for where the source has its own.
    #[error("{}: the source has its own splits ({splits}), which --split would undo; leave --split out, or name a single \
        list as the source", from.display())]
    Given {
        /// The source.
        from: PathBuf,
        /// Its splits.
        splits: String,
    },
    /// Two lists that would become one split.
    #[error("{} and {} are both the split {split}; give one of them another name, or join them in one list", one.display(), two.display())]
    SameSplit {
        /// The first.
        one: PathBuf,
        /// The second.
        two: PathBuf,
        /// What both names say.
        split: String,
    },
    /// Masks that mark lesions by another value than 255.
    #[error("{}: only {meant} counts as lesion, and these masks hold {values}; where that is lesion, say --mask-values \
        {others}", path.display())]
    MaskValues {
        /// The first mask with other values.
        path: PathBuf,
        /// The values that count.
        meant: String,
        /// The values found in it, ascending, separated by commas.
        values: String,
        /// Those but 0.
        others: String,
    },
    /// Samples of different splits are the same patient or (nearly) the same image.
    #[error("splits leak into each other, {count} times:\n  {}\nrepair the lists, or pack them as they are by --allow-leaks", shown.join("\n  "))]
    Leaks {
        /// How many.
        count: usize,
        /// The first of them.
        shown: Vec<String>,
    },
    /// The key of the hashes is damaged.
    #[error("{}: no key (expected 64 hexadecimal digits); restore it, or remove it and pack anew into another folder", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The output is something else.
    #[error("{} exists and was not made by an interrupted pack; name a new folder, or remove it first", out.display())]
    Occupied {
        /// The folder.
        out: PathBuf,
    },
    /// The output belongs to another source or other options.
    #[error("{}: was packed from a source or with options that are not these ({what} changed); to start over, remove \
        this folder, or name a new one", out.display())]
    Changed {
        /// The folder.
        out: PathBuf,
        /// What differs.
        what: String,
    },
    /// Another process packs into the same folder.
    #[error("{}: another pack is at work here; wait for it", out.display())]
    Busy {
        /// The folder.
        out: PathBuf,
    },
    /// The output is the source or lies within it.
    #[error("{} lies within the source {}; name a folder outside it", out.display(), from.display())]
    Within {
        /// The folder.
        out: PathBuf,
        /// The source.
        from: PathBuf,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Shards cannot be written.
    #[error(transparent)]
    Shard(crate::shard::Error),
    /// No threads.
    #[error("cannot start {jobs} threads: {problem}; lower --jobs")]
    Threads {
        /// How many.
        jobs: usize,
        /// What happened.
        problem: String,
    },
    /// It was asked to stop.
    #[error("stopped; the same command goes on with what is finished")]
    Stopped,
}

impl PackError {
    /// Whether the input is to blame, rather than the way of asking or the output.
    pub fn is_input(&self) -> bool {
        use PackError as E;
        matches!(
            self,
            E::Input(_)
                | E::Read { .. }
                | E::Nothing { .. }
                | E::NoPatient { .. }
                | E::MaskValues { .. }
                | E::Leaks { .. }
        )
    }
}

const SHOWN: usize = 5;

fn first(left_out: &[LeftOut]) -> String {
    let mut text: String = left_out.iter().take(SHOWN).map(|one| format!("\n  {one}")).collect();
    if left_out.len() > SHOWN {
        text += &format!("\n  and {} more", left_out.len() - SHOWN);
    }
    text
}
