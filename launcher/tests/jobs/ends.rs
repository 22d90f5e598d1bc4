//! However a job ends, nothing is left: signals to the launcher, to mpirun and to workers.

use crate::common::{House, Running, eventually, house, kill};
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1};
use std::time::Duration;

const TEN_SECONDS: Duration = Duration::from_secs(10);
const STUCK: &str = "deaf hello sleep:120000";
const POLITE: &str = "hello progress:3 await-signal checkpoint:4 finished:preempted sleep:200 exit:143";

fn started(house: &House, arguments: &[&str], script: &str) -> Running {
    let running = house.spawn_train(arguments, &[("FAKE_0", script), ("FAKE_1", script)]);
    house.await_log("is process", 2);
    running
}

#[test]
fn sigkill_to_the_launcher_leaves_nothing() {
    let Some(house) = house("sigkill_to_the_launcher_leaves_nothing") else { return };
    let running = started(&house, &[], STUCK);
    assert_eq!(house.workers().len(), 2);
    running.signal(SIGKILL);
    house.assert_nothing_left(TEN_SECONDS);
    assert_eq!(running.wait().code, 137);
}

#[test]
fn sigkill_to_mpirun_leaves_nothing_and_is_a_failure() {
    let Some(house) = house("sigkill_to_mpirun_leaves_nothing_and_is_a_failure") else { return };
    let running = started(&house, &["--max-restarts", "0"], STUCK);
    let mpirun = house.mpirun();
    kill(mpirun, SIGKILL);
    let ran = running.wait();
    house.assert_nothing_left(Duration::ZERO);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.last_line().contains("mpirun was killed by signal 9 (SIGKILL)"), "{}", ran.err);
    assert!(ran.took < TEN_SECONDS, "{:?}", ran.took);
    assert!(!std::env::temp_dir().join(format!("ompi.{mpirun}")).exists());
}

#[test]
fn workers_that_have_not_reported_yet_are_found_and_killed() {
    let Some(house) = house("workers_that_have_not_reported_yet_are_found_and_killed") else { return };
    // No leash holds them, and mpirun cannot end them any more.
    let silent = "deaf say:up sleep:120000";
    let running = house.spawn_train(&["--max-restarts", "0"], &[("FAKE_0", silent), ("FAKE_1", silent)]);
    assert!(eventually(TEN_SECONDS, || (0..2).all(|rank| house.log(&format!("rank-{rank}.log")) == "up\n")));
    let mpirun = house.mpirun();
    // The terminal's Ctrl-C goes to the launcher's process group, and the launcher decides.
    let group = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(mpirun))).unwrap();
    assert_eq!(group.as_raw(), mpirun);
    kill(mpirun, SIGKILL);
    assert_eq!(running.wait().code, 4);
    house.assert_nothing_left(Duration::ZERO);
}

#[test]
fn sigterm_and_sigusr1_let_the_workers_write_a_checkpoint() {
    let Some(house) = house("sigterm_and_sigusr1_let_the_workers_write_a_checkpoint") else { return };
    for signal in [SIGTERM, SIGUSR1] {
        std::fs::remove_dir_all(house.run_dir()).ok();
        let running = started(&house, &[], POLITE);
        running.signal(signal);
        let ran = running.wait();
        assert_eq!(ran.code, 143, "{}", ran.err);
        assert_eq!(ran.last_line(), "jcs-launch: preempted after the checkpoint of step 4; exit code 143");
        house.assert_nothing_left(Duration::ZERO);
    }
}

#[test]
fn sigterm_before_the_workers_are_up_waits_for_them() {
    let Some(house) = house("sigterm_before_the_workers_are_up_waits_for_them") else { return };
    let late = format!("sleep:1500 {POLITE}");
    let running = house.spawn_train(&[], &[("FAKE_0", &late), ("FAKE_1", &late)]);
    house.await_log("started mpirun", 1);
    running.signal(SIGTERM);
    let ran = running.wait();
    assert_eq!(ran.code, 143, "{}", ran.err);
    assert!(ran.last_line().contains("preempted after the checkpoint of step 4"), "{}", ran.err);
}

#[test]
fn a_signal_to_a_worker_preempts_the_job() {
    let Some(house) = house("a_signal_to_a_worker_preempts_the_job") else { return };
    let running = started(&house, &[], POLITE);
    for worker in house.workers() {
        kill(worker, SIGUSR1);
    }
    let ran = running.wait();
    assert_eq!(ran.code, 143, "{}", ran.err);
}

