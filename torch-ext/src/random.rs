//! State of libtorch's default CPU generator, for checkpoints.

use crate::ffi::{self, Error, RawTensor, adopt, check, raw};
use tch::Tensor;

/// The generator's state, a tensor of bytes (`torch.get_rng_state`).
pub fn generator_state() -> Result<Tensor, Error> {
    let mut out: RawTensor = std::ptr::null_mut();
    // SAFETY: the out-pointer is of a live pointer.
    let message = unsafe { ffi::jcs_generator_state(&raw mut out) };
    adopt("get_state", message, out)
}

/// Puts the generator into `state`, which must come from [`generator_state`] (`torch.set_rng_state`).
pub fn set_generator_state(state: &Tensor) -> Result<(), Error> {
    // SAFETY: the tensor lives for the call; libtorch checks its type and size.
    check("set_state", unsafe { ffi::jcs_set_generator_state(raw(state)) })
}
