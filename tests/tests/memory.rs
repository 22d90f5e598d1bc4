//! A real shortage of memory: the workers' address space is limited (`ulimit -v`).

use end_to_end::{Bench, binary, last_line, text};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const LARGE: &str = "train.micro_batch=4";
const SMALL: &str = "train.micro_batch=1";
const SETTINGS: [&str; 4] = ["data.size=512", "train.max_steps=1", "data.eval=", "train.global_batch=8"];

/// `jcs-launch` with two workers, all of them within `limit` kilobytes of address space each.
fn launch(bench: &Bench, run: &str, limit: Option<u64>, settings: &[&str]) -> Command {
    let limit = limit.map_or("unlimited".into(), |kilobytes| kilobytes.to_string());
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v \"$0\" && exec \"$@\"", &limit]).arg(binary("jcs-launch"));
    command.args(["--nproc-per-node", "2", "small.toml", &format!("run.dir={run}")]).args(SETTINGS).args(settings);
    // Without this, how much address space the C library reserves is a matter of chance.
    command.env("MALLOC_ARENA_MAX", "1").env("OMP_NUM_THREADS", "1").current_dir(bench.path()).stdin(Stdio::null());
    command
}

/// The most address space that a worker had at any time, in kilobytes.
fn peak(bench: &Bench, run: &str, micro_batch: &str) -> u64 {
    let mut command = launch(bench, run, None, &[micro_batch]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (began, mut most) = (Instant::now(), 0);
    let ended = loop {
        for (_, worker) in bench.workers() {
            let status = std::fs::read_to_string(format!("/proc/{worker}/status")).unwrap_or_default();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
            let kilobytes = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
            most = most.max(kilobytes.unwrap_or(0));
        }
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(300), "{run} does not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(ended.success(), "{run}: {ended}");
    most
}

fn run(bench: &Bench, name: &str, limit: u64, settings: &[&str]) -> Output {
    launch(bench, name, Some(limit), settings).output().unwrap()
}

#[test]
fn a_shortage_of_memory_names_the_micro_batch_that_fits() {
    let bench = Bench::new();
    let (small, large) = (peak(&bench, "small", SMALL), peak(&bench, "large", LARGE));
    assert!(large > small + 200_000, "{large} kB for 4 samples, {small} kB for one");
    // About enough for two samples and a half.
    let limit = small + (large - small) / 2;
    let out = run(&bench, "limited", limit, &[LARGE]);
    assert_eq!(out.status.code(), Some(2), "{small} kB, {limit} kB, {large} kB\n{}", text(&out));
    let last = last_line(&out);
    for words in ["rank ", "step 1", "out of memory in a micro-batch of 4 samples", "you tried to allocate"] {
        assert!(last.contains(words), "{words}: {last}");
    }
    assert!(!text(&out).contains("panicked"), "{}", text(&out));
    bench.assert_nothing_left();
    let advice = last.split_whitespace().find(|word| word.starts_with("train.micro_batch="));
    let advice = advice.unwrap_or_else(|| panic!("no advice: {last}"));
    assert!(["train.micro_batch=2", SMALL].contains(&advice), "{last}");
    let out = run(&bench, "limited", limit, &[advice]);
    assert!(out.status.success(), "{advice} does not fit: {}", text(&out));
    assert_eq!(bench.metrics("limited", "train").len(), 1);
}
