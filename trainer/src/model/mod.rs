//! The networks of JCS (Wu et al., TIP 2021), with the tensor names of the official implementation.
//!
//! Modules are structures with `new` (which registers tensors in a [`Store`]) and `forward`; they hold
//! no state between calls and know nothing of training, files or other ranks.

mod fpn;
mod gpd;
mod layers;
mod single;
mod store;
mod vgg;

pub use single::{MAPS, Single, SingleConfig};
pub use store::{Entry, Init, Scope, Store};

/// `channels` scaled by the width multiplier, to a multiple of 8, at least 8.
pub(crate) fn scaled(channels: i64, width: f64) -> i64 {
    ((channels as f64 * width / 8.0).round() as i64 * 8).max(8)
}