#[test]
fn workers_that_do_not_end_are_killed_after_the_grace_period() {
    let Some(house) = house("workers_that_do_not_end_are_killed_after_the_grace_period") else { return };
    let running = started(&house, &["--grace-period", "2"], STUCK);
    running.signal(SIGTERM);
    let ran = running.wait();
    house.assert_nothing_left(Duration::ZERO);
    assert_eq!(ran.code, 143, "{}", ran.err);
    assert!(ran.last_line().contains("no new checkpoint was confirmed"), "{}", ran.err);
    assert!(ran.took > Duration::from_secs(2) && ran.took < TEN_SECONDS, "{:?}", ran.took);
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let Some(house) = house("a_second_sigterm_ends_at_once") else { return };
    let running = started(&house, &["--grace-period", "100"], STUCK);
    running.signal(SIGTERM);
    house.await_log("forwarding SIGUSR1", 1);
    running.signal(SIGTERM);
    let ran = running.wait();
    house.assert_nothing_left(Duration::ZERO);
    assert_eq!(ran.code, 143, "{}", ran.err);
    assert!(ran.took < TEN_SECONDS, "{:?}", ran.took);
}

#[test]
fn other_signals_end_everything_at_once() {
    let Some(house) = house("other_signals_end_everything_at_once") else { return };
    for (signal, code) in [(SIGINT, 130), (SIGHUP, 129)] {
        std::fs::remove_dir_all(house.run_dir()).ok();
        let running = started(&house, &[], STUCK);
        running.signal(signal);
        let ran = running.wait();
        house.assert_nothing_left(Duration::ZERO);
        assert_eq!(ran.code, code, "{}", ran.err);
        assert!(ran.last_line().contains(&format!("stopped by signal {} (SIG", code - 128)), "{}", ran.err);
        assert!(ran.took < TEN_SECONDS, "{:?}", ran.took);
    }
}

#[test]
fn a_stuck_sibling_of_a_failed_worker_is_killed() {
    let Some(house) = house("a_stuck_sibling_of_a_failed_worker_is_killed") else { return };
    // Rank 1 says that it fails, and does not end: mpirun notices nothing.
    let scripts = [("FAKE_0", STUCK), ("FAKE_1", "deaf hello failed:worker_failed sleep:120000")];
    let ran = house.train(&["--max-restarts", "0"], &scripts);
    house.assert_nothing_left(Duration::ZERO);
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert!(ran.last_line().contains("rank 1") && ran.last_line().contains("after step 7"), "{}", ran.err);
    assert!(ran.took < TEN_SECONDS, "{:?}", ran.took);
}

#[test]
fn a_signal_ends_the_wait_for_a_restart() {
    let Some(house) = house("a_signal_ends_the_wait_for_a_restart") else { return };
    let running =
        house.spawn_train(&["--max-restarts", "9"], &[("FAKE_0", "hello exit:17"), ("FAKE_1", "hello exit:17")]);
    house.await_log("restart 3 of 9 in 4 s", 1);
    running.signal(SIGINT);
    let ran = running.wait();
    assert_eq!(ran.code, 130, "{}", ran.err);
}

#[test]
fn the_token_is_on_no_command_line() {
    let Some(house) = house("the_token_is_on_no_command_line") else { return };
    let running = started(&house, &[], STUCK);
    let worker = house.workers()[0];
    let environ = std::fs::read(format!("/proc/{worker}/environ")).unwrap();
    let environ = String::from_utf8_lossy(&environ).into_owned();
    let token = environ.split('\0').find_map(|v| v.strip_prefix("JCS_TOKEN=")).unwrap();
    assert_eq!(token.len(), 32);
    assert!(house.processes().iter().all(|(_, line)| !line.contains(token)));
    running.signal(SIGINT);
    running.wait();
}

#[test]
fn a_reader_that_stops_reading_does_not_stop_the_workers() {
    let Some(house) = house("a_reader_that_stops_reading_does_not_stop_the_workers") else { return };
    let script = "hello lines:50000 finished:done";
    let mut running = house.spawn_train(&[], &[("FAKE_0", script), ("FAKE_1", script)]);
    // Nobody reads the pipes, and 64 KiB fill them.
    assert!(eventually(Duration::from_secs(60), || matches!(running.child.try_wait(), Ok(Some(_)))));
    let ran = running.wait();
    assert_eq!(ran.code, 0, "{}", ran.last_line());
    assert_eq!(house.log("rank-1.log").lines().count(), 100_000);
}
