//! Tests of the planner.

use super::*;

fn request(nodes: &str, nproc: Nproc, device: Device) -> Request {
    let task = Task { command: "train".into(), arguments: vec!["a b.toml".into(), "k=[1, 2]".into()] };
    let given = crate::nodes::Given { spec: Some(nodes), hostfile: None, slurm: None, k8s: None, this_host: "gpu01" };
    let nodes = crate::nodes::choose(&given).unwrap();
    Request { nodes, nproc, ranks_filter: None, device, most_workers: 0, task }
}

fn machine(cores: usize, gpus: usize) -> Machine {
    let (folder, variables) = ("/work".into(), Vec::new());
    Machine { host: "gpu01".into(), cores, gpus, omp_num_threads: None, root: false, folder, variables }
}

fn programs() -> Programs {
    Programs { mpirun: "/mpi/bin/mpirun".into(), jcs: "/bin dir/jcs".into() }
}

fn planned(r: &Request, m: &Machine) -> Result<Plan, PlanError> {
    plan(r, m, &programs())
}

fn value<'a>(worker: &'a Worker, name: &str) -> Option<&'a str> {
    worker.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

#[test]
fn every_worker_knows_its_place() {
    let plan = planned(&request("1", Nproc::Count(3), Device::Auto), &machine(8, 0)).unwrap();
    let last = &plan.workers[2];
    let names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "OMP_NUM_THREADS"];
    assert_eq!(names.map(|n| value(last, n).unwrap_or("-")), ["2", "2", "3", "3", "0", "2"]);
    assert_eq!((last.device.as_str(), last.host.as_str()), ("cpu", "gpu01"));
    assert_eq!(last.command, ["/bin dir/jcs", "train", "a b.toml", "k=[1, 2]"]);
    assert_eq!(plan.headline(), "1 node × 3 workers: jcs train a b.toml k=[1, 2]");
}

#[test]
fn hosts_that_do_not_work_together_are_no_mistake_in_the_command() {
    let apart = crate::probe::exchange::ExchangeError::WrongSum { a: "a".into(), b: "b".into() };
    assert_eq!(PlanError::from(apart).exit(), Exit::Preflight);
}

#[test]
fn threads_are_shared_but_never_none_and_given_ones_stay() {
    let threads = |m: &Machine| {
        let plan = planned(&request("1", Nproc::Count(4), Device::Cpu), m).unwrap();
        value(&plan.workers[0], "OMP_NUM_THREADS").map(String::from)
    };
    assert_eq!(threads(&machine(2, 0)).as_deref(), Some("1"));
    assert_eq!(threads(&Machine { omp_num_threads: Some("7".into()), ..machine(2, 0) }).as_deref(), Some("7"));
}

#[test]
fn auto_is_one_worker_a_gpu() {
    let plan = planned(&request("1", Nproc::Auto, Device::Auto), &machine(16, 4)).unwrap();
    let devices: Vec<&str> = plan.workers.iter().map(|w| w.device.as_str()).collect();
    assert_eq!(devices, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]);
    assert_eq!(value(&plan.workers[0], "OMP_NUM_THREADS"), None);
    let one = |device, gpus| planned(&request("1", Nproc::Auto, device), &machine(16, gpus)).unwrap().world_size();
    assert_eq!((one(Device::Auto, 0), one(Device::Cpu, 4)), (1, 1));
}

#[test]
fn slots_and_numbers_agree_or_are_refused() {
    let size =
        |nodes: &str, nproc| planned(&request(nodes, nproc, Device::Cpu), &machine(4, 0)).map(|p| p.world_size());
    assert_eq!(size("localhost:3", Nproc::Auto).unwrap(), 3);
    assert_eq!(size("gpu01:3", Nproc::Count(2)).unwrap(), 2);
    assert!(matches!(size("gpu01:3", Nproc::Count(4)), Err(PlanError::Slots { slots: 3, asked: 4, .. })));
}

#[test]
fn gpus_that_are_not_there_are_refused() {
    let few = planned(&request("1", Nproc::Count(3), Device::Auto), &machine(4, 2));
    assert!(matches!(few, Err(PlanError::TooFewGpus { workers: 3, gpus: 2 })));
    let none = planned(&request("1", Nproc::Auto, Device::Cuda), &machine(4, 0));
    assert!(matches!(none, Err(PlanError::NoGpu)));
}

#[test]
fn arguments_that_mpirun_would_change_are_refused() {
    for bad in [":", ""] {
        let mut r = request("1", Nproc::Auto, Device::Cpu);
        r.task.arguments.push(bad.into());
        assert!(matches!(planned(&r, &machine(1, 0)), Err(PlanError::Argument { position: 3, .. })), "{bad:?}");
    }
}

