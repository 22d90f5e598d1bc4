//! `jcs`: a worker of a training job, and the commands for its results.

#![expect(clippy::print_stdout, reason = "a command line program")]
#![expect(clippy::print_stderr, reason = "a command line program")]

mod cli;
mod commands;

use clap::Parser;
use jcs::job::StopFlag;
use protocol::Exit;
use protocol::env::{JCS_LOG, Place};
use protocol::message::Message;
use protocol::side_channel::SideChannel;
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
    let stop = match StopFlag::install() {
        Ok(stop) => stop,
        Err(e) => return refuse(&e),
    };
    let side_channel = match SideChannel::from_env(place.rank) {
        Ok(channel) => Arc::new(channel),
        Err(e) => return refuse(&e),
    };
    match commands::run(cli.command, place, side_channel.clone(), stop) {
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

fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("jcs: {error}");
    Exit::Usage.into()
}

/// Reports the error and leaves at once: other threads may wait for ranks that will never answer.
fn fail(error: &jcs::Error, place: &Place, side_channel: &SideChannel) -> ExitCode {
    let exit = error.exit();
    let cause = error.to_string();
    match place.world_size {
        1 => eprintln!("jcs: {cause}"),
        _ => eprintln!("jcs: rank {}: {cause}", place.rank),
    }
    side_channel.send(&Message::Failed { step: commands::last_step(), exit, cause });
    collectives::leave_now(exit.code())
}
