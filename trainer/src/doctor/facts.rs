//! What there is on the hosts of a job: machine, driver, GPUs and versions. Reads; judges nothing.

use super::{Verdict, tell};
use crate::job::Job;
use crate::{Error, device, train};
use serde::{Deserialize, Serialize};

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gpu {
    /// Its model.
    pub(super) name: String,
    /// Bytes of its memory.
    pub(super) memory_bytes: u64,
    /// As `nvidia-smi -L` writes it.
    pub(super) uuid: String,
}

/// What a worker sees on its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    pub(super) host: String,
    /// Cores that the worker may use.
    pub(super) cores: usize,
    /// OpenMP threads of the worker.
    pub(super) threads: i64,
    /// Memory of the host; 0 where it is not known.
    pub(super) memory_bytes: u64,
    /// Version of NVIDIA's driver.
    pub(super) driver: Option<String>,
    /// The highest version of CUDA that the driver can serve.
    pub(super) cuda: Option<String>,
    /// Those that the worker may use.
    pub(super) gpus: Vec<Gpu>,
    /// Why the worker cannot compute on a GPU.
    pub(super) no_gpu: Option<String>,
    pub(super) nccl: Option<String>,
    /// Why there is no NCCL.
    pub(super) no_nccl: Option<String>,
    pub(super) libtorch: String,
    pub(super) mpi: String,
    pub(super) jcs: String,
    /// Git commit that it was built from.
    pub(super) commit: String,
}

/// A host of the job, as its first worker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Host {
    pub(super) verdict: Verdict,
    /// The workers there.
    pub(super) ranks: Vec<usize>,
    #[serde(flatten)]
    pub(super) facts: Facts,
}

/// The hosts of the job, in the order of their first ranks.
pub(super) fn gather(job: &Job) -> Result<Vec<Host>, Error> {
    let all = tell(job, &(job.place.node_rank, look(job)), "facts of the ranks")?;
    let mut hosts: Vec<(usize, Host)> = Vec::new();
    for (rank, (node, facts)) in all.into_iter().enumerate() {
        match hosts.iter_mut().find(|(number, _)| *number == node) {
            Some((_, host)) => host.ranks.push(rank),
            None => hosts.push((node, Host { verdict: Verdict::Ok, ranks: vec![rank], facts })),
        }
    }
    Ok(hosts.into_iter().map(|(_, host)| host).collect())
}

fn look(job: &Job) -> Facts {
    let driver = collectives::gpus().ok();
    let nccl = collectives::nccl_version();
    let versions = train::versions(job);
    let gpu =
        |gpu: &collectives::Gpu| Gpu { name: gpu.name.clone(), memory_bytes: gpu.memory as u64, uuid: uuid(&gpu.uuid) };
    Facts {
        host: protocol::side_channel::host_name(),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        threads: versions.threads,
        memory_bytes: memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        driver: std::fs::read_to_string("/sys/module/nvidia/version").ok().map(|text| text.trim().to_owned()),
        cuda: driver.as_ref().map(|driver| device::version(driver.cuda)),
        gpus: driver.iter().flat_map(|driver| &driver.gpus).map(gpu).collect(),
        no_gpu: device::gpu(&job.place).err(),
        no_nccl: nccl.as_ref().err().cloned(),
        nccl: nccl.ok(),
        libtorch: versions.libtorch,
        mpi: collectives::mpi_version(),
        jcs: versions.jcs,
        commit: versions.commit,
    }
}

/// Bytes of memory by `/proc/meminfo`.
fn memory(text: &str) -> u64 {
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.unwrap_or(0u64) * 1024
}

fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::from("GPU");
    for (i, byte) in bytes.iter().enumerate() {
        if [0, 4, 6, 8, 10].contains(&i) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

impl Facts {
    /// What should be the same on all hosts, each with its name.
    pub(super) fn versions(&self) -> [(&'static str, String); 7] {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
        [
            ("jcs", format!("{} ({})", self.jcs, self.commit)),
            ("libtorch", self.libtorch.clone()),
            ("MPI", self.mpi.clone()),
            ("NCCL", or_none(&self.nccl)),
            ("NVIDIA driver", or_none(&self.driver)),
            ("CUDA of the driver", or_none(&self.cuda)),
            ("GPUs", models(&self.gpus)),
        ]
    }
}

/// `8 × NVIDIA H100`, or `none`.
pub(super) fn models(gpus: &[Gpu]) -> String {
    let mut models: Vec<(&str, usize)> = Vec::new();
    for gpu in gpus {
        match models.iter_mut().find(|(name, _)| *name == gpu.name) {
            Some((_, count)) => *count += 1,
            None => models.push((&gpu.name, 1)),
        }
    }
    let texts: Vec<String> = models.iter().map(|(name, count)| format!("{count} × {name}")).collect();
    if texts.is_empty() { "none".into() } else { texts.join(", ") }
}

/// What is not the same on all hosts: `NCCL: 2.28.3 on a, b; none on c`.
pub(super) fn differences(hosts: &[Host]) -> Vec<String> {
    let Some(first) = hosts.first() else { return Vec::new() };
    let differing = first.facts.versions().into_iter().enumerate().filter_map(|(i, (name, _))| {
        let values = by_value(hosts, |facts| Some(facts.versions()[i].1.clone()));
        let texts: Vec<String> = values.iter().map(|(value, names)| format!("{value} on {names}")).collect();
        (values.len() > 1).then(|| format!("{name}: {}", texts.join("; ")))
    });
    differing.collect()
}

/// The values that hosts have, in the order of the first that has each, with the names of the hosts.
pub(super) fn by_value(hosts: &[Host], value: impl Fn(&Facts) -> Option<String>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for host in hosts {
        let Some(value) = value(&host.facts) else { continue };
        match found.iter_mut().find(|(other, _)| *other == value) {
            Some((_, names)) => *names = format!("{names}, {}", host.facts.host),
            None => found.push((value, host.facts.host.clone())),
        }
    }
    found
}

#[cfg(test)]
impl Host {
    /// A host without GPUs.
    pub(super) fn example(name: &str, ranks: &[usize]) -> Host {
        let facts = Facts {
            host: name.into(),
            cores: 2,
            threads: 1,
            memory_bytes: 8 << 30,
            driver: None,
            cuda: None,
            gpus: Vec::new(),
            no_gpu: Some("there is no NVIDIA driver on this machine".into()),
            nccl: None,
            no_nccl: Some("libnccl.so does not load".into()),
            libtorch: "2.13.0".into(),
            mpi: "Open MPI v5.0.11".into(),
            jcs: "0.1.0".into(),
            commit: "0123456789ab".into(),
        };
        Host { verdict: Verdict::Ok, ranks: ranks.to_vec(), facts }
    }

    /// The same with eight GPUs.
    pub(super) fn with_gpus(mut self) -> Host {
        let gpu = |i: u8| Gpu { name: "NVIDIA H100 80GB HBM3".into(), memory_bytes: 80 << 30, uuid: uuid(&[i; 16]) };
        self.facts.gpus = (0..8).map(gpu).collect();
        self.facts.driver = Some("580.65.06".into());
        self.facts.cuda = Some("13.0".into());
        self.facts.nccl = Some("2.28.3".into());
        (self.facts.no_gpu, self.facts.no_nccl) = (None, None);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), 16 << 20);
        assert_eq!(memory("nothing"), 0);
    }

    #[test]
    fn uuids_are_written_as_nvidia_does() {
        let bytes = std::array::from_fn(|i| i as u8);
        assert_eq!(uuid(&bytes), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn what_differs_is_told_with_its_hosts() {
        let (a, b) = (Host::example("a", &[0, 1]), Host::example("b", &[2]));
        assert_eq!(differences(&[a.clone(), b.clone()]), Vec::<String>::new());
        let mut c = Host::example("c", &[3]);
        (c.facts.nccl, c.facts.commit) = (Some("2.28.3".into()), "cd".into());
        assert_eq!(
            differences(&[a, b, c]),
            ["jcs: 0.1.0 (0123456789ab) on a, b; 0.1.0 (cd) on c", "NCCL: none on a, b; 2.28.3 on c"]
        );
        assert_eq!(models(&Host::example("d", &[0]).with_gpus().facts.gpus), "8 × NVIDIA H100 80GB HBM3");
    }
}
