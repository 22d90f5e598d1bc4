//! Checkpoints under fire: what the disk, another start and a kill in the wrong moment may do to them.

use end_to_end::shared::Undisturbed;
use end_to_end::{Bench, last_line, signal, text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const OFTEN: &str = "checkpoint.every_steps=2";
const LONG: &str = "train.max_steps=60";
const SHORT: &str = "train.max_steps=30";
const ENDLESS: &str = "train.max_steps=100000";

/// Names in the checkpoints of a run, sorted.
fn names(bench: &Bench, run: &str) -> Vec<String> {
    let entries = fs::read_dir(bench.path().join(run).join("checkpoints")).unwrap().flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn state(bench: &Bench, run: &str, step: u64) -> Value {
    let file = bench.path().join(run).join(format!("checkpoints/step-{step:08}/state.json"));
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// One worker without a launcher.
fn alone(bench: &Bench, run: &str, restarts: &str, settings: &[&str]) -> Child {
    alone_command(bench, run, restarts, settings).stderr(Stdio::piped()).spawn().unwrap()
}

fn alone_command(bench: &Bench, run: &str, restarts: &str, settings: &[&str]) -> Command {
    let mut command = bench.command("jcs", &["train", "small.toml", &format!("run.dir={run}")]);
    command.args(settings).env("JCS_RESTART", restarts);
    command
}

#[test]
fn checkpoints_written_behind_the_next_steps_are_those_written_at_once() {
    let bench = Bench::new();
    let settings = [OFTEN, "checkpoint.keep_last=2", "train.max_steps=9"];
    bench.train(2, "behind", &settings);
    bench.train(2, "at-once", &[&settings[..], &["checkpoint.async=false"]].concat());
    assert!(bench.weights("behind", 9) == bench.weights("at-once", 9), "weights differ");
    assert!(bench.moments("behind", 8) == bench.moments("at-once", 8), "moments differ");
    for run in ["behind", "at-once"] {
        let lines = bench.metrics(run, "checkpoint");
        let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [2, 4, 6, 8, 9], "{run}");
        let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
        assert!(
            lines.iter().all(|line| number(line, "bytes") > 1e5 && number(line, "stall_seconds") > 0.0),
            "{lines:?}"
        );
        // Its line comes once it is written, which is looked for after a step: behind, not before the next one has ended.
        let all = fs::read_to_string(bench.path().join(run).join("metrics.jsonl")).unwrap();
        let all: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let place =
            |kind: &str, step| all.iter().position(|line| line["kind"] == kind && line["step"] == step).unwrap();
        for step in [2, 4, 6, 8] {
            assert_eq!(place("checkpoint", step) < place("train", step + 1), run == "at-once", "{run}: {all:?}");
        }
        assert_eq!(names(&bench, run), ["best", "latest", "step-00000008", "step-00000009"]);
    }
}

#[test]
fn each_start_has_a_number_of_its_own() {
    let bench = Bench::new();
    bench.train(2, "run", &["train.max_steps=2"]);
    bench.train(2, "run", &["train.max_steps=4"]);
    assert_eq!([2, 4].map(|step| state(&bench, "run", step)["generation"].clone()), [json!(1), json!(2)]);
    let events = bench.metrics("run", "event");
    let numbers: Vec<_> =
        events.iter().filter(|e| e["event"] != "finished").map(|e| (&e["event"], &e["generation"])).collect();
    assert_eq!(numbers, [(&json!("start"), &json!(1)), (&json!("resume"), &json!(2))]);
    // A run directory that came without its lock, and a checkpoint from before there were generations.
    fs::remove_file(bench.path().join("run/.lock")).unwrap();
    bench.train(2, "run", &["train.max_steps=6"]);
    assert_eq!(state(&bench, "run", 6)["generation"], 3);
}

#[test]
fn a_superseded_start_publishes_nothing() {
    let bench = Bench::new();
    let child = bench.start_training(2, "run", &["train.max_steps=400", "checkpoint.every_steps=10"]);
    let began = Instant::now();
    while !bench.path().join("run/checkpoints/latest").exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    let owner = json!({ "generation": 7, "host": "elsewhere", "pid": 1 });
    // As another host would whose file system knows of no lock here.
    let mut file = fs::File::options().write(true).open(bench.path().join("run/.lock")).unwrap();
    file.write_all(format!("{:<255}\n", owner.to_string()).as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let (before, last) = (names(&bench, "run"), last_line(&out));
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(last.contains("generation 1 of the run in run was superseded by generation 7 on host elsewhere"), "{last}");
    let newest = before.iter().rfind(|name| name.starts_with("step-")).unwrap();
    assert_eq!(fs::read_to_string(bench.path().join("run/checkpoints/latest")).unwrap().trim(), newest);
    assert!(!before.iter().any(|name| name.starts_with('.')), "{before:?}");
    let lines = bench.metrics("run", "checkpoint");
    assert!(lines.iter().all(|line| line["name"].as_str() <= Some(newest)), "{lines:?}");
    // The next start is a later one than both, and takes what is there.
    bench.train(2, "run", &["train.max_steps=60"]);
    assert_eq!(state(&bench, "run", 60)["generation"], 8);
}

#[test]
fn a_restarted_worker_waits_for_one_of_an_older_start_to_end() {
    let bench = Bench::new();
    let mut first = alone(&bench, "run", "0", &[ENDLESS, OFTEN]);
    bench.wait_for_step("run", 2);
    let refused = alone(&bench, "run", "0", &[LONG]).wait_with_output().unwrap();
    let (last, pid) = (last_line(&refused), first.id());
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused));
    assert!(last.contains("another process trains in run (process ") && last.contains("generation 1)"), "{last}");
    assert!(last.contains(&format!("process {pid} on ")), "{last}");
    let mut command = alone_command(&bench, "run", "1", &["train.max_steps=2000", OFTEN]);
    let said = bench.path().join("second.log");
    let mut second = command.stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
    let waits = || fs::read_to_string(&said).unwrap().contains("is still held by process");
    let began = Instant::now();
    while !waits() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never waited: {}", fs::read_to_string(&said).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    // It looks at the lock ten times a second.
    std::thread::sleep(Duration::from_millis(500));
    assert!(second.try_wait().unwrap().is_none() && first.try_wait().unwrap().is_none());
    first.kill().unwrap();
    first.wait().unwrap();
    let began = Instant::now();
    while !bench.metrics("run", "event").iter().any(|event| event["generation"] == 2) {
        assert!(began.elapsed() < Duration::from_secs(20), "the second start never began");
        std::thread::sleep(Duration::from_millis(50));
    }
    signal(Pid::from_raw(second.id() as i32), Signal::SIGTERM);
    let out = second.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(143), "{}", fs::read_to_string(&said).unwrap());
}

