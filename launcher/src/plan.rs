//! What will run where: ranks, devices, environment, command lines. Pure: what it depends on is
//! handed in, and nothing is started or created.

use crate::agent::key::KeyError;
use crate::cli::Nproc;
use crate::machine::Machine;
use crate::mpirun::{Missing, Programs};
use crate::nodes::{Node, Nodes, NodesError, Reach};
use crate::options;
use crate::probe::Unfit;
use crate::probe::exchange::ExchangeError;
use crate::probe::script::{Expected, Gpus};
use crate::probe::wanted::Wanted;
use crate::ranks::{FilterError, RanksFilter};
use protocol::config::{ConfigError, Device};
use protocol::{Exit, Rank, env, without_credentials};
use std::path::PathBuf;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The machines.
    pub nodes: Nodes,
    /// `--nproc-per-node`.
    pub nproc: Nproc,
    /// `--ranks-filter` as written.
    pub ranks_filter: Option<String>,
    /// Where the workers will compute.
    pub device: Device,
    /// How many workers the job may come to have.
    pub most_workers: usize,
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
    /// The machines and their numbers of workers, in the order of the ranks.
    pub nodes: Vec<Share>,
    /// How they are reached.
    pub reach: Reach,
    /// The workers, by rank.
    pub workers: Vec<Worker>,
    /// Whose output the terminal shows.
    pub shown: RanksFilter,
    /// mpirun and its options, up to the first worker.
    pub mpirun: Vec<String>,
    /// What mpirun finds in its environment besides the launcher's own.
    pub mpirun_env: Vec<(String, String)>,
}

/// A machine's part of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The machine, as mpirun calls it.
    pub host: String,
    /// Workers on it.
    pub workers: usize,
}

/// A worker, planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its rank.
    pub rank: Rank,
    /// Its number on its machine.
    pub local_rank: usize,
    /// Its machine's number.
    pub node_rank: usize,
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
    /// Where the launcher listens: addresses with ports, separated by commas.
    pub launcher: String,
    /// Restarts before this start.
    pub restart: u32,
}

/// A job that cannot run.
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
    /// A hostfile that cannot be read.
    #[error("--hostfile {}: {source}", file.display())]
    Hostfile {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The agents' key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Agents that are not there.
    #[error("{0}")]
    Agents(String),
    /// Agents that cannot be used in this way.
    #[error("{0}")]
    AgentOptions(String),
    /// A signal came before anything was started.
    #[error("asked to end while waiting for the agents")]
    Stopped(Exit),
    /// Hosts that cannot take part.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Hosts that do not work together.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The hosts' slots and `--nproc-per-node` disagree.
    #[error("host {host} has room for {slots} workers ({host}:{slots}), --nproc-per-node asks for {asked}")]
    Slots {
        /// The host.
        host: String,
        /// Its number.
        slots: usize,
        /// The other number.
        asked: usize,
    },
    /// mpirun cuts hosts at the first colon.
    #[error(
        "host [{address}]: mpirun takes no IPv6 addresses: give it a name, in DNS, in /etc/hosts of every host, or in ssh's configuration (Host NAME, HostName {address})"
    )]
    Ipv6 {
        /// The address.
        address: String,
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
    let list = request.nodes.list.iter().take(request.nodes.most);
    let nodes = list.map(|node| share(node, request, gpus)).collect::<Result<Vec<_>, _>>()?;
    let world_size = nodes.iter().map(|node| node.workers).sum();
    let shown = match &request.ranks_filter {
        None => RanksFilter::all(),
        Some(text) => RanksFilter::parse(text, world_size)?,
    };
    let reach = request.nodes.reach;
    let crew = Crew { world_size, on_gpu: gpus > 0, request, machine, programs };
    let mpirun = programs.mpirun.to_string_lossy().into_owned();
    Ok(Plan {
        workers: crew.workers(&nodes),
        nodes,
        reach,
        shown,
        mpirun: std::iter::once(mpirun).chain(options::options(reach, machine)).collect(),
        mpirun_env: options::environment(reach, machine),
    })
}

/// The parts of all hosts that may take part.
pub fn shares(request: &Request, machine: &Machine) -> Result<Vec<Share>, PlanError> {
    let gpus = gpus_to_use(request.device, machine)?;
    request.nodes.list.iter().map(|node| share(node, request, gpus)).collect()
}

/// The workers on one machine. What is not known of another machine is taken to be as here.
fn share(node: &Node, request: &Request, gpus: usize) -> Result<Share, PlanError> {
    if request.nodes.reach != Reach::Here && node.name.contains(':') {
        return Err(PlanError::Ipv6 { address: node.name.clone() });
    }
    let workers = match (node.slots, request.nproc) {
        (Some(slots), Nproc::Count(asked)) if asked > slots => {
            return Err(PlanError::Slots { host: node.name.clone(), slots, asked });
        }
        (_, Nproc::Count(asked)) => asked,
        (Some(slots), Nproc::Auto) => slots,
        (None, Nproc::Auto) if gpus > 0 => gpus,
        (None, Nproc::Auto) => node.tasks.unwrap_or(1),
    };
    if gpus > 0 && workers > gpus {
        return Err(PlanError::TooFewGpus { workers, gpus });
    }
    let host = if request.nodes.reach == Reach::Here { "localhost".into() } else { node.name.clone() };
    Ok(Share { host, workers })
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

/// What all workers of a job have in common.
struct Crew<'a> {
    world_size: usize,
    on_gpu: bool,
    request: &'a Request,
    machine: &'a Machine,
    programs: &'a Programs,
}

