//! Which tensors of the object are the weights, and their names.
//!
//! Duty: the state dict, one level deep in a checkpoint at most; names without the prefix of `DataParallel`. Must not:
//! look into what stands beside it, or guess.

use std::collections::HashSet;

use crate::Error;
use crate::error::shown;
use crate::value::{Heap, Value};

/// Where a checkpoint has its state dict.
pub(crate) const WRAPPERS: [&str; 5] = ["state_dict", "model", "model_state_dict", "net", "network"];

const DATA_PARALLEL: &str = "module.";

/// Names and tensors (their numbers in the heap) of the state dict, in file order.
pub(crate) fn weights<'a>(heap: &Heap<'a>, root: Value<'a>) -> Result<Vec<(&'a str, usize)>, Error> {
    let Value::Dict(outer) = root else { return Err(Error::StateDict { found: root.kind() }) };
    let dict = wrapped(heap, outer)?.unwrap_or(outer);
    let mut names = HashSet::new();
    let mut weights = Vec::new();
    for (key, value) in heap.pairs(dict) {
        let Value::Str(name) = *key else { return Err(Error::Name { found: key.kind() }) };
        let Value::Tensor(tensor) = *value else {
            return Err(Error::NotATensor { name: shown(name), found: value.kind() });
        };
        if !names.insert(name) {
            return Err(Error::Duplicate { name: shown(name) });
        }
        weights.push((name, tensor));
    }
    Ok(without_prefix(weights))
}

/// The first of [`WRAPPERS`] that is a dict. One that is something else is a tensor of that name, or stands beside it.
fn wrapped(heap: &Heap, outer: usize) -> Result<Option<usize>, Error> {
    for wrapper in WRAPPERS {
        let mut found = heap.pairs(outer).iter().filter(|(key, _)| *key == Value::Str(wrapper));
        match (found.next(), found.next()) {
            (_, Some(_)) => return Err(Error::Duplicate { name: wrapper.to_owned() }),
            (Some((_, Value::Dict(inner))), None) => return Ok(Some(*inner)),
            _ => {}
        }
    }
    Ok(None)
}

fn without_prefix(weights: Vec<(&str, usize)>) -> Vec<(&str, usize)> {
    let shorter = weights.iter().map(|(name, tensor)| Some((name.strip_prefix(DATA_PARALLEL)?, *tensor)));
    shorter.collect::<Option<Vec<_>>>().unwrap_or(weights)
}
