//! The MPI backend on real ranks: this test binary starts itself under mpirun.

#![expect(clippy::print_stdout, reason = "the parent test reads what a rank says")]

use collectives::{Alone, Collective, Error, Label, Mpi};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};
use torch_ext::DeviceBuffer;

const ROLE: &str = "COLLECTIVES_TEST_ROLE";

/// Runs `test` of this binary on `ranks` ranks, each with `role` in its environment.
fn on_ranks(ranks: usize, test: &str, role: &str) -> Output {
    let mpirun = env!("MPICC").strip_suffix("mpicc").map(|bin| format!("{bin}mpirun")).unwrap();
    Command::new(mpirun)
        .args(["--host", &format!("localhost:{ranks}"), "--bind-to", "none", "-np", &ranks.to_string()])
        .args(["/usr/bin/env", &format!("{ROLE}={role}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .output()
        .unwrap()
}

fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

#[track_caller]
fn ended_well(out: &Output) {
    let text = [out.stdout.as_slice(), out.stderr.as_slice()].concat();
    assert!(out.status.success(), "{:?}\n{}", out.status, String::from_utf8_lossy(&text));
}

fn ramp(n: i64, factor: f64) -> Tensor {
    Tensor::arange(n, (Kind::Float, Device::Cpu)) * factor
}

#[test]
fn sums_copies_and_gathers_are_right_on_three_ranks() {
    if role().is_none() {
        return ended_well(&on_ranks(3, "sums_copies_and_gathers_are_right_on_three_ranks", "all"));
    }
    let c = Mpi::start(Duration::from_secs(30)).unwrap();
    let (rank, label) = (c.rank(), Label::new(1, "test"));
    assert_eq!(c.world_size(), 3);
    let buckets: Vec<Tensor> = (1..=5).map(|b| ramp(b * 1000, (rank as f64 + 1.0) * b as f64)).collect();
    let pending: Vec<_> = buckets.iter().map(|t| c.all_reduce(DeviceBuffer::new(t).unwrap(), label)).collect();
    for (b, p) in pending.into_iter().enumerate() {
        p.wait().unwrap();
        assert_eq!(buckets[b], ramp((b as i64 + 1) * 1000, 6.0 * (b as f64 + 1.0)));
    }
    let t = Tensor::full([7], rank as f64, (Kind::Double, Device::Cpu));
    c.broadcast(DeviceBuffer::new(&t).unwrap(), 2, label).unwrap();
    assert_eq!(Vec::<f64>::try_from(&t).unwrap(), [2.0; 7]);
    // Lengths 0, 2 and 4: an empty contribution is one of the cases.
    let gathered = c.all_gather(vec![rank as u8; 2 * rank], label).unwrap();
    assert_eq!(gathered, [vec![], vec![1; 2], vec![2; 4]]);
    assert_eq!(c.all_gather(vec![], label).unwrap(), vec![Vec::<u8>::new(); 3]);
    assert!(c.any(rank == 1, label).unwrap());
    assert!(!c.any(false, label).unwrap());
    c.barrier(label).unwrap();
    c.shutdown(label).unwrap();
}

#[test]
fn pairs_are_measured_while_the_others_wait() {
    if role().is_none() {
        return ended_well(&on_ranks(3, "pairs_are_measured_while_the_others_wait", "pairs"));
    }
    let c = Mpi::start(Duration::from_secs(30)).unwrap();
    let label = Label::new(0, "test");
    for pair in [(0, 1), (0, 2), (1, 2)] {
        let speed = c.measure_pair(pair, 100_000, label).unwrap();
        assert_eq!(speed.is_some(), [pair.0, pair.1].contains(&c.rank()));
        if let Some(speed) = speed {
            assert!(speed.correct && speed.seconds.is_finite() && speed.latency_seconds > 0.0, "{speed:?}");
        }
    }
    // The communicator of all still works.
    assert!(c.any(c.rank() == 2, label).unwrap());
    c.shutdown(label).unwrap();
}

#[test]
fn a_rank_that_never_comes_is_reported_with_rank_step_bucket_and_phase() {
    if role().is_none() {
        let out = on_ranks(2, "a_rank_that_never_comes_is_reported_with_rank_step_bucket_and_phase", "late");
        assert_eq!(out.status.code(), Some(55), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            text.contains("rank 0 (step 37, bucket 3, gradient all-reduce)") && text.contains("within 1 s"),
            "{text}"
        );
        return;
    }
    let c = Mpi::start(Duration::from_secs(1)).unwrap();
    if c.rank() == 1 {
        std::thread::sleep(Duration::from_secs(30));
        collectives::leave_now(0);
    }
    let t = ramp(1 << 20, 1.0);
    let started = Instant::now();
    let error = c.all_reduce(DeviceBuffer::new(&t).unwrap(), Label::bucket(37, 3, "gradient all-reduce")).wait();
    let error = error.unwrap_err();
    assert!(error.is_timeout() && started.elapsed() < Duration::from_secs(5));
    let next = c.barrier(Label::new(37, "next")).unwrap_err();
    assert!(matches!(next, Error::Broken { .. } | Error::Timeout { .. }), "{next}");
    println!("{error}");
    collectives::leave_now(55);
}

#[test]
fn a_world_of_one_rank_works_and_ends() {
    if role().is_none() {
        return ended_well(&on_ranks(1, "a_world_of_one_rank_works_and_ends", "unfit"));
    }
    let c = Mpi::start(Duration::from_secs(10)).unwrap();
    let label = Label::new(0, "test");
    assert_eq!(c.all_gather(b"me".to_vec(), label).unwrap(), [b"me".to_vec()]);
    assert!(!c.any(false, label).unwrap());
    c.shutdown(label).unwrap();
    let after = c.barrier(label).unwrap_err();
    assert!(matches!(after, Error::Broken { .. }), "{after}");
}

#[test]
fn alone_changes_nothing() {
    let t = ramp(10, 1.0);
    let label = Label::new(0, "test");
    Alone.all_reduce(DeviceBuffer::new(&t).unwrap(), label).wait().unwrap();
    assert_eq!(t, ramp(10, 1.0));
    assert_eq!(Alone.all_gather(b"x".to_vec(), label).unwrap(), [b"x".to_vec()]);
}