#[test]
fn the_command_line_has_a_context_a_worker_and_no_token() {
    let plan = planned(&request("1", Nproc::Count(2), Device::Cpu), &machine(2, 0)).unwrap();
    let line = plan.command_line(&Start { launcher: "127.0.0.1:9".into(), restart: 4 });
    let expected = "/mpi/bin/mpirun --map-by :OVERSUBSCRIBE --bind-to none \
        --mca mpi_yield_when_idle 1 --output tag -x JCS_TOKEN \
        --host localhost:2 -np 1 /usr/bin/env RANK=0 LOCAL_RANK=0 WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 NODE_RANK=0 OMP_NUM_THREADS=1 \
        JCS_LAUNCHER=127.0.0.1:9 JCS_RESTART=4 /bin dir/jcs train a b.toml k=[1, 2] : \
        --host localhost:2 -np 1 /usr/bin/env RANK=1 LOCAL_RANK=1 WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 NODE_RANK=0 OMP_NUM_THREADS=1 \
        JCS_LAUNCHER=127.0.0.1:9 JCS_RESTART=4 /bin dir/jcs train a b.toml k=[1, 2]";
    assert_eq!(line.join(" "), expected);
}

#[test]
fn mpirun_is_told_about_root_only_when_root() {
    let r = request("1", Nproc::Auto, Device::Cpu);
    assert!(planned(&r, &machine(1, 0)).unwrap().mpirun_env.is_empty());
    let root = Machine { root: true, ..machine(1, 0) };
    assert_eq!(planned(&r, &root).unwrap().mpirun_env.len(), 2);
}

#[test]
fn a_path_that_env_would_misread_is_refused() {
    let odd = Programs { jcs: "/lr=1/jcs".into(), ..programs() };
    let error = plan(&request("1", Nproc::Auto, Device::Cpu), &machine(1, 0), &odd).unwrap_err();
    assert!(error.to_string().contains("/lr=1/jcs"), "{error}");
}

#[test]
fn ranks_go_host_by_host_in_the_order_given() {
    let plan = planned(&request("gpu02:2,gpu01:1,gpu07:2", Nproc::Auto, Device::Cpu), &machine(4, 0)).unwrap();
    let names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "OMP_NUM_THREADS"];
    let places: Vec<String> = plan
        .workers
        .iter()
        .map(|w| format!("{} {}", w.host, names.map(|n| value(w, n).unwrap_or("-")).join(" ")))
        .collect();
    let expected =
        ["gpu02 0 0 5 2 0 2", "gpu02 1 1 5 2 0 2", "gpu01 2 0 5 1 1 4", "gpu07 3 0 5 2 2 2", "gpu07 4 1 5 2 2 2"];
    assert_eq!(places, expected);
    assert_eq!(plan.headline(), "3 nodes × 2, 1, 2 workers (5 in all): jcs train a b.toml k=[1, 2]");
}

#[test]
fn every_worker_is_given_its_host_and_no_hostfile_decides() {
    let plan = planned(&request("gpu[01-02]:2", Nproc::Count(1), Device::Cpu), &machine(2, 0)).unwrap();
    assert_eq!(plan.headline(), "2 nodes × 1 worker: jcs train a b.toml k=[1, 2]");
    let line = plan.command_line(&Start { launcher: "10.0.0.1:9,[fd00::1]:8".into(), restart: 0 }).join(" ");
    assert_eq!(line.matches("--host gpu01:1 -np 1 /usr/bin/env RANK=0").count(), 1, "{line}");
    assert_eq!(line.matches("--host gpu02:1 -np 1 /usr/bin/env RANK=1").count(), 1, "{line}");
    assert_eq!(line.matches("JCS_LAUNCHER=10.0.0.1:9,[fd00::1]:8 ").count(), 2, "{line}");
    assert!(!line.contains("JCS_TOKEN="), "{line}");
}

#[test]
fn slurms_tasks_are_a_hint_and_slots_are_a_limit() {
    let mut hinted = request("gpu01", Nproc::Auto, Device::Auto);
    hinted.nodes.list[0].tasks = Some(3);
    let size = |r: &Request, gpus| planned(r, &machine(4, gpus)).unwrap().world_size();
    assert_eq!([size(&hinted, 0), size(&hinted, 4)], [3, 4]);
    hinted.nproc = Nproc::Count(6);
    assert_eq!(size(&hinted, 0), 6);
    let over = planned(&request("gpu01:2,gpu02:1", Nproc::Count(2), Device::Cpu), &machine(4, 0)).unwrap_err();
    assert!(over.to_string().starts_with("host gpu02 has room for 1 workers"), "{over}");
}

#[test]
fn ipv6_addresses_need_a_name_for_mpirun() {
    let error = planned(&request("[fd00::2]:2", Nproc::Auto, Device::Cpu), &machine(4, 0)).unwrap_err();
    assert!(error.to_string().contains("HostName fd00::2"), "{error}");
}

#[test]
fn hosts_are_expected_to_have_what_is_here() {
    let plan = planned(&request("gpu01,gpu02", Nproc::Auto, Device::Cpu), &machine(1, 0)).unwrap();
    let wanted = Wanted { files: vec!["a b.toml".into()], ..Wanted::default() };
    let expected = plan.expected(&machine(1, 0), &wanted);
    assert_eq!((expected.worker.as_str(), expected.folder.as_str()), ("/bin dir/jcs", "/work"));
    assert_eq!((expected.programs, expected.files), (vec!["/mpi/bin/mpirun".to_owned()], vec!["a b.toml".to_owned()]));
}
