//! Real kills and signals, and what is left after them.

use end_to_end::shared::Undisturbed;
use end_to_end::{Bench, last_line, signal, text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

const STEPS: u64 = 60;
/// Long enough that a signal sent after a few steps arrives before the end.
const LONG: &str = "train.max_steps=60";
const OFTEN: [&str; 2] = [LONG, "checkpoint.every_steps=2"];

#[test]
fn a_killed_worker_is_named_and_the_run_goes_on_bit_for_bit() {
    let bench = Bench::new();
    let whole = Undisturbed::train(STEPS);
    let child = bench.start_training(2, "killed", &OFTEN);
    bench.wait_for_step("killed", 5);
    let victim = bench.workers().into_iter().find(|(rank, _)| *rank == 1).expect("rank 1 runs").1;
    signal(victim, Signal::SIGKILL);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    let last = last_line(&out);
    assert!(last.contains("rank 1") && last.contains("SIGKILL"), "{last}");
    bench.assert_nothing_left();
    bench.train(2, "killed", &OFTEN);
    assert!(whole.weights() == bench.weights("killed", STEPS), "weights differ");
    assert!(whole.moments() == bench.moments("killed", STEPS), "moments differ");
    let steps: Vec<u64> = bench.metrics("killed", "train").iter().map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=STEPS).collect::<Vec<_>>(), "each step appears once");
}

#[test]
fn sigterm_saves_and_a_second_start_ends_as_if_nothing_had_been() {
    let bench = Bench::new();
    let whole = Undisturbed::train(STEPS);
    let child = bench.start_training(2, "stopped", &[LONG]);
    bench.wait_for_step("stopped", 3);
    signal(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    let step = bench.metrics("stopped", "checkpoint").last().expect("a checkpoint")["step"].as_u64().unwrap();
    assert!((3..STEPS).contains(&step), "saved at step {step}");
    bench.assert_nothing_left();
    bench.train(2, "stopped", &[LONG]);
    assert!(whole.weights() == bench.weights("stopped", STEPS), "weights differ");
}

#[test]
fn nothing_is_left_when_the_launcher_is_killed() {
    let bench = Bench::new();
    let mut child = bench.start_training(2, "run", &["train.max_steps=100000"]);
    bench.wait_for_step("run", 1);
    assert_eq!(bench.workers().len(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    bench.assert_nothing_left();
}

#[test]
fn a_failure_is_restarted_from_the_last_checkpoint() {
    let bench = Bench::new();
    let whole = Undisturbed::train(STEPS);
    let mut command = bench.command("jcs-launch", &["--nproc-per-node", "2", "--max-restarts", "1", "small.toml"]);
    let child = command.arg("run.dir=again").args(OFTEN).stderr(std::process::Stdio::piped()).spawn().unwrap();
    bench.wait_for_step("again", 3);
    signal(bench.workers()[0].1, Signal::SIGKILL);
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    assert!(whole.weights() == bench.weights("again", STEPS), "weights differ");
    let summary = std::fs::read_to_string(bench.path().join("again/summary.json")).unwrap();
    assert!(summary.contains("\"restarts\": 1"), "{summary}");
}

#[test]
fn a_run_directory_belongs_to_one_job() {
    let bench = Bench::new();
    let mut first = bench.start_training(2, "run", &["train.max_steps=100000"]);
    bench.wait_for_step("run", 1);
    let second = bench.try_train(2, "run", &["train.max_steps=100000"]);
    assert_eq!(second.status.code(), Some(2), "{}", text(&second));
    assert!(text(&second).contains("another process trains in run"), "{}", text(&second));
    assert!(first.try_wait().unwrap().is_none(), "the first one was disturbed");
    assert!(!bench.path().join("run/summary.json").exists(), "the second one wrote into the first one's run");
    first.kill().unwrap();
    first.wait().unwrap();
    bench.assert_nothing_left();
}

#[test]
fn never_to_resume_is_meant_for_the_first_start_of_a_job() {
    let bench = Bench::new();
    let never = ["run.resume=never", "train.max_steps=80", "checkpoint.every_steps=4"];
    let whole = Undisturbed::train(80);
    let mut command = bench.command("jcs-launch", &["--nproc-per-node", "2", "--max-restarts", "1", "small.toml"]);
    let child = command.arg("run.dir=run").args(never).stderr(std::process::Stdio::piped()).spawn().unwrap();
    bench.wait_for_step("run", 12);
    let worker = bench.workers().into_iter().find(|(rank, _)| *rank == 1).unwrap().1;
    signal(worker, Signal::SIGKILL);
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    assert!(whole.weights() == bench.weights("run", 80), "weights differ");
    let out = bench.try_train(2, "run", &never);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
}

#[test]
fn a_worker_and_the_launcher_may_both_be_asked_to_stop() {
    let bench = Bench::new();
    let child = bench.start_training(2, "run", &["train.max_steps=100000"]);
    bench.wait_for_step("run", 3);
    // As a node's agent and then the scheduler do; the launcher passes its own request on.
    signal(bench.workers()[0].1, Signal::SIGTERM);
    signal(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    let step = bench.metrics("run", "train").len() as u64;
    assert!(!bench.weights("run", step).is_empty());
    bench.assert_nothing_left();
}

#[test]
fn what_an_interrupted_end_left_undone_is_made_up_for() {
    let bench = Bench::new();
    bench.train(2, "run", &[]);
    let of = |name: &str| bench.path().join("run").join(name);
    let read = |name: &str| std::fs::read_to_string(of(name)).unwrap();
    let (latest, best, summary) = (read("checkpoints/latest"), read("checkpoints/best"), read("summary.json"));
    // The last step's checkpoint was complete, and the process ended.
    std::fs::remove_file(of("checkpoints/latest")).unwrap();
    std::fs::write(of("checkpoints/best"), "step-00000001\n").unwrap();
    std::fs::remove_file(of("summary.json")).unwrap();
    bench.train(2, "run", &[]);
    assert_eq!((read("checkpoints/latest"), read("checkpoints/best")), (latest, best));
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let (before, after) = (json(&summary), json(&read("summary.json")));
    for key in ["status", "step", "eval", "best", "checkpoint"] {
        assert_eq!(before[key], after[key], "{key}");
    }
}

#[test]
fn an_evaluation_that_a_stop_prevented_is_made_up_for() {
    let bench = Bench::new();
    bench.train(2, "run", &["data.eval="]);
    assert_eq!(bench.metrics("run", "eval").len(), 0);
    bench.train(2, "run", &[]);
    let evals = bench.metrics("run", "eval");
    assert_eq!((evals.len(), evals[0]["step"].as_u64()), (1, Some(8)));
    assert!(bench.path().join("run/checkpoints/best").is_file());
    bench.train(2, "run", &[]);
    assert_eq!(bench.metrics("run", "eval").len(), 1);
}

#[test]
fn a_worker_alone_saves_on_sigterm_too() {
    let bench = Bench::new();
    let mut command = bench.command("jcs", &["train", "small.toml", "run.dir=alone", LONG]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    bench.wait_for_step("alone", 2);
    signal(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    assert_eq!(bench.metrics("alone", "checkpoint").len(), 1);
}