impl Crew<'_> {
    /// The workers by rank: those of the first machine, those of the second, and so on.
    fn workers(&self, nodes: &[Share]) -> Vec<Worker> {
        let places = nodes
            .iter()
            .enumerate()
            .flat_map(|(node_rank, share)| (0..share.workers).map(move |local_rank| (node_rank, share, local_rank)));
        places.enumerate().map(|(rank, (node, share, local))| self.worker(Rank(rank), node, share, local)).collect()
    }

    fn worker(&self, rank: Rank, node_rank: usize, share: &Share, local_rank: usize) -> Worker {
        let task = &self.request.task;
        let mut command = vec![self.programs.jcs.to_string_lossy().into_owned(), task.command.clone()];
        command.extend(task.arguments.iter().cloned());
        let here = self.request.nodes.reach == Reach::Here;
        Worker {
            rank,
            local_rank,
            node_rank,
            host: if here { self.machine.host.clone() } else { share.host.clone() },
            device: if self.on_gpu { format!("cuda:{local_rank}") } else { "cpu".into() },
            env: self.env(rank, node_rank, share.workers, local_rank),
            command,
        }
    }

    fn env(&self, rank: Rank, node_rank: usize, local_size: usize, local_rank: usize) -> Vec<(String, String)> {
        let mut all = vec![
            (env::RANK, rank.to_string()),
            (env::LOCAL_RANK, local_rank.to_string()),
            (env::WORLD_SIZE, self.world_size.to_string()),
            (env::LOCAL_WORLD_SIZE, local_size.to_string()),
            (env::NODE_RANK, node_rank.to_string()),
        ];
        if self.request.most_workers > self.world_size {
            all.push((env::JCS_MOST_WORKERS, self.request.most_workers.to_string()));
        }
        match &self.machine.omp_num_threads {
            Some(given) => all.push((env::OMP_NUM_THREADS, given.clone())),
            None if !self.on_gpu => {
                let threads = (self.machine.cores / local_size.max(1)).max(1);
                all.push((env::OMP_NUM_THREADS, threads.to_string()));
            }
            None => {}
        }
        all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl PlanError {
    /// The exit code that it deserves.
    pub fn exit(&self) -> Exit {
        match self {
            PlanError::Unfit(unfit) => unfit.exit,
            PlanError::Exchange(_) | PlanError::Agents(_) => Exit::Preflight,
            PlanError::Stopped(exit) => *exit,
            _ => Exit::Usage,
        }
    }
}

impl Plan {
    /// What every host needs to have, at the same paths as here.
    pub fn expected(&self, machine: &Machine, wanted: &Wanted) -> Expected {
        let on_gpu = self.workers.iter().any(|worker| worker.device != "cpu");
        Expected {
            worker: self.workers.first().and_then(|w| w.command.first()).cloned().unwrap_or_default(),
            programs: self.mpirun.first().cloned().into_iter().collect(),
            folder: machine.folder.to_string_lossy().into_owned(),
            files: wanted.files.clone(),
            data: wanted.data.clone(),
            run_dir: wanted.run_dir.clone(),
            gpus: match (on_gpu, wanted.cuda) {
                (_, true) => Gpus::Required,
                (true, false) => Gpus::Perhaps,
                (false, false) => Gpus::None,
            },
        }
    }

    /// Workers in all.
    pub fn world_size(&self) -> usize {
        self.workers.len()
    }

    /// The first line that a user sees.
    pub fn headline(&self) -> String {
        let what = self.workers.first().and_then(|w| w.command.get(1..)).map_or(String::new(), |words| words.join(" "));
        without_credentials(&format!("{}: jcs {what}", self.size()))
    }

    fn size(&self) -> String {
        format!("{} × {}", plural(self.nodes.len(), "node"), self.shares())
    }

    /// `2 nodes × 8 workers: gpu01, gpu02`.
    pub fn on_whom(&self) -> String {
        let hosts: Vec<&str> = self.nodes.iter().map(|node| node.host.as_str()).collect();
        format!("{}: {}", self.size(), hosts.join(", "))
    }

    /// `8 workers`, or `8, 8, 4 workers (20 in all)`.
    fn shares(&self) -> String {
        match self.nodes.as_slice() {
            [first, rest @ ..] if rest.iter().any(|other| other.workers != first.workers) => {
                let each: Vec<String> = self.nodes.iter().map(|node| node.workers.to_string()).collect();
                format!("{} workers ({} in all)", each.join(", "), self.world_size())
            }
            nodes => plural(nodes.first().map_or(0, |node| node.workers), "worker"),
        }
    }

    /// mpirun's whole command line for one start: every worker is a context of its own, because its
    /// environment and its host are. With the hosts given once for all, mpirun fills its own host first.
    pub fn command_line(&self, start: &Start) -> Vec<String> {
        let mut line = self.mpirun.clone();
        for (i, worker) in self.workers.iter().enumerate() {
            if i > 0 {
                line.push(":".into());
            }
            let node = self.nodes.get(worker.node_rank);
            let host = node.map_or_else(String::new, |node| format!("{}:{}", node.host, node.workers));
            line.extend(["--host", &host, "-np", "1", "/usr/bin/env"].map(String::from));
            line.extend(worker.environment(start).into_iter().map(|(name, value)| format!("{name}={value}")));
            line.extend(worker.command.iter().cloned());
        }
        line
    }
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
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
