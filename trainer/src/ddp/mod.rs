//! Data-parallel training: buckets of gradients that leave while the backward pass still runs.
//!
//! After Li et al., "PyTorch Distributed" (VLDB 2020): gradients are views of buckets, the buckets
//! follow the order in which gradients become ready, and each is all-reduced as soon as it is full,
//! always in the order of their index, so that all ranks ask for the same sums in the same order.
//!
//! This module sees only `trait Collective`; it knows neither a network nor a loss.

mod agree;
mod flats;
mod layout;
mod reducer;
mod sum;

pub use agree::{Difference, broadcast_weights, describe_parameters, same_everywhere};
pub use flats::Flats;
pub use layout::{Layout, Limits, Parameter};
pub use reducer::{Reducer, Settings, StepTimes};
pub use sum::SharedSum;

/// What can go wrong in a data-parallel step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ranks lost each other.
    #[error(transparent)]
    Collective(#[from] collectives::Error),
    /// The ranks do not run the same thing.
    #[error(transparent)]
    Difference(#[from] Difference),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] torch_ext::Error),
    /// The backward pass failed.
    #[error("the backward pass failed: {0}")]
    Backward(String),
    /// A bucket's memory cannot be lent.
    #[error(transparent)]
    Buffer(#[from] torch_ext::Unfit),
    /// A parameter takes no part in the loss.
    #[error(
        "parameter '{name}'{} got no gradient: the loss does not depend on it; freeze it, or give its loss term a weight",
        others(*.more)
    )]
    NoGradient {
        /// The first such parameter, in registration order.
        name: String,
        /// How many more there are.
        more: usize,
    },
    /// A checkpoint's bucket order is not of these parameters.
    #[error("the checkpoint's bucket order does not fit the network: {0}")]
    Layout(String),
}

fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} more)") }
}
