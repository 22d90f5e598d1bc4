//! Workers that stop, and workers that are slow.

use end_to_end::shared::Undisturbed;
use end_to_end::{Bench, last_line, say, signal, text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const ENDLESS: &str = "train.max_steps=100000";

fn start(bench: &Bench, run: &str, options: &[&str], settings: &[&str]) -> Child {
    let run = format!("run.dir={run}");
    let arguments = [&["--nproc-per-node", "2"], options, &["small.toml", &run], settings].concat();
    bench.command("jcs-launch", &arguments).stderr(Stdio::piped()).spawn().unwrap()
}

fn worker(bench: &Bench, rank: usize) -> Pid {
    bench.workers().into_iter().find(|(r, _)| *r == rank).expect("the worker runs").1
}

/// The end of a job, which must come by then.
fn end_within(child: Child, limit: Duration) -> Output {
    let (pid, began) = (Pid::from_raw(child.id() as i32), Instant::now());
    let waiting = std::thread::spawn(move || child.wait_with_output().unwrap());
    while !waiting.is_finished() {
        if began.elapsed() > limit {
            signal(pid, Signal::SIGKILL);
            panic!("not over after {limit:?}: {}", text(&waiting.join().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    waiting.join().unwrap()
}

#[test]
fn a_stopped_worker_is_named_with_step_and_phase() {
    let bench = Bench::new();
    let child = start(&bench, "run", &["--hang-timeout", "10", "--max-restarts", "0"], &[ENDLESS]);
    bench.wait_for_step("run", 12);
    // A worker tells every second where it is.
    std::thread::sleep(Duration::from_millis(1500));
    signal(worker(&bench, 1), Signal::SIGSTOP);
    let (began, log) = (Instant::now(), bench.path().join("run/logs/launcher.log"));
    while !std::fs::read_to_string(&log).unwrap().contains("no progress for ") {
        assert!(began.elapsed() < Duration::from_secs(10 + 5), "the worker is not named after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let out = end_within(child, Duration::from_secs(30));
    assert_eq!(out.status.code(), Some(5), "{}", text(&out));
    let last = last_line(&out);
    let parts = ["rank 1 on ", "no progress for ", "no sign of life", " in step ", "rank 0 is waiting", "SIGSTOP"];
    assert!(parts.iter().all(|part| last.contains(part)), "{last}");
    let summary = std::fs::read_to_string(bench.path().join("run/summary.json")).unwrap();
    assert!(summary.contains("\"exit_code\": 5") && summary.contains("\"rank\": 1"), "{summary}");
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("State:\tT (stopped)") && log.contains("thread "), "{log}");
    bench.assert_nothing_left();
}

#[test]
fn after_a_hang_the_job_is_started_again_bit_for_bit() {
    let bench = Bench::new();
    let settings = ["train.max_steps=80", "checkpoint.every_steps=4"];
    let whole = Undisturbed::train(80);
    let child = start(&bench, "again", &["--hang-timeout", "10", "--max-restarts", "1"], &settings);
    bench.wait_for_step("again", 12);
    signal(worker(&bench, 0), Signal::SIGSTOP);
    let out = end_within(child, Duration::from_secs(180));
    assert!(out.status.success(), "{}", text(&out));
    assert!(text(&out).contains("rank 0 on ") && text(&out).contains("restart 1 of 1"), "{}", text(&out));
    assert!(whole.weights() == bench.weights("again", 80), "weights differ");
}

#[test]
fn a_launcher_that_was_stopped_blames_nobody() {
    let bench = Bench::new();
    let child = start(&bench, "run", &["--hang-timeout", "8", "--max-restarts", "0"], &[ENDLESS]);
    bench.wait_for_step("run", 5);
    let launcher = Pid::from_raw(child.id() as i32);
    signal(launcher, Signal::SIGSTOP);
    // Longer than anybody may be silent. It looks at its workers several times a second, so that a false verdict would
    // come at once when it goes on.
    std::thread::sleep(Duration::from_secs(9));
    let before = bench.metrics("run", "train").len();
    signal(launcher, Signal::SIGCONT);
    let resumed = Instant::now();
    bench.wait_for_step("run", before + 20);
    std::thread::sleep(Duration::from_secs(2).saturating_sub(resumed.elapsed()));
    signal(launcher, Signal::SIGTERM);
    let out = end_within(child, Duration::from_secs(30));
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    assert!(!text(&out).contains("no progress"), "{}", text(&out));
}

/// A process that takes a CPU from the workers that are bound to it.
struct Neighbour(Child);

impl Neighbour {
    /// On the last CPU that this process may use, which all threads of `worker` share with it from now on, and get about a
    /// fourth of.
    fn beside(worker: Pid) -> Neighbour {
        let allowed = std::fs::read_to_string("/proc/self/status").unwrap();
        let allowed = allowed.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        let last = allowed.rsplit([',', '-']).next().unwrap().to_owned();
        say(&format!("of the CPUs {allowed} the worker and its neighbour share {last}"));
        let busy = Command::new("taskset").args(["-c", &last, "sh", "-c", "while :; do :; done"]).spawn().unwrap();
        let threads = std::fs::read_dir(format!("/proc/{worker}/task")).unwrap().flatten();
        let threads: Vec<String> = threads.map(|thread| thread.file_name().into_string().unwrap()).collect();
        for thread in &threads {
            for (program, arguments) in
                [("taskset", ["-cp", &last, thread].as_slice()), ("renice", &["-n", "5", "-p", thread])]
            {
                let out = Command::new(program).args(arguments).output().unwrap();
                let ended = !Path::new(&format!("/proc/{worker}/task/{thread}")).exists();
                assert!(out.status.success() || ended, "{program} {arguments:?}: {}", text(&out));
            }
        }
        Neighbour(busy)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_slow_worker_is_named_in_log_and_metrics() {
    let bench = Bench::new();
    let child = start(&bench, "run", &["--max-restarts", "0"], &[ENDLESS]);
    bench.wait_for_step("run", 2);
    let neighbour = Neighbour::beside(worker(&bench, 1));
    let began = Instant::now();
    let named =
        || bench.metrics("run", "event").into_iter().find(|event| event["event"] == "straggler" && event["rank"] == 1);
    while named().is_none() {
        assert!(began.elapsed() < Duration::from_secs(120), "no straggler was named");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(neighbour);
    let event = named().unwrap();
    assert!(event["seconds"].as_f64() > event["others_seconds"].as_f64() && event["host"].is_string(), "{event}");
    signal(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let out = end_within(child, Duration::from_secs(30));
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    assert!(text(&out).contains("is slower than the others"), "{}", text(&out));
}
