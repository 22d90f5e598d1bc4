//! The shim's functions, and the error that they return.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use tch::Tensor;

/// A C++ exception of libtorch: the name of the call and its message.
#[derive(Clone, Debug, thiserror::Error)]
#[error("libtorch failed in {call}: {message}")]
pub struct Error {
    call: &'static str,
    message: String,
}

pub(crate) type RawTensor = *mut c_void;

// SAFETY: the signatures are those of shim/shim.cpp.
unsafe extern "C" {
    pub(crate) fn jcs_copy_message(text: *const c_char) -> *mut c_char;
    pub(crate) fn jcs_set_grad_hook(
        t: RawTensor,
        context: *mut c_void,
        call: extern "C" fn(*mut c_void) -> *mut c_char,
        drop: extern "C" fn(*mut c_void),
    ) -> *mut c_char;
    pub(crate) fn jcs_clear_grad_hook(t: RawTensor) -> *mut c_char;
    pub(crate) fn jcs_set_grad(t: RawTensor, view: RawTensor) -> *mut c_char;
    pub(crate) fn jcs_clear_grad(t: RawTensor) -> *mut c_char;
    pub(crate) fn jcs_sum_over_ranks(
        t: RawTensor,
        context: *mut c_void,
        call: extern "C" fn(*mut c_void, RawTensor) -> *mut c_char,
        drop: extern "C" fn(*mut c_void),
        out: *mut RawTensor,
    ) -> *mut c_char;
    pub(crate) fn jcs_autocast(
        device: c_int,
        enabled: c_int,
        bf16: c_int,
        was_enabled: *mut c_int,
        was_bf16: *mut c_int,
    ) -> *mut c_char;
    pub(crate) fn jcs_channels_last(t: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn jcs_is_channels_last(t: RawTensor, out: *mut c_int) -> *mut c_char;
    pub(crate) fn jcs_is_contiguous(t: RawTensor, out: *mut c_int) -> *mut c_char;
    pub(crate) fn jcs_current_stream(device: c_int, id: *mut i64, handle: *mut *mut c_void) -> *mut c_char;
    pub(crate) fn jcs_new_stream(device: c_int, id: *mut i64) -> *mut c_char;
    pub(crate) fn jcs_upload(device: c_int, id: i64, t: RawTensor, out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn jcs_wait_for_stream(device: c_int, id: i64) -> *mut c_char;
    pub(crate) fn jcs_record_stream(device: c_int, t: RawTensor) -> *mut c_char;
    pub(crate) fn jcs_release_memory() -> *mut c_char;
    pub(crate) fn jcs_generator_state(out: *mut RawTensor) -> *mut c_char;
    pub(crate) fn jcs_set_generator_state(state: RawTensor) -> *mut c_char;
    pub(crate) fn jcs_load_cuda() -> *mut c_char;
    pub(crate) fn jcs_cuda_build(runtime: *mut i64, config: *mut *mut c_char) -> *mut c_char;
    pub(crate) fn jcs_torch_version() -> *const c_char;
}

/// The shim's view of a tensor; valid while `t` lives.
pub(crate) fn raw(t: &Tensor) -> RawTensor {
    t.as_ptr().cast_mut().cast()
}

/// Turns a message of the shim into a result, and frees it.
pub(crate) fn check(call: &'static str, message: *mut c_char) -> Result<(), Error> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so made by strdup in the shim, and ours to free.
    let message = unsafe { take(message) };
    Err(Error { call, message })
}

/// # Safety
/// `text` was made by `strdup`, and nobody else frees it.
pub(crate) unsafe fn take(text: *mut c_char) -> String {
    // SAFETY: by the caller's word.
    let owned = unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned();
    // SAFETY: as above; nothing refers to it any more.
    unsafe { free(text.cast()) };
    owned
}

/// A message for the shim to free.
pub(crate) fn message(text: &str) -> *mut c_char {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: a C string that lives until the call has copied it.
    unsafe { jcs_copy_message(text.as_ptr()) }
}

/// Takes over a tensor that the shim made.
pub(crate) fn adopt(call: &'static str, message: *mut c_char, tensor: RawTensor) -> Result<Tensor, Error> {
    check(call, message)?;
    // SAFETY: on success the shim wrote a new torch::Tensor*, which is what tch owns and deletes.
    Ok(unsafe { Tensor::from_ptr(tensor.cast()) })
}

// SAFETY: the C library's own.
unsafe extern "C" {
    fn free(p: *mut c_void);
}
