//! The command `data-shards`.
//!
//! Duty: arguments, progress and exit codes. Must not: hold logic that the library could.
#![expect(clippy::print_stderr, reason = "progress and errors belong on standard error")]

mod command;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::{CommandFactory, Parser, Subcommand};
use data_shards::leak::{self, Findings};
use data_shards::phantom::{self, Settings};
use data_shards::remote::Location;

/// Usage, or an output that cannot be written.
const USAGE: u8 = 2;
/// Bad input data.
const BAD_DATA: u8 = 3;

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
    /// Look for patients and images that are in more than one split
    ///
    /// Each list file, table or packed data set is a split; a directory stands for the lists in it (train.txt, test.txt and
    /// the like) or for the splits of a packed collection. The same patient, the same pixels and nearly the same image
    /// (encoded again, resized, flipped) are leaks: exit code 3. What may be neighbouring slices of one scan are warnings.
    /// Images that cannot be read are listed, and compared with none: exit code 3 as well.
    Leak {
        /// Lists, tables, data sets or directories: at least two splits in all
        #[arg(required = true, value_name = "DIR|LIST")]
        sources: Vec<PathBuf>,
        /// Write all findings to this file as well, as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
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
    /// Pack images, CT volumes or features into a data set of shards
    ///
    /// SOURCE is a list (`image mask` a line) or a table (.csv with file,label,patient_id,mask); a folder with the lists train.txt,
    /// val.txt, eval.txt, test.txt or split_*.txt, which become splits; images by class and patient (covid/PATIENT/*.jpg or
    /// covid/*.jpg) with labels.csv, if there is one; DICOM files; NIfTI volumes (.nii, .nii.gz); or .mat files with features.
    /// Several lists become a split each.
    ///
    /// Patient ids, file names and UIDs become hashes with the key in OUT.key, which is made if it is not there: keep it to
    /// add data later, and keep it from others. What is left out is listed, and stands with its reason in OUT.report.json;
    /// OUT/report.json has neither names nor ids. A pack that was interrupted goes on when it is started again.
    Pack(command::PackArgs),
    /// Read a data set of shards, or a collection of splits, to the last byte: every checksum, every sample decoded
    ///
    /// Lists what is damaged, missing or not in the index, and exits 3 if there is anything.
    Verify {
        /// Folder with an index.json, or its URL (http://, https://, s3://)
        #[arg(value_name = "DIR|URL", value_parser = Location::parse)]
        location: Location,
        #[command(flatten)]
        server: command::ServerArgs,
    },
    /// Describe a data set of shards, or a collection of splits: counts, sizes, class balance, patients, masks
    Info {
        /// Folder with an index.json, or its URL (http://, https://, s3://)
        #[arg(value_name = "DIR|URL", value_parser = Location::parse)]
        location: Location,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: command::ServerArgs,
    },
    /// Write man pages and completions into an installation's `share`
    #[command(hide = true)]
    Manual {
        /// The folder
        share: PathBuf,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Leak { sources, json } => look_for_leaks(&sources, json.as_deref()),
        Command::Phantom { out, patients, size, seed } => generate(&out, Settings { patients, size, seed }),
        Command::Pack(args) => command::pack(args),
        Command::Verify { location, server } => command::verify(&location, server),
        Command::Info { location, json, server } => command::info(&location, json, server),
        Command::Manual { share } => match manual::write(Cli::command(), &share) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&format!("cannot write into {}: {error}", share.display()), USAGE),
        },
    }
}

/// Says how many are done, at most once a second.
fn progress(what: &'static str) -> impl Fn(usize, usize) + Sync {
    let start = Instant::now();
    let said = AtomicU64::new(0);
    move |done: usize, total: usize| {
        let second = start.elapsed().as_secs();
        if said.fetch_max(second, Ordering::Relaxed) < second {
            eprintln!("data-shards: {done} of {total} {what}");
        }
    }
}

fn failed(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("data-shards: {error}");
    ExitCode::from(code)
}

fn look_for_leaks(sources: &[PathBuf], json: Option<&Path>) -> ExitCode {
    if let Some(refused) = command::refuse_urls(sources) {
        return refused;
    }
    let candidates = match leak::candidates(sources) {
        Ok(candidates) => candidates,
        Err(error) => return failed(&error, if error.is_usage() { USAGE } else { BAD_DATA }),
    };
    let findings = leak::find_with(&candidates, &progress("images"));
    command::answer(&findings);
    if let Some(Err(error)) = json.map(|path| write_json(path, &findings)) {
        return failed(&error, USAGE);
    }
    if !findings.unreadable.is_empty() {
        let (count, all) = (findings.unreadable.len(), candidates.len());
        return failed(&format!("{count} of {all} images were compared with none"), BAD_DATA);
    }
    if findings.leaks.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BAD_DATA) }
}

fn write_json(path: &Path, findings: &Findings) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
    let text = serde_json::to_vec_pretty(findings).map_err(|error| failed(&error))?;
    std::fs::write(path, text).map_err(|error| failed(&error))
}

fn generate(out: &Path, settings: Settings) -> ExitCode {
    match phantom::generate(out, settings, &progress("slices")) {
        Ok(summary) => {
            let [train, eval] = summary.slices;
            let [train_patients, eval_patients] = summary.patients;
            command::answer(format_args!(
                "{}: {train} slices of {train_patients} patients in train.txt, {eval} of {eval_patients} in eval.txt",
                out.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("data-shards: {error}");
            ExitCode::from(USAGE)
        }
    }
}
