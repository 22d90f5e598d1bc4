//! The launcher with the real mpirun and a fake worker: how jobs start, end and are reported.

use crate::common::house;
use std::time::Duration;

#[test]
fn two_workers_end_well() {
    let Some(house) = house("two_workers_end_well") else { return };
    let script = "env hello progress:1 finished:done";
    let mut command = house.command(
        &["--nproc-per-node", "2", "job.toml", "train.epochs=3"],
        &[("FAKE_0", script), ("FAKE_1", script), ("CUDA_VISIBLE_DEVICES", "5,3"), ("OMP_NUM_THREADS", "3")],
    );
    let output = command.env("OMP_NUM_THREADS", "3").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(err.starts_with("jcs-launch: 1 node × 2 workers: jcs train job.toml train.epochs=3\n"), "{err}");
    let place = |r| {
        format!(
            "[rank {r}] env RANK={r} LOCAL_RANK={r} WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 NODE_RANK=0 OMP_NUM_THREADS=3 \
             JCS_RESTART=0 CUDA_VISIBLE_DEVICES=5,3\n"
        )
    };
    assert!(out.contains(&place(0)) && out.contains(&place(1)), "{out}");
    assert!(out.contains(r#"[rank 1] arguments ["train", "job.toml", "train.epochs=3"]"#), "{out}");
    assert_eq!(house.summary(), serde_json::json!({"restarts": 0}));
    house.assert_nothing_left(Duration::ZERO);
}

#[test]
fn threads_are_shared_out_where_none_are_given() {
    let Some(house) = house("threads_are_shared_out_where_none_are_given") else { return };
    let ran = house.train(&[], &[("FAKE_0", "env hello finished:done")]);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert!(ran.out.contains(&format!("OMP_NUM_THREADS={} ", (cores / 2).max(1))), "{}", ran.out);
}

#[test]
fn other_commands_of_jcs_run_on_all_workers() {
    let Some(house) = house("other_commands_of_jcs_run_on_all_workers") else { return };
    let script = "env hello finished:done";
    let ran = house
        .spawn(
            &["--nproc-per-node", "2", "eval", "x.toml", "--weights", "a b"],
            &[("FAKE_0", script), ("FAKE_1", script)],
        )
        .wait();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.out.matches(r#"arguments ["eval", "x.toml", "--weights", "a b"]"#).count(), 2, "{}", ran.out);
    assert!(!house.run_dir().exists());
}

#[test]
fn a_killed_worker_is_named() {
    let Some(house) = house("a_killed_worker_is_named") else { return };
    let scripts = [("FAKE_0", "hello progress:37 sleep:60000"), ("FAKE_1", "hello sleep:500 kill")];
    let ran = house.train(&["--max-restarts", "0"], &scripts);
    assert_eq!(ran.code, 4, "{}", ran.err);
    let host = protocol::side_channel::host_name();
    let expected =
        format!("jcs-launch: rank 1 on {host} failed after step 37: killed by signal 9 (SIGKILL); exit code 4");
    assert_eq!(ran.last_line(), expected);
    assert!(!ran.err.contains("[mpirun]"), "mpirun's box is for launcher.log: {}", ran.err);
    assert!(house.log("launcher.log").contains("prterun noticed that process rank 1"));
    let cause = &house.summary()["root_cause"];
    assert_eq!((&cause["rank"], &cause["step"], &cause["exit_code"]), (&1.into(), &37.into(), &4.into()));
    house.assert_nothing_left(Duration::ZERO);
}

#[test]
fn wrong_input_is_never_restarted() {
    let Some(house) = house("wrong_input_is_never_restarted") else { return };
    for (name, code) in [("bad_data", 3), ("usage", 2)] {
        let script = format!("hello failed:{name} exit:{code}");
        let ran = house.train(&[], &[("FAKE_0", "hello sleep:60000"), ("FAKE_1", &script)]);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.last_line().contains("rank 1") && ran.last_line().contains("as the script says"), "{}", ran.err);
        assert_eq!(house.summary()["restarts"], 0);
        // Usage errors of jcs can come before its hello.
        let ran = house.train(&[], &[("FAKE_0", "hello sleep:60000"), ("FAKE_1", &format!("exit:{code}"))]);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.last_line().contains("rank 1 on"), "{}", ran.err);
    }
}

#[test]
fn restarts_are_bounded_and_counted() {
    let Some(house) = house("restarts_are_bounded_and_counted") else { return };
    let ran = house.train(&["--max-restarts", "2"], &[("FAKE_0", "hello sleep:60000"), ("FAKE_1", "hello exit:17")]);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("restart 1 of 2 in 1 s") && ran.err.contains("restart 2 of 2 in 2 s"), "{}", ran.err);
    assert!(ran.last_line().contains("ended with exit code 17; exit code 4"), "{}", ran.err);
    assert_eq!(house.summary()["restarts"], 2);
}

