//! Which kernels compute convolutions on the CPU.

use crate::ffi::{self, Error, check};

/// Switches oneDNN's kernels on or off for this process (`torch.backends.mkldnn.enabled`), and returns
/// whether they were on. Without them libtorch's own, slower ones compute.
pub fn set_onednn(enabled: bool) -> Result<bool, Error> {
    let mut was_enabled = 0;
    // SAFETY: the out-pointer is of a live integer.
    check("set_onednn", unsafe { ffi::jcs_set_onednn(enabled.into(), &raw mut was_enabled) })?;
    Ok(was_enabled != 0)
}
