//! Whether this process gets on with its data, for whoever watches over it: a number that grows with every sample that is
//! loaded, every file that is checked and every piece that arrives from a server.

use std::sync::atomic::{AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The number; the same again means that nothing has happened since.
pub fn activity() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

pub(crate) fn happened() {
    COUNT.fetch_add(1, Ordering::Relaxed);
}
