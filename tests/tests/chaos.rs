//! Kills at random moments: workers, the launcher, and either in the middle of writing a checkpoint. After each, the same
//! command goes on, and at the end nothing tells that it happened. JCS_CHAOS_KILLS says how many (5; `make soak`: 100).

#![expect(clippy::print_stdout, reason = "a long test says how far it is")]

use end_to_end::Bench;
use end_to_end::hosts::{Family, Hosts, kill};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

/// A worker was killed that only looked whether the hosts work together: the same command is given again.
const PREFLIGHT: i32 = 6;
/// Between two kills.
const STEPS_A_KILL: u64 = 6;

/// What is killed, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    /// A worker, after some steps.
    Worker(usize),
    /// The launcher, after some steps.
    Launcher,
    /// The worker that writes, while it does.
    Writer,
    /// The launcher, while a checkpoint is written.
    LauncherDuringWrite,
    /// A worker or the launcher soon after a start.
    Early(usize),
}

const KILLS: [Kill; 8] = [
    Kill::Worker(1),
    Kill::Worker(2),
    Kill::Launcher,
    Kill::Writer,
    Kill::LauncherDuringWrite,
    Kill::Early(1),
    Kill::Early(2),
    Kill::Early(0),
];

/// Numbers that look random and are the same in every run (SplitMix64; Steele, Lea and Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

struct Chaos<'a> {
    bench: &'a Bench,
    hosts: &'a Hosts,
    settings: Vec<String>,
    job: Child,
}

impl<'a> Chaos<'a> {
    fn new(bench: &'a Bench, hosts: &'a Hosts, settings: &[&str]) -> Chaos<'a> {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        let job = start(bench, hosts, &settings);
        Chaos { bench, hosts, settings, job }
    }

    fn steps(&self) -> u64 {
        self.bench.metrics("chaos", "train").last().and_then(|line| line["step"].as_u64()).unwrap_or(0)
    }

    /// Whether the job has come that far; false where it ended before.
    fn await_that(&mut self, what: &str, there: impl Fn(&Self) -> bool) -> bool {
        let begun = Instant::now();
        loop {
            match self.job.try_wait().unwrap() {
                Some(ended) if ended.code() == Some(PREFLIGHT) => {
                    self.job = start(self.bench, self.hosts, &self.settings)
                }
                Some(_) => return false,
                None => {}
            }
            if there(self) {
                return true;
            }
            assert!(begun.elapsed() < Duration::from_secs(240), "no {what} in four minutes");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The checkpoints that are being written, or that a kill has left half-written.
    fn half_written(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.bench.path().join("chaos/checkpoints")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(".tmp-step")).collect()
    }

    /// Kills the worker on a host, waiting for one where there is none just now.
    fn kill_worker(&mut self, host: usize) {
        let there = self.await_that("worker", |chaos| !chaos.hosts.workers(host).is_empty());
        assert!(there, "the job ended: {}", self.last_words());
        self.hosts.workers(host).into_iter().for_each(kill);
    }

    fn kill_launcher(&mut self) {
        assert!(self.await_that("launcher", |chaos| chaos.hosts.find_launcher().is_some()), "{}", self.last_words());
        kill(self.hosts.launcher());
        self.job.wait().unwrap();
        self.hosts.assert_nothing_left();
        self.assert_checkpoints_are_good();
        self.job = start(self.bench, self.hosts, &self.settings);
    }

    /// One kill, at the earliest after `step`.
    fn strike(&mut self, what: Kill, step: u64, random: &mut Random) {
        let reached = self.await_that("step", |chaos| chaos.steps() >= step);
        assert!(reached, "the job ended before step {step}: {}", self.last_words());
        match what {
            Kill::Worker(host) => self.kill_worker(host),
            Kill::Launcher => self.kill_launcher(),
            Kill::Writer | Kill::LauncherDuringWrite => {
                let stale = self.half_written();
                let writing = |chaos: &Self| chaos.half_written().difference(&stale).next().is_some();
                assert!(self.await_that("write", writing), "the job ended: {}", self.last_words());
                if what == Kill::Writer { self.kill_worker(1) } else { self.kill_launcher() }
            }
            Kill::Early(host) => {
                self.kill_launcher();
                std::thread::sleep(Duration::from_millis(random.below(4000)));
                if host == 0 { self.kill_launcher() } else { self.kill_worker(host) }
            }
        }
    }

    fn last_words(&self) -> String {
        std::fs::read_to_string(self.bench.path().join("chaos/logs/launcher.log"))
            .unwrap_or_default()
            .lines()
            .rev()
            .take(20)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Every checkpoint under its final name is what its manifest says. Nothing runs now.
    fn assert_checkpoints_are_good(&self) {
        let folder = self.bench.path().join("chaos/checkpoints");
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(!name.starts_with("damaged"), "{name}");
            if name.starts_with("step-") {
                assert_good(&entry.path());
            }
        }
    }
}

