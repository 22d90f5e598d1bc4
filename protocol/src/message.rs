//! What a worker tells its launcher over the side channel: one JSON object a line.

use crate::{Exit, Rank, Step};
use serde::{Deserialize, Serialize};

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
