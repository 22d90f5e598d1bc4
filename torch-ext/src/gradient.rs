//! Gradients: hooks that run when one is complete, and buffers of our own to hold them.

use crate::ffi::{self, Error, check, raw};
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::Tensor;

type Callback = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Calls `hook` in each backward pass as soon as `parameter.grad` has its new value
/// (`torch.Tensor.register_post_accumulate_grad_hook`), on the thread that runs the backward pass.
///
/// It replaces an earlier hook of the same parameter. An `Err` or a panic in the hook ends the
/// backward pass with that message. The hook lives as long as the parameter's autograd state.
pub fn set_grad_hook(
    parameter: &Tensor,
    hook: impl Fn() -> Result<(), String> + Send + Sync + 'static,
) -> Result<(), Error> {
    let boxed: Box<Callback> = Box::new(Box::new(hook));
    // SAFETY: the tensor lives for the call; the shim owns the callback from here on, calls it only
    // with `call` and frees it once, with `drop_callback`, also when it fails.
    let message = unsafe { ffi::jcs_set_grad_hook(raw(parameter), Box::into_raw(boxed).cast(), call, drop_callback) };
    check("set_grad_hook", message)
}

/// Removes the hook of `parameter`, if it has one.
pub fn clear_grad_hook(parameter: &Tensor) -> Result<(), Error> {
    // SAFETY: the tensor lives for the call.
    check("clear_grad_hook", unsafe { ffi::jcs_clear_grad_hook(raw(parameter)) })
}

/// Makes `view` the gradient of `parameter`: backward passes then add into its storage. Shape,
/// type and device must be the parameter's.
pub fn set_grad(parameter: &Tensor, view: &Tensor) -> Result<(), Error> {
    // SAFETY: both tensors live for the call; libtorch counts references to the view's storage.
    check("set_grad", unsafe { ffi::jcs_set_grad(raw(parameter), raw(view)) })
}

/// Leaves `parameter` without a gradient (`parameter.grad = None`).
pub fn clear_grad(parameter: &Tensor) -> Result<(), Error> {
    // SAFETY: the tensor lives for the call.
    check("clear_grad", unsafe { ffi::jcs_clear_grad(raw(parameter)) })
}

extern "C" fn call(context: *mut c_void) -> *mut c_char {
    // SAFETY: `context` is the Box<Callback> of set_grad_hook, alive until drop_callback; Fn + Sync.
    let callback = unsafe { &*context.cast::<Callback>() };
    match catch_unwind(AssertUnwindSafe(callback)) {
        Ok(Ok(())) => std::ptr::null_mut(),
        Ok(Err(text)) => ffi::message(&text),
        Err(panic) => ffi::message(&format!("a gradient hook panicked: {}", panic_text(&*panic))),
    }
}

extern "C" fn drop_callback(context: *mut c_void) {
    // SAFETY: the shim calls this once for the pointer that set_grad_hook leaked to it.
    let callback = unsafe { Box::from_raw(context.cast::<Callback>()) };
    // A destructor that panics must not unwind into C++.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(callback)));
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
