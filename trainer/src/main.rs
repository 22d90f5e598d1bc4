//! `jcs`: a worker of a training job, and the commands for its results.

mod cli;
mod commands;

use clap::Parser;
use jcs::job::StopFlag;
use protocol::Exit;
use protocol::env::{JCS_LOG, Place};
use protocol::message::Message;
use protocol::side_channel::SideChannel;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    start_logging();
    let place = match Place::from_env() {
        Ok(place) => place,
        Err(e) => return refuse(&e),
    };
    // Before the launcher hears of this worker, and may send it a signal.
    let stop = match cli.command.saves_when_stopped().then(StopFlag::install).transpose() {
        Ok(stop) => stop.unwrap_or_else(StopFlag::never),
        Err(e) => return refuse(&e),
    };
    let side_channel = match SideChannel::from_env(place.rank) {
        Ok(channel) => Arc::new(channel),
        Err(e) => return refuse(&e),
    };
    jcs::whereabouts::report(side_channel.clone());
    jcs::memory::be_quiet_about_panics();
    let run = AssertUnwindSafe(|| commands::run(cli.command, place, side_channel.clone(), stop));
    match catch_unwind(run).unwrap_or_else(|panic| Err(jcs::Error::panicked(&*panic))) {
        Ok(exit) => exit.into(),
        Err(error) => fail(&error, &place, &side_channel),
    }
}

fn start_logging() {
    let filter = EnvFilter::try_from_env(JCS_LOG).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .without_time()
        .with_writer(std::io::stderr)
        .init();
}

/// A line on standard error, as far as that takes it.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    say(&format!("jcs: {error}"));
    Exit::Usage.into()
}

/// Reports the error and leaves at once: other threads may wait for ranks that will never answer.
fn fail(error: &jcs::Error, place: &Place, side_channel: &SideChannel) -> ExitCode {
    let exit = error.exit();
    let cause = error.to_string();
    side_channel.send(&Message::Failed { step: commands::last_step(), exit, cause: cause.clone() });
    match place.world_size {
        1 => say(&format!("jcs: {cause}")),
        _ => say(&format!("jcs: rank {}: {cause}", place.rank)),
    }
    collectives::leave_now(exit.code())
}
