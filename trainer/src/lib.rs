//! JCS: training, evaluation and prediction, data-parallel through libtorch.
//!
//! The data's way: configuration ([`protocol::config`]) → [`job`] (this worker and its peers) → [`data`]
//! (loader, batches) → [`model`] → [`loss`] → [`ddp`] (gradient hooks, buckets, all-reduce) → [`optim`] →
//! [`monitor`] and [`checkpoint`]. [`train`] puts them together.

mod affinity;
pub mod checkpoint;
pub mod convert;
pub mod data;
pub mod ddp;
pub mod device;
pub mod doctor;
mod error;
pub mod evaluate;
mod files;
pub mod initial;
pub mod inspect;
pub mod job;
pub mod loss;
pub mod memory;
pub mod metrics;
pub mod model;
pub mod monitor;
pub mod network;
pub mod optim;
pub mod predict;
pub mod preflight;
pub mod train;
pub mod weights;
pub mod whereabouts;

pub use error::Error;
