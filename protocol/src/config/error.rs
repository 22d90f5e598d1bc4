//! What is wrong with a configuration, and where.

use crate::without_credentials;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used. Always exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{}:{line}: not valid TOML: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A `KEY=VALUE` argument of another form.
    #[error("argument '{}' is not of the form KEY=VALUE (as in train.epochs=3)", without_credentials(argument))]
    Argument {
        /// The argument.
        argument: String,
    },
    /// A key that does not exist.
    #[error("{place}: unknown key '{key}'{}", suggestion(nearest))]
    Unknown {
        /// File and line, or the argument.
        place: Place,
        /// The key as written.
        key: String,
        /// The existing key that is most like it.
        nearest: Option<String>,
    },
    /// A value of the wrong type or outside its range, or keys that do not go together.
    #[error("{place}: {key}: {problem}")]
    Value {
        /// File and line, or the argument.
        place: Place,
        /// The key.
        key: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

impl ConfigError {
    /// The same error with the place of its key, found in `file` and `overrides`, that the configuration was loaded from.
    pub fn located(self, file: &Path, overrides: &[String]) -> ConfigError {
        match self {
            ConfigError::Value { key, problem, .. } => {
                let text = std::fs::read_to_string(file).unwrap_or_default();
                ConfigError::Value { place: super::load::place_of(&key, &text, file, overrides), key, problem }
            }
            other => other,
        }
    }
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or(String::new(), |n| format!("; did you mean '{n}'?"))
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the file, at a line (from 1); 0 where the key is absent and its default is meant.
    File(PathBuf, usize),
    /// On the command line, the argument as given.
    CommandLine(String),
}

impl Place {
    pub(super) fn folder(&self) -> &Path {
        match self {
            Place::File(file, _) => file.parent().unwrap_or(Path::new("")),
            Place::CommandLine(_) => Path::new(""),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::File(file, 0) => write!(f, "{}", file.display()),
            Place::File(file, line) => write!(f, "{}:{line}", file.display()),
            Place::CommandLine(argument) => write!(f, "argument '{}'", without_credentials(argument)),
        }
    }
}
