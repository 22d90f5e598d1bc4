//! Weights files: safetensors with what describes the network in the metadata.

use crate::model::Store;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// A weights file that cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened, read or written.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{} is not a usable safetensors file: {problem}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file's tensors are not those of the network.
    #[error("{} holds the weights of another network: {problem}", file.display())]
    Mismatch {
        /// The file.
        file: PathBuf,
        /// The first difference.
        problem: String,
    },
    /// libtorch refused a tensor.
    #[error("tensor '{name}': {source}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Why.
        source: tch::TchError,
    },
}

impl Error {
    /// Whether the input is at fault rather than the machine.
    pub fn is_bad_input(&self) -> bool {
        matches!(self, Error::Format { .. } | Error::Mismatch { .. })
            || matches!(self, Error::Io { source, .. } if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::IsADirectory))
    }
}

/// Named tensors in file order, and the file's metadata.
#[derive(Debug)]
pub struct Weights {
    /// Where they come from.
    pub file: PathBuf,
    /// The tensors, on the CPU.
    pub tensors: Vec<(String, Tensor)>,
    /// Metadata of the file.
    pub metadata: HashMap<String, String>,
}

/// Reads a whole file.
pub fn read(file: &Path) -> Result<Weights, Error> {
    let bytes = std::fs::read(file).map_err(|source| Error::Io { file: file.into(), source })?;
    let wrong = |e: SafeTensorError| Error::Format { file: file.into(), problem: e.to_string() };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(wrong)?;
    let parsed = SafeTensors::deserialize(&bytes).map_err(wrong)?;
    let mut tensors = Vec::with_capacity(parsed.len());
    for name in header.offset_keys() {
        let view = parsed.tensor(&name).map_err(wrong)?;
        let tensor = from_view(&view)
            .map_err(|problem| Error::Format { file: file.into(), problem: format!("tensor '{name}': {problem}") })?;
        tensors.push((name, tensor));
    }
    Ok(Weights { file: file.into(), tensors, metadata: header.metadata().clone().unwrap_or_default() })
}

fn from_view(view: &TensorView<'_>) -> Result<Tensor, String> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        other => return Err(format!("element type {other:?} is not supported")),
    };
    let shape: Vec<i64> = view.shape().iter().map(|d| *d as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|e| e.to_string())
}

/// Bytes of a safetensors file with these tensors (float32, float64, int64 or uint8), in this order.
pub fn to_bytes(tensors: &[(String, Tensor)], metadata: HashMap<String, String>) -> Result<Vec<u8>, Error> {
    let mut data = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        data.push(bytes_of(tensor).map_err(|source| Error::Tensor { name: name.clone(), source })?);
    }
    let wrong = |e: SafeTensorError| Error::Format { file: PathBuf::from("(in memory)"), problem: e.to_string() };
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), bytes) in tensors.iter().zip(&data) {
        let shape = tensor.size().iter().map(|d| *d as usize).collect();
        views.push((name.as_str(), TensorView::new(dtype(tensor.kind()), shape, bytes).map_err(wrong)?));
    }
    let mut file = safetensors::serialize(views, Some(metadata)).map_err(wrong)?;
    sort_metadata(&mut file);
    Ok(file)
}

/// The library writes metadata in the order of a hash map; equal weights shall be equal files.
fn sort_metadata(file: &mut [u8]) {
    let Some(length) = file.first_chunk::<8>().map(|b| u64::from_le_bytes(*b) as usize) else { return };
    let Some(header) = file.get_mut(8..8 + length) else { return };
    let Ok(mut json) = serde_json::from_slice::<serde_json::Value>(header) else { return };
    if let Some(metadata) = json.get_mut("__metadata__").and_then(|m| m.as_object_mut()) {
        metadata.sort_keys();
    }
    // The same characters in another order; the library pads with spaces.
    if let Ok(sorted) = serde_json::to_vec(&json)
        && sorted.len() <= header.len()
    {
        header.fill(b' ');
        header[..sorted.len()].copy_from_slice(&sorted);
    }
}

fn dtype(kind: Kind) -> Dtype {
    match kind {
        Kind::Double => Dtype::F64,
        Kind::Int64 => Dtype::I64,
        Kind::Uint8 => Dtype::U8,
        _ => Dtype::F32,
    }
}

fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, tch::TchError> {
    let kind =
        if matches!(tensor.kind(), Kind::Double | Kind::Int64 | Kind::Uint8) { tensor.kind() } else { Kind::Float };
    let plain = tensor.detach().to_device(tch::Device::Cpu).to_kind(kind).contiguous();
    let mut bytes = vec![0; plain.numel() * kind.elt_size_in_bytes()];
    plain.f_copy_data_u8(&mut bytes, plain.numel())?;
    Ok(bytes)
}

/// The tensors of a network under their official names, for [`to_bytes`].
pub fn of(store: &Store) -> Vec<(String, Tensor)> {
    store.entries().iter().map(|e| (e.name.clone(), e.tensor.detach())).collect()
}

/// Copies the file's tensors into the network. Names and shapes must agree exactly.
pub fn load_into(store: &Store, weights: &Weights) -> Result<(), Error> {
    let by_name: HashMap<&str, &Tensor> = weights.tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let mismatch = |problem: String| Error::Mismatch { file: weights.file.clone(), problem };
    for entry in store.entries() {
        let Some(tensor) = by_name.get(entry.name.as_str()) else {
            return Err(mismatch(format!("tensor '{}' is missing", entry.name)));
        };
        if tensor.size() != entry.tensor.size() {
            let (theirs, ours) = (tensor.size(), entry.tensor.size());
            return Err(mismatch(format!("tensor '{}' has shape {theirs:?}, the network's has {ours:?}", entry.name)));
        }
    }
    if let Some((name, _)) = weights.tensors.iter().find(|(name, _)| store.get(name).is_none()) {
        return Err(mismatch(format!("the network has no tensor '{name}'")));
    }
    tch::no_grad(|| {
        for entry in store.entries() {
            let mut target = entry.tensor.detach();
            target
                .f_copy_(by_name[entry.name.as_str()])
                .map_err(|source| Error::Tensor { name: entry.name.clone(), source })?;
        }
        Ok(())
    })
}
