//! The command line as written. This module knows no plan and starts nothing.

use crate::agent;
use crate::nodes::k8s;
use crate::nodes::slurm::Variables;
use crate::nodes::{self, Nodes, Reach as Way};
use crate::plan::{PlanError, Request, Task};
use clap::{Args, Parser, Subcommand};
use protocol::config::{Config, Device};
use std::path::PathBuf;
use std::str::FromStr;

const AFTER_HELP: &str = "\
Examples:
  jcs-launch configs/demo.toml               train: one worker a GPU, or one
  jcs-launch --nproc-per-node 2 configs/demo.toml train.epochs=3 optim.lr=1e-3
  jcs-launch --nproc-per-node 2 --dry-run configs/demo.toml
  jcs-launch --nodes gpu[01-04]:8 configs/demo.toml
  jcs-launch --nproc-per-node 2 eval configs/demo.toml --weights runs/demo
  jcs-launch --nodes gpu[01-04]:8 doctor     check hosts, GPUs and connections

Signals:
  SIGTERM, SIGUSR1         workers write a checkpoint and end; a second one
                           ends everything at once
  SIGINT, SIGHUP, SIGQUIT  everything ends at once

Exit codes:
  0    done
  2    usage or configuration
  3    bad input data
  4    a worker failed and restarts are used up
  5    hang or collective timeout
  6    a host cannot take part
  143  preempted (SIGTERM or SIGUSR1) after a checkpoint
  128+N  stopped by another signal N

Programs, configuration and data lie at the same paths on every host. Other
hosts are reached over ssh without a password (users, ports and names are taken
from ssh's configuration), inside a Slurm allocation through srun, and with
--agent through an agent on each (jcs-launch agent). Variables
OMPI_MCA_... and PRTE_MCA_... are Open MPI's own settings.";

/// Starts the workers of a data-parallel job, one process a GPU, and watches over them.
#[derive(Debug, Parser)]
#[command(name = "jcs-launch", version, after_help = AFTER_HELP, max_term_width = 120)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = false)]
#[command(override_usage = "jcs-launch [OPTIONS] CONFIG [KEY=VALUE ...]\n       \
                            jcs-launch [OPTIONS] {eval|predict|doctor} ARGUMENTS OF jcs ...")]
pub struct Cli {
    /// Where to run: hosts with their numbers of workers (gpu01:8,gpu02:8 or gpu[01-04,07]:8), or how many of those that
    /// the scheduler or the hostfile names (4, or 2:4 for at least 2), or k8s, the pods of the Job that this one is of
    /// [default: all of these, else this machine]
    #[arg(long, visible_alias = "nnodes", value_name = "SPEC", env = "JCS_NODES", hide_env_values = true)]
    pub nodes: Option<String>,

    /// File that names the hosts, one a line: `host slots=N` or `host:N`, with # comments
    #[arg(long, value_name = "FILE")]
    pub hostfile: Option<PathBuf>,

    /// Reach the other hosts through their agents (jcs-launch agent), which have the key that is in this file
    #[arg(long, value_name = "FILE", env = "JCS_AGENT", hide_env_values = true)]
    pub agent: Option<PathBuf>,

    /// Workers on each node; auto is one a GPU, and one where there is none
    #[arg(long, visible_alias = "nproc_per_node", value_name = "N|auto", default_value = "auto")]
    pub nproc_per_node: Nproc,

    /// Restarts in a row, after a worker failed, before the launcher gives up; each new checkpoint counts afresh
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub max_restarts: u32,

    /// How long the workers may take to write a checkpoint and end, after SIGTERM or SIGUSR1
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace_period: u32,

    /// How long hosts that cannot take part in another start, as while they boot, are waited for; that is no restart
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub rejoin_timeout: u32,

    /// How long the job may make no progress before the worker that holds it up is named and the job started again; runs of
    /// regular steps learn a shorter limit
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub hang_timeout: u32,

    /// Where the workers' output is kept, rank-N.log each, and launcher.log [default: logs in the run directory]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,

    /// Whose output the terminal shows, as in 0,2-3 [default: all]; the log files have everything
    #[arg(long, value_name = "RANKS")]
    pub ranks_filter: Option<String>,

    /// Print the plan (rank, host, device, command, environment) and start nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Ask every host, before anything starts there, whether it can take part (the default)
    #[arg(long, overrides_with = "no_preflight")]
    pub preflight: bool,

    /// Start without asking the hosts
    #[arg(long, overrides_with = "preflight")]
    pub no_preflight: bool,

    /// Configuration file of the training
    #[arg(value_name = "CONFIG", required = true)]
    pub config: Option<PathBuf>,

    /// Configuration keys that win over the file, as in train.epochs=3
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,

    /// Another command of jcs than `train`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands of `jcs` that all workers can run together, besides `train`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Evaluate weights on a split, on all workers (see `jcs eval --help`)
    Eval(Passed),
    /// Predict for images, shared among the workers (see `jcs predict --help`)
    Predict(Passed),
    /// Check hosts, GPUs, sums and speed, with all workers (see `jcs doctor --help`)
    Doctor(Passed),
    /// Wait on this host for a launcher with --agent, and start for it what ssh would
    Agent(Agent),
    /// What --agent puts in ssh's place: run a command on a host that has an agent
    #[command(hide = true)]
    Reach(Reach),
    /// Write man pages and completions into an installation's `share`
    #[command(hide = true)]
    Manual {
        /// The folder
        share: PathBuf,
    },
}

/// `jcs-launch agent`.
#[derive(Debug, Args)]
pub struct Agent {
    /// File with the key that the launcher has, too: 64 hexadecimal digits (openssl rand -hex 32)
    #[arg(long, value_name = "FILE", env = "JCS_AGENT", hide_env_values = true)]
    pub key: PathBuf,

    /// Where to listen
    #[arg(long, value_name = "PORT", env = AGENT_PORT, default_value_t = agent::PORT)]
    pub port: u16,
}

/// `jcs-launch reach`.
#[derive(Debug, Args)]
pub struct Reach {
    /// The agent's key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The agent's port.
    #[arg(long, value_name = "PORT")]
    pub port: u16,
    /// The host.
    pub host: String,
    /// Words of a command line for a shell.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Where agents listen, for both sides.
pub const AGENT_PORT: &str = "JCS_AGENT_PORT";

/// Arguments that go to `jcs` as they are.
#[derive(Debug, Args)]
pub struct Passed {
    /// Passed on as they are
    #[arg(value_name = "ARGUMENTS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Value of `--nproc-per-node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nproc {
    /// One a GPU, else one.
    Auto,
    /// This many.
    Count(usize),
}

/// More workers on one machine than this are a slip of the finger.
const MOST_WORKERS: usize = 1024;

impl FromStr for Nproc {
    type Err = String;

    fn from_str(text: &str) -> Result<Nproc, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Nproc::Auto),
            Ok(n) if (1..=MOST_WORKERS).contains(&n) => Ok(Nproc::Count(n)),
            _ => Err(format!("expected auto or a number of workers from 1 to {MOST_WORKERS}")),
        }
    }
}

