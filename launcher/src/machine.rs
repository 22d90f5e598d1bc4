//! What this machine has: name, cores, GPUs. Reads `/proc` and the environment; decides nothing.

use crate::nodes::slurm::Variables;
use protocol::{env, side_channel};
use std::path::{Path, PathBuf};

/// Facts about this machine that a plan depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub host: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// GPUs that this process may use.
    pub gpus: usize,
    /// `OMP_NUM_THREADS`, where it is set.
    pub omp_num_threads: Option<String>,
    /// Whether the launcher runs as root (mpirun wants to be told).
    pub root: bool,
    /// The working directory.
    pub folder: PathBuf,
    /// The names of all environment variables that are set.
    pub variables: Vec<String>,
}

impl Machine {
    /// Looks around.
    pub fn look() -> Machine {
        Machine {
            host: side_channel::host_name(),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            gpus: gpus(),
            omp_num_threads: std::env::var(env::OMP_NUM_THREADS).ok().filter(|v| !v.is_empty()),
            root: nix::unistd::geteuid().is_root(),
            folder: std::env::current_dir().unwrap_or_default(),
            variables: std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect(),
        }
    }
}

impl Machine {
    /// Whether an environment variable of this name is set.
    pub fn has(&self, variable: &str) -> bool {
        self.variables.iter().any(|name| name == variable)
    }
}

/// The Slurm allocation that the launcher runs in, if it runs in one. Where the user did not ask for tasks, their number is
/// Slurm's guess, and says nothing.
pub fn slurm() -> Option<Variables> {
    let value = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let either = |name, older| value(name).or_else(|| value(older));
    let asked = ["SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"].iter().any(|name| value(name).is_some());
    Some(Variables {
        node_list: either("SLURM_JOB_NODELIST", "SLURM_NODELIST")?,
        node_count: either("SLURM_JOB_NUM_NODES", "SLURM_NNODES"),
        tasks_per_node: value("SLURM_TASKS_PER_NODE").filter(|_| asked),
        this_node: value("SLURMD_NODENAME"),
    })
}

/// Without NVIDIA's driver a left-over `CUDA_VISIBLE_DEVICES` means nothing. Some containers have the devices alone.
fn gpus() -> usize {
    let entries = |folder: &str| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_device = |name: &str| name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok());
    let installed = match entries("/proc/driver/nvidia/gpus").count() {
        0 => entries("/dev").filter(|entry| entry.file_name().to_str().is_some_and(is_device)).count(),
        gpus => gpus,
    };
    let driver = installed > 0 || ["/dev/nvidiactl", "/dev/dxg"].iter().any(|p| Path::new(p).exists());
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        _ if !driver => 0,
        Ok(list) => visible(&list),
        Err(_) => installed,
    }
}

/// How many devices a `CUDA_VISIBLE_DEVICES` names; CUDA stops reading at the first invalid one.
fn visible(list: &str) -> usize {
    list.split(',').map(str::trim).take_while(|id| !id.is_empty() && !id.starts_with('-')).count()
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn visible_devices_are_counted_as_cuda_does() {
        let lists = ["", "-1", "0", "0,1", "2, 3,5", "GPU-8f3c,GPU-11aa", "0,-1,1", "MIG-1/2/3"];
        assert_eq!(lists.map(visible), [0, 0, 1, 2, 3, 2, 1, 1]);
    }
}
