//! The format before PyTorch 1.6: pickles and storages, one after the other.
//!
//! Duty: magic number, version, system, object and storage keys, then the bytes of each storage as slices of the file.
//! Must not: believe a storage's length before the bytes are there.

use std::collections::HashMap;

use crate::error::shown;
use crate::pickle::{self, Pickle};
use crate::tensor::{Tensor, gather, tensor_limit};
use crate::value::{Heap, Value};
use crate::{Error, select};

/// 0x1950a86a20f9469cfc6c, as a pickle has it.
pub(crate) const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

const VERSION: i64 = 1001;

pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Tensor>, Error> {
    let magic = pickle::load("the magic number", bytes, 0)?;
    if magic.root != Value::Long(&MAGIC) {
        return Err(Error::Foreign { seems: "a pickle that only resembles a file by torch.save" });
    }
    let version = pickle::load("the protocol version", bytes, magic.end)?;
    check_version(version.root)?;
    let system = pickle::load("the system information", bytes, version.end)?;
    check_byte_order(&system)?;
    let object = pickle::load("the pickled object", bytes, system.end)?;
    let keys = pickle::load("the list of storages", bytes, object.end)?;
    let storages = storages(bytes, &object.heap, &keys)?;
    let named = select::weights(&object.heap, object.root)?;
    gather(&object.heap, &named, tensor_limit(bytes.len()), |storage| {
        let missing = || Error::Storage { key: shown(storage.key), problem: "is not in the file's list".to_owned() };
        storages.get(storage.key).copied().ok_or_else(missing)
    })
}

fn check_version(version: Value) -> Result<(), Error> {
    match version {
        Value::Int(VERSION) => Ok(()),
        Value::Int(other) => Err(Error::Version { found: other.to_string() }),
        other => Err(Error::Version { found: other.kind().to_owned() }),
    }
}

fn check_byte_order(system: &Pickle) -> Result<(), Error> {
    let Value::Dict(dict) = system.root else { return Ok(()) };
    if system.heap.pairs(dict).contains(&(Value::Str("little_endian"), Value::Bool(false))) {
        return Err(Error::ByteOrder { part: "the system information".to_owned() });
    }
    Ok(())
}

/// For each key, in the order of the list: the number of elements in 8 bytes, then these.
fn storages<'a>(bytes: &'a [u8], heap: &Heap, keys: &Pickle<'a>) -> Result<HashMap<&'a str, &'a [u8]>, Error> {
    let wrong = |problem: String| Error::Pickle { part: "the list of storages".to_owned(), at: keys.end, problem };
    let Value::List(list) = keys.root else {
        return Err(wrong(format!("a list of keys was expected, found {}", keys.root.kind())));
    };
    let mut rest = bytes.get(keys.end..).unwrap_or(&[]);
    let mut found = HashMap::new();
    for key in keys.heap.items(list) {
        let Value::Str(key) = *key else { return Err(wrong(format!("a key is a string, found {}", key.kind()))) };
        let (data, after) = storage(rest, heap, key).map_err(|problem| Error::Storage { key: shown(key), problem })?;
        if found.insert(key, data).is_some() {
            return Err(Error::Storage { key: shown(key), problem: "is twice in the file's list".to_owned() });
        }
        rest = after;
    }
    match rest.len() {
        0 => Ok(found),
        bytes => Err(Error::Trailing { part: "the last storage".to_owned(), bytes }),
    }
}

fn storage<'a>(rest: &'a [u8], heap: &Heap, key: &str) -> Result<(&'a [u8], &'a [u8]), String> {
    let (dtype, total) = heap.storage_type(key).ok_or("is in the file's list, but no tensor has it")?;
    let (count, rest) = rest.split_first_chunk().ok_or("is cut short; fetch or save the file again")?;
    let count = i64::from_le_bytes(*count);
    if u64::try_from(count).ok() != Some(total) {
        return Err(format!("should have {total} elements, but {count} are said to follow"));
    }
    let length = u128::from(total) * dtype.size() as u128;
    let data = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    data.ok_or_else(|| format!("is cut short, {length} bytes expected, {} left; fetch the file again", rest.len()))
}
