//! What can go wrong between ranks, and the label that says where.

use std::fmt;

/// What an operation is for: goes into every error about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// The step that the job is in (optimizer steps completed).
    pub step: u64,
    /// The gradient bucket, where there is one.
    pub bucket: Option<usize>,
    /// Part of the step: `gradient all-reduce`, `weights broadcast`, …
    pub phase: &'static str,
}

impl Label {
    /// A label without a bucket.
    pub const fn new(step: u64, phase: &'static str) -> Label {
        Label { step, bucket: None, phase }
    }

    /// The label of a bucket.
    pub const fn bucket(step: u64, bucket: usize, phase: &'static str) -> Label {
        Label { step, bucket: Some(bucket), phase }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}, ", self.step)?;
        if let Some(bucket) = self.bucket {
            write!(f, "bucket {bucket}, ")?;
        }
        f.write_str(self.phase)
    }
}

/// A failed operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other ranks did not take part in time.
    #[error(
        "rank {rank} ({label}): the other ranks did not answer within {seconds} s; look for the one that hangs or is slow, or raise comm.timeout_s"
    )]
    Timeout {
        /// The rank that waited.
        rank: usize,
        /// What for.
        label: Label,
        /// How long.
        seconds: f64,
    },
    /// An earlier operation failed, so that this one was not tried.
    #[error("rank {rank} ({label}): not tried, because an earlier operation failed")]
    Broken {
        /// The rank.
        rank: usize,
        /// What was asked.
        label: Label,
    },
    /// The library that carries the numbers has failed.
    #[error("rank {rank} ({label}): {problem}")]
    Failed {
        /// The rank.
        rank: usize,
        /// What was under way.
        label: Label,
        /// What the library says.
        problem: String,
    },
    /// The backend cannot do this.
    #[error("rank {rank} ({label}): {problem}")]
    Unfit {
        /// The rank.
        rank: usize,
        /// What was asked.
        label: Label,
        /// Why not.
        problem: String,
    },
    /// The backend did not start, for want of something that it needs.
    #[error("failed to start {backend}: {problem}")]
    Start {
        /// The backend.
        backend: &'static str,
        /// Why, and what to do.
        problem: String,
    },
}

impl Error {
    /// Whether the cause is time: a hang or a rank that is too slow.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Error::Timeout { .. })
    }
}
