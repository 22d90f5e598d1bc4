//! Training on hosts that have no ssh: namespaces with a network between them, and an agent on each but the first.

use end_to_end::hosts::{Hosts, kill};
use end_to_end::shared::Undisturbed;
use end_to_end::{Bench, binary, last_line, signal, text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const ENDLESS: &str = "train.max_steps=100000";

/// A bench with a key for agents, and hosts where nothing runs.
fn hosts(test: &str, count: usize, bench: &Bench) -> Option<Hosts> {
    std::fs::write(bench.path().join("key"), "5a".repeat(32)).unwrap();
    Hosts::bare(test, count, bench)
}

/// `jcs-launch` on host `i` in the bench's folder.
fn on(hosts: &Hosts, bench: &Bench, i: usize, arguments: &[&str]) -> Command {
    let mut command = hosts.command(i, "env");
    command.arg("-C").arg(bench.path()).arg(binary("jcs-launch")).args(arguments);
    command.env("OMP_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn agent(hosts: &Hosts, bench: &Bench, i: usize) -> Child {
    on(hosts, bench, i, &["agent", "--key", "key"]).spawn().unwrap()
}

/// Trains into `run`, a worker a host.
fn train(hosts: &Hosts, bench: &Bench, nodes: &str, run: &str, settings: &[&str]) -> Child {
    let run = format!("run.dir={run}");
    let arguments =
        [&["--agent", "key", "--nodes", nodes, "--max-restarts", "0", "small.toml", &run], settings].concat();
    on(hosts, bench, 1, &arguments).spawn().unwrap()
}

fn ends(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "an agent does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn nothing_is_left(hosts: &Hosts, count: usize) {
    let began = Instant::now();
    let ours = |line: &str| ["jcs", "prte", "mpirun"].iter().any(|name| line.contains(name));
    let left = || (1..=count).flat_map(|i| hosts.processes(i)).filter(|(_, line)| ours(line)).collect::<Vec<_>>();
    while !left().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "left after 10 s: {:#?}", left());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The agent on host `i`, as seen from here.
fn agent_on(hosts: &Hosts, i: usize) -> Pid {
    let agent = |line: &str| line.contains("jcs-launch agent ");
    hosts.processes(i).into_iter().find(|(_, line)| agent(line)).expect("an agent runs there").0
}

#[test]
fn hosts_with_agents_train_as_one_host_does_and_all_end_alike() {
    let bench = Bench::new();
    let Some(hosts) = hosts("hosts_with_agents_train_as_one_host_does_and_all_end_alike", 3, &bench) else { return };
    bench.train(3, "one", &[]);
    // One of them comes late.
    let job = train(&hosts, &bench, "host[1-3]:1", "many", &[]);
    let mut agents = [agent(&hosts, &bench, 2), agent(&hosts, &bench, 3)];
    let out = job.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    assert!(bench.weights("one", 8) == bench.weights("many", 8), "weights differ");
    for agent in &mut agents {
        assert_eq!(ends(agent).code(), Some(0));
    }
    nothing_is_left(&hosts, 3);
}

#[test]
fn a_launcher_that_is_killed_is_followed_by_another() {
    let bench = Bench::new();
    let Some(hosts) = hosts("a_launcher_that_is_killed_is_followed_by_another", 2, &bench) else { return };
    let settings = ["train.max_steps=60", "checkpoint.every_steps=2"];
    let whole = Undisturbed::train(60);
    let mut agent = agent(&hosts, &bench, 2);
    let mut job = train(&hosts, &bench, "host[1-2]:1", "run", &settings);
    bench.wait_for_step("run", 5);
    let first: Vec<Pid> = hosts.processes(1).into_iter().map(|(pid, _)| pid).collect();
    first.into_iter().for_each(kill);
    let _ = job.wait();
    let began = Instant::now();
    while !hosts.workers(2).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "the worker on host2 outlives its launcher");
        std::thread::sleep(Duration::from_millis(20));
    }
    let out = train(&hosts, &bench, "host[1-2]:1", "run", &settings).wait_with_output().unwrap();
    assert!(out.status.success() && text(&out).contains("going on after step"), "{}", text(&out));
    assert!(whole.weights() == bench.weights("run", 60), "weights differ");
    assert_eq!(ends(&mut agent).code(), Some(0));
}

#[test]
fn a_host_that_is_to_go_stops_the_job_with_a_checkpoint() {
    let bench = Bench::new();
    let Some(hosts) = hosts("a_host_that_is_to_go_stops_the_job_with_a_checkpoint", 2, &bench) else { return };
    let mut agent = agent(&hosts, &bench, 2);
    let job = train(&hosts, &bench, "host[1-2]:1", "run", &[ENDLESS]);
    bench.wait_for_step("run", 3);
    signal(agent_on(&hosts, 2), Signal::SIGTERM);
    let out = job.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    assert!(last_line(&out).contains("checkpoint"), "{}", last_line(&out));
    assert_eq!(ends(&mut agent).code(), Some(143));
    nothing_is_left(&hosts, 2);
}

#[test]
fn another_key_is_an_error_at_once() {
    let bench = Bench::new();
    let Some(hosts) = hosts("another_key_is_an_error_at_once", 2, &bench) else { return };
    std::fs::write(bench.path().join("other"), "5b".repeat(32)).unwrap();
    let mut agent = on(&hosts, &bench, 2, &["agent", "--key", "other"]).spawn().unwrap();
    let out = train(&hosts, &bench, "host[1-2]:1", "run", &[]).wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(6), "{}", text(&out));
    assert!(last_line(&out).contains("host2: the other end has not the same key"), "{}", last_line(&out));
    std::fs::write(bench.path().join("key"), "secret").unwrap();
    let out = train(&hosts, &bench, "host[1-2]:1", "run", &[]).wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    assert!(last_line(&out).contains("64 hexadecimal digits") && !text(&out).contains("secret"), "{}", text(&out));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn a_launcher_that_waits_for_agents_can_be_stopped() {
    let bench = Bench::new();
    let Some(hosts) = hosts("a_launcher_that_waits_for_agents_can_be_stopped", 2, &bench) else { return };
    let mut job = train(&hosts, &bench, "host[1-2]:1", "run", &[]);
    let began = Instant::now();
    let launcher = loop {
        // It starts itself again with the way through the agents in its environment.
        let is_it = |line: &str| line.contains("jcs-launch") && line.contains("small.toml");
        let found = hosts.processes(1).into_iter().find(|(_, line)| is_it(line));
        if let Some((pid, _)) = found.filter(|_| began.elapsed() > Duration::from_secs(1)) {
            break pid;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no launcher");
        std::thread::sleep(Duration::from_millis(50));
    };
    signal(launcher, Signal::SIGTERM);
    assert_eq!(ends(&mut job).code(), Some(143));
}
