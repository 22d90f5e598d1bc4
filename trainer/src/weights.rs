//! Weights files: safetensors with what describes the network in the metadata, and PyTorch's.

use crate::model::Store;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView, View};
use std::borrow::Cow;
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
    /// A file of PyTorch cannot be used.
    #[error("{}: {source}", file.display())]
    Pth {
        /// The file.
        file: PathBuf,
        /// Why.
        source: pth::Error,
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
        matches!(self, Error::Format { .. } | Error::Pth { .. } | Error::Mismatch { .. })
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

/// Reads a whole file: safetensors, or PyTorch's where the name ends in `.pth`, `.pt` or `.bin`.
pub fn read(file: &Path) -> Result<Weights, Error> {
    let failed = |source| Error::Io { file: file.into(), source };
    // A device or a pipe may never end.
    let found = std::fs::metadata(file).map_err(failed)?;
    if !found.is_file() && !found.is_dir() {
        return Err(failed(std::io::Error::new(ErrorKind::NotFound, "is no file")));
    }
    let bytes = std::fs::read(file).map_err(failed)?;
    if is_pytorch(file) { from_pytorch(file, &bytes) } else { from_safetensors(file, &bytes) }
}

/// Whether the name is that of a file of PyTorch.
pub fn is_pytorch(file: &Path) -> bool {
    let endings = ["pth", "pt", "bin", "tar"];
    file.extension().is_some_and(|e| endings.iter().any(|ending| e.eq_ignore_ascii_case(ending)))
}

fn from_pytorch(file: &Path, bytes: &[u8]) -> Result<Weights, Error> {
    let tensors = pth::from_bytes(bytes).map_err(|source| Error::Pth { file: file.into(), source })?;
    let convert = |t: pth::Tensor| {
        let shape: Vec<i64> = t.shape.iter().map(|d| *d as i64).collect();
        let Some(kind) = kind_of(t.dtype) else {
            let problem = format!("tensor '{}': element type {:?} is not supported", t.name, t.dtype);
            return Err(Error::Mismatch { file: file.into(), problem });
        };
        match Tensor::f_from_data_size(&t.data, &shape, kind) {
            Ok(tensor) => Ok((t.name, tensor)),
            Err(source) => Err(Error::Tensor { name: t.name, source }),
        }
    };
    let tensors = tensors.into_iter().map(convert).collect::<Result<_, _>>()?;
    Ok(Weights { file: file.into(), tensors, metadata: HashMap::new() })
}

fn kind_of(dtype: pth::Dtype) -> Option<Kind> {
    Some(match dtype {
        pth::Dtype::F64 => Kind::Double,
        pth::Dtype::F32 => Kind::Float,
        pth::Dtype::F16 => Kind::Half,
        pth::Dtype::Bf16 => Kind::BFloat16,
        pth::Dtype::I64 => Kind::Int64,
        pth::Dtype::I32 => Kind::Int,
        pth::Dtype::I16 => Kind::Int16,
        pth::Dtype::I8 => Kind::Int8,
        pth::Dtype::U8 => Kind::Uint8,
        pth::Dtype::Bool => Kind::Bool,
        _ => return None,
    })
}

fn from_safetensors(file: &Path, bytes: &[u8]) -> Result<Weights, Error> {
    let wrong = |e: SafeTensorError| Error::Format { file: file.into(), problem: e.to_string() };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
    let parsed = SafeTensors::deserialize(bytes).map_err(wrong)?;
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
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        other => return Err(format!("element type {other:?} is not supported")),
    };
    let shape: Vec<i64> = view.shape().iter().map(|d| *d as i64).collect();
    Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|e| e.to_string())
}

/// Bytes of a safetensors file with these tensors, in this order.
pub fn to_bytes(tensors: &[(String, Tensor)], metadata: HashMap<String, String>) -> Result<Vec<u8>, Error> {
    let copied = tensors.iter().map(|(name, tensor)| Copied::of(name, tensor)).collect::<Result<Vec<_>, _>>()?;
    serialize(&copied, metadata)
}

/// The value of a named tensor at some moment, apart from libtorch.
#[derive(Debug)]
pub struct Copied {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Copied {
    /// The tensor's present value.
    pub fn of(name: &str, tensor: &Tensor) -> Result<Copied, Error> {
        let mut copied = Copied { name: name.to_owned(), dtype: Dtype::F32, shape: Vec::new(), bytes: Vec::new() };
        copied.renew(tensor)?;
        Ok(copied)
    }