#[test]
fn a_restart_can_mend_and_a_checkpoint_counts_afresh() {
    let Some(house) = house("a_restart_can_mend_and_a_checkpoint_counts_afresh") else { return };
    let scripts = [
        ("FAKE_0_0", "hello checkpoint:5 sleep:60000"),
        ("FAKE_1_0", "hello sleep:300 exit:17"),
        ("FAKE_0_1", "env hello next-stage:2 sleep:60000"),
        ("FAKE_1_1", "hello sleep:300 failed:hang exit:5"),
        ("FAKE_0_2", "env hello finished:done"),
    ];
    let ran = house.train(&["--max-restarts", "1"], &scripts);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("JCS_RESTART=1") && ran.out.contains("JCS_RESTART=2"), "{}", ran.out);
    assert!(ran.err.contains("restart 1 of 1 in 1 s, from the checkpoint of step 2"), "{}", ran.err);
    assert_eq!(house.summary(), serde_json::json!({"restarts": 2}));
}

#[test]
fn the_same_step_three_times_is_a_bug() {
    let Some(house) = house("the_same_step_three_times_is_a_bug") else { return };
    let scripts = [("FAKE_0", "hello progress:37 sleep:60000"), ("FAKE_1", "hello sleep:500 exit:17")];
    let ran = house.train(&["--max-restarts", "10"], &scripts);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.err.contains("three failures in a row at the same step"), "{}", ran.err);
    assert_eq!(house.summary()["restarts"], 2);
}

#[test]
fn a_hang_wins_over_a_failure_when_it_is_the_last() {
    let Some(house) = house("a_hang_wins_over_a_failure_when_it_is_the_last") else { return };
    let scripts =
        [("FAKE_0", "hello sleep:60000"), ("FAKE_1_0", "hello exit:4"), ("FAKE_1_1", "hello failed:hang exit:5")];
    let ran = house.train(&["--max-restarts", "1"], &scripts);
    assert_eq!(ran.code, 5, "{}", ran.err);
}

