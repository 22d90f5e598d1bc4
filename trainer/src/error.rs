//! Everything that ends a command, and the exit code that it deserves.

use crate::{checkpoint, ddp, weights};
use data_shards::remote::Blame;
use protocol::Exit;
use protocol::config::ConfigError;
use std::path::PathBuf;

/// An error that ends the command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The command cannot be carried out as it was given.
    #[error("{0}")]
    Usage(String),
    /// The data set cannot be used.
    #[error(transparent)]
    Data(#[from] data_shards::Error),
    /// A weights file cannot be used.
    #[error(transparent)]
    Weights(#[from] weights::Error),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The data-parallel step failed.
    #[error(transparent)]
    Ddp(#[from] ddp::Error),
    /// The ranks lost each other.
    #[error(transparent)]
    Collective(#[from] collectives::Error),
    /// A file of the run cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The run directory cannot be used.
    #[error("the run directory {} cannot be written: {source}; choose another with run.dir=PATH", dir.display())]
    RunDirectory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The shim to libtorch failed.
    #[error(transparent)]
    TorchExt(#[from] torch_ext::Error),
    /// Loss or gradient are no numbers any more. The weights are still those before the step.
    #[error("the {what} of step {step} is {value}: training has diverged; lower optim.lr, or set train.clip_grad_norm")]
    Diverged {
        /// The step.
        step: u64,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// An output that the command was asked for cannot be written.
    #[error("cannot write {}: {source}", file.display())]
    Output {
        /// The file or folder.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process trains in the run directory.
    #[error("another process trains in {} ({holder}); wait for it, or choose another run.dir", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// Who has it.
        holder: String,
        /// Whether it was waited for, as an older start of the same job may have it.
        waited: bool,
    },
    /// Another start has taken the run over while this one was cut off.
    #[error(
        "generation {generation} of the run in {} was superseded by {by}: this process writes nothing more into it",
        dir.display()
    )]
    Superseded {
        /// The run directory.
        dir: PathBuf,
        /// The number of this start.
        generation: u64,
        /// The start that has the run now.
        by: String,
    },
    /// A stage of a pipeline ended so.
    #[error("stage {name}: {source}")]
    Stage {
        /// The stage.
        name: String,
        /// How it ended.
        source: Box<Error>,
    },
    /// The program has a mistake.
    #[error("internal error: {0}; please report it")]
    Panic(String),
}

impl Error {
    /// The error as one of a pipeline's stage.
    pub fn in_stage(self, name: &str) -> Error {
        Error::Stage { name: name.to_owned(), source: Box::new(self) }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Config(_) | Error::Usage(_) | Error::RunDirectory { .. } => Exit::Usage,
            // An older start that cannot be ended yet may be later.
            Error::Locked { waited: true, .. } => Exit::WorkerFailed,
            Error::Output { .. } | Error::Locked { .. } => Exit::Usage,
            Error::Ddp(ddp::Error::Difference(_) | ddp::Error::NoGradient { .. }) => Exit::Usage,
            Error::Stage { source, .. } => source.exit(),
            Error::Data(e) => match e.blame() {
                Blame::Usage => Exit::Usage,
                Blame::Input => Exit::BadData,
                Blame::Machine => Exit::WorkerFailed,
            },
            Error::Weights(e) if e.is_bad_input() => Exit::BadData,
            Error::Checkpoint(e) => e.exit(),
            Error::Collective(e) | Error::Ddp(ddp::Error::Collective(e)) if e.is_timeout() => Exit::Hang,
            _ => Exit::WorkerFailed,
        }
    }
}
