//! Weight files in the zip format.
//!
//! Duty: the same bytes for the same tensors, which `torch.load(weights_only=True)` takes. Must not: create, replace or
//! name a file.

use std::collections::HashSet;
use std::io::{self, Write};

use crate::container::Archive;
use crate::error::shown;
use crate::opcode as op;
use crate::tensor::{Tensor, count};
use crate::{Dtype, Error};

/// Writes a state dict of these tensors, in this order, and flushes the writer.
///
/// # Errors
/// [`Error::Tensor`] for one whose data does not fit its shape, [`Error::Duplicate`] for two of one name, both before
/// anything is written; [`Error::Write`].
pub fn to_writer(writer: impl Write, tensors: &[Tensor]) -> Result<(), Error> {
    check(tensors)?;
    archive(writer, tensors).map_err(|source| Error::Write { source })
}

fn check(tensors: &[Tensor]) -> Result<(), Error> {
    let mut names = HashSet::new();
    for tensor in tensors {
        if !names.insert(tensor.name.as_str()) {
            return Err(Error::Duplicate { name: shown(&tensor.name) });
        }
        let described = count(&tensor.shape).map(|elements| elements * tensor.dtype.size() as u128);
        let countable = strides(&tensor.shape).is_some() && u32::try_from(tensor.name.len()).is_ok();
        if !countable || described != Some(tensor.data.len() as u128) {
            let (shape, dtype, bytes) = (&tensor.shape, tensor.dtype, tensor.data.len());
            let problem = format!("cannot be written: shape {shape:?} of {dtype:?} with {bytes} bytes of data");
            return Err(Error::Tensor { name: shown(&tensor.name), problem });
        }
    }
    Ok(())
}

fn archive(writer: impl Write, tensors: &[Tensor]) -> io::Result<()> {
    let mut archive = Archive::new(writer);
    archive.entry("archive/data.pkl", &pickle(tensors))?;
    archive.entry("archive/byteorder", b"little")?;
    for (key, tensor) in tensors.iter().enumerate() {
        archive.entry(&format!("archive/data/{key}"), &tensor.data)?;
    }
    archive.entry("archive/version", b"3\n")?;
    archive.finish()
}

fn pickle(tensors: &[Tensor]) -> Vec<u8> {
    let mut out = vec![op::PROTO, 2];
    ordered_dict(&mut out);
    out.push(op::MARK);
    for (key, tensor) in tensors.iter().enumerate() {
        string(&mut out, &tensor.name);
        global(&mut out, "torch._utils", "_rebuild_tensor_v2");
        out.push(op::MARK);
        storage(&mut out, key, tensor);
        integer(&mut out, 0);
        tuple(&mut out, &tensor.shape);
        tuple(&mut out, &strides(&tensor.shape).unwrap_or_default());
        out.push(op::NEWFALSE);
        ordered_dict(&mut out);
        out.extend([op::TUPLE, op::REDUCE]);
    }
    out.extend([op::SETITEMS, op::STOP]);
    out
}

fn storage(out: &mut Vec<u8>, key: usize, tensor: &Tensor) {
    out.push(op::MARK);
    string(out, "storage");
    global(out, "torch", Dtype::storage(tensor.dtype));
    string(out, &key.to_string());
    string(out, "cpu");
    integer(out, tensor.data.len() / tensor.dtype.size());
    out.extend([op::TUPLE, op::BINPERSID]);
}

fn ordered_dict(out: &mut Vec<u8>) {
    global(out, "collections", "OrderedDict");
    out.extend([op::EMPTY_TUPLE, op::REDUCE]);
}

fn global(out: &mut Vec<u8>, module: &str, name: &str) {
    out.push(op::GLOBAL);
    out.extend(format!("{module}\n{name}\n").bytes());
}

/// Names are checked to be shorter than 4 GiB.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(op::BINUNICODE);
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.bytes());
}

fn tuple(out: &mut Vec<u8>, items: &[usize]) {
    out.push(op::MARK);
    items.iter().for_each(|item| integer(out, *item));
    out.push(op::TUPLE);
}

fn integer(out: &mut Vec<u8>, value: usize) {
    match (u8::try_from(value), i32::try_from(value)) {
        (Ok(value), _) => out.extend([op::BININT1, value]),
        (_, Ok(value)) => {
            out.push(op::BININT);
            out.extend(value.to_le_bytes());
        }
        _ => {
            // Below 2^63, as every length of something in memory or checked by `strides`.
            out.extend([op::LONG1, 8]);
            out.extend((value as u64).to_le_bytes());
        }
    }
}

/// Of a contiguous tensor, as PyTorch has them: a dimension of length 0 counts as 1. `None` beyond PyTorch's integers.
fn strides(shape: &[usize]) -> Option<Vec<usize>> {
    let mut stride = 1usize;
    let mut strides = vec![0; shape.len()];
    for (place, &length) in strides.iter_mut().zip(shape).rev() {
        *place = stride;
        stride = stride.checked_mul(length.max(1)).filter(|stride| i64::try_from(*stride).is_ok())?;
    }
    Some(strides)
}
