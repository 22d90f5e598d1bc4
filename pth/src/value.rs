//! What a pickle builds: plain values that refer to each other by number.
//!
//! Duty: hold the values of one pickle. Must not: own one value by another: a list may hold itself, and dropping or
//! copying a value never follows a reference.

use std::collections::HashMap;

use crate::dtype::Dtype;
use crate::rebuild::Global;

/// One value; those with contents are a number in the [`Heap`] that made them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits: two's complement, little-endian.
    Long(&'a [u8]),
    /// No float of a checkpoint is needed.
    Float,
    Str(&'a str),
    /// A string of Python 2 that is no UTF-8.
    Bytes,
    Tuple(usize),
    List(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
}

impl Value<'_> {
    /// For messages.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) | Value::Long(_) => "an integer",
            Value::Float => "a float",
            Value::Str(_) => "a string",
            Value::Bytes => "bytes",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a class or function",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
        }
    }
}

/// Elements `start..start + len` of the storage `key`, which has `total`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storage<'a> {
    pub(crate) key: &'a str,
    pub(crate) dtype: Dtype,
    pub(crate) total: u64,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// A tensor as the pickle describes it; nothing of it has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) storage: usize,
    pub(crate) offset: u64,
    /// Numbers of tuples, which never change.
    pub(crate) shape: usize,
    pub(crate) strides: usize,
}

/// The contents of the values of one pickle.
#[derive(Debug, Default)]
pub(crate) struct Heap<'a> {
    sequences: Vec<Vec<Value<'a>>>,
    dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    storages: Vec<Storage<'a>>,
    views: Vec<View>,
    /// By key: a storage has one type and one length, whichever views refer to it.
    types: HashMap<&'a str, (Dtype, u64)>,
}

impl<'a> Heap<'a> {
    pub(crate) fn tuple(&mut self, items: Vec<Value<'a>>) -> Value<'a> {
        self.sequences.push(items);
        Value::Tuple(self.sequences.len() - 1)
    }

    pub(crate) fn list(&mut self) -> Value<'a> {
        self.sequences.push(Vec::new());
        Value::List(self.sequences.len() - 1)
    }

    pub(crate) fn dict(&mut self, pairs: Vec<(Value<'a>, Value<'a>)>) -> Value<'a> {
        self.dicts.push(pairs);
        Value::Dict(self.dicts.len() - 1)
    }

    pub(crate) fn tensor(&mut self, view: View) -> Value<'a> {
        self.views.push(view);
        Value::Tensor(self.views.len() - 1)
    }

    /// `None` where this storage was described otherwise before.
    pub(crate) fn storage(&mut self, storage: Storage<'a>) -> Option<Value<'a>> {
        let described = (storage.dtype, storage.total);
        if *self.types.entry(storage.key).or_insert(described) != described {
            return None;
        }
        self.storages.push(storage);
        Some(Value::Storage(self.storages.len() - 1))
    }

    /// Of a tuple or list.
    pub(crate) fn items(&self, id: usize) -> &[Value<'a>] {
        self.sequences.get(id).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn items_mut(&mut self, id: usize) -> Option<&mut Vec<Value<'a>>> {
        self.sequences.get_mut(id)
    }

    /// Of a dict, in the order they were set; a key may be there twice.
    pub(crate) fn pairs(&self, id: usize) -> &[(Value<'a>, Value<'a>)] {
        self.dicts.get(id).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn pairs_mut(&mut self, id: usize) -> Option<&mut Vec<(Value<'a>, Value<'a>)>> {
        self.dicts.get_mut(id)
    }

    pub(crate) fn storage_at(&self, id: usize) -> Option<&Storage<'a>> {
        self.storages.get(id)
    }

    pub(crate) fn view(&self, id: usize) -> Option<&View> {
        self.views.get(id)
    }

    /// Type and number of elements of the storage `key`.
    pub(crate) fn storage_type(&self, key: &str) -> Option<(Dtype, u64)> {
        self.types.get(key).copied()
    }
}
