//! `jcs-launch` starts the workers of a data-parallel job through Open MPI's mpirun, watches over
//! them and leaves nothing behind, however it ends.
//!
//! The way of a job: [`cli`] → [`plan`] (pure) → [`job`] (restarts) → [`supervise`] (one start) →
//! [`report`]. Decisions are pure: [`attempt`] when a start is over, [`cause`] what ended it,
//! [`restart`] what follows.
//!
//! This crate knows nothing of libtorch and never depends on the trainer: to it a worker is a
//! program that says hello on the side channel.

pub mod attempt;
pub mod banner;
pub mod cause;
pub mod channel;
pub mod cli;
pub mod events;
pub mod job;
pub mod logs;
pub mod machine;
pub mod mpirun;
pub mod nodes;
pub mod output;
pub mod plan;
pub mod processes;
pub mod ranks;
pub mod report;
pub mod restart;
pub mod signals;
pub mod supervise;
pub mod tags;
pub mod terminal;
pub mod utc;

use cli::Cli;
use machine::Machine;
use plan::{Plan, PlanError};
use protocol::Exit;
use protocol::config::Config;
use std::io::Write;
use std::path::Path;

/// Does what the command line asks for.
pub fn run(cli: &Cli) -> Exit {
    match prepare(cli) {
        Ok((plan, _)) if cli.dry_run => dry_run(&plan),
        Ok((plan, config)) => job::run(cli, &plan, config.as_ref()),
        Err(error) => {
            report::complain(&format!("{error}; exit code {}", Exit::Usage.code()));
            Exit::Usage
        }
    }
}

/// All that can be found out, and go wrong, before anything starts.
fn prepare(cli: &Cli) -> Result<(Plan, Option<Config>), PlanError> {
    let config = cli.load_config()?;
    let file = cli.config.as_deref().unwrap_or(Path::new(""));
    let machine = Machine::look();
    let programs = mpirun::Programs::find()?;
    let plan = plan::plan(&cli.request(config.as_ref()), &machine, &programs)?;
    if let Some(config) = &config {
        check_batches(config, file, &cli.overrides, plan.world_size())?;
    }
    Ok((plan, config))
}

/// Sees that the batches of every configuration that will be trained can be dealt out.
fn check_batches(config: &Config, file: &Path, overrides: &[String], workers: usize) -> Result<(), PlanError> {
    let stages = config.stages(file, overrides)?;
    let check = |config: &Config, file: &Path| {
        config.plan_batches(workers, None).map(drop).map_err(|e| e.located(file, overrides))
    };
    match stages.as_slice() {
        [] => check(config, file)?,
        stages => stages.iter().try_for_each(|stage| check(&stage.config, &stage.file))?,
    }
    Ok(())
}

fn dry_run(plan: &Plan) -> Exit {
    let text = report::render_plan(plan);
    // A reader that has gone away (`| head`) is no error.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Exit::Done
}
