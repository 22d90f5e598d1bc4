//! Memory formats.

use crate::ffi::{self, Error, RawTensor, adopt, check, raw};
use tch::Tensor;

/// `t` with its elements in channels-last order; `t` itself where they already are
/// (`Tensor.contiguous(memory_format=torch.channels_last)`). Four dimensions only.
pub fn channels_last(t: &Tensor) -> Result<Tensor, Error> {
    let mut out: RawTensor = std::ptr::null_mut();
    // SAFETY: the tensor lives for the call; the out-pointer is of a live pointer.
    let message = unsafe { ffi::jcs_channels_last(raw(t), &raw mut out) };
    adopt("contiguous(channels_last)", message, out)
}

/// Whether the elements of `t` lie in channels-last order without gaps.
pub fn is_channels_last(t: &Tensor) -> Result<bool, Error> {
    let mut out = 0;
    // SAFETY: as above.
    check("is_contiguous(channels_last)", unsafe { ffi::jcs_is_channels_last(raw(t), &raw mut out) })?;
    Ok(out != 0)
}

/// Whether the elements of `t` lie in row-major order without gaps.
pub fn is_contiguous(t: &Tensor) -> Result<bool, Error> {
    let mut out = 0;
    // SAFETY: as above.
    check("is_contiguous", unsafe { ffi::jcs_is_contiguous(raw(t), &raw mut out) })?;
    Ok(out != 0)
}
