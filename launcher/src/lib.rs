//! `jcs-launch` starts the workers of a data-parallel job through Open MPI's mpirun, watches over
//! them and leaves nothing behind, however it ends.
//!
//! The way of a job: [`cli`] → [`nodes`] → [`plan`] (pure) → [`job`] (restarts) → [`muster`] (which hosts are fit?) →
//! [`supervise`] (one start) → [`report`]. Decisions are pure: [`attempt`] when a start is over, [`cause`] what ended it,
//! [`restart`] what follows.
//!
//! This crate knows nothing of libtorch and never depends on the trainer: to it a worker is a
//! program that says hello on the side channel.

pub mod addresses;
pub mod agent;
pub mod attempt;
pub mod banner;
pub mod board;
pub mod cause;
pub mod channel;
pub mod cli;
pub mod earlier;
pub mod ends;
pub mod events;
pub mod init;
pub mod job;
pub mod logs;
pub mod machine;
pub mod mpirun;
pub mod muster;
pub mod nodes;
pub mod options;
pub mod output;
pub mod plan;
pub mod pods;
pub mod probe;
pub mod processes;
pub mod pulse;
pub mod ranks;
pub mod remote;
pub mod report;
pub mod restart;
pub mod roster;
pub mod signals;
pub mod stacks;
pub mod supervise;
pub mod tags;
pub mod terminal;
pub mod utc;

use clap::CommandFactory;
use cli::{Cli, Command};
use machine::Machine;
use muster::Muster;
use plan::{Plan, PlanError};
use probe::Unfit;
use probe::wanted::Wanted;
use protocol::Exit;
use protocol::config::Config;
use roster::Roster;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Does what the command line asks for.
pub fn run(cli: &Cli) -> ExitCode {
    if init::is_needed() {
        return init::run();
    }
    match &cli.command {
        Some(Command::Agent(args)) => pods::agent(&args.key, args.port),
        Some(Command::Reach(args)) => pods::reach(args),
        Some(Command::Manual { share }) => write_manual(share),
        _ => pods::as_agent(cli).unwrap_or_else(|| launch(cli).into()),
    }
}

fn launch(cli: &Cli) -> Exit {
    let ready = match prepare(cli) {
        Ok(ready) if cli.dry_run => return dry_run(&ready.plan),
        Ok(ready) => ready,
        Err(error) => return refuse(&error),
    };
    let agents = match pods::hold(cli, &ready) {
        Ok(agents) => agents,
        Err(error) => return refuse(&error),
    };
    let (holds, signals) = agents.unzip();
    let exit = match ready.muster.first(&ready.plan) {
        Ok(team) => job::run(cli, ready, team, signals, holds.as_ref()),
        Err(PlanError::Unfit(unfit)) => turn_back(&ready.plan, &unfit),
        Err(error) => refuse(&error),
    };
    pods::farewell(holds.as_ref(), exit);
    exit
}

fn write_manual(share: &Path) -> ExitCode {
    match manual::write(Cli::command(), share) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            report::complain(&format!("cannot write into {}: {error}", share.display()));
            Exit::Usage.into()
        }
    }
}

fn refuse(error: &PlanError) -> Exit {
    let exit = error.exit();
    report::complain(&format!("{error}; exit code {}", exit.code()));
    exit
}

/// All that is wrong with the hosts, at once, between the first line and the last.
fn turn_back(plan: &Plan, unfit: &Unfit) -> Exit {
    let table = unfit.table.join("\n");
    report::complain(&format!("{}\n{table}\njcs-launch: {unfit}; exit code {}", plan.headline(), unfit.exit.code()));
    unfit.exit
}

/// A job that is about to start.
pub struct Ready {
    /// Where its teams come from.
    pub muster: Muster,
    /// The plan for all hosts that are asked for.
    pub plan: Plan,
    /// The training's configuration.
    pub config: Option<Config>,
}

/// All that can be found out, and go wrong, before any host is asked.
fn prepare(cli: &Cli) -> Result<Ready, PlanError> {
    let config = cli.load_config()?;
    let file = cli.config.as_deref().unwrap_or(Path::new(""));
    let machine = Machine::look();
    let nodes = cli.choose_nodes(&machine.host, machine::slurm().as_ref())?;
    let programs = mpirun::Programs::find()?;
    let roster = Roster::new(&nodes);
    let mut request = cli.request(config.as_ref(), nodes);
    let shares = plan::shares(&request, &machine)?;
    let worlds = roster.worlds(&shares.iter().map(|share| share.workers).collect::<Vec<_>>());
    request.most_workers = worlds.last().copied().unwrap_or(1);
    let plan = plan::plan(&request, &machine, &programs)?;
    if let Some(config) = &config {
        check_batches(config, file, &cli.overrides, &worlds)?;
    }
    let wanted = match &config {
        Some(config) => Wanted::of(config, file, &config.stages(file, &cli.overrides)?),
        None => Wanted::default(),
    };
    let muster = Muster { request, machine, programs, wanted, shares, roster, asks: !cli.no_preflight };
    Ok(Ready { muster, plan, config })
}

/// Sees that the batches of every configuration that will be trained can be dealt out.
fn check_batches(config: &Config, file: &Path, overrides: &[String], worlds: &[usize]) -> Result<(), PlanError> {
    let stages = config.stages(file, overrides)?;
    let check = |config: &Config, file: &Path| {
        let fixed = earlier::global_batch(&config.run.dir);
        config.check_batches(worlds, fixed).map_err(|e| e.located(file, overrides))
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
