//! Streams of the accelerator, through libtorch's device-generic API: no CUDA header is needed.

use crate::ffi::{self, Error, RawTensor, adopt, check, raw};
use std::ffi::{c_int, c_void};
use tch::Tensor;

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

/// A stream beside the one that computes, on which tensors of the host are copied to a CUDA device while it computes.
///
/// ```text
/// copies   ──[upload]──●
/// compute  ── backward ─└─[hand_over]── forward …
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStream {
    device: c_int,
    id: i64,
}

impl CopyStream {
    /// A stream of the CUDA device with this index. An error where libtorch has no CUDA.
    pub fn new(device: usize) -> Result<CopyStream, Error> {
        let device = device as c_int;
        let mut id = 0;
        // SAFETY: the out-pointer is of a live integer.
        check("getStreamFromGlobalPool", unsafe { ffi::jcs_new_stream(device, &raw mut id) })?;
        Ok(CopyStream { device, id })
    }

    /// Begins to copy `t`, of the host, to the device by way of pinned memory. Nobody may use the result before
    /// [`Self::hand_over`].
    pub fn upload(&self, t: &Tensor) -> Result<Tensor, Error> {
        let mut out: RawTensor = std::ptr::null_mut();
        // SAFETY: the tensor lives for the call; the out-pointer is of a live pointer.
        let message = unsafe { ffi::jcs_upload(self.device, self.id, raw(t), &raw mut out) };
        adopt("pin_memory and copy", message, out)
    }

    /// Gives what was uploaded so far to the stream that computes, which from now on waits for the copies. The host does
    /// not wait. Each of the tensors must be named, so that its memory stays its own until that stream is done with it.
    pub fn hand_over<'a>(&self, uploaded: impl IntoIterator<Item = &'a Tensor>) -> Result<(), Error> {
        // SAFETY: a plain call; the stream is of libtorch's pool, which lives as long as the process.
        check("record and block of an event", unsafe { ffi::jcs_wait_for_stream(self.device, self.id) })?;
        uploaded.into_iter().try_for_each(|t| {
            // SAFETY: the tensor lives for the call.
            check("record_stream", unsafe { ffi::jcs_record_stream(self.device, raw(t)) })
        })
    }
}

/// Gives memory that libtorch keeps for later back to the accelerator (`torch.accelerator.empty_cache`). Does nothing where
/// there is none.
pub fn release_memory() -> Result<(), Error> {
    // SAFETY: a plain call.
    check("emptyCache", unsafe { ffi::jcs_release_memory() })
}
