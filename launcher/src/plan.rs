//! What will run where: ranks, devices, environment, command lines. Pure: what it depends on is
//! handed in, and nothing is started or created.

use crate::cli::Nproc;
use crate::machine::Machine;
use crate::mpirun::{Missing, Programs};
use crate::nodes::{self, NodesError};
use crate::ranks::{FilterError, RanksFilter};
use protocol::config::{ConfigError, Device};
use protocol::{Rank, env, without_credentials};
use std::path::PathBuf;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// `--nodes` as written.
    pub nodes: String,
    /// `--nproc-per-node`.
    pub nproc: Nproc,
    /// `--ranks-filter` as written.
    pub ranks_filter: Option<String>,
    /// Where the workers will compute.
    pub device: Device,
    /// What the workers will do.
    pub task: Task,
}

/// A command of `jcs` and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// `train`, `eval`, …
    pub command: String,
    /// The rest of the command line.
    pub arguments: Vec<String>,
}

/// A job, planned.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of machines.
    pub nodes: usize,
    /// The workers, by rank.
    pub workers: Vec<Worker>,
    /// Whose output the terminal shows.
    pub shown: RanksFilter,
    /// mpirun and its options, up to the first worker.
    pub mpirun: Vec<String>,
    /// What mpirun finds in its environment besides the launcher's own.
    pub mpirun_env: Vec<(String, String)>,
}

/// A worker, planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its rank.
    pub rank: Rank,
    /// Its number on its machine.
    pub local_rank: usize,
    /// Its machine.
    pub host: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// What its environment has, besides what changes with every start.
    pub env: Vec<(String, String)>,
    /// Its command line.
    pub command: Vec<String>,
}

/// What changes with every start of a job.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where the launcher listens.
    pub launcher: String,
    /// Restarts before this start.
    pub restart: u32,
}

/// A job that cannot run; always exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A program is missing.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Wrong machines.
    #[error(transparent)]
    Nodes(#[from] NodesError),
    /// Wrong filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// `--nodes` and `--nproc-per-node` disagree.
    #[error("--nodes {spec} has room for {slots} workers, --nproc-per-node asks for {asked}")]
    Slots {
        /// `--nodes`.
        spec: String,
        /// Its number.
        slots: usize,
        /// The other number.
        asked: usize,
    },
    /// A GPU is asked for, and there is none.
    #[error("device cuda: this machine shows no GPU (no NVIDIA driver, or an empty CUDA_VISIBLE_DEVICES); cpu works")]
    NoGpu,
    /// More workers than GPUs.
    #[error("{workers} workers, but this machine shows {gpus} GPUs: --nproc-per-node {gpus}, or the device cpu")]
    TooFewGpus {
        /// Workers.
        workers: usize,
        /// GPUs.
        gpus: usize,
    },
    /// `/usr/bin/env` takes a program with `=` in its path for a variable.
    #[error("the path of {} has an equals sign, which /usr/bin/env cannot start: move the programs", jcs.display())]
    Path {
        /// The worker.
        jcs: PathBuf,
    },
    /// An argument that mpirun would change.
    #[error("argument {position} of jcs {command} is {argument:?}, which mpirun cannot pass on")]
    Argument {
        /// The command.
        command: String,
        /// Its number, from 1.
        position: usize,
        /// The argument.
        argument: String,
    },
}

/// Plans the job.
pub fn plan(request: &Request, machine: &Machine, programs: &Programs) -> Result<Plan, PlanError> {
    passable(&request.task)?;
    if programs.jcs.to_string_lossy().contains('=') {
        return Err(PlanError::Path { jcs: programs.jcs.clone() });
    }
    let gpus = gpus_to_use(request.device, machine)?;
    let count = count(request, &machine.host, gpus)?;
    if gpus > 0 && count > gpus {
        return Err(PlanError::TooFewGpus { workers: count, gpus });
    }
    let shown = match &request.ranks_filter {
        None => RanksFilter::all(),
        Some(text) => RanksFilter::parse(text, count)?,
    };
    let workers = (0..count).map(|local_rank| worker(local_rank, count, gpus > 0, request, machine, programs));
    Ok(Plan {
        nodes: 1,
        workers: workers.collect(),
        shown,
        mpirun: mpirun_options(programs, count),
        mpirun_env: mpirun_env(machine),
    })
}

/// A lone colon separates workers on mpirun's command line, and empty arguments vanish there.
fn passable(task: &Task) -> Result<(), PlanError> {
    match task.arguments.iter().position(|a| a.is_empty() || a == ":") {
        None => Ok(()),
        Some(i) => Err(PlanError::Argument {
            command: task.command.clone(),
            position: i + 1,
            argument: task.arguments[i].clone(),
        }),
    }
}

