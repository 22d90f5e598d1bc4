//! Streams of the accelerator, through libtorch's device-generic API: no CUDA header is needed.

use crate::ffi::{self, Error, check};
use std::ffi::c_void;

/// A stream of an accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// libtorch's number of the stream.
    pub id: i64,
    /// The runtime's own handle (`cudaStream_t`), as an address.
    pub handle: usize,
}

/// The stream on which libtorch queues work for the accelerator with this index
/// (`torch.accelerator.current_stream`). An error where there is no accelerator.
pub fn current_stream(device: usize) -> Result<Stream, Error> {
    let mut id = 0;
    let mut handle: *mut c_void = std::ptr::null_mut();
    // SAFETY: the out-pointers are of live variables.
    let message = unsafe { ffi::jcs_current_stream(device as i32, &raw mut id, &raw mut handle) };
    check("getCurrentStream", message)?;
    Ok(Stream { id, handle: handle as usize })
}

/// Loads libtorch's CUDA half, which registers itself. An error names the library that is missing.
pub fn load_cuda() -> Result<(), Error> {
    // SAFETY: dlopen of a library of the same libtorch; its initialisers only register operators.
    check("dlopen(libtorch_cuda.so)", unsafe { ffi::jcs_load_cuda() })
}
