//! What a worker tells its launcher over the side channel: one JSON object a line.

use crate::{Exit, Rank, Step};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the launcher answers to the hello of a worker that it takes.
pub const WELCOME: &[u8; 8] = b"welcome\n";

/// A message from a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Message {
    /// The first message of every connection; one without the run's token is dropped.
    Hello {
        /// The run's token.
        token: String,
        /// The sender.
        rank: Rank,
        /// The sender's host name.
        host: String,
        /// The sender's process id.
        pid: u32,
    },
    /// Where the worker is; rank 0's are also what the progress bar shows.
    Progress(Progress),
    /// Every second: where the worker is. One that sends none is stopped, dead or cut off.
    Beat(Beat),
    /// A complete checkpoint of this step lies on disk (rank 0).
    Checkpoint {
        /// Number of the stage in a pipeline, from 0; 0 without one.
        #[serde(default)]
        stage: usize,
        /// The step that it holds.
        step: Step,
    },
    /// The worker is about to end because of an error.
    Failed {
        /// The last step that the worker finished.
        step: Step,
        /// The exit code that it deserves.
        exit: Exit,
        /// What went wrong, in one line.
        cause: String,
    },
    /// The worker is about to end as it should (done or preempted).
    Finished {
        /// How it ends.
        exit: Exit,
    },
}

/// A point of the work, as rank 0's progress bar shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is going on: `train`, `eval`, …
    pub phase: String,
    /// Units done (training: optimizer steps).
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// Samples a second over the last units, across all workers; 0 where not yet known.
    pub samples_per_second: f64,
    /// What else is worth a glance: `epoch 3/40  loss 1.234`.
    pub note: String,
}

/// Where a worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Grows whenever the worker goes on to something else, or gets on with its data; the same number again means no progress.
    pub count: u64,
    /// How many waits for the other ranks it has begun. All have the same ones in the same order: the fewest are behind.
    pub waits: u64,
    /// Optimizer steps that it has finished.
    pub step: Step,
    /// What it does.
    pub phase: Phase,
    /// What it waits for from the other ranks, where it does: `gradient all-reduce`, …
    pub waits_for: Option<String>,
    /// The gradient bucket of that, where there is one.
    pub bucket: Option<usize>,
}

/// A part of a worker's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the first step: opens data, finds checkpoints, meets the other ranks.
    #[default]
    Start,
    /// Waits for a batch.
    Data,
    /// The forward pass.
    Forward,
    /// The backward pass, and the sums over the ranks.
    Backward,
    /// The optimizer.
    Update,
    /// Copies or writes a checkpoint.
    Checkpoint,
    /// Writes metrics and shows progress.
    Report,
    /// Evaluates.
    Evaluation,
    /// Checks machines and connections.
    Check,
    /// Writes what there is to say at the end.
    End,
}

impl Phase {
    /// Whether it takes as long in one step as in the others, so that much longer means that something is wrong. Data may come
    /// from a slow server, and checkpoints go to a slow disk.
    pub fn is_regular(self) -> bool {
        matches!(self, Phase::Forward | Phase::Backward | Phase::Update)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Start => "start-up",
            Phase::Data => "waiting for data",
            Phase::Forward => "forward pass",
            Phase::Backward => "backward pass",
            Phase::Update => "optimizer",
            Phase::Checkpoint => "checkpoint",
            Phase::Report => "writing metrics",
            Phase::Evaluation => "evaluation",
            Phase::Check => "check",
            Phase::End => "end",
        })
    }
}
