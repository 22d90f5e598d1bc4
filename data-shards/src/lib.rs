//! From list files to the samples that a worker trains on.
//!
//! Duty: read lists, decode, augment, order, deal to ranks and prefetch; and make a phantom data set.
//! Must not: know libtorch, a collective, MPI or the configuration. Everything here is a function of its arguments:
//! the same list, seed, epoch and index give the same bytes on any number of threads and workers.

pub mod augment;
pub mod dataset;
pub mod decode;
mod error;
pub mod features;
pub mod fold;
pub mod list;
pub mod loader;
pub mod mat;
pub mod order;
pub mod partition;
pub mod phantom;
pub mod resize;
mod rng;
mod table;
mod thumbnail;

pub use dataset::{Dataset, Fit, Geometry, Part, Sample, Source, load_image};
pub use error::Error;
pub use features::Features;
pub use fold::Fold;
pub use loader::{Loader, LoaderSettings, Request};
