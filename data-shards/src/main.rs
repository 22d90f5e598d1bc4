//! The command `data-shards`.
//!
//! Duty: arguments, progress and exit codes. Must not: hold logic that the library could.
#![expect(clippy::print_stdout, reason = "the command's answer belongs on standard output")]
#![expect(clippy::print_stderr, reason = "progress and errors belong on standard error")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::{Parser, Subcommand};
use data_shards::phantom::{self, Settings};

/// Usage, or an output that cannot be written.
const USAGE: u8 = 2;

/// Data sets for JCS.
///
/// Exit codes: 0 done, 2 usage (also: the output exists or cannot be written), 3 bad input data.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generate a synthetic chest CT data set with exact lesion masks, to try everything on
    ///
    /// Writes OUT/images, OUT/masks (8-bit gray PNG; masks 0 and 255), OUT/labels.csv (file,label,patient_id) and the lists
    /// OUT/train.txt and OUT/eval.txt (`image mask` a line; three quarters and one quarter of the patients). Half of the
    /// patients have COVID-19 (label 1). The same settings give the same bytes. OUT must not exist, or be empty.
    Phantom {
        /// Folder to create
        out: PathBuf,
        /// Patients, four slices each; from 4 on, both lists have patients with and without COVID-19
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(2..=9999))]
        patients: u32,
        /// Pixels a side
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(32..=2048))]
        size: u32,
        /// Another seed gives other patients
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let Command::Phantom { out, patients, size, seed } = Cli::parse().command;
    generate(&out, Settings { patients, size, seed })
}

fn generate(out: &Path, settings: Settings) -> ExitCode {
    let start = Instant::now();
    let said = AtomicU64::new(0);
    let progress = |done: usize, total: usize| {
        let second = start.elapsed().as_secs();
        if said.fetch_max(second, Ordering::Relaxed) < second {
            eprintln!("data-shards: {done} of {total} slices");
        }
    };
    match phantom::generate(out, settings, &progress) {
        Ok(summary) => {
            let [train, eval] = summary.slices;
            let [train_patients, eval_patients] = summary.patients;
            println!(
                "{}: {train} slices of {train_patients} patients in train.txt, {eval} of {eval_patients} in eval.txt",
                out.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("data-shards: {error}");
            ExitCode::from(USAGE)
        }
    }
}
