//! Everything that ends a command, and the exit code that it deserves.

use crate::{checkpoint, ddp, memory, weights};
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
    /// There is not enough memory for a micro-batch. The weights are still those before the step.
    #[error("step {step}: out of memory in a micro-batch of {micro_batch} samples ({problem}): {remedy}")]
    OutOfMemory {
        /// The step.
        step: u64,
        /// Samples in the micro-batch.
        micro_batch: usize,
        /// What libtorch says.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// There is not enough memory for something else.
    #[error("out of memory: {0}; make train.micro_batch or data.size smaller, or start fewer workers on this host")]
    Memory(String),
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
    /// A check of `jcs doctor` came out wrong.
    #[error("{0}")]
    Unsound(String),
    /// The program has a mistake.
    #[error("internal error: {0}; please report it")]
    Panic(String),
}

impl Error {
    /// The error as one of a pipeline's stage.
    pub fn in_stage(self, name: &str) -> Error {
        Error::Stage { name: name.to_owned(), source: Box::new(self) }
    }

    /// What a panic says; libtorch's failures arrive so where tch has no better way.
    pub fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
        let text = memory::panic_text(panic);
        if memory::is_shortage(text) {
            return Error::Memory(memory::essence(text).to_owned());
        }
        // As `Debug` writes tch's error: after the first line comes libtorch's stack.
        match text.split_once("Torch(\"").map(|(_, rest)| rest.split("\\n").next().unwrap_or(rest)) {
            Some(message) => Error::Torch(tch::TchError::Torch(message.trim_end_matches("\")").replace("\\\"", "\""))),
            None => Error::Panic(text.lines().next().unwrap_or_default().to_owned()),
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Config(_) | Error::Usage(_) | Error::RunDirectory { .. } => Exit::Usage,
            // A restart would take the same micro-batch again.
            Error::OutOfMemory { .. } => Exit::Usage,
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
            // No driver, no library, not a GPU for each: another start will find the same.
            Error::Collective(collectives::Error::Start { backend: "NCCL", .. }) => Exit::Usage,
            _ => Exit::WorkerFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_told_in_one_line() {
        let told = |text: &str| Error::panicked(&text.to_owned()).to_string();
        assert_eq!(told("index out of bounds\nmore"), "internal error: index out of bounds; please report it");
        let torch = |message: &str| {
            format!("called `Result::unwrap()` on an `Err` value: {:?}", tch::TchError::Torch(message.into()))
        };
        assert_eq!(told(&torch("a \"b\" c\nframe #0: d (e)\n")), "libtorch: Internal torch error: a \"b\" c");
        assert_eq!(told(&torch("a")), "libtorch: Internal torch error: a");
    }
}