fn assert_good(checkpoint: &Path) {
    let read =
        |name: &str| std::fs::read(checkpoint.join(name)).unwrap_or_else(|e| panic!("{checkpoint:?} {name}: {e}"));
    let manifest: serde_json::Value = serde_json::from_slice(&read("MANIFEST.json")).unwrap();
    let files = manifest["files"].as_object().unwrap();
    assert_eq!(files.len(), 3, "{manifest}");
    for (name, entry) in files {
        let sum: String = Sha256::digest(read(name)).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry["sha256"].as_str(), Some(sum.as_str()), "{checkpoint:?} {name}");
    }
}

fn start(bench: &Bench, hosts: &Hosts, settings: &[String]) -> Child {
    let fixed = ["--nodes", "host[1-2]:1", "--max-restarts", "1000", "small.toml", "run.dir=chaos"];
    let arguments: Vec<&str> = fixed.into_iter().chain(settings.iter().map(String::as_str)).collect();
    let mut command = hosts.launch(bench, &arguments);
    // Nobody reads it while the job runs.
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
}

#[test]
fn after_kills_at_random_moments_the_weights_are_those_of_an_undisturbed_run() {
    let name = "after_kills_at_random_moments_the_weights_are_those_of_an_undisturbed_run";
    let kills: u64 = std::env::var("JCS_CHAOS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let bench = Bench::new();
    let Some(hosts) = Hosts::new(name, 2, Family::V4, &bench) else { return };
    // Enough for what a fast machine does while a kill is on its way.
    let steps = kills * STEPS_A_KILL + 200;
    let max_steps = format!("train.max_steps={steps}");
    let settings = [max_steps.as_str(), "checkpoint.every_steps=2", "checkpoint.keep_last=3"];
    bench.train(2, "whole", &settings);
    let mut random = Random(20_261_122);
    let mut chaos = Chaos::new(&bench, &hosts, &settings);
    let begun = Instant::now();
    for i in 0..kills {
        let what = KILLS[random.below(KILLS.len() as u64) as usize];
        let step = i * STEPS_A_KILL + random.below(STEPS_A_KILL);
        chaos.strike(what, step, &mut random);
        println!("{:>6.1} s  kill {:>3} of {kills}: {what:?} after step {step}", begun.elapsed().as_secs_f64(), i + 1);
    }
    chaos.await_that("end", |_| false);
    let ended = chaos.job.wait().unwrap();
    assert!(ended.success(), "{ended}: {}", chaos.last_words());
    hosts.assert_nothing_left();
    chaos.assert_checkpoints_are_good();
    assert!(bench.weights("whole", steps) == bench.weights("chaos", steps), "weights differ");
    assert!(bench.moments("whole", steps) == bench.moments("chaos", steps), "moments differ");
    let taken: Vec<u64> = bench.metrics("chaos", "train").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(taken, (1..=steps).collect::<Vec<_>>(), "each step appears once");
}
