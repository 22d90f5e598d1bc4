//! What rank 0 writes for people: `metrics.jsonl`, TensorBoard, the progress bar.
//!
//! It only writes; nothing in training depends on it. Lines of steps that a resumed run will take
//! again are removed, so that each step appears once.

mod gpu;
mod jsonl;
mod progress;
mod tensorboard;

pub use gpu::{GpuMeter, Usage};
pub use jsonl::MetricsFile;
pub use progress::ProgressReport;
pub use tensorboard::TensorBoard;

use crate::Error;
use serde_json::{Map, Value, json};
use std::path::Path;

/// All writers of a run; those of the other ranks are empty.
pub struct Monitor {
    metrics: Option<MetricsFile>,
    tensorboard: Option<TensorBoard>,
}

impl Monitor {
    /// Writers into `run`, which goes on after step `step`.
    pub fn open(run: &Path, step: u64, tensorboard: bool) -> Result<Monitor, Error> {
        let metrics = Some(MetricsFile::open(&run.join("metrics.jsonl"), step)?);
        let tensorboard = if tensorboard { Some(TensorBoard::open(&run.join("tensorboard"), step)?) } else { None };
        Ok(Monitor { metrics, tensorboard })
    }

    /// A monitor that writes nothing, for ranks other than 0.
    pub fn silent() -> Monitor {
        Monitor { metrics: None, tensorboard: None }
    }

    /// Writes a line of this kind; TensorBoard gets its numbers as `KIND/NAME`.
    pub fn write(&mut self, kind: &str, step: u64, fields: Map<String, Value>) -> Result<(), Error> {
        let Some(metrics) = &mut self.metrics else { return Ok(()) };
        let mut line = Map::from_iter([("kind".to_owned(), json!(kind)), ("step".to_owned(), json!(step))]);
        if let (Some(tensorboard), "train" | "eval") = (&mut self.tensorboard, kind) {
            for (name, value) in fields.iter().filter(|(name, _)| !matches!(name.as_str(), "epoch" | "samples")) {
                if let Some(number) = value.as_f64() {
                    tensorboard.scalar(&format!("{kind}/{name}"), step, number)?;
                }
            }
            tensorboard.flush()?;
        }
        line.extend(fields);
        metrics.write(&line)
    }

    /// Writes an event.
    pub fn event(&mut self, step: u64, event: &str, details: Value) -> Result<(), Error> {
        let mut fields = Map::from_iter([("event".to_owned(), json!(event))]);
        if let Value::Object(details) = details {
            fields.extend(details);
        }
        self.write("event", step, fields)
    }
}