#[test]
fn the_trainers_summary_survives() {
    let Some(house) = house("the_trainers_summary_survives") else { return };
    std::fs::create_dir_all(house.run_dir()).unwrap();
    std::fs::write(house.run_dir().join("summary.json"), r#"{"dice": 0.71, "root_cause": {"rank": 1}}"#).unwrap();
    house.train(&[], &[]);
    assert_eq!(house.summary(), serde_json::json!({"dice": 0.71, "restarts": 0}));
}

#[test]
fn a_worker_that_never_says_it_is_done_failed() {
    let Some(house) = house("a_worker_that_never_says_it_is_done_failed") else { return };
    for script in ["hello", "exit:0"] {
        let ran = house.train(&["--max-restarts", "0"], &[("FAKE_1", script)]);
        assert_eq!(ran.code, 4, "{}", ran.err);
        assert!(ran.last_line().contains("rank 1"), "{}", ran.err);
    }
}

#[test]
fn output_is_prefixed_filed_and_complete() {
    let Some(house) = house("output_is_prefixed_filed_and_complete") else { return };
    let scripts = [
        ("FAKE_0", "hello long:1500000 lines:20000 finished:done"),
        ("FAKE_1", "hello lines:20000 say:last say-no-end:unended finished:done"),
    ];
    let ran = house.train(&[], &scripts);
    assert_eq!(ran.code, 0);
    for rank in 0..2 {
        let shown = |text: &str, line: &str| text.matches(&format!("[rank {rank}] {line}")).count();
        assert_eq!((shown(&ran.out, "line "), shown(&ran.err, "error line ")), (20000, 20000), "rank {rank}");
        let log = house.log(&format!("rank-{rank}.log"));
        assert_eq!(log.matches("line ").count(), 40000, "rank {rank}");
    }
    assert!(house.log("rank-0.log").contains(&format!("{}\n", "x".repeat(1_500_000))));
    assert_eq!(ran.out.matches('x').count(), 1_500_000);
    // The two streams of a worker meet in its log in any order, but no line is torn.
    let log = house.log("rank-1.log");
    assert!(log.lines().any(|line| line == "last") && log.lines().any(|line| line == "unended"));
}

#[test]
fn the_terminal_shows_the_ranks_asked_for() {
    let Some(house) = house("the_terminal_shows_the_ranks_asked_for") else { return };
    let scripts = [("FAKE_0", "hello say:zero finished:done"), ("FAKE_1", "hello say:one finished:done")];
    let ran = house.train(&["--ranks-filter", "1", "--log-dir", "elsewhere"], &scripts);
    assert_eq!(ran.out, "[rank 1] one\n");
    let log = std::fs::read_to_string(house.dir.path().join("elsewhere/rank-0.log")).unwrap();
    assert_eq!(log, "zero\n");
    assert!(!house.run_dir().join("logs").exists());
}

#[test]
fn a_dry_run_starts_and_creates_nothing() {
    let Some(house) = house("a_dry_run_starts_and_creates_nothing") else { return };
    let ran = house.train(&["--dry-run"], &[("FAKE_0", "say:started")]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.starts_with("jcs-launch: 1 node × 2 workers"), "{}", ran.out);
    for part in ["rank 1  host", "device cpu", "RANK=1", "WORLD_SIZE=2", "bin/jcs train job.toml", "--host localhost:2"]
    {
        assert!(ran.out.contains(part), "{part} is not in {}", ran.out);
    }
    assert!(!ran.out.contains("started\n[") && !house.run_dir().exists() && ran.took < Duration::from_secs(2));
    let mut names: Vec<_> = std::fs::read_dir(house.dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["bin", "eval.txt", "job.toml", "train.txt"]);
}

#[test]
fn wrong_usage_stops_before_anything_starts() {
    let Some(house) = house("wrong_usage_stops_before_anything_starts") else { return };
    let wrong: [(&[&str], &str); 8] = [
        (&["job.toml", "train.epoch=3"], "train.epoch"),
        (&["missing.toml"], "missing.toml"),
        (&["--nodes", "2", "job.toml"], "nothing says which"),
        (&["--nodes", "gpu01:8,gpu01:8", "job.toml"], "stands there twice"),
        (&["--nproc-per-node", "0", "job.toml"], "--nproc-per-node"),
        (&["--ranks-filter", "2", "--nproc-per-node", "2", "job.toml"], "no rank 2"),
        (&["--nproc-per-node", "2", "job.toml", "train.global_batch=3", "train.micro_batch=2"], "no multiple"),
        (&["--log-dir", "/dev/null/x", "job.toml"], "/dev/null/x"),
    ];
    for (arguments, message) in wrong {
        let ran = house.spawn(arguments, &[]).wait();
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(message), "{arguments:?}: {}", ran.err);
        assert!(!house.run_dir().exists(), "{arguments:?}");
    }
}

#[test]
fn a_missing_worker_program_is_named() {
    let Some(house) = house("a_missing_worker_program_is_named") else { return };
    std::fs::remove_file(house.dir.path().join("bin/jcs")).unwrap();
    let ran = house.train(&[], &[]);
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(ran.last_line().contains("no program jcs beside jcs-launch"), "{}", ran.err);
    assert!(!house.run_dir().exists());
}
