//! The CPUs of a worker with a GPU: those near it, so that copies and launches do not cross the machine.
//!
//! A mask that was given from outside (taskset, Slurm) is narrowed and never widened.

use collectives::{Collective, Error, Gpu, Label};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use protocol::env::{OMP_NUM_THREADS, Place};
use std::path::Path;

/// The kernel's word on PCI devices.
const DEVICES: &str = "/sys/bus/pci/devices";

/// Binds this thread, and all that it starts from now on, to CPUs near the worker's GPU, where it shares the host with other
/// workers and the system says which CPUs these are. All ranks take part.
pub(crate) fn bind_beside_gpu(gpu: Option<&Gpu>, place: &Place, collective: &dyn Collective) -> Result<(), Error> {
    let pci = gpu.and_then(|gpu| gpu.pci.as_deref());
    let near = pci.and_then(|pci| local_cpus(Path::new(DEVICES), pci)).unwrap_or_default();
    let mask = own_mask();
    let mine: Vec<usize> = near.into_iter().filter(|cpu| mask.contains(cpu)).collect();
    let told = format!("{} {} {}", place.node_rank, place.local_rank, to_list(&mine)).into_bytes();
    let all = collective.all_gather(told, Label::new(0, "CPUs of the ranks"))?;
    let neighbours = all.iter().filter_map(|bytes| neighbour(&String::from_utf8_lossy(bytes), place.node_rank));
    let cpus = share(neighbours.collect(), place.local_rank, core_of);
    if place.local_world_size < 2 || cpus.is_empty() || cpus.len() == mask.len() || !bind(&cpus) {
        return Ok(());
    }
    if std::env::var_os(OMP_NUM_THREADS).is_none() {
        // libtorch has counted the CPUs before.
        tch::set_num_threads(i32::try_from(cpus.len()).unwrap_or(1));
    }
    tracing::info!("rank {} runs on CPUs {}, near its GPU at {}", place.rank, to_list(&cpus), pci.unwrap_or("?"));
    Ok(())
}

/// What one worker told: its number on the host and the CPUs that it may have, where it is on host `node`.
fn neighbour(told: &str, node: usize) -> Option<(usize, Vec<usize>)> {
    let mut words = told.splitn(3, ' ');
    let its_node: usize = words.next()?.parse().ok()?;
    let local_rank = words.next()?.parse().ok()?;
    let cpus = from_list(words.next()?)?;
    (its_node == node).then_some((local_rank, cpus))
}

/// CPUs of worker `me`: those that it may have, divided evenly among all that may have the same, in the order of their
/// numbers. CPUs of one core stay together. Where there are fewer CPUs than workers, they share all of them.
fn share(mut workers: Vec<(usize, Vec<usize>)>, me: usize, core_of: impl Fn(usize) -> usize) -> Vec<usize> {
    let Some(mut mine) = workers.iter().find(|(rank, _)| *rank == me).map(|(_, cpus)| cpus.clone()) else {
        return Vec::new();
    };
    workers.retain(|(_, cpus)| *cpus == mine);
    mine.sort_by_key(|cpu| core_of(*cpu));
    workers.sort_by_key(|(rank, _)| *rank);
    let (count, at) = (workers.len(), workers.iter().position(|(rank, _)| *rank == me).unwrap_or(0));
    if mine.len() < count {
        return mine;
    }
    let bounds = [at, at + 1].map(|part| part * mine.len() / count);
    let mut part = mine.get(bounds[0]..bounds[1]).unwrap_or_default().to_vec();
    part.sort_unstable();
    part
}

/// The first CPU of the core that this one is of; itself where the system does not say.
fn core_of(cpu: usize) -> usize {
    let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    let siblings = std::fs::read_to_string(file).ok().and_then(|text| from_list(text.trim()));
    siblings.and_then(|all| all.first().copied()).unwrap_or(cpu)
}

/// CPUs near the PCI device; none where the system does not say.
fn local_cpus(devices: &Path, pci: &str) -> Option<Vec<usize>> {
    let text = std::fs::read_to_string(devices.join(pci).join("local_cpulist")).ok()?;
    from_list(text.trim())
}

/// `0-3,8` as numbers.
fn from_list(text: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= CpuSet::count() {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

/// Ascending numbers as `0-3,8`.
fn to_list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b).filter_map(|run| Some((run.first()?, run.last()?)));
    let words = runs.map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
    words.collect::<Vec<_>>().join(",")
}

/// CPUs that this thread may use; none where the system does not tell, as on a machine with too many.
fn own_mask() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

fn bind(cpus: &[usize]) -> bool {
    let mut set = CpuSet::new();
    cpus.iter().all(|cpu| set.set(*cpu).is_ok()) && sched_setaffinity(Pid::from_raw(0), &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        assert_eq!(from_list("0-3,8,10-11").unwrap(), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(to_list(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!((from_list(""), to_list(&[])), (Some(Vec::new()), String::new()));
        for wrong in ["a", "1-", "3-x", "0-99999999"] {
            assert_eq!(from_list(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn workers_near_the_same_cpus_share_them_in_their_order() {
        let near = |list: &str| from_list(list).unwrap();
        let workers = || vec![(3, near("0-7")), (0, near("0-7")), (1, near("8-15")), (2, near("0-7"))];
        let alone = |cpu| cpu;
        let shares: Vec<String> = (0..4).map(|me| to_list(&share(workers(), me, alone))).collect();
        assert_eq!(shares, ["0-1", "8-15", "2-4", "5-7"]);
        let two = || vec![(0, near("0-7")), (1, near("0-7"))];
        let threads: Vec<String> = (0..2).map(|me| to_list(&share(two(), me, |cpu| cpu % 4))).collect();
        assert_eq!(threads, ["0-1,4-5", "2-3,6-7"], "both threads of a core go to one worker");
        assert_eq!(share(vec![(0, near("4")), (1, near("4"))], 1, alone), [4]);
        assert!(share(vec![(0, Vec::new()), (1, Vec::new())], 0, alone).is_empty());
        assert!(share(Vec::new(), 0, alone).is_empty());
    }

    #[test]
    fn only_workers_of_the_same_host_are_neighbours() {
        assert_eq!(neighbour("1 0 0-1", 1), Some((0, vec![0, 1])));
        assert_eq!(neighbour("1 2 ", 1), Some((2, Vec::new())));
        assert_eq!(neighbour("0 0 0-1", 1), None);
        assert_eq!(neighbour("", 0), None);
    }

    #[test]
    fn the_kernels_file_says_what_is_near() {
        let devices = std::env::temp_dir().join(format!("jcs-pci-{}", std::process::id()));
        let device = devices.join("0000:3b:00.0");
        std::fs::create_dir_all(&device).unwrap();
        std::fs::write(device.join("local_cpulist"), "0-1,4\n").unwrap();
        assert_eq!(local_cpus(&devices, "0000:3b:00.0"), Some(vec![0, 1, 4]));
        assert_eq!(local_cpus(&devices, "0000:5e:00.0"), None);
        std::fs::remove_dir_all(&devices).unwrap();
    }

    #[test]
    fn a_thread_is_bound_within_its_mask() {
        let bound = std::thread::spawn(|| {
            let first = own_mask().into_iter().take(1).collect::<Vec<_>>();
            (bind(&first), own_mask() == first)
        });
        assert_eq!(bound.join().unwrap(), (true, true));
    }
}
