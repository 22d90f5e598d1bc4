//! From list files and shards to the samples that a worker trains on.
//!
//! Duty: read lists, write and read shards, decode, augment, order, deal to ranks and prefetch; and make a phantom data set.
//! Must not: know libtorch, a collective, MPI or the configuration. Everything here is a function of its arguments:
//! the same list, seed, epoch and index give the same bytes on any number of threads and workers.

use std::fmt::Write as _;

mod activity;
mod affine;
pub mod augment;
pub mod dataset;
pub mod decode;
mod error;
pub mod features;
pub mod fold;
pub mod leak;
pub mod list;
pub mod loader;
pub mod mat;
mod noise;
pub mod npy;
pub mod order;
pub mod pack;
pub mod partition;
pub mod phantom;
mod prepare;
pub mod remote;
pub mod resize;
mod rng;
pub mod sets;
pub mod shard;
mod store;
mod table;
mod thumbnail;
mod tone;

pub use activity::activity;
pub use dataset::{Dataset, Fit, Geometry, Part, PixelType, Pixels, Sample, Source, load_image};
pub use error::Error;
pub use features::Features;
pub use fold::Fold;
pub use loader::{Loader, LoaderSettings, Request};

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
