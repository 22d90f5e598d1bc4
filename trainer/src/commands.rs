//! The commands of `jcs`: from arguments to the library.

use crate::cli::{Cli, Command, Doctor, Eval, Predict, Split, Train};
use clap::CommandFactory;
use collectives::Label;
use jcs::job::{Job, Meeting, StopFlag};
use jcs::monitor::ProgressReport;
use jcs::network::Network;
use jcs::{Error, checkpoint, convert, data, device, doctor, evaluate, inspect, predict, preflight, train, weights};
use protocol::config::{self, Comm, Input};
use protocol::env::Place;
use protocol::message::Progress;
use protocol::side_channel::SideChannel;
use protocol::{Exit, Step};
use std::io::Write;
use std::sync::Arc;

/// Runs a command on this worker.
pub(crate) fn run(
    command: Command,
    place: Place,
    side_channel: Arc<SideChannel>,
    stop: StopFlag,
) -> Result<Exit, Error> {
    match command {
        Command::Train(args) => run_train(&args, place, side_channel, stop),
        Command::Eval(args) => run_eval(&args, place, side_channel, stop),
        Command::Predict(args) => run_predict(&args, place, side_channel, stop),
        Command::Convert(args) => {
            let tensors = convert::convert(&args.from, &args.to, args.frozen_norms)?;
            let lost = " (tensors alone: what network they are of, its size and normalisation do not fit into it)";
            let lost = if weights::is_pytorch(&args.to) && !weights::is_pytorch(&args.from) { lost } else { "" };
            print(&format!("{tensors} tensors: {}{lost}\n", args.to.display()));
            Ok(Exit::Done)
        }
        Command::Inspect(args) => {
            print(&inspect::inspect(&args.path)?);
            Ok(Exit::Done)
        }
        Command::Doctor(args) => run_doctor(&args, place, side_channel, stop),
        Command::Preflight => {
            preflight::run(&place, |line| print(&format!("{line}\n")))?;
            Ok(Exit::Done)
        }
        Command::Gpus => {
            device::verdicts().iter().for_each(|line| print(&format!("{line}\n")));
            Ok(Exit::Done)
        }
        Command::Manual { share } => {
            manual::write(Cli::command(), &share).map_err(|source| Error::Output { file: share, source })?;
            Ok(Exit::Done)
        }
    }
}

/// Writes to standard output, as far as somebody reads it.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The last step that training finished in this process.
pub(crate) fn last_step() -> Step {
    Step(train::steps_done())
}

fn run_train(args: &Train, place: Place, side_channel: Arc<SideChannel>, stop: StopFlag) -> Result<Exit, Error> {
    let config = config::load(&args.config, &args.overrides)?;
    let stages = config.stages(&args.config, &args.overrides)?;
    let comm = stages.first().map_or(&config.comm, |stage| &stage.config.comm);
    let job = Job::join(place, side_channel, stop, config.run.device, comm)?;
    let run = config.run.dir.clone();
    let trained = if stages.is_empty() { train::train(config, &job) } else { train::pipeline(stages, &run, &job) };
    let exit = trained.map_err(|e| match e {
        Error::Config(e) => Error::Config(e.located(&args.config, &args.overrides)),
        other => other,
    })?;
    job.leave(exit, train::steps_done())
}

fn run_eval(args: &Eval, place: Place, side_channel: Arc<SideChannel>, stop: StopFlag) -> Result<Exit, Error> {
    let config = config::load(&args.config, &args.overrides)?;
    let file = checkpoint::resolve_weights(&args.weights)?;
    let device = args.device.unwrap_or(config.run.device);
    let job = Job::join(place, side_channel, stop, device, &config.comm)?;
    if let (Some(out), true) = (&args.json, job.is_chief()) {
        // Before the work, not after it.
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(out);
        opened.map_err(|source| Error::Output { file: out.clone(), source })?;
    }
    let (network, mut description) = Network::from_weights(&weights::read(&file)?, job.device)?;
    // The same weights take images and what their first layers make of them; the configuration has the data.
    description.from_features |= config.data.input == Input::Features;
    if !description.says_size {
        description.size = config.data.size.height_width();
        description.assumed.retain(|word| !word.starts_with("size"));
    }
    if job.is_chief() && !description.assumed.is_empty() {
        tracing::warn!("{} does not say, so assumed: {}", file.display(), description.assumed.join(", "));
    }
    let (split, key) = match args.split {
        Split::Train => (data::Split::Train, "data.train"),
        Split::Eval => (data::Split::Eval, "data.eval"),
    };
    let dataset = data::open(split, &config, &description)?.map(Arc::new);
    let dataset =
        dataset.ok_or_else(|| Error::Usage(format!("{key} is not given: name a list in {}", args.config.display())))?;
    let mut progress = ProgressReport::new(job.side_channel.clone(), job.is_chief());
    let settings = evaluate::Settings::of(&config, 0);
    let metrics = evaluate::evaluate(&network, &dataset, &settings, &job, &mut |p| progress.show(p))?;
    let Some(metrics) = metrics else { return job.leave(Exit::Preempted, 0) };
    progress.clear();
    if job.is_chief() {
        metrics.notes().iter().for_each(|note| tracing::warn!("{note}"));
        let json = serde_json::to_string_pretty(&metrics).unwrap_or_default();
        print(&format!("{json}\n"));
        if let Some(out) = &args.json {
            std::fs::write(out, json + "\n").map_err(|source| Error::Output { file: out.clone(), source })?;
        }
    }
    job.leave(Exit::Done, 0)
}

fn run_predict(args: &Predict, place: Place, side_channel: Arc<SideChannel>, stop: StopFlag) -> Result<Exit, Error> {
    // The ranks meet once, at the end, however long their shares take.
    let comm = Comm { timeout_s: 86400.0, ..Comm::default() };
    let job = Job::join(place, side_channel, stop, args.device, &comm)?;
    let mut progress = ProgressReport::new(job.side_channel.clone(), job.is_chief());
    let request = predict::Request {
        weights: &args.weights,
        cls_weights: args.cls_weights.as_deref(),
        out: &args.out,
        inputs: &args.inputs,
        save_tensors: args.save_tensors,
        threshold: args.threshold,
        device: job.device,
        part: (place.rank.0, place.world_size),
    };
    let mut show =
        |done, total| progress.show(Progress { phase: "predict".into(), done, total, ..Progress::default() });
    let mine = predict::predict(&request, &mut show)?;
    progress.clear();
    let bytes = serde_json::to_vec(&mine).unwrap_or_default();
    let all = job.collective.all_gather(bytes, Label::new(0, "gather predictions"))?;
    if job.is_chief() {
        let outcomes = predict::merge(&all);
        predict::write_report(&request, &outcomes)?;
        print(&format!("{} predictions: {}\n", outcomes.len(), args.out.join("report.html").display()));
    }
    job.leave(Exit::Done, 0)
}

fn run_doctor(args: &Doctor, place: Place, side_channel: Arc<SideChannel>, stop: StopFlag) -> Result<Exit, Error> {
    let wish = doctor::Wish { device: args.device, backend: args.backend, json: args.json.as_deref() };
    let meet = || Meeting::join(place, side_channel, stop, doctor::TIMEOUT);
    doctor::run(&place, &wish, meet, print)?.leave(Exit::Done, 0)
}