    /// Takes the tensor's present value into the same memory, which is much quicker than to ask the system for more.
    pub fn renew(&mut self, tensor: &Tensor) -> Result<(), Error> {
        self.dtype = dtype(tensor.kind());
        self.shape = tensor.size().iter().map(|d| *d as usize).collect();
        copy_bytes(tensor, &mut self.bytes).map_err(|source| Error::Tensor { name: self.name.clone(), source })
    }
}

impl View for &Copied {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Bytes of a safetensors file with these values.
pub fn serialize(tensors: &[Copied], metadata: HashMap<String, String>) -> Result<Vec<u8>, Error> {
    let wrong = |e: SafeTensorError| Error::Format { file: PathBuf::from("(in memory)"), problem: e.to_string() };
    let views = tensors.iter().map(|copied| (copied.name.as_str(), copied));
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
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        _ => Dtype::F32,
    }
}

/// The type of PyTorch's files for a tensor of this kind, as [`bytes_of`] writes it.
pub(crate) fn dtype_of(kind: Kind) -> pth::Dtype {
    match kind {
        Kind::Double => pth::Dtype::F64,
        Kind::Half => pth::Dtype::F16,
        Kind::BFloat16 => pth::Dtype::Bf16,
        Kind::Int64 => pth::Dtype::I64,
        Kind::Int => pth::Dtype::I32,
        Kind::Int16 => pth::Dtype::I16,
        Kind::Int8 => pth::Dtype::I8,
        Kind::Uint8 => pth::Dtype::U8,
        Kind::Bool => pth::Dtype::Bool,
        _ => pth::Dtype::F32,
    }
}

/// The elements of a tensor, little-endian, row-major; of an unusual type (complex, quantised) as float32.
pub(crate) fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, tch::TchError> {
    let mut bytes = Vec::new();
    copy_bytes(tensor, &mut bytes)?;
    Ok(bytes)
}

/// As [`bytes_of`], into memory that is there.
fn copy_bytes(tensor: &Tensor, bytes: &mut Vec<u8>) -> Result<(), tch::TchError> {
    let plain = tensor.detach().to_device(tch::Device::Cpu).contiguous();
    let plain = if dtype(plain.kind()) == Dtype::F32 { plain.to_kind(Kind::Float) } else { plain };
    bytes.resize(plain.numel() * plain.kind().elt_size_in_bytes(), 0);
    plain.f_copy_data_u8(bytes, plain.numel())
}

/// The tensors of a network under their official names, for [`to_bytes`].
pub fn of(store: &Store) -> Vec<(String, Tensor)> {
    store.entries().iter().map(|e| (e.name.clone(), e.tensor.detach())).collect()
}

/// What became of the tensors of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// How many were copied into the network.
    pub copied: usize,
    /// Tensors of the parts that the file has to do with, which it does not have.
    pub missing: Vec<String>,
    /// Tensors of the file that the network does not have.
    pub left_over: Vec<String>,
}

/// Copies the file's tensors into the network. Names and shapes must agree exactly.
pub fn load_into(store: &Store, weights: &Weights) -> Result<(), Error> {
    let mismatch = |problem: String| Error::Mismatch { file: weights.file.clone(), problem };
    let assigned = Assigned::new(weights, &|name| Some(name.to_owned()));
    assigned.check_shapes(store)?;
    let loaded = assigned.outcome(store, |_| true);
    if let Some(name) = loaded.missing.first() {
        return Err(mismatch(format!("tensor '{name}' is missing")));
    }
    if let Some(name) = loaded.left_over.first() {
        return Err(mismatch(format!("the network has no tensor '{name}'")));
    }
    assigned.copy(store)
}

/// Copies those of the file's tensors that `rename` has a name in the network for. What is missing is told for the parts
/// (the names up to the first dot, after `scope`) that the file has to do with.
pub fn load_part(
    store: &Store,
    weights: &Weights,
    scope: &str,
    rename: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Error> {
    let assigned = Assigned::new(weights, rename);
    assigned.check_shapes(store)?;
    let part = |name: &str| name.strip_prefix(scope).map(|rest| rest.split('.').next().unwrap_or_default().to_owned());
    let parts: std::collections::BTreeSet<String> = assigned
        .targets
        .iter()
        .filter(|(name, _)| store.get(name).is_some())
        .filter_map(|(name, _)| part(name))
        .collect();
    let loaded = assigned.outcome(store, |name| part(name).is_some_and(|p| parts.contains(&p)));
    assigned.copy(store)?;
    Ok(loaded)
}

/// Whether the encoder's norms are ordinary ones, which count their batches.
pub fn has_trained_encoder(weights: &Weights) -> bool {
    let in_encoder = |name: &str| !name.starts_with("fuse.") && name.ends_with(COUNTER);
    weights.tensors.iter().any(|(name, _)| in_encoder(name))
}

/// Makes the encoders' ordinary norms frozen ones that compute the same.
pub fn freeze_norms(weights: &mut Weights) -> Result<(), Error> {
    let in_encoder = |name: &str| !name.starts_with("fuse.");
    let counted: Vec<String> = weights
        .tensors
        .iter()
        .filter(|(name, _)| in_encoder(name))
        .filter_map(|(name, _)| name.strip_suffix(COUNTER).map(|norm| format!("{norm}{VARIANCE}")))
        .collect();
    for (name, tensor) in weights.tensors.iter_mut().filter(|(name, _)| counted.contains(name)) {
        let failed = |source| Error::Tensor { name: name.clone(), source };
        *tensor = tensor.f_add_scalar(EPSILON).map_err(failed)?;
    }
    weights.tensors.retain(|(name, _)| !in_encoder(name) || !name.ends_with(COUNTER));
    if let Some(norm) = weights.metadata.get_mut("norm") {
        *norm = "frozen".to_owned();
    }
    Ok(())
}

const COUNTER: &str = ".num_batches_tracked";
const VARIANCE: &str = ".running_var";
/// What an ordinary norm adds to the variance and a frozen one does not.
const EPSILON: f64 = 1e-5;

/// A file's tensors by their names in the network.
struct Assigned<'a> {
    weights: &'a Weights,
    targets: HashMap<String, &'a Tensor>,
    nameless: Vec<String>,
    /// Torchvision's norms are ordinary ones, also in its files from before norms counted.
    torchvision: bool,
}