/// The writing end of a pipe, once somebody has opened the other one.
fn await_reader(pipe: &Path) -> fs::File {
    let began = Instant::now();
    loop {
        match fs::File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(pipe) {
            Ok(writer) => return writer,
            Err(e) => assert!(began.elapsed() < Duration::from_secs(60), "nobody reads {}: {e}", pipe.display()),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stop_is_obeyed_while_one_worker_waits_for_its_data() {
    let bench = Bench::new();
    // A second micro-batch a worker, after whose first the norms' statistics are others.
    for (name, settings) in [("one", &[SHORT][..]), ("two", &[SHORT, "train.global_batch=4", "model.norm=batch"])] {
        let (whole, run) = (format!("{name}-whole"), format!("{name}-stopped"));
        bench.train(2, &whole, settings);
        let child = bench.start_training(2, &run, settings);
        bench.wait_for_step(&run, 3);
        // Whoever opens a pipe waits for somebody at its other end.
        let list = fs::read_to_string(bench.path().join("phantom/train.txt")).unwrap();
        let image = bench.path().join("phantom").join(list.split_whitespace().next().unwrap());
        let kept = fs::read(&image).unwrap();
        fs::remove_file(&image).unwrap();
        nix::unistd::mkfifo(&image, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // It can be opened for writing once a worker waits for its data; that one then waits for what is written.
        let _writer = await_reader(&image);
        let seen = bench.wait_for_standstill(&run);
        assert!(seen < 30, "no worker ever waited");
        let began = Instant::now();
        signal(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(143), "{}", text(&out));
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let saved = bench.metrics(&run, "checkpoint").last().unwrap()["step"].as_u64();
        assert_eq!(saved, Some(seen as u64), "{}", text(&out));
        bench.assert_nothing_left();
        fs::remove_file(&image).unwrap();
        fs::write(&image, kept).unwrap();
        bench.train(2, &run, settings);
        assert!(bench.weights(&whole, 30) == bench.weights(&run, 30), "{name}: weights differ");
    }
}

#[test]
fn a_folder_that_was_half_written_or_half_replaced_is_no_checkpoint() {
    let bench = Bench::new();
    bench.train(2, "run", &[OFTEN]);
    let whole = bench.weights("run", 8);
    let folder = bench.path().join("run/checkpoints");
    for later in ["step-00000006", "step-00000008"] {
        fs::remove_dir_all(folder.join(later)).unwrap();
    }
    // What is left when the machine loses power: a folder that is being written, one without its manifest, and one that was to
    // be replaced just now.
    fs::create_dir(folder.join(".tmp-step-00000006-77")).unwrap();
    fs::write(folder.join(".tmp-step-00000006-77/model.safetensors"), b"half").unwrap();
    fs::create_dir(folder.join("step-00000005")).unwrap();
    fs::copy(folder.join("step-00000004/state.json"), folder.join("step-00000005/state.json")).unwrap();
    fs::rename(folder.join("step-00000004"), folder.join(".displaced-step-00000004")).unwrap();
    let out = bench.try_train(2, "run", &[OFTEN]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(text(&out).contains("step-00000005 is damaged") && text(&out).contains("after step 4"), "{}", text(&out));
    assert!(bench.weights("run", 8) == whole, "weights differ");
    let kept =
        ["best", "damaged-step-00000005", "latest", "step-00000002", "step-00000004", "step-00000006", "step-00000008"];
    assert_eq!(names(&bench, "run"), kept);
}

#[test]
fn a_kill_in_the_middle_of_a_write_leaves_the_checkpoint_before() {
    let bench = Bench::new();
    let settings = ["checkpoint.every_steps=1", "checkpoint.keep_last=1", LONG];
    let whole = Undisturbed::train(60);
    for _ in 0..4 {
        let mut child = bench.start_training(2, "run", &settings);
        let writes = || names(&bench, "run").iter().any(|name| name.starts_with(".tmp-step"));
        let began = Instant::now();
        while !(bench.path().join("run/checkpoints/latest").exists() && writes()) && child.try_wait().unwrap().is_none()
        {
            assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint was ever being written");
        }
        bench.workers().into_iter().filter(|(rank, _)| *rank == 0).for_each(|(_, pid)| signal(pid, Signal::SIGKILL));
        child.wait().unwrap();
        bench.assert_nothing_left();
        let verified = bench.run("jcs", &["inspect", "run"]);
        assert!(verified.status.success() && text(&verified).contains("every checksum"), "{}", text(&verified));
    }
    bench.train(2, "run", &settings);
    assert!(whole.weights() == bench.weights("run", 60), "weights differ");
}
