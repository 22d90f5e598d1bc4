//! `state.json`: where training was, and what it was.

use crate::optim::LossScale;
use protocol::config::Metric;
use serde::{Deserialize, Serialize};

/// Everything of a checkpoint that is no tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps done.
    pub step: u64,
    /// Epochs completed.
    pub epoch: u64,
    /// Samples consumed since the start; with seed and batches, the position in the data.
    pub samples: u64,
    /// Seed of the order of samples and of augmentation.
    pub seed: u64,
    /// Steps that the schedule counts to.
    pub max_steps: u64,
    /// Samples a step.
    pub global_batch: usize,
    /// Samples a forward pass.
    pub micro_batch: usize,
    /// Workers that wrote it.
    pub world_size: usize,
    /// The number of the start that wrote it; 0 where starts had none yet.
    #[serde(default)]
    pub generation: u64,
    /// The training samples.
    pub data: DataState,
    /// The evaluation samples; none where there is no evaluation.
    #[serde(default)]
    pub eval_data: Option<DataState>,
    /// Step of the newest complete evaluation.
    pub evaluated: Option<u64>,
    /// The order of summation.
    pub buckets: Buckets,
    /// The best checkpoint so far.
    pub best: Option<Best>,
    /// The factor of the loss, in half precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
    /// The configuration as resolved.
    pub config: serde_json::Value,
    /// What wrote it.
    pub versions: Versions,
}

/// Which samples a list has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataState {
    /// How many.
    pub samples: usize,
    /// Checksum over their names, in order.
    pub fingerprint: String,
}

/// Gradient buckets, by parameter name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buckets {
    /// Parameters of each bucket, in order.
    pub parameters: Vec<Vec<String>>,
    /// Whether the order was seen rather than guessed.
    pub settled: bool,
}

/// A checkpoint that is better than all before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// What was compared.
    pub metric: Metric,
    /// Its value.
    pub value: f64,
}

/// Program versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// This program.
    pub jcs: String,
    /// Git commit that it was built from.
    pub commit: String,
    /// libtorch.
    pub libtorch: String,
    /// Backend of the collectives, which chooses the order of summation across ranks.
    pub collectives: String,
    /// OpenMP threads a worker, which fix the order of summation within a rank.
    pub threads: i64,
}
