//! From views of storages to contiguous tensors.
//!
//! Duty: check a view against its storage and the memory allowed, then copy its elements in row-major order. Must not:
//! allocate before both hold, or interpret elements.

use crate::Error;
use crate::dtype::Dtype;
use crate::error::shown;
use crate::value::{Heap, Storage, Value, View};

/// More than PyTorch itself can compute with.
const MOST_DIMENSIONS: usize = 64;

/// A tensor of a weight file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the state dict.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Length of each dimension; none for a scalar.
    pub shape: Vec<usize>,
    /// The elements, little-endian, without gaps, the last dimension fastest.
    pub data: Vec<u8>,
}

/// Bytes that the tensors of a file of this length may have together.
pub const fn tensor_limit(file: usize) -> usize {
    file.saturating_mul(4).saturating_add(1 << 20)
}

/// Copies the named tensors out of their storages; `bytes_of` hands all bytes of a storage.
pub(crate) fn gather<'a>(
    heap: &Heap<'a>,
    named: &[(&str, usize)],
    limit: usize,
    mut bytes_of: impl FnMut(&Storage<'a>) -> Result<&'a [u8], Error>,
) -> Result<Vec<Tensor>, Error> {
    let mut total: u128 = 0;
    let mut tensors = Vec::with_capacity(named.len());
    for &(name, id) in named {
        let wrong = |problem: String| Error::Tensor { name: shown(name), problem };
        let (view, storage) = described(heap, id).ok_or_else(|| wrong("has no storage".to_owned()))?;
        let layout = Layout::of(heap, view, storage).map_err(wrong)?;
        total += layout.elements * storage.dtype.size() as u128;
        if total > limit as u128 {
            return Err(Error::Budget { name: shown(name), bytes: total, limit });
        }
        let whole = bytes_of(storage)?;
        let data = layout.copy(whole, storage).ok_or_else(|| wrong("lies outside its storage".to_owned()))?;
        tensors.push(Tensor { name: name.to_owned(), dtype: storage.dtype, shape: layout.shape, data });
    }
    Ok(tensors)
}

fn described<'h, 'a>(heap: &'h Heap<'a>, id: usize) -> Option<(&'h View, &'h Storage<'a>)> {
    let view = heap.view(id)?;
    Some((view, heap.storage_at(view.storage)?))
}

/// A view that lies within its storage, and whose elements can be counted.
struct Layout {
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
    elements: u128,
}

impl Layout {
    fn of(heap: &Heap, view: &View, storage: &Storage) -> Result<Layout, String> {
        let shape = lengths(heap, view.shape, "shape")?;
        let strides = lengths(heap, view.strides, "strides")?;
        if shape.len() != strides.len() {
            return Err(format!("has shape {shape:?} but strides {strides:?}"));
        }
        let elements = count(&shape).ok_or_else(|| format!("has shape {shape:?}, too many elements to count"))?;
        let outside = || {
            let (offset, len) = (view.offset, storage.len);
            format!("has shape {shape:?} and strides {strides:?} from {offset}, outside its storage of {len} elements")
        };
        if elements > 0 && last(&shape, &strides, view.offset).is_none_or(|last| last >= u128::from(storage.len)) {
            return Err(outside());
        }
        // A tensor without elements reads nothing: PyTorch leaves its offset as it came about.
        let offset = if elements == 0 { 0 } else { usize::try_from(view.offset).map_err(|_| outside())? };
        Ok(Layout { shape, strides, offset, elements })
    }

    /// `None` where an element is not among `whole`, which [`Layout::of`] has ruled out for a storage of its full length.
    fn copy(&self, whole: &[u8], storage: &Storage) -> Option<Vec<u8>> {
        let size = storage.dtype.size();
        let start = usize::try_from(storage.start).ok()?.checked_add(self.offset)?.checked_mul(size)?;
        let source = whole.get(start..)?;
        let length = usize::try_from(self.elements).ok()?.checked_mul(size)?;
        let (contiguous, row) = self.inner();
        if length == 0 {
            return Some(Vec::new());
        }
        let mut data = Vec::with_capacity(length);
        let outer = self.shape.len() - contiguous;
        let mut index = vec![0; outer];
        loop {
            let at = self.position(&index).checked_mul(size)?;
            data.extend_from_slice(source.get(at..)?.get(..row.checked_mul(size)?)?);
            if !advance(&mut index, &self.shape) {
                return Some(data);
            }
        }
    }

    /// How many of the last dimensions lie without gaps, and their elements.
    fn inner(&self) -> (usize, usize) {
        let mut elements = 1;
        let mut dimensions = 0;
        for (&length, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if length != 1 && stride != elements {
                break;
            }
            elements = elements.saturating_mul(length);
            dimensions += 1;
        }
        (dimensions, elements)
    }

    /// Of an element of a tensor that has some: at most [`last`].
    fn position(&self, index: &[usize]) -> usize {
        index.iter().zip(&self.strides).map(|(index, stride)| index * stride).sum()
    }
}

/// The next index in row-major order, or none.
fn advance(index: &mut [usize], shape: &[usize]) -> bool {
    for (index, &length) in index.iter_mut().zip(shape).rev() {
        *index += 1;
        if *index < length {
            return true;
        }
        *index = 0;
    }
    false
}

fn lengths(heap: &Heap, tuple: usize, what: &str) -> Result<Vec<usize>, String> {
    let items = heap.items(tuple);
    if items.len() > MOST_DIMENSIONS {
        return Err(format!("has {} dimensions, at most {MOST_DIMENSIONS} are allowed", items.len()));
    }
    let length = |item: &Value| match item {
        Value::Int(length) => usize::try_from(*length).map_err(|_| format!("has {length} in its {what}")),
        _ => Err(format!("has {} in its {what}", item.kind())),
    };
    items.iter().map(length).collect()
}

/// Elements of a tensor; a dimension of length 0 leaves none, however long the others are.
pub(crate) fn count(shape: &[usize]) -> Option<u128> {
    if shape.contains(&0) {
        return Some(0);
    }
    // Far from where the sum over all tensors of a file could overflow.
    let product = shape.iter().try_fold(1u64, |product, &length| product.checked_mul(length as u64))?;
    Some(u128::from(product))
}

/// Position of the last element of a tensor that has one.
fn last(shape: &[usize], strides: &[usize], offset: u64) -> Option<u128> {
    let steps = shape.iter().zip(strides).map(|(&length, &stride)| (length as u128 - 1) * stride as u128);
    steps.into_iter().try_fold(u128::from(offset), u128::checked_add)
}