impl Cli {
    /// The training's configuration; none for the other commands.
    pub fn load_config(&self) -> Result<Option<Config>, PlanError> {
        match (&self.command, &self.config) {
            (None, Some(file)) => Ok(Some(protocol::config::load(file, &self.overrides)?)),
            _ => Ok(None),
        }
    }

    /// Restarts in a row after a failure. What `doctor` finds is its result: it is not tried again.
    pub fn restarts(&self) -> u32 {
        if matches!(self.command, Some(Command::Doctor(_))) { 0 } else { self.max_restarts }
    }

    /// The machines that are asked for, seen from the one called `this_host`.
    pub fn choose_nodes(&self, this_host: &str, slurm: Option<&Variables>) -> Result<Nodes, PlanError> {
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file).map_err(|source| PlanError::Hostfile { file: file.clone(), source })
        };
        let text = self.hostfile.as_ref().map(read).transpose()?;
        let hostfile = self.hostfile.as_deref().zip(text.as_deref());
        let pod = k8s::Variables::of_process();
        let given = nodes::Given { spec: self.nodes.as_deref(), hostfile, slurm, k8s: Some(&pod), this_host };
        let mut nodes = nodes::choose(&given)?;
        // Agents run where srun is not: in containers.
        if self.agent.is_some() && nodes.reach == Way::Slurm {
            nodes.reach = Way::Ssh;
        }
        Ok(nodes)
    }

    /// What is asked for, in the planner's words.
    pub fn request(&self, config: Option<&Config>, nodes: Nodes) -> Request {
        let task = self.task();
        Request {
            nodes,
            nproc: self.nproc_per_node,
            ranks_filter: self.ranks_filter.clone(),
            most_workers: 0,
            device: config.map_or_else(|| device_of(&task.arguments), |c| c.run.device),
            task,
        }
    }

    fn task(&self) -> Task {
        let (command, arguments) = match &self.command {
            Some(Command::Eval(passed)) => ("eval", passed.arguments.clone()),
            Some(Command::Predict(passed)) => ("predict", passed.arguments.clone()),
            Some(Command::Doctor(passed)) => ("doctor", passed.arguments.clone()),
            // These start no workers.
            Some(Command::Agent(_) | Command::Reach(_) | Command::Manual { .. }) => ("agent", Vec::new()),
            None => {
                let config = self.config.iter().map(|c| c.to_string_lossy().into_owned());
                ("train", config.chain(self.overrides.iter().cloned()).collect())
            }
        };
        Task { command: command.into(), arguments }
    }
}

