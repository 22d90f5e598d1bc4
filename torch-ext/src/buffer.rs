//! A tensor's memory as communication libraries see it.

use std::ffi::c_void;
use tch::{Device, Kind, Tensor};

/// Element types that collectives can sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit floating point.
    F32,
    /// 64-bit floating point.
    F64,
    /// Brain floating point, 16 bits.
    Bf16,
}

/// The memory of a contiguous tensor, which stays allocated while this lives.
///
/// The tensor's elements change under libtorch's hands while a collective works on the buffer:
/// nobody may read or write the tensor between the start of a collective and the end of its wait.
#[derive(Debug)]
pub struct DeviceBuffer {
    pointer: *mut c_void,
    elements: usize,
    kind: ElementType,
    device: Device,
    _keeps_the_storage: Tensor,
}

// SAFETY: the pointer is to memory that the tensor handle keeps alive; the handle's reference count
// is atomic, and the contract above excludes concurrent access to the elements.
unsafe impl Send for DeviceBuffer {}

/// A tensor that cannot be lent to a collective.
#[derive(Debug, thiserror::Error)]
#[error("a buffer must be contiguous float32, float64 or bfloat16; this tensor is {kind:?} of shape {shape:?}{}", if *.contiguous { "" } else { ", not contiguous" })]
pub struct Unfit {
    kind: Kind,
    shape: Vec<i64>,
    contiguous: bool,
}

impl DeviceBuffer {
    /// The memory of `tensor`, which must be contiguous float32, float64 or bfloat16.
    pub fn new(tensor: &Tensor) -> Result<DeviceBuffer, Unfit> {
        let contiguous = crate::is_contiguous(tensor).unwrap_or(false);
        let kind = match tensor.kind() {
            Kind::Float if contiguous => ElementType::F32,
            Kind::Double if contiguous => ElementType::F64,
            Kind::BFloat16 if contiguous => ElementType::Bf16,
            kind => return Err(Unfit { kind, shape: tensor.size(), contiguous }),
        };
        Ok(DeviceBuffer {
            pointer: tensor.data_ptr(),
            elements: tensor.numel(),
            kind,
            device: tensor.device(),
            _keeps_the_storage: tensor.shallow_clone(),
        })
    }

    /// Address of the first element, in the memory of [`Self::device`].
    pub fn pointer(&self) -> *mut c_void {
        self.pointer
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// Type of the elements.
    pub fn kind(&self) -> ElementType {
        self.kind
    }

    /// Where the memory is.
    pub fn device(&self) -> Device {
        self.device
    }
}
