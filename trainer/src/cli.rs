//! The command line of `jcs`.

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::config::{Backend, Device};
use std::path::PathBuf;

/// Trains, evaluates and applies JCS: segmentation of COVID-19 lesions on chest CT.
///
/// `jcs-launch` runs these commands on many workers.
#[derive(Debug, Parser)]
#[command(name = "jcs", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a network; goes on from the newest checkpoint of the run directory.
    Train(Train),
    /// Measure a network on a split: Dice, IoU, MAE; of a classifier sensitivity, specificity, AUROC.
    Eval(Eval),
    /// Find lesions and diagnose: mask, overlay, class, attention map, report.
    Predict(Predict),
    /// Convert a weights file between safetensors and PyTorch's format.
    Convert(Convert),
    /// Show what a weights file, a checkpoint or a run directory holds.
    Inspect(Inspect),
    /// Look at this machine or, through jcs-launch, at all hosts: what is there, does it work, how fast.
    Doctor(Doctor),
    /// What jcs-launch starts on each of several hosts before the job: measure the connections between them.
    #[command(hide = true)]
    Preflight,
    /// What jcs-launch asks a host with GPUs: which of them libtorch can use.
    #[command(hide = true)]
    Gpus,
    /// Write man pages and completions into an installation's `share`.
    #[command(hide = true)]
    Manual {
        /// The folder.
        share: PathBuf,
    },
}

impl Command {
    /// Whether SIGTERM and SIGUSR1 mean: save, then end.
    pub(crate) fn saves_when_stopped(&self) -> bool {
        matches!(self, Command::Train(_))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Train {
    /// Configuration file (TOML).
    pub(crate) config: PathBuf,
    /// Settings that win over the file, as in `train.epochs=3`.
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// Configuration file (TOML).
    pub(crate) config: PathBuf,
    /// A run (its best checkpoint, else the latest), a checkpoint, or a weights file.
    #[arg(long, value_name = "PATH")]
    pub(crate) weights: PathBuf,
    /// Which split of the configuration to measure.
    #[arg(long, value_name = "NAME", default_value = "eval")]
    pub(crate) split: Split,
    /// Also write the metrics to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where to compute; wins over `run.device`.
    #[arg(long, value_name = "auto|cpu|cuda", value_parser = device)]
    pub(crate) device: Option<Device>,
    /// Settings that win over the file, as in `eval.threshold=0.4`.
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Split {
    /// `data.train`
    Train,
    /// `data.eval`
    Eval,
}

#[derive(Debug, Args)]
pub(crate) struct Predict {
    /// A run (its best checkpoint, else the latest), a checkpoint, or a weights file.
    #[arg(long, value_name = "PATH")]
    pub(crate) weights: PathBuf,
    /// A classifier beside segmentation weights: the class and an attention map of each input.
    #[arg(long, value_name = "PATH")]
    pub(crate) cls_weights: Option<PathBuf>,
    /// Folder for the results; one folder for each input, predictions.csv and report.html.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Also write tensors.safetensors: input as the network saw it, output, logits.
    #[arg(long)]
    pub(crate) save_tensors: bool,
    /// Probability from which a pixel counts as lesion.
    #[arg(long, value_name = "P", default_value_t = 0.5, value_parser = probability)]
    pub(crate) threshold: f64,
    /// Where to compute.
    #[arg(long, value_name = "auto|cpu|cuda", default_value = "auto", value_parser = device)]
    pub(crate) device: Device,
    /// PNG or JPEG images, or folders of them.
    #[arg(required = true, value_name = "INPUT")]
    pub(crate) inputs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// A `.safetensors`, `.pth` or `.pt` file.
    #[arg(value_name = "IN")]
    pub(crate) from: PathBuf,
    /// The file to write: `.safetensors`, `.pth` or `.pt`.
    #[arg(value_name = "OUT")]
    pub(crate) to: PathBuf,
    /// Turn the encoders' trained norms into the official implementation's frozen ones, which compute the same; without
    /// it every tensor keeps its bits.
    #[arg(long)]
    pub(crate) frozen_norms: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A weights file, a checkpoint, or a run directory.
    pub(crate) path: PathBuf,
}

/// Shows hosts, GPUs and versions; adds up numbers with the other workers; compares a training step on the GPU with the same on
/// the CPU; measures how much of the communication the backward pass hides. Exit code 4 where something is wrong.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Where to compute.
    #[arg(long, value_name = "auto|cpu|cuda", default_value = "auto", value_parser = device)]
    pub(crate) device: Device,
    /// What carries the sums of several workers, as `comm.backend`.
    #[arg(long, value_name = "auto|nccl|mpi", default_value = "auto", value_parser = backend)]
    pub(crate) backend: Backend,
    /// Also write the report to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(p) if (0.0..=1.0).contains(&p) => Ok(p),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

fn device(text: &str) -> Result<Device, String> {
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda),
        _ => Err("expected auto, cpu or cuda".into()),
    }
}

fn backend(text: &str) -> Result<Backend, String> {
    match text {
        "auto" => Ok(Backend::Auto),
        "nccl" => Ok(Backend::Nccl),
        "mpi" => Ok(Backend::Mpi),
        _ => Err("expected auto, nccl or mpi".into()),
    }
}
