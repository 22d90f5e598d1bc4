//! Autocast for a scope (`torch.autocast`), on CPU and CUDA.

use crate::ffi::{self, Error, check};
use std::ffi::c_int;
use std::marker::PhantomData;
use tch::Device;

/// While it lives, operations of this thread on the device's type that gain from it run in 16 bits.
///
/// Dropping it restores the former setting. It belongs to the thread that made it.
#[derive(Debug)]
#[must_use = "autocast ends when this is dropped"]
pub struct Autocast {
    device: c_int,
    was_enabled: c_int,
    was_bf16: c_int,
    not_send: PhantomData<*const ()>,
}

impl Autocast {
    /// Switches autocast to bfloat16 on.
    pub fn bf16(device: Device) -> Result<Autocast, Error> {
        Self::set(device, true, true)
    }

    /// Switches autocast to half precision on.
    pub fn fp16(device: Device) -> Result<Autocast, Error> {
        Self::set(device, true, false)
    }

    /// Switches autocast off, within a scope where it is on.
    pub fn disabled(device: Device) -> Result<Autocast, Error> {
        Self::set(device, false, true)
    }

    fn set(device: Device, enabled: bool, bf16: bool) -> Result<Autocast, Error> {
        let device = index(device);
        let (mut was_enabled, mut was_bf16) = (0, 0);
        // SAFETY: the out-pointers are of live integers.
        let message =
            unsafe { ffi::jcs_autocast(device, enabled.into(), bf16.into(), &raw mut was_enabled, &raw mut was_bf16) };
        check("set_autocast_enabled", message)?;
        Ok(Autocast { device, was_enabled, was_bf16, not_send: PhantomData })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        let (mut e, mut b) = (0, 0);
        // SAFETY: as in `set`. Restoring a state that was in force before cannot fail.
        let message =
            unsafe { ffi::jcs_autocast(self.device, self.was_enabled, self.was_bf16, &raw mut e, &raw mut b) };
        let _ = check("set_autocast_enabled", message);
    }
}

/// The shim's number of a device: −1 for the CPU, else the index of the GPU.
pub(crate) fn index(device: Device) -> c_int {
    match device {
        Device::Cuda(n) => n as c_int,
        _ => -1,
    }
}
