//! What the launcher and its workers share: the configuration (as written and as resolved), the
//! names of environment variables, exit codes, and the messages of the side channel.
//!
//! This crate knows neither libtorch nor MPI, and it does no work of its own: it reads
//! configuration files and opens the side channel, nothing else.

pub mod config;
mod credentials;
pub mod env;
pub mod exit;
mod ids;
pub mod message;
pub mod pairs;
pub mod progress;
pub mod side_channel;

pub use credentials::without_credentials;
pub use exit::Exit;
pub use ids::{Rank, Step};
