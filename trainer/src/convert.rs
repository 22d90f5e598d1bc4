//! Between the formats of weights files.

use crate::weights::{self, Weights};
use crate::{Error, files};
use std::io::Cursor;
use std::path::Path;
use tch::Tensor;

/// Reads `from` (`.safetensors`, `.pth`, `.pt`) and writes `to` in the format that its name says. Every tensor keeps its
/// name, type, shape and bits. Returns how many there are.
///
/// `frozen` exports for the official implementation, whose encoders have frozen norms: theirs lose their counters, and
/// what an ordinary norm adds to its variance is added to the file's.
pub fn convert(from: &Path, to: &Path, frozen: bool) -> Result<usize, Error> {
    let known = weights::is_pytorch(to) || to.extension().is_some_and(|e| e.eq_ignore_ascii_case("safetensors"));
    if !known {
        return Err(Error::Usage(format!("{}: the name must end in .safetensors, .pth or .pt", to.display())));
    }
    let mut weights = weights::read(from)?;
    if frozen {
        weights::freeze_norms(&mut weights)?;
    }
    let bytes = if weights::is_pytorch(to) { to_pytorch(&weights)? } else { to_safetensors(&weights)? };
    files::replace(to, &bytes).map_err(|source| Error::Output { file: to.into(), source })?;
    Ok(weights.tensors.len())
}

fn to_safetensors(weights: &Weights) -> Result<Vec<u8>, Error> {
    Ok(weights::to_bytes(&weights.tensors, weights.metadata.clone())?)
}

fn to_pytorch(weights: &Weights) -> Result<Vec<u8>, Error> {
    let tensors = weights.tensors.iter().map(|(name, tensor)| to_plain(name, tensor)).collect::<Result<Vec<_>, _>>()?;
    let mut bytes = Cursor::new(Vec::new());
    pth::to_writer(&mut bytes, &tensors)
        .map_err(|source| weights::Error::Pth { file: weights.file.clone(), source })?;
    Ok(bytes.into_inner())
}

fn to_plain(name: &str, tensor: &Tensor) -> Result<pth::Tensor, weights::Error> {
    let failed = |source| weights::Error::Tensor { name: name.to_owned(), source };
    let data = weights::bytes_of(tensor).map_err(failed)?;
    let shape = tensor.size().iter().map(|d| *d as usize).collect();
    Ok(pth::Tensor { name: name.to_owned(), dtype: weights::dtype_of(tensor.kind()), shape, data })
}
