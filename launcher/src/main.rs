//! `jcs-launch`: parse, plan, run, report. Everything else is in the library.

use clap::Parser;
use jcs_launch::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    jcs_launch::run(&Cli::parse())
}
