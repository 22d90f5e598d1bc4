//! The configuration: TOML file plus `KEY=VALUE` from the command line, validated.
//!
//! `schema` holds every key with its type and default, `load` reads and merges the sources and
//! says where something is wrong, `check` knows which values go together. This module reads the
//! configuration file and nothing else: whether data or weights exist is found out by their readers.

mod batches;
mod check;
mod error;
mod load;
mod schema;
mod stages;

pub use batches::Batches;
pub use check::{SIDES, WIDTHS};
pub use error::ConfigError;
pub use load::{load, parse};
pub use schema::*;
pub use stages::Stage;

use std::path::Path;

/// Whether the value of a path is the URL of a data set.
pub fn is_url(path: &Path) -> bool {
    path.to_str().is_some_and(|text| text.contains("://"))
}

impl Config {
    /// The JSON schema of the configuration file, as committed in `configs/schema.json`.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Config).to_value()
    }
}
