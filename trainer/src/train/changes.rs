//! Which changes of the configuration a run survives.

use crate::Error;
use crate::checkpoint::{DataState, State};
use protocol::config::Config;
use serde_json::Value;

/// Keys that define what is trained; a run cannot go on with others. Lists are compared by what they hold.
const FIXED: [&str; 15] = [
    "run.seed",
    "model",
    "data.input",
    "data.size",
    "data.normalize",
    "data.augment",
    "data.shuffle",
    "train.micro_batch",
    "train.precision",
    "train.channels_last",
    "train.clip_grad_norm",
    "optim",
    "loss",
    "mix",
    "train.global_batch",
];

/// An error that lists what differs from the checkpoint, unless `run.allow_changes`.
pub(super) fn check(config: &Config, state: &State, train: &DataState, eval: Option<&DataState>) -> Result<(), Error> {
    if config.run.allow_changes {
        return Ok(());
    }
    let now = serde_json::to_value(config).unwrap_or_default();
    // Keys that the version of the checkpoint did not know have their defaults.
    let then = serde_json::from_value::<Config>(state.config.clone()).and_then(serde_json::to_value);
    let then = then.unwrap_or_else(|_| state.config.clone());
    let mut differences = Vec::new();
    for key in FIXED {
        compare(key, at(&then, key), at(&now, key), state, &mut differences);
    }
    compare_lists("data.train", Some(&state.data), Some(train), &mut differences);
    // A checkpoint without evaluation says nothing of the list; one may be added later.
    if state.eval_data.is_some() {
        compare_lists("data.eval", state.eval_data.as_ref(), eval, &mut differences);
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

fn compare_lists(key: &str, old: Option<&DataState>, new: Option<&DataState>, out: &mut Vec<String>) {
    let text = |list: Option<&DataState>| {
        list.map_or("nothing".into(), |l| format!("{} samples ({:.12}…)", l.samples, l.fingerprint))
    };
    if old != new {
        out.push(format!("{key}: {} in the checkpoint, {} now", text(old), text(new)));
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
            for (name, value) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                compare(&format!("{key}.{name}"), value, &Value::Null, state, out);
            }
        }
        // `auto` was fixed at the first start: to name that number changes nothing, and `auto` keeps it.
        (_, new) if key == "train.global_batch" && (new == "auto" || *new == state.global_batch) => {}
        (_, new) if key == "train.global_batch" => {
            out.push(format!("{key} = {} in the checkpoint, {new} now", state.global_batch));
        }
        (Value::String(old), Value::String(new)) if key.starts_with("model.init") && same_file(old, new) => {}
        (old, new) if old != new => out.push(format!("{key} = {old} in the checkpoint, {new} now")),
        _ => {}
    }
}

/// Whether two paths lead to the same file, from this folder.
fn same_file(a: &str, b: &str) -> bool {
    matches!((std::fs::canonicalize(a), std::fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}
