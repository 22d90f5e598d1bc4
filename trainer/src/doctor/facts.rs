//! What there is on the hosts of a job: machine, driver, GPUs and versions; and whether the workers can do with it what they are
//! to do.

use super::report::{Problem, Verdict};
use super::{Wish, tell};
use crate::job::Job;
use crate::{Error, device, train};
use protocol::config::{Backend, Device};
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
    /// Whether it is the tests' stand-in.
    pub(super) stand_in: bool,
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
    /// Version of NVIDIA's driver that the kernel runs.
    pub(super) driver: Option<String>,
    /// The highest version of CUDA that the driver can serve.
    pub(super) cuda: Option<String>,
    /// Those that the worker may use.
    pub(super) gpus: Vec<Gpu>,
    /// `CUDA_VISIBLE_DEVICES`, where it is set.
    pub(super) visible: Option<String>,
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

/// The hosts of the job, in the order of their first ranks, and what is wrong with the facts of any rank.
pub(super) fn gather(job: &Job, wish: &Wish) -> Result<(Vec<Host>, Vec<Problem>), Error> {
    let all: Vec<(usize, Facts)> = tell(job, &(job.place.node_rank, look(job)), "facts of the ranks")?;
    let a_gpu_is_used = all.iter().any(|(_, facts)| facts.no_gpu.is_none());
    let mut problems = Vec::new();
    let mut hosts: Vec<(usize, Host)> = Vec::new();
    for (rank, (node, facts)) in all.into_iter().enumerate() {
        let problem = facts.problem(wish, job.place.world_size, a_gpu_is_used);
        let right = problem.is_none();
        problems.extend(problem.map(|problem| Problem::of(job, rank, problem)));
        match hosts.iter_mut().find(|(number, _)| *number == node) {
            Some((_, host)) => host.ranks.push(rank),
            None => hosts.push((node, Host { verdict: Verdict::Ok, ranks: vec![rank], facts })),
        }
        if let Some((_, host)) = hosts.iter_mut().find(|(number, _)| *number == node && !right) {
            host.verdict = Verdict::Wrong;
        }
    }
    Ok((hosts.into_iter().map(|(_, host)| host).collect(), problems))
}

/// Whether what is wrong keeps workers from coming together: they want what one of them lacks. Where none of them can use a
/// GPU and none must, they compute on CPUs.
pub(super) fn cannot_begin(problems: &[Problem], wish: &Wish, workers: usize) -> bool {
    !problems.is_empty() && (wish.device == Device::Cuda || wish.backend == Backend::Nccl || problems.len() < workers)
}

