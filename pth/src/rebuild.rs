//! The names that a weight file may use, and what stands for calling them.
//!
//! Duty: the allow-list, and storages and tensors from their arguments. Must not: read a tensor's bytes, or find a
//! function or class anywhere but in this list.

use crate::dtype::Dtype;
use crate::value::{Heap, Storage, Value, View};

/// An allowed function or class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Global {
    OrderedDict,
    Size,
    /// `torch._utils._rebuild_tensor`: storage, offset, shape, strides.
    Tensor,
    /// `torch._utils._rebuild_tensor_v2`: and requires_grad, hooks, metadata.
    TensorV2,
    /// `torch._utils._rebuild_parameter`: tensor, requires_grad, hooks.
    RebuiltParameter,
    /// `torch.nn.parameter.Parameter`, as PyTorch before 0.4 has it: a tensor, and state by BUILD.
    Parameter,
    Storage(Dtype),
}

impl Global {
    pub(crate) fn find(module: &str, name: &str) -> Option<Global> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch", "Size") => Some(Global::Size),
            ("torch._utils", "_rebuild_tensor") => Some(Global::Tensor),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Global::TensorV2),
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuiltParameter),
            ("torch.nn.parameter", "Parameter") => Some(Global::Parameter),
            ("torch", class) => Dtype::of_storage(class).map(Global::Storage),
            _ => None,
        }
    }
}

/// What calling `global` with these arguments would give, or what is wrong with them.
pub(crate) fn call<'a>(heap: &mut Heap<'a>, global: Global, args: &[Value<'a>]) -> Result<Value<'a>, String> {
    match (global, args) {
        (Global::OrderedDict, []) => Ok(heap.dict(Vec::new())),
        (Global::OrderedDict, [Value::List(items)]) => ordered_dict(heap, *items),
        (Global::Size, [Value::Tuple(items)]) => Ok(Value::Tuple(*items)),
        (Global::Tensor, [storage, offset, shape, strides]) => tensor(heap, [*storage, *offset, *shape, *strides]),
        (Global::TensorV2, [storage, offset, shape, strides, _, _, metadata @ ..]) => {
            no_metadata(heap, metadata)?;
            tensor(heap, [*storage, *offset, *shape, *strides])
        }
        (Global::RebuiltParameter, [tensor @ Value::Tensor(_), _, _])
        | (Global::Parameter, [tensor @ Value::Tensor(_)] | [tensor @ Value::Tensor(_), _]) => Ok(*tensor),
        _ => {
            let kinds: Vec<_> = args.iter().take(8).map(|arg| arg.kind()).collect();
            Err(format!("{global:?} cannot be made from {} arguments ({})", args.len(), kinds.join(", ")))
        }
    }
}

/// How many values [`call`] would copy, for the caller to bound.
pub(crate) fn copies(heap: &Heap, global: Global, args: &[Value]) -> usize {
    match (global, args) {
        (Global::OrderedDict, [Value::List(items)]) => heap.items(*items).len(),
        _ => 0,
    }
}

/// Python 2 has the pairs of an `OrderedDict` as a list of lists.
fn ordered_dict<'a>(heap: &mut Heap<'a>, items: usize) -> Result<Value<'a>, String> {
    let pair = |item: &Value<'a>| match item {
        Value::List(id) | Value::Tuple(id) => match heap.items(*id) {
            [key, value] => Some((*key, *value)),
            _ => None,
        },
        _ => None,
    };
    let pairs: Option<Vec<_>> = heap.items(items).iter().map(pair).collect();
    pairs.map(|pairs| heap.dict(pairs)).ok_or_else(|| "an OrderedDict is made from pairs".to_owned())
}

fn tensor<'a>(heap: &mut Heap<'a>, args: [Value<'a>; 4]) -> Result<Value<'a>, String> {
    let [Value::Storage(storage), Value::Int(offset), Value::Tuple(shape), Value::Tuple(strides)] = args else {
        let kinds = args.map(Value::kind).join(", ");
        return Err(format!("a tensor is made from a storage, an integer and two tuples, found {kinds}"));
    };
    let offset = u64::try_from(offset).map_err(|_| format!("a tensor's offset is {offset}"))?;
    Ok(heap.tensor(View { storage, offset, shape, strides }))
}

/// Metadata marks tensors whose elements are to be negated or conjugated.
fn no_metadata(heap: &Heap, metadata: &[Value]) -> Result<(), String> {
    match metadata {
        [] | [Value::None] => Ok(()),
        [Value::Dict(id)] if heap.pairs(*id).is_empty() => Ok(()),
        _ => Err("a tensor with metadata (a negated or conjugated view); save it as `tensor.clone()`".to_owned()),
    }
}

/// A storage from its persistent id: `('storage', class, key, location, elements)`, before 1.6 with the part of it that
/// is meant, `(key of the part, first element, elements)` or None.
pub(crate) fn persistent<'a>(heap: &mut Heap<'a>, id: Value<'a>) -> Result<Value<'a>, String> {
    const EXPECTED: &str = "a persistent id is a tuple ('storage', storage class, key, location, elements)";
    let Value::Tuple(items) = id else { return Err(format!("{EXPECTED}, found {}", id.kind())) };
    let (class, key, total, part) = match *heap.items(items) {
        [Value::Str("storage"), class, Value::Str(key), _, Value::Int(total)] => (class, key, total, Value::None),
        [Value::Str("storage"), class, Value::Str(key), _, Value::Int(total), part] => (class, key, total, part),
        _ => return Err(EXPECTED.to_owned()),
    };
    let Value::Global(Global::Storage(dtype)) = class else {
        return Err(format!("{EXPECTED}, found {} as the class", class.kind()));
    };
    let total = u64::try_from(total).map_err(|_| format!("a storage of {total} elements"))?;
    let (start, len) = part_of(heap, part, total)?;
    let storage = Storage { key, dtype, total, start, len };
    heap.storage(storage).ok_or_else(|| format!("storage `{}` has two types or lengths", crate::error::shown(key)))
}

fn part_of(heap: &Heap, part: Value, total: u64) -> Result<(u64, u64), String> {
    let wrong = || format!("a part of a storage is None or (key, first, elements) within its {total} elements");
    match part {
        Value::None => Ok((0, total)),
        Value::Tuple(id) => match *heap.items(id) {
            [Value::Str(_), Value::Int(start), Value::Int(len)] => {
                let (start, len) = u64::try_from(start).ok().zip(u64::try_from(len).ok()).ok_or_else(wrong)?;
                let end = start.checked_add(len).filter(|end| *end <= total);
                end.map(|_| (start, len)).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}