/// Where a command of `jcs` will compute: by its `--device`, else by the configuration that it names. What is wrong
/// with either is for `jcs` to complain of.
fn device_of(arguments: &[String]) -> Device {
    device_argument(arguments).unwrap_or_else(|| {
        let config = arguments.iter().find(|a| a.ends_with(".toml"));
        let overrides: Vec<String> = arguments.iter().filter(|a| a.starts_with("run.device")).cloned().collect();
        let config = config.and_then(|file| protocol::config::load(file.as_ref(), &overrides).ok());
        config.map_or(Device::Auto, |c| c.run.device)
    })
}

fn device_argument(arguments: &[String]) -> Option<Device> {
    let after = |i: usize| arguments.get(i + 1).map(String::as_str);
    let value = arguments
        .iter()
        .enumerate()
        .find_map(|(i, a)| a.strip_prefix("--device=").or_else(|| (a == "--device").then(|| after(i)).flatten()));
    match value {
        Some("cpu") => Some(Device::Cpu),
        Some("cuda") => Some(Device::Cuda),
        Some(_) => Some(Device::Auto),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after_the_configuration() {
        for line in ["jcs-launch --max-restarts 0 a.toml k=v", "jcs-launch a.toml k=v --max-restarts 0"] {
            let cli = parse(line).unwrap();
            assert_eq!((cli.max_restarts, cli.config.as_deref()), (0, Some("a.toml".as_ref())));
            assert_eq!(cli.overrides, ["k=v"]);
        }
    }

    #[test]
    fn the_last_word_on_the_preflight_counts() {
        let asks = |line| !parse(line).unwrap().no_preflight;
        assert!(asks("jcs-launch a.toml") && asks("jcs-launch --no-preflight --preflight a.toml"));
        assert!(!asks("jcs-launch --no-preflight a.toml") && !asks("jcs-launch --preflight a.toml --no-preflight"));
    }

    #[test]
    fn torchrun_spellings_are_accepted() {
        let cli = parse("jcs-launch --nnodes=1 --nproc_per_node=2 a.toml").unwrap();
        assert_eq!((cli.nodes.as_deref(), cli.nproc_per_node), (Some("1"), Nproc::Count(2)));
    }

    #[test]
    fn subcommands_pass_everything_on() {
        let cli = parse("jcs-launch --nproc-per-node 2 eval a.toml --weights w --device cpu --dry-run").unwrap();
        assert!(!cli.dry_run);
        let request = cli.request(None, cli.choose_nodes("h", None).unwrap());
        assert_eq!(request.task.command, "eval");
        assert_eq!(request.task.arguments, ["a.toml", "--weights", "w", "--device", "cpu", "--dry-run"]);
        assert_eq!(request.device, Device::Cpu);
    }

    #[test]
    fn what_the_doctor_finds_is_found_once() {
        let cli = parse("jcs-launch --nproc-per-node 2 doctor --device=cuda --json out.json").unwrap();
        let request = cli.request(None, cli.choose_nodes("h", None).unwrap());
        assert_eq!((request.task.command.as_str(), request.device, cli.restarts()), ("doctor", Device::Cuda, 0));
        assert_eq!(request.task.arguments, ["--device=cuda", "--json", "out.json"]);
        assert!(parse("jcs-launch doctor").is_ok() && parse("jcs-launch a.toml").unwrap().restarts() == 3);
    }

    #[test]
    fn the_device_is_the_arguments_or_the_configurations() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "run.device = \"cpu\"\ndata.train = \"t.txt\"\n").unwrap();
        let device = |rest: &str| {
            let line = format!("jcs-launch eval {} --weights w {rest}", file.display());
            let cli = parse(line.trim_end()).unwrap();
            cli.request(None, cli.choose_nodes("h", None).unwrap()).device
        };
        assert_eq!(
            [device(""), device("--device cuda"), device("run.device=auto")],
            [Device::Cpu, Device::Cuda, Device::Auto]
        );
    }

    #[test]
    fn a_hostfile_is_read_or_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts");
        let choose = || {
            let line = format!("jcs-launch --hostfile {} a.toml", file.display());
            parse(&line).unwrap().choose_nodes("h", None).map_err(|e| e.to_string())
        };
        let error = choose().unwrap_err();
        assert!(error.starts_with(&format!("--hostfile {}: No such file", file.display())), "{error}");
        std::fs::write(&file, "a slots=2\n").unwrap();
        assert_eq!(choose().unwrap().list, [nodes::Node::new("a", Some(2))]);
    }

    #[test]
    fn bad_numbers_of_workers_are_refused() {
        for bad in ["0", "-1", "two", "100000", ""] {
            assert!(parse(&format!("jcs-launch --nproc-per-node={bad} a.toml")).is_err(), "{bad}");
        }
        assert!(parse("jcs-launch").is_err());
    }
}