fn look(job: &Job) -> Facts {
    let driver = collectives::gpus().ok();
    let nccl = collectives::nccl_version();
    let versions = train::versions(job);
    let gpu = |gpu: &collectives::Gpu| Gpu {
        name: gpu.name.clone(),
        memory_bytes: gpu.memory as u64,
        uuid: uuid(&gpu.uuid),
        stand_in: gpu.stand_in,
    };
    Facts {
        host: protocol::side_channel::host_name(),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        threads: versions.threads,
        memory_bytes: memory(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        driver: std::fs::read_to_string("/sys/module/nvidia/version").ok().map(|text| text.trim().to_owned()),
        cuda: driver.as_ref().map(|driver| device::version(driver.cuda)),
        gpus: driver.iter().flat_map(|driver| &driver.gpus).map(gpu).collect(),
        visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
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
    /// What keeps this worker from what it is to do, if anything does.
    fn problem(&self, wish: &Wish, workers: usize, a_gpu_is_used: bool) -> Option<String> {
        let no_nccl = || {
            let missing = self.no_nccl.as_ref().filter(|_| workers > 1 && wish.backend != Backend::Mpi);
            missing.map(|why| format!("no NCCL: {why}"))
        };
        if wish.device == Device::Cpu && wish.backend == Backend::Nccl && self.gpus.iter().all(|gpu| !gpu.stand_in) {
            return Some("--device cpu computes on CPUs, and --backend nccl adds up on GPUs: --backend mpi".into());
        }
        match &self.no_gpu {
            _ if wish.device == Device::Cpu && wish.backend == Backend::Nccl => no_nccl(),
            _ if wish.device == Device::Cpu || wish.backend == Backend::Mpi => None,
            None => no_nccl(),
            Some(why) if wish.device == Device::Cuda => Some(format!("--device cuda, but {why}")),
            Some(why) if wish.backend == Backend::Nccl => Some(format!("--backend nccl, but {why}")),
            Some(why) if a_gpu_is_used => Some(format!("other workers have a GPU, but here {why}")),
            Some(why) if self.has_gpus() => {
                let there = self.driver.as_ref().filter(|_| self.gpus.is_empty());
                let there =
                    there.map_or("there is a GPU".into(), |driver| format!("the kernel runs NVIDIA's driver {driver}"));
                Some(format!("{there}, but {why} (--device cpu where that is meant to be so)"))
            }
            Some(_) => None,
        }
    }

    /// Whether there are GPUs that nobody has hidden on purpose.
    fn has_gpus(&self) -> bool {
        let hidden = self.visible.as_deref().is_some_and(|visible| matches!(visible.trim(), "" | "-1"));
        !hidden && (self.driver.is_some() || self.gpus.iter().any(|gpu| !gpu.stand_in))
    }

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
            visible: None,
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
        let gpu = |i: u8| Gpu {
            name: "NVIDIA H100 80GB HBM3".into(),
            memory_bytes: 80 << 30,
            uuid: uuid(&[i; 16]),
            stand_in: false,
        };
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
    fn a_gpu_that_cannot_be_used_is_wrong_where_it_is_wanted() {
        let problem = |facts: &Facts, device, backend, used| {
            facts.problem(&Wish { device, backend, json: None }, 2, used).unwrap_or_default()
        };
        let (bare, gpus) = (Host::example("a", &[0]).facts, Host::example("b", &[1]).with_gpus().facts);
        assert_eq!(problem(&bare, Device::Auto, Backend::Auto, false), "");
        assert!(
            problem(&bare, Device::Auto, Backend::Auto, true).starts_with("other workers have a GPU, but here there")
        );
        assert!(problem(&bare, Device::Cuda, Backend::Auto, false).starts_with("--device cuda, but there is no"));
        assert!(problem(&bare, Device::Auto, Backend::Nccl, false).starts_with("--backend nccl, but there is no"));
        assert_eq!(problem(&gpus, Device::Auto, Backend::Auto, true), "");
        assert!(problem(&gpus, Device::Cpu, Backend::Nccl, true).contains("--backend mpi"));
        let broken = Facts { no_gpu: Some("libtorch finds no usable GPU".into()), ..gpus.clone() };
        let said = "there is a GPU, but libtorch finds no usable GPU (--device cpu where that is meant to be so)";
        assert_eq!(problem(&broken, Device::Auto, Backend::Auto, false), said);
        assert_eq!(problem(&broken, Device::Cpu, Backend::Auto, false), "");
        assert_eq!(problem(&broken, Device::Auto, Backend::Mpi, false), "");
        // The kernel has the driver, the container has no library of it.
        let contained = Facts { gpus: Vec::new(), ..broken };
        let said = problem(&contained, Device::Auto, Backend::Auto, false);
        assert!(said.starts_with("the kernel runs NVIDIA's driver 580.65.06, but "), "{said}");
        let hidden = Facts { visible: Some(String::new()), ..contained };
        assert_eq!(problem(&hidden, Device::Auto, Backend::Auto, false), "");
        let no_nccl = Facts { no_nccl: Some("it does not load".into()), ..gpus };
        assert_eq!(problem(&no_nccl, Device::Auto, Backend::Auto, true), "no NCCL: it does not load");
    }

    #[test]
    fn workers_that_lack_what_they_must_have_do_not_begin() {
        let wrong = |ranks: usize| {
            let problem = |rank| Problem { rank, host: String::new(), problem: String::new() };
            (0..ranks).map(problem).collect::<Vec<_>>()
        };
        let begin = |ranks, device, backend| !cannot_begin(&wrong(ranks), &Wish { device, backend, json: None }, 2);
        assert!(begin(0, Device::Cuda, Backend::Nccl) && begin(2, Device::Auto, Backend::Auto));
        assert!(!begin(1, Device::Auto, Backend::Auto) && !begin(2, Device::Cuda, Backend::Auto));
        assert!(!begin(2, Device::Auto, Backend::Nccl));
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
