//! Gradients: hooks that run when one is complete, buffers of our own to hold them, and sums over ranks
//! that they flow through.

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

type SumCallback = Box<dyn Fn(&Tensor) -> Result<(), String> + Send + Sync>;

/// The sum of `x` over all ranks, which autograd can differentiate: the gradient that comes back is summed over
/// all ranks, too. `sum` replaces a contiguous tensor of the shape of `x` by its sum over the ranks; it is called
/// once now and once in each backward pass, on the thread that runs that pass, also where no gradient
/// arrives. Its `Err` or panic is this function's error, or ends the backward pass.
///
/// All ranks must call it, and run the backward passes, in the same order.
pub fn sum_over_ranks(
    x: &Tensor,
    sum: impl Fn(&Tensor) -> Result<(), String> + Send + Sync + 'static,
) -> Result<Tensor, Error> {
    let boxed: Box<SumCallback> = Box::new(Box::new(sum));
    let mut out = std::ptr::null_mut();
    // SAFETY: the tensor lives for the call and the out-pointer is of a live pointer; the shim owns the callback
    // from here on, calls it only with `call_sum` and frees it once, with `drop_sum`, also when it fails.
    let message =
        unsafe { ffi::jcs_sum_over_ranks(raw(x), Box::into_raw(boxed).cast(), call_sum, drop_sum, &raw mut out) };
    ffi::adopt("sum_over_ranks", message, out)
}

extern "C" fn call_sum(context: *mut c_void, tensor: ffi::RawTensor) -> *mut c_char {
    // SAFETY: the shim made the handle for us to own.
    let tensor = unsafe { Tensor::from_ptr(tensor.cast()) };
    // SAFETY: `context` is the Box<SumCallback> of sum_over_ranks, alive until drop_sum; Fn + Sync.
    let callback = unsafe { &*context.cast::<SumCallback>() };
    answer(catch_unwind(AssertUnwindSafe(|| callback(&tensor))), "a sum over ranks")
}

extern "C" fn drop_sum(context: *mut c_void) {
    // SAFETY: the shim calls this once for the pointer that sum_over_ranks leaked to it.
    let callback = unsafe { Box::from_raw(context.cast::<SumCallback>()) };
    // A destructor that panics must not unwind into C++.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(callback)));
}

extern "C" fn call(context: *mut c_void) -> *mut c_char {
    // SAFETY: `context` is the Box<Callback> of set_grad_hook, alive until drop_callback; Fn + Sync.
    let callback = unsafe { &*context.cast::<Callback>() };
    answer(catch_unwind(AssertUnwindSafe(callback)), "a gradient hook")
}

/// What C++ is told: nothing, or a message.
fn answer(result: std::thread::Result<Result<(), String>>, who: &str) -> *mut c_char {
    match result {
        Ok(Ok(())) => std::ptr::null_mut(),
        Ok(Err(text)) => ffi::message(&text),
        Err(panic) => ffi::message(&format!("{who} panicked: {}", panic_text(&*panic))),
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
