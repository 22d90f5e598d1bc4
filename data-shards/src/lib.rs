//! From list files to the samples that a worker trains on.
//!
//! Duty: read lists, decode, augment, order, deal to ranks and prefetch; and make a phantom data set.
//! Must not: know libtorch, a collective, MPI or the configuration. Everything here is a function of its arguments:
//! the same list, seed, epoch and index give the same bytes on any number of threads and workers.

pub mod augment;
pub mod dataset;
pub mod decode;
mod error;
pub mod list;
pub mod loader;
pub mod order;
pub mod partition;
pub mod phantom;
pub mod resize;
mod rng;

pub use dataset::{Dataset, Geometry, Sample, load_image};
pub use error::Error;
pub use loader::{Loader, LoaderSettings, Request};
