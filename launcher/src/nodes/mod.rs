//! Which machines a job runs on: from `--nodes`, a hostfile, Slurm's allocation, or this machine alone. Pure: files and
//! variables are handed in, and nothing is looked up in the network.

pub mod hostfile;
pub mod k8s;
pub mod ranges;
pub mod slurm;
pub mod spec;

use hostfile::HostfileError;
use k8s::K8sError;
use slurm::SlurmError;
use spec::{Spec, SpecError};
use std::fmt;
use std::path::{Path, PathBuf};

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What ssh, Slurm and mpirun call it.
    pub name: String,
    /// How many workers it has room for, where that was said.
    pub slots: Option<usize>,
    /// How many tasks Slurm was asked to start there. Only a hint: who starts one launcher a node asks for one.
    pub tasks: Option<usize>,
}

/// How the launcher starts something on the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// There is only this machine.
    Here,
    /// Over ssh, or what stands in its place.
    Ssh,
    /// Through Slurm's srun.
    Slurm,
}

/// The machines of a job, in the order of their ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// The machines; with MIN:MAX all that may take part.
    pub list: Vec<Node>,
    /// How they are reached.
    pub reach: Reach,
    /// The job does not run on fewer.
    pub least: usize,
    /// Nor on more.
    pub most: usize,
}

/// Where hosts can come from, as found.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// `--nodes` as written.
    pub spec: Option<&'a str>,
    /// `--hostfile` and what is in it.
    pub hostfile: Option<(&'a Path, &'a str)>,
    /// Slurm's variables, inside an allocation.
    pub slurm: Option<&'a slurm::Variables>,
    /// Those of a pod, for `--nodes k8s`.
    pub k8s: Option<&'a k8s::Variables>,
    /// This machine's name.
    pub this_host: &'a str,
}

/// Machines that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodesError {
    /// `--nodes` cannot be read.
    #[error("--nodes {spec}: {source}")]
    Spec {
        /// The value as given.
        spec: String,
        /// What is wrong.
        source: SpecError,
    },
    /// The hostfile.
    #[error(transparent)]
    Hostfile(#[from] HostfileError),
    /// Slurm's variables.
    #[error(transparent)]
    Slurm(#[from] SlurmError),
    /// A pod's variables.
    #[error(transparent)]
    K8s(#[from] K8sError),
    /// Hosts in both places.
    #[error("--nodes {spec} and --hostfile {} both name hosts: give one of them, or a number with --nodes", file.display())]
    Both {
        /// `--nodes`.
        spec: String,
        /// `--hostfile`.
        file: PathBuf,
    },
    /// A number of hosts, and nobody who says which.
    #[error(
        "--nodes {spec} asks for {asked} hosts, but nothing says which: name them (--nodes gpu01:8,gpu02:8 or --hostfile FILE), or start inside a Slurm allocation; --nodes 1 is this machine"
    )]
    NoHosts {
        /// `--nodes`.
        spec: String,
        /// How many it may take.
        asked: usize,
    },
    /// More than there are.
    #[error("--nodes {spec}: {least} hosts asked for, {have} in {source_of} ({least} - {have} = {} missing)", least - have)]
    TooFew {
        /// `--nodes`.
        spec: String,
        /// The least number that will do.
        least: usize,
        /// How many there are.
        have: usize,
        /// Where they come from.
        source_of: String,
    },
    /// The same host twice.
    #[error(
        "--nodes {spec}: host {host} stands there twice, at positions {first} and {again}: name it once, as {host}:N"
    )]
    Again {
        /// `--nodes`.
        spec: String,
        /// The host.
        host: String,
        /// Its first place, from 1.
        first: usize,
        /// Its second.
        again: usize,
    },
    /// `localhost` beside other machines.
    #[error("{host} is another machine on every machine: beside other hosts, give this one by its name ({this_host})")]
    Loopback {
        /// The name.
        host: String,
        /// This machine's.
        this_host: String,
    },
    /// Inside an allocation, a host outside.
    #[error(
        "host {host} is not in this job's Slurm allocation ({allocation}), where jcs-launch starts its workers through srun"
    )]
    NotAllocated {
        /// The host.
        host: String,
        /// The allocation.
        allocation: String,
    },
}

/// The machines of a job.
pub fn choose(given: &Given) -> Result<Nodes, NodesError> {
    if given.spec == Some(K8S) {
        return of_pods(given);
    }
    let spec = given.spec.map(|text| {
        spec::parse(text).map_err(|source| NodesError::Spec { spec: text.into(), source }).map(|spec| (text, spec))
    });
    let spec = spec.transpose()?;
    let bounds = match spec {
        Some((_, Spec::Count { least, most })) => Some((least, most)),
        _ => None,
    };
    let list = match (spec, given.hostfile) {
        (Some((text, Spec::Hosts(_))), Some((file, _))) => {
            return Err(NodesError::Both { spec: text.into(), file: file.into() });
        }
        (Some((text, Spec::Hosts(hosts))), None) => distinct(text, hosts)?,
        (Some((text, Spec::Count { least, most })), _) => some_of(text, least, most, given)?,
        (None, _) => everything(given)?.map_or_else(|| vec![this_machine(given)], |(all, _)| all),
    };
    let reach = reach(&list, given)?;
    let (least, most) = match bounds {
        Some((least, most)) => (least, most.min(list.len())),
        None => (list.len(), list.len()),
    };
    Ok(Nodes { list, reach, least, most })
}

