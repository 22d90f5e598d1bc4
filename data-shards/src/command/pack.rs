//! `data-shards pack`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use clap::Args;
use data_shards::pack::{self, Format, MaskValues, Options, PackError, Report, Shares, SplitReport, Watch, Window};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM};

use super::{answer, several};
use crate::{BAD_DATA, USAGE, failed, progress};

/// Inputs that are listed on the terminal; all of them stand in the report.
const SHOWN: usize = 20;

#[derive(Args)]
pub(crate) struct PackArgs {
    /// What to pack
    #[arg(required = true, num_args = 1.., value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Folder to create
    out: PathBuf,
    /// What SOURCE is: auto, list, folder, dicom, nifti or mat
    #[arg(long, default_value_t)]
    format: Format,
    /// Table `file,label,patient_id` (or `patient`); without it labels.csv in SOURCE, if there is one
    #[arg(long, value_name = "CSV")]
    labels: Option<PathBuf>,
    /// Folder of masks: by the images' names; for volumes NIfTI files, by name (x_image and x_label) or by their place
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Values that mean lesion in masks [default: 255, in 16 bits 65535]
    #[arg(long, value_name = "N,…")]
    mask_values: Option<MaskValues>,
    /// Hounsfield units to grey: LEVEL - WIDTH/2 is black, LEVEL + WIDTH/2 white
    #[arg(long, value_name = "LEVEL,WIDTH", default_value = "-600,1500", allow_hyphen_values = true)]
    window: Window,
    /// Split by patient, as in train=0.8,val=0.1,test=0.1; nobody moves when others are added
    #[arg(long, value_name = "NAME=SHARE,…")]
    split: Option<Shares>,
    /// Decides over splits and order
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Go on where splits share patients or images
    #[arg(long)]
    allow_leaks: bool,
    /// Write patient ids, file names and UIDs as they are
    #[arg(long)]
    keep_ids: bool,
}

/// Packs, with progress on standard error and a summary on standard output.
pub(crate) fn pack(args: PackArgs) -> ExitCode {
    if let Some(refused) = super::refuse_urls(args.sources.iter().chain([&args.out])) {
        return refused;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let signal = match listen(&stop) {
        Ok(signal) => signal,
        Err(error) => return failed(&format!("cannot listen to signals: {error}"), USAGE),
    };
    let stage = |what: &str| eprintln!("data-shards: {what}");
    let watch = Watch { stage: &stage, progress: &progress("samples"), stop: &stop };
    let (sources, out, options) = resolve(args);
    match pack::pack(&sources, &out, &options, &watch) {
        Ok(report) => {
            report.left_out.iter().take(SHOWN).for_each(|one| eprintln!("data-shards: left out: {one}"));
            answer(describe(&out, &report));
            ExitCode::SUCCESS
        }
        Err(PackError::Stopped) => {
            let number = signal.load(Ordering::Relaxed);
            failed(&PackError::Stopped, u8::try_from(128 + number).unwrap_or(USAGE))
        }
        Err(error) => failed(&error, if error.is_input() { BAD_DATA } else { USAGE }),
    }
}

fn resolve(args: PackArgs) -> (Vec<PathBuf>, PathBuf, Options) {
    let PackArgs { format, labels, masks, mask_values, window, split, seed, allow_leaks, keep_ids, .. } = args;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.map_or_else(cores, usize::from);
    let options = Options { format, labels, masks, mask_values, window, split, seed, jobs, allow_leaks, keep_ids };
    (args.sources, args.out, options)
}

/// The first signal asks to stop, and is remembered; a second one ends the process, which leaves finished shards as they are.
fn listen(stop: &Arc<AtomicBool>) -> std::io::Result<Arc<AtomicUsize>> {
    let number = Arc::new(AtomicUsize::new(0));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
        let value = usize::try_from(signal).unwrap_or_default();
        signal_hook::flag::register_usize(signal, Arc::clone(&number), value)?;
    }
    Ok(number)
}

fn describe(out: &std::path::Path, report: &Report) -> String {
    let state = match (report.already, report.kept) {
        (true, _) => ", which was complete already".to_owned(),
        (false, 0) => String::new(),
        (false, kept) => format!(", {} of it from an earlier run", several(kept, "shard")),
    };
    let known = if report.patients == 0 { "patients unknown".to_owned() } else { several(report.patients, "patient") };
    let mut lines = vec![format!("{}: {}, {known}{state}", out.display(), several(report.samples(), "sample"))];
    lines.extend(report.splits.iter().map(split));
    lines.extend(report.notes.iter().map(|note| format!("  note: {note}")));
    if !report.left_out.is_empty() {
        let (count, file) = (report.left_out.len(), pack::private_report(out));
        lines.push(format!("  left out: {count}, each with its reason in {}", file.display()));
    }
    lines.join("\n")
}

fn split(split: &SplitReport) -> String {
    let SplitReport { samples, patients, labels: [positive, negative, unknown], masks, shards, bytes, .. } = split;
    let name = split.split.as_deref().unwrap_or("data");
    format!(
        "  {name}: {}, {}, labels {positive} positive {negative} negative {unknown} unknown, {}, {}, {:.1} MB",
        several(*samples, "sample"),
        several(*patients, "patient"),
        several(*masks, "mask"),
        several(*shards, "shard"),
        *bytes as f64 / 1e6
    )
}
