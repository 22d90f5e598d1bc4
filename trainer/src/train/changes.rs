//! Which changes of the configuration a run survives. Pure.

use crate::Error;
use crate::checkpoint::{DataState, State};
use protocol::config::Config;
use serde_json::Value;

/// Keys that define what is trained; a run cannot go on with others.
const FIXED: [&str; 13] = [
    "run.seed",
    "model.kind",
    "model.width",
    "data.size",
    "data.augment",
    "data.shuffle",
    "train.micro_batch",
    "train.precision",
    "train.channels_last",
    "train.clip_grad_norm",
    "optim",
    "loss",
    "train.global_batch",
];

/// An error that lists what differs from the checkpoint, unless `run.allow_changes`.
pub(super) fn check(config: &Config, state: &State, data: &DataState) -> Result<(), Error> {
    if config.run.allow_changes {
        return Ok(());
    }
    let now = serde_json::to_value(config).unwrap_or_default();
    let mut differences = Vec::new();
    for key in FIXED {
        compare(key, at(&state.config, key), at(&now, key), state, &mut differences);
    }
    if state.data != *data {
        differences.push(format!(
            "data.train: {} samples ({:.12}…) in the checkpoint, {} ({:.12}…) now",
            state.data.samples, state.data.fingerprint, data.samples, data.fingerprint
        ));
    }
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "the run in {} was started differently: {}; undo this, choose another run.dir, or set run.allow_changes=true",
            config.run.dir.display(),
            differences.join("; ")
        ))),
    }
}

fn at<'a>(config: &'a Value, key: &str) -> &'a Value {
    key.split('.').fold(config, |v, part| &v[part])
}

fn compare(key: &str, old: &Value, new: &Value, state: &State, out: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                compare(&format!("{key}.{name}"), old.get(name).unwrap_or(&Value::Null), value, state, out);
            }
        }
        // `auto` was fixed at the first start: to name that number changes nothing, and `auto` keeps it.
        (_, new) if key == "train.global_batch" && (new == "auto" || *new == state.global_batch) => {}
        (_, new) if key == "train.global_batch" => {
            out.push(format!("{key} = {} in the checkpoint, {new} now", state.global_batch));
        }
        (old, new) if old != new => out.push(format!("{key} = {old} in the checkpoint, {new} now")),
        _ => {}
    }
}