impl<'a> Assigned<'a> {
    fn new(weights: &'a Weights, rename: &dyn Fn(&str) -> Option<String>) -> Assigned<'a> {
        let (mut targets, mut nameless) = (HashMap::new(), Vec::new());
        for (name, tensor) in &weights.tensors {
            match rename(name) {
                Some(target) => drop(targets.insert(target, tensor)),
                None => nameless.push(name.clone()),
            }
        }
        let torchvision = weights.tensors.iter().any(|(name, _)| name.starts_with("features."));
        Assigned { weights, targets, nameless, torchvision }
    }

    fn check_shapes(&self, store: &Store) -> Result<(), Error> {
        for entry in store.entries() {
            let Some(tensor) = self.targets.get(&entry.name) else { continue };
            let (theirs, ours) = (tensor.size(), entry.tensor.size());
            if theirs != ours {
                let problem = format!("tensor '{}' has shape {theirs:?}, the network's has {ours:?}", entry.name);
                return Err(Error::Mismatch { file: self.weights.file.clone(), problem });
            }
        }
        Ok(())
    }

    /// Counters come and go with the kind of norm: none is missing or left over where the norm itself is there.
    fn outcome(&self, store: &Store, wanted: impl Fn(&str) -> bool) -> Loaded {
        let norm_is_there = |name: &str, there: &dyn Fn(&str) -> bool| {
            name.strip_suffix(COUNTER).is_some_and(|norm| there(&format!("{norm}{VARIANCE}")))
        };
        let entries = store.entries().iter().map(|e| &e.name);
        let missing = entries.filter(|name| {
            wanted(name) && !self.targets.contains_key(*name) && !norm_is_there(name, &|v| self.targets.contains_key(v))
        });
        let in_file_order = self.weights.tensors.iter().map(|(name, _)| name);
        let unknown: Vec<&String> = self.targets.keys().filter(|name| store.get(name).is_none()).collect();
        let mut left_over: Vec<String> = self.nameless.clone();
        left_over.extend(unknown.into_iter().filter(|n| !norm_is_there(n, &|v| store.get(v).is_some())).cloned());
        left_over.sort_by_cached_key(|name| (in_file_order.clone().position(|n| n == name), name.clone()));
        let copied = store.entries().iter().filter(|e| self.targets.contains_key(&e.name)).count();
        Loaded { copied, missing: missing.cloned().collect(), left_over }
    }

    fn copy(&self, store: &Store) -> Result<(), Error> {
        let failed = |name: &str, source| Error::Tensor { name: name.to_owned(), source };
        tch::no_grad(|| {
            for entry in store.entries() {
                let Some(tensor) = self.targets.get(&entry.name) else { continue };
                let mut target = entry.tensor.detach();
                target.f_copy_(tensor).map_err(|e| failed(&entry.name, e))?;
                let shift = self.variance_shift(&entry.name, store);
                if shift != 0.0 {
                    // A frozen norm's variance may be smaller than the epsilon: then the function changes a little.
                    let shifted = (&target + shift).clamp_min(0.0);
                    target.f_copy_(&shifted).map_err(|e| failed(&entry.name, e))?;
                }
            }
            Ok(())
        })
    }

    /// What to add to a variance, so that a norm of the other kind computes the same function.
    fn variance_shift(&self, name: &str, store: &Store) -> f64 {
        let Some(norm) = name.strip_suffix(VARIANCE) else { return 0.0 };
        let counter = format!("{norm}{COUNTER}");
        match (self.torchvision || self.targets.contains_key(&counter), store.get(&counter).is_some()) {
            (true, false) => EPSILON,
            (false, true) => -EPSILON,
            _ => 0.0,
        }
    }
}
