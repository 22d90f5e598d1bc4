//! Checkpoints: folders that are complete or absent.
//!
//! `RUN/checkpoints/step-00000123/` holds `model.safetensors`, `optimizer.safetensors`, `state.json` and, written
//! last, `MANIFEST.json` with the checksum of each; `best` and `latest` hold names of such folders. A folder
//! is written under a temporary name, made durable and renamed.
//!
//! An object store may have copies of them.
//!
//! This module knows bytes, not tensors: [`crate::train`] says what they mean.

mod bring;
mod manifest;
mod read;
mod retain;
mod state;
mod upload;
mod write;

pub use bring::{Brought, bring, steps as steps_in};
pub use read::{Found, newest, resolve_weights, search, verify};
pub use retain::{clean, remove_old, set_aside, to_remove};
pub use state::{Best, Buckets, DataState, State, Versions};
pub use upload::{Request, upload};
pub use write::{repoint, set_best, write};

use crate::weights;
use data_shards::remote::{self, Blame, Fault};
use protocol::Exit;
use std::path::PathBuf;

/// Names of the files in a checkpoint.
pub const MODEL: &str = "model.safetensors";
/// Moments and the generator's state.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Everything that is no tensor.
pub const STATE: &str = "state.json";
/// Sizes and checksums of the others.
pub const MANIFEST: &str = "MANIFEST.json";
/// Name of the newest complete checkpoint.
pub const LATEST: &str = "latest";
/// Name of the best one.
pub const BEST: &str = "best";

/// Prefix of folders that are being written.
const TEMPORARY: &str = ".tmp-";
/// Prefix of folders whose name a new one is about to get.
const DISPLACED: &str = ".displaced-";

/// Folder name of the checkpoint of a step.
pub fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Step of a checkpoint's folder name.
pub fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (folder_name(step) == name).then_some(step)
}

/// A checkpoint that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be written; what was there before is untouched.
    #[error("cannot write the checkpoint {}: {source}; the earlier checkpoints are untouched", path.display())]
    Write {
        /// What was being written.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of it cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what its manifest says.
    #[error("checkpoint {} is damaged: {problem}", folder.display())]
    Damaged {
        /// The checkpoint.
        folder: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A newer program wrote it.
    #[error("checkpoint {} has format {format}, and this program knows up to {known}: use the program that wrote it, or a newer one", folder.display())]
    Newer {
        /// The checkpoint.
        folder: PathBuf,
        /// Its format.
        format: u32,
        /// The newest that is known.
        known: u32,
    },
    /// There are checkpoints, but none that can be used.
    #[error("none of the checkpoints in {} can be used; the newest: {problem}; move them away to start afresh", folder.display())]
    NoneUsable {
        /// The run's checkpoints.
        folder: PathBuf,
        /// What is wrong with the newest.
        problem: String,
    },
    /// A path that should lead to weights does not.
    #[error("{}: {problem}", path.display())]
    NoWeights {
        /// The path.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The object store, or what it has.
    #[error(transparent)]
    Remote(#[from] remote::Error),
    /// The last checkpoint of a run could not be uploaded.
    #[error(
        "{checkpoint} could not be uploaded: {source}; it is complete in the run directory: the same command uploads it"
    )]
    NotUploaded {
        /// Its name.
        checkpoint: String,
        /// Why.
        source: Box<Error>,
    },
    /// Its tensors cannot be used.
    #[error(transparent)]
    Weights(#[from] weights::Error),
}

impl Error {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Write { .. } | Error::Read { .. } => Exit::WorkerFailed,
            Error::NoWeights { .. } | Error::Newer { .. } => Exit::Usage,
            Error::Damaged { .. } | Error::NoneUsable { .. } => Exit::BadData,
            Error::NotUploaded { source, .. } => source.exit(),
            // A server that is gone may be back at the next start; one that says no will say so again.
            Error::Remote(remote::Error::Remote { fault: Fault::Refused { .. } | Fault::Answer { .. }, .. }) => {
                Exit::Usage
            }
            Error::Remote(e) if e.blame() == Blame::Usage => Exit::Usage,
            Error::Remote(_) => Exit::WorkerFailed,
            Error::Weights(e) if e.is_bad_input() => Exit::BadData,
            Error::Weights(_) => Exit::WorkerFailed,
        }
    }
}
