//! The stand-in CUDA driver and NCCL keep the rules of the real ones, see when others break them, and do the harm that they are asked
//! for. What is tried is in `tests/stand-in/selftest.cpp`.

use end_to_end::stand_in::{build, violations};
use end_to_end::text;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder of its own for a test, and what its processes find in their environment.
struct Trial {
    libraries: PathBuf,
    dir: TempDir,
    settings: Vec<(&'static str, &'static str)>,
}

impl Trial {
    /// `None` where the stand-ins cannot be compiled.
    fn new(test: &str) -> Option<Trial> {
        Some(Trial {
            libraries: build(test)?,
            dir: tempfile::tempdir().unwrap(),
            settings: vec![("STAND_IN_CHECK_LEAKS", "1")],
        })
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Trial {
        self.settings.push((name, value));
        self
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = Command::new(self.libraries.join("selftest"));
        command.args(args).env("LD_LIBRARY_PATH", &self.libraries).env("STAND_IN_DIR", self.dir.path());
        command.envs(self.settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// One process; it must find nothing wrong.
    fn alone(&self, name: &str) -> Output {
        finished(self.start(&[name]))
    }

    /// `ranks` processes; none may find anything wrong. What they printed, by rank.
    fn together(&self, name: &str, ranks: usize) -> Vec<String> {
        let meeting = self.dir.path().join("unique-id");
        let _ = std::fs::remove_file(&meeting);
        let start =
            |rank: usize| self.start(&[name, &rank.to_string(), &ranks.to_string(), &meeting.to_string_lossy()]);
        let children: Vec<Child> = (0..ranks).map(start).collect();
        children.into_iter().map(|child| String::from_utf8(finished(child).stdout).unwrap()).collect()
    }

    fn assert_no_violation(&self) {
        assert_eq!(violations(self.dir.path()), Vec::<String>::new());
    }

    /// Each line has one of these words, and each of the words is in a line.
    fn assert_violations(&self, words: &[&str]) {
        let lines = violations(self.dir.path());
        for word in words {
            assert!(lines.iter().any(|line| line.contains(word)), "nothing about {word:?} in {lines:#?}");
        }
        for line in &lines {
            assert!(words.iter().any(|word| line.contains(word)), "unexpected: {line}");
        }
    }
}

/// Within a minute, and with success.
fn finished(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("not finished after a minute: {}", text(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    out
}

#[test]
fn the_driver_keeps_its_rules() {
    for name in ["streams", "events", "null-stream"] {
        let Some(trial) = Trial::new("the_driver_keeps_its_rules") else { return };
        trial.alone(name);
        trial.assert_no_violation();
    }
}

#[test]
fn devices_are_as_many_and_as_different_as_wanted() {
    let Some(trial) = Trial::new("devices_are_as_many_and_as_different_as_wanted") else { return };
    let trial = trial.with("STAND_IN_GPUS", "2");
    trial.alone("devices");
    let trial = trial.with("STAND_IN_SAME_UUID", "1");
    trial.alone("devices");
    trial.assert_no_violation();
}

#[test]
fn each_wait_that_is_left_out_shows() {
    for (setting, printed) in [("0", "3"), ("1", "1"), ("2", "5"), ("3", "3")] {
        let Some(trial) = Trial::new("each_wait_that_is_left_out_shows") else { return };
        let out = trial.with("STAND_IN_SKIP_WAIT", setting).alone("skip");
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), printed, "wait {setting} left out");
    }
}

#[test]
fn misuse_of_the_driver_is_seen() {
    let cases: [(&str, &[&str]); 10] = [
        ("uninitialised", &["before cuInit"]),
        ("no-context", &["without a current context"]),
        ("group-end", &["ncclGroupEnd without ncclGroupStart"]),
        ("open-group", &["the process ends inside 1 groups"]),
        ("stream", &["cuStreamSynchronize: the stream was destroyed"]),
        ("event", &["cuEventRecord: the event was destroyed"]),
        ("other-context", &["cuLaunchHostFunc: the stream is not of the current context"]),
        ("released", &["cuCtxSynchronize in a context that was released"]),
        ("host-function", &["cuCtxSynchronize inside a host function"]),
        ("leaks", &["1 streams leaked", "1 events leaked", "1 primary contexts leaked"]),
    ];
    for (kind, words) in cases {
        let Some(trial) = Trial::new("misuse_of_the_driver_is_seen") else { return };
        trial.alone(&format!("misuse={kind}"));
        trial.assert_violations(words);
    }
}

#[test]
fn collectives_are_right_between_processes() {
    for (name, ranks) in [
        ("types", 2),
        ("types", 4),
        ("rounding", 2),
        ("rounding", 4),
        ("collectives", 1),
        ("collectives", 2),
        ("collectives", 3),
        ("groups", 2),
        ("groups", 4),
        ("large", 2),
        ("stress", 2),
    ] {
        let Some(trial) = Trial::new("collectives_are_right_between_processes") else { return };
        trial.together(name, ranks);
        trial.assert_no_violation();
    }
}

#[test]
fn an_abort_releases_what_waits() {
    for (name, ranks) in [("abort", 2), ("abort", 3)] {
        let Some(trial) = Trial::new("an_abort_releases_what_waits") else { return };
        trial.together(name, ranks);
        trial.assert_no_violation();
    }
    let Some(trial) = Trial::new("an_abort_releases_what_waits") else { return };
    trial.alone("alone");
    trial.assert_no_violation();
}

#[test]
fn a_slow_connection_is_in_progress() {
    let Some(trial) = Trial::new("a_slow_connection_is_in_progress") else { return };
    let trial = trial.with("STAND_IN_SLOW_CONNECT", "1");
    trial.together("connect", 2);
    trial.assert_no_violation();
}

#[test]
fn ranks_on_one_gpu_are_refused() {
    let Some(trial) = Trial::new("ranks_on_one_gpu_are_refused") else { return };
    trial.together("one-gpu", 2);
    trial.assert_no_violation();
}

#[test]
fn each_fault_strikes_where_it_is_told_to() {
    let faults = [
        ("rank=1,op=3,error=system", "operation 3 never completes, error 0", "operation 3 never completes, error 2"),
        ("rank=1,op=2,hang", "operation 2 never completes, error 0", "operation 2 never completes, error 0"),
        (
            "rank=0,op=2,hang;rank=1,op=3,hang",
            "operation 2 never completes, error 0",
            "operation 2 never completes, error 0",
        ),
        ("rank=1,op=4,return=internal", "operation 4 never completes, error 0", "operation 4 returned 3: as asked for"),
    ];
    for (fault, zero, one) in faults {
        let Some(trial) = Trial::new("each_fault_strikes_where_it_is_told_to") else { return };
        let trial = trial.with("STAND_IN_FAULT", fault);
        let printed = trial.together("fault", 2);
        assert!(printed[0].lines().last().unwrap().starts_with(zero), "{fault}: {}", printed[0]);
        assert!(printed[1].lines().last().unwrap().starts_with(one), "{fault}: {}", printed[1]);
        trial.assert_no_violation();
    }
}

#[test]
fn a_fault_can_strike_once() {
    let Some(trial) = Trial::new("a_fault_can_strike_once") else { return };
    let trial = trial.with("STAND_IN_FAULT", "rank=1,op=2,hang,once");
    assert!(trial.together("fault", 2)[0].contains("operation 2 never completes"));
    assert!(trial.together("fault", 2)[0].contains("operation 4 took"));
}

#[test]
fn a_slow_rank_slows_all() {
    let Some(trial) = Trial::new("a_slow_rank_slows_all") else { return };
    let trial = trial.with("STAND_IN_FAULT", "rank=1,slow_ms=100");
    let printed = trial.together("fault", 2);
    let times = |rank: usize| -> Vec<(u64, u64)> {
        let word = |line: &str, at: usize| line.split(' ').nth(at).unwrap().parse().unwrap();
        printed[rank].lines().map(|line| (word(line, 4), word(line, 6))).collect()
    };
    let (fast, slow) = (times(0), times(1));
    assert_eq!((fast.len(), slow.len()), (4, 4), "{printed:?}");
    for (operation, ((_, fast_end), (slow_start, slow_end))) in fast.into_iter().zip(slow).enumerate() {
        // However late the fast rank began: it ends no sooner than the slow one can.
        assert!(fast_end.min(slow_end) >= slow_start + 100_000, "operation {}: {printed:?}", operation + 1);
    }
    trial.assert_no_violation();
}

#[test]
fn operations_that_differ_are_named() {
    for (kind, words) in [
        (
            "kind",
            "operation 2 differs: rank 0: all-reduce (sum) of 1000 elements of type 7; rank 1: broadcast from rank 0",
        ),
        ("root", "rank 0: broadcast from rank 0 of 1000 elements of type 7; rank 1: broadcast from rank 1"),
        ("count", "rank 1: all-reduce (sum) of 999 elements"),
        ("type", "rank 1: all-reduce (sum) of 1000 elements of type 2"),
        (
            "group",
            "rank 0: all-reduce (sum) of 1000 elements of type 7, 1 more after it in its group; rank 1: all-reduce",
        ),
    ] {
        let Some(trial) = Trial::new("operations_that_differ_are_named") else { return };
        trial.together(&format!("mismatch={kind}"), 2);
        trial.assert_violations(&[words]);
    }
}

#[test]
fn misuse_of_a_communicator_is_seen() {
    let cases = [
        ("use-after=abort", "ncclAllReduce on a communicator after its destruction or abort"),
        ("use-after=destroy", "ncclCommGetAsyncError on a communicator after its destruction or abort"),
        ("use-after=finalize", "after ncclCommFinalize"),
        ("use-after=leak", "1 communicators leaked"),
        ("use-after=context", "ncclAllReduce: the communicator's context is not current"),
        ("use-after=stream", "cuStreamGetCtx: the stream was destroyed"),
        ("twice", "rank 0 was initialised twice with one unique id: its seat is taken"),
    ];
    for (name, word) in cases {
        let Some(trial) = Trial::new("misuse_of_a_communicator_is_seen") else { return };
        trial.together(name, 2);
        trial.assert_violations(&[word]);
    }
}