fn gpus_to_use(device: Device, machine: &Machine) -> Result<usize, PlanError> {
    match device {
        Device::Cpu => Ok(0),
        Device::Cuda if machine.gpus == 0 => Err(PlanError::NoGpu),
        Device::Cuda | Device::Auto => Ok(machine.gpus),
    }
}

fn count(request: &Request, host: &str, gpus: usize) -> Result<usize, PlanError> {
    match (nodes::parse(&request.nodes, host)?.slots, request.nproc) {
        (Some(slots), Nproc::Count(asked)) if asked > slots => {
            Err(PlanError::Slots { spec: request.nodes.clone(), slots, asked })
        }
        (_, Nproc::Count(asked)) => Ok(asked),
        (Some(slots), Nproc::Auto) => Ok(slots),
        (None, Nproc::Auto) => Ok(gpus.max(1)),
    }
}

fn worker(
    local_rank: usize,
    count: usize,
    on_gpu: bool,
    request: &Request,
    machine: &Machine,
    programs: &Programs,
) -> Worker {
    let mut command = vec![programs.jcs.to_string_lossy().into_owned(), request.task.command.clone()];
    command.extend(request.task.arguments.iter().cloned());
    Worker {
        rank: Rank(local_rank),
        local_rank,
        host: machine.host.clone(),
        device: if on_gpu { format!("cuda:{local_rank}") } else { "cpu".into() },
        env: worker_env(local_rank, count, on_gpu, machine),
        command,
    }
}

fn worker_env(local_rank: usize, count: usize, on_gpu: bool, machine: &Machine) -> Vec<(String, String)> {
    let mut all = vec![
        (env::RANK, local_rank.to_string()),
        (env::LOCAL_RANK, local_rank.to_string()),
        (env::WORLD_SIZE, count.to_string()),
        (env::LOCAL_WORLD_SIZE, count.to_string()),
        (env::NODE_RANK, "0".to_owned()),
    ];
    match &machine.omp_num_threads {
        Some(given) => all.push((env::OMP_NUM_THREADS, given.clone())),
        None if !on_gpu => all.push((env::OMP_NUM_THREADS, (machine.cores / count).max(1).to_string())),
        None => {}
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// mpirun would pin every worker to one core, and waiting workers would spin. The slots are explicit, so
/// that neither a hostfile nor a scheduler decides how many there are; the token travels by name.
fn mpirun_options(programs: &Programs, count: usize) -> Vec<String> {
    let host = format!("localhost:{count}");
    let options = ["--host", &host, "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"];
    let more = ["--mca", "mpi_yield_when_idle", "1", "--output", "tag", "-x", env::JCS_TOKEN];
    let mpirun = programs.mpirun.to_string_lossy().into_owned();
    std::iter::once(mpirun).chain(options.iter().chain(&more).map(|o| (*o).to_owned())).collect()
}

fn mpirun_env(machine: &Machine) -> Vec<(String, String)> {
    let names: &[&str] = if machine.root { &["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] } else { &[] };
    names.iter().map(|n| ((*n).to_owned(), "1".to_owned())).collect()
}

impl Plan {
    /// Workers in all.
    pub fn world_size(&self) -> usize {
        self.workers.len()
    }

    /// The first line that a user sees.
    pub fn headline(&self) -> String {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let per_node = self.world_size() / self.nodes.max(1);
        let what = self.workers.first().map_or(String::new(), |w| w.command[1..].join(" "));
        let (nodes, workers) = (plural(self.nodes, "node"), plural(per_node, "worker"));
        without_credentials(&format!("{nodes} × {workers}: jcs {what}"))
    }

    /// mpirun's whole command line for one start: every worker is a context of its own, because its
    /// environment is.
    pub fn command_line(&self, start: &Start) -> Vec<String> {
        let mut line = self.mpirun.clone();
        for (i, worker) in self.workers.iter().enumerate() {
            if i > 0 {
                line.push(":".into());
            }
            line.extend(["-np", "1", "/usr/bin/env"].map(String::from));
            line.extend(worker.environment(start).into_iter().map(|(name, value)| format!("{name}={value}")));
            line.extend(worker.command.iter().cloned());
        }
        line
    }
}

impl Worker {
    /// All of the worker's environment that is not inherited, but for the token.
    pub fn environment(&self, start: &Start) -> Vec<(String, String)> {
        let mut all = self.env.clone();
        all.push((env::JCS_LAUNCHER.into(), start.launcher.clone()));
        all.push((env::JCS_RESTART.into(), start.restart.to_string()));
        all
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
