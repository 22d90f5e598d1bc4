//! Decoders that panic.
//!
//! Duty: a fault of a decoder costs its input alone. Must not: hide it: the input is left out, with the panic's message.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::report::LeftOut;

/// Does work on a file.
pub(crate) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, LeftOut>) -> Result<T, LeftOut> {
    // Nothing that the work could leave half-done outlives it.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = format!("its decoder failed: {}; please report this file", message(panic.as_ref()));
        Err(LeftOut::unreadable(path, reason))
    })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
