//! The networks of JCS (Wu et al., TIP 2021), with the tensor names of the official implementation.
//!
//! Modules are structures with `new` (which registers tensors in a [`Store`]) and `forward`; they hold
//! no state between calls and know nothing of training, files or other ranks.

mod cls;
mod decoder;
mod fpn;
mod fuse;
mod gpd;
mod joint;
mod layers;
mod norm;
mod res2net;
mod single;
mod store;
mod vgg;

pub use cls::{Cls, ClsOutput, grad_cam};
pub use joint::Joint;
pub use layers::bilinear;
pub use norm::{BatchNorm, Group, Norms, Statistics};
pub use single::Single;
pub use store::{Entry, Init, Scope, Store};

/// What fixes a network's shape.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Channel multiplier; 1 is the published network.
    pub width: f64,
    /// Its batch norms.
    pub norms: Norms,
}

/// Is shown inner activations by the official names of the modules that put them out.
pub type Tap<'a> = &'a mut dyn FnMut(&str, &tch::Tensor);

/// `channels` scaled by the width multiplier, to a multiple of 8, at least 8.
pub(crate) fn scaled(channels: i64, width: f64) -> i64 {
    ((channels as f64 * width / 8.0).round() as i64 * 8).max(8)
}