/// What `--nodes` says where the hosts are pods.
pub const K8S: &str = "k8s";

fn of_pods(given: &Given) -> Result<Nodes, NodesError> {
    if let Some((file, _)) = given.hostfile {
        return Err(NodesError::Both { spec: K8S.into(), file: file.into() });
    }
    let pods = k8s::pods(given.k8s.unwrap_or(&k8s::Variables::default()), given.this_host)?;
    let (reach, most) = (if pods.list.len() == 1 { Reach::Here } else { Reach::Ssh }, pods.list.len());
    Ok(Nodes { list: pods.list, reach, least: pods.least, most })
}

/// All hosts that something other than `--nodes` names, and what that is.
fn everything(given: &Given) -> Result<Option<(Vec<Node>, String)>, NodesError> {
    if let Some((file, text)) = given.hostfile {
        return Ok(Some((hostfile::parse(file, text)?, file.display().to_string())));
    }
    let named = |variables| slurm::nodes(variables).map(|nodes| (nodes, "the Slurm allocation".to_owned()));
    Ok(given.slurm.map(named).transpose()?)
}

fn some_of(spec: &str, least: usize, most: usize, given: &Given) -> Result<Vec<Node>, NodesError> {
    match everything(given)? {
        None if most == 1 => Ok(vec![this_machine(given)]),
        None => Err(NodesError::NoHosts { spec: spec.into(), asked: most }),
        Some((all, source_of)) if all.len() < least => {
            Err(NodesError::TooFew { spec: spec.into(), least, have: all.len(), source_of })
        }
        // The others stand by, where the job may change its hosts.
        Some((all, _)) if least < most => Ok(all),
        Some((all, _)) => Ok(all.into_iter().take(most).collect()),
    }
}

fn this_machine(given: &Given) -> Node {
    Node::new(given.this_host, None)
}

fn distinct(spec: &str, hosts: Vec<Node>) -> Result<Vec<Node>, NodesError> {
    for (i, host) in hosts.iter().enumerate() {
        if let Some(first) = hosts.iter().take(i).position(|earlier| earlier.is_same(host)) {
            let (first, again) = (first + 1, i + 1);
            return Err(NodesError::Again { spec: spec.into(), host: host.name.clone(), first, again });
        }
    }
    Ok(hosts)
}

fn reach(list: &[Node], given: &Given) -> Result<Reach, NodesError> {
    if let [only] = list
        && is_here(&only.name, given)
    {
        return Ok(Reach::Here);
    }
    if let Some(loopback) = list.iter().find(|node| is_loopback(&node.name)) {
        let this_host = given.this_host.into();
        return Err(NodesError::Loopback { host: loopback.name.clone(), this_host });
    }
    let Some(variables) = given.slurm else { return Ok(Reach::Ssh) };
    let allocated = slurm::nodes(variables)?;
    match list.iter().find(|node| !allocated.iter().any(|other| other.is_same(node))) {
        None => Ok(Reach::Slurm),
        Some(node) => {
            Err(NodesError::NotAllocated { host: node.name.clone(), allocation: variables.node_list.clone() })
        }
    }
}

fn is_loopback(name: &str) -> bool {
    ["localhost", "127.0.0.1", "::1"].contains(&name)
}

/// Whether `name` is this machine, as far as names tell.
fn is_here(name: &str, given: &Given) -> bool {
    let slurms = given.slurm.and_then(|variables| variables.this_node.as_deref());
    is_loopback(name) || is_name_of(name, given.this_host) || slurms == Some(name)
}

/// Whether `name` means the machine that calls itself `host`: in full, or its first label.
pub fn is_name_of(name: &str, host: &str) -> bool {
    let label = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    name.eq_ignore_ascii_case(host) || ((!name.contains('.') || !host.contains('.')) && label(name) == label(host))
}

impl Node {
    /// A machine with room for so many workers.
    pub fn new(name: impl Into<String>, slots: Option<usize>) -> Node {
        Node { name: name.into(), slots, tasks: None }
    }

    /// Whether both are written alike.
    fn is_same(&self, other: &Node) -> bool {
        self.name.eq_ignore_ascii_case(&other.name)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.contains(':') {
            true => write!(f, "[{}]", self.name)?,
            false => f.write_str(&self.name)?,
        }
        self.slots.or(self.tasks).map_or(Ok(()), |slots| write!(f, ":{slots}"))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
