//! What [`tch`] lacks of libtorch: post-accumulate gradient hooks, gradients that are views
//! into buffers of our own, autocast, memory formats, raw buffers, streams and generator state.
//!
//! The only crate with C++. A C++ exception becomes [`Error`], and a panic in a hook an error
//! of the backward pass. One rule is left to the caller: see [`DeviceBuffer`].

#![expect(unsafe_code, reason = "this crate is the border to libtorch's C++")]

mod autocast;
mod buffer;
mod cuda;
mod ffi;
mod gradient;
mod memory;
mod random;
mod stream;

pub use autocast::Autocast;
pub use buffer::{DeviceBuffer, ElementType, Unfit};
pub use cuda::{CudaBuild, load_cuda, version};
pub use ffi::Error;
pub use gradient::{clear_grad, clear_grad_hook, set_grad, set_grad_hook, sum_over_ranks};
pub use memory::{channels_last, is_channels_last, is_contiguous};
pub use random::{generator_state, set_generator_state};
pub use stream::{CopyStream, Stream, current_stream, release_memory};
