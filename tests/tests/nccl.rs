//! Training over NCCL: real workers, over the stand-ins for NCCL and the driver in `tests/stand-in`, which work on host memory.

use end_to_end::numbers::{OneWorker, at_most, distance};
use end_to_end::skip::cannot_run;
use end_to_end::{Bench, last_line, skip, stand_in, text, values};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Steps of `small.toml`.
const STEPS: u64 = 8;
const NCCL: &[&str] = &["run.device=cpu", "comm.backend=nccl"];

/// A bench whose programs find the stand-ins, and the folder for what these have to say.
struct StandIn {
    bench: Bench,
    libraries: PathBuf,
    said: PathBuf,
}

impl StandIn {
    fn new(test: &str) -> Option<StandIn> {
        let libraries = stand_in::build(test)?;
        let bench = Bench::new();
        let said = bench.path().join("stand-in");
        std::fs::create_dir(&said).unwrap();
        Some(StandIn { bench, libraries, said })
    }

    fn command(&self, workers: usize, run: &str, options: &[&str], settings: &[&str]) -> Command {
        let (workers, run) = (workers.to_string(), format!("run.dir={run}"));
        let head = ["--nproc-per-node", &workers];
        let mut command =
            self.bench.command("jcs-launch", &[&head[..], options, &["small.toml", &run], NCCL, settings].concat());
        command.env("LD_LIBRARY_PATH", &self.libraries).env("STAND_IN_DIR", &self.said);
        command
    }

    fn train(&self, workers: usize, run: &str, settings: &[&str]) {
        let out = self.command(workers, run, &[], settings).env("STAND_IN_CHECK_LEAKS", "1").output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
        assert_eq!(stand_in::violations(&self.said), [""; 0], "{}", text(&out));
    }

    fn with_fault(&self, fault: &str, options: &[&str], settings: &[&str]) -> Output {
        let mut command = self.command(2, "run", options, settings);
        let out = command.env("STAND_IN_FAULT", fault).output().unwrap();
        self.bench.assert_nothing_left();
        out
    }
}

#[test]
fn two_workers_equal_those_over_mpi_bit_for_bit() {
    let Some(s) = StandIn::new("two_workers_equal_those_over_mpi_bit_for_bit") else { return };
    // Small buckets make many launches.
    for (name, settings) in [
        ("plain", vec![]),
        ("buckets", vec!["comm.bucket_mb=0.05", "comm.first_bucket_mb=0.01"]),
        ("late", vec!["comm.overlap=false"]),
    ] {
        let (nccl, mpi) = (format!("nccl-{name}"), format!("mpi-{name}"));
        s.train(2, &nccl, &settings);
        s.bench.train(2, &mpi, &settings);
        assert!(s.bench.weights(&nccl, STEPS) == s.bench.weights(&mpi, STEPS), "{name}: weights differ");
        assert!(s.bench.moments(&nccl, STEPS) == s.bench.moments(&mpi, STEPS), "{name}: moments differ");
        let losses =
            |run: &str| s.bench.metrics(run, "train").iter().map(|l| l["loss"].to_string()).collect::<Vec<_>>();
        assert_eq!(losses(&nccl), losses(&mpi), "{name}");
    }
    let line = s.bench.metrics("nccl-buckets", "train").pop().unwrap();
    assert!(line["comm_seconds"].as_f64() > Some(0.0), "{line}");
}

#[test]
fn four_workers_differ_from_those_over_mpi_and_from_one_by_rounding_alone() {
    let Some(s) = StandIn::new("four_workers_differ_from_those_over_mpi_and_from_one_by_rounding_alone") else {
        return;
    };
    let others = ["train.micro_batch=1", "train.micro_batch=4", "train.micro_batch=8"];
    let one = OneWorker::train(&s.bench, &["train.global_batch=8"], "train.micro_batch=2", others);
    s.train(4, "nccl", one.settings());
    s.bench.train(4, "mpi", one.settings());
    for run in ["nccl", "mpi"] {
        one.assert_rounding_alone(run);
    }
    // SGD's step is as long as the gradient: rounding stays rounding, while the way is so short that no unit of the network is tipped over.
    let sgd = [one.settings(), &["optim.name=sgd", "optim.lr=1e-3"]].concat();
    s.bench.train(4, "sgd-mpi", &sgd);
    s.bench.train(1, "sgd-one", &sgd);
    at_most("weights after 10 steps of SGD, of their way", apart(&s, "sgd-mpi", "sgd-one", 10), 1e-4);
}

/// How far apart two runs are, as a share of how far their weights have moved.
fn apart(s: &StandIn, a: &str, b: &str, step: u64) -> f64 {
    if !s.bench.path().join("unmoved").exists() {
        s.bench.train(1, "unmoved", &["train.max_steps=1", "optim.lr=0"]);
    }
    let [a, b] = [a, b].map(|run| values(&s.bench.weights(run, step)));
    let moved = distance(&a, &values(&s.bench.weights("unmoved", 1)));
    assert!(moved > 1e-2, "nothing was learned: {moved:.2e}");
    distance(&a, &b) / moved
}

#[test]
fn synchronised_norms_and_classes_work_too() {
    let Some(s) = StandIn::new("synchronised_norms_and_classes_work_too") else { return };
    for (name, setting) in [("sync", "model.norm=sync"), ("cls", "model.kind=cls")] {
        let (nccl, mpi) = (format!("nccl-{name}"), format!("mpi-{name}"));
        let settings = [setting, "train.max_steps=4"];
        s.train(2, &nccl, &settings);
        s.bench.train(2, &mpi, &settings);
        assert!(s.bench.weights(&nccl, 4) == s.bench.weights(&mpi, 4), "{name}: weights differ");
    }
}

#[test]
fn buckets_that_travel_as_bfloat16_train_nearly_as_well() {
    let Some(s) = StandIn::new("buckets_that_travel_as_bfloat16_train_nearly_as_well") else { return };
    let settings = ["train.global_batch=8", "train.max_steps=10"];
    s.train(2, "bf16", &[&settings[..], &["comm.compress=bf16"]].concat());
    s.train(2, "plain", &settings);
    let apart = apart(&s, "bf16", "plain", 10);
    assert!(apart > 1e-7, "nothing was compressed: {apart:.2e} apart");
    at_most("weights after 10 steps, of their way", apart, 0.2);
}

#[test]
fn half_precision_scales_the_loss_skips_overflows_and_resumes_with_the_scale() {
    let name = "half_precision_scales_the_loss_skips_overflows_and_resumes_with_the_scale";
    let Some(s) = StandIn::new(name) else { return };
    let settings = ["train.precision=fp16", "optim.schedule=constant", "checkpoint.every_steps=6"];
    s.train(2, "whole", &[&settings[..], &["train.max_steps=12"]].concat());
    s.train(2, "parts", &[&settings[..], &["train.max_steps=6"]].concat());
    s.train(2, "parts", &[&settings[..], &["train.max_steps=12"]].concat());
    let lines = s.bench.metrics("whole", "train");
    let scales: Vec<f64> = lines.iter().map(|line| line["loss_scale"].as_f64().unwrap()).collect();
    let skipped: Vec<bool> = lines.iter().map(|line| line["skipped"].as_bool().unwrap()).collect();
    assert_eq!(scales[0], 65536.0);
    assert!(skipped.contains(&true) && skipped.contains(&false), "{skipped:?}");
    // Halved by each overflow, and only by these.
    for (at, pair) in scales.windows(2).enumerate() {
        assert_eq!(pair[1], if skipped[at] { pair[0] / 2.0 } else { pair[0] }, "{scales:?} {skipped:?}");
    }
    assert!(s.bench.weights("whole", 12) == s.bench.weights("parts", 12), "the scale did not come back");
}

#[test]
fn a_failure_ends_the_job_with_rank_step_and_bucket() {
    let name = "a_failure_ends_the_job_with_rank_step_and_bucket";
    for (fault, code, culprit, words) in [
        ("rank=1,op=120,error=system", 4, "rank 1 on ", "NCCL failed"),
        ("rank=1,op=120,return=internal", 4, "rank 1 on ", "NCCL failed in nccl"),
        // Both miss the deadline; whichever is first is named.
        ("rank=1,op=120,hang", 5, "rank ", "within 4 s"),
    ] {
        let Some(s) = StandIn::new(name) else { return };
        let settings = ["comm.timeout_s=4", "comm.bucket_mb=0.05", "comm.first_bucket_mb=0.01"];
        let out = s.with_fault(fault, &["--max-restarts", "0"], &settings);
        assert_eq!(out.status.code(), Some(code), "{fault}: {}", text(&out));
        let last = last_line(&out);
        let parts = [culprit, "step ", "bucket ", "gradient all-reduce", words];
        assert!(parts.iter().all(|part| last.contains(part)), "{fault}: {last}");
    }
}

#[test]
fn after_a_failure_the_job_is_started_again_bit_for_bit() {
    let Some(s) = StandIn::new("after_a_failure_the_job_is_started_again_bit_for_bit") else { return };
    let settings = ["comm.timeout_s=4", "checkpoint.every_steps=1", "comm.bucket_mb=0.05", "comm.first_bucket_mb=0.01"];
    s.train(2, "whole", &settings);
    for fault in ["rank=1,op=120,once,error=remote", "rank=0,op=120,once,hang"] {
        let _ = std::fs::remove_dir_all(s.bench.path().join("run"));
        let _ = std::fs::remove_file(s.said.join("struck"));
        let out = s.with_fault(fault, &["--max-restarts", "1"], &settings);
        assert!(out.status.success() && text(&out).contains("restart 1 of 1"), "{fault}: {}", text(&out));
        assert!(s.bench.weights("whole", STEPS) == s.bench.weights("run", STEPS), "{fault}: weights differ");
    }
}

#[test]
fn a_slow_rank_is_named() {
    let Some(s) = StandIn::new("a_slow_rank_is_named") else { return };
    let settings = ["train.max_steps=45", "comm.bucket_mb=0.05", "comm.first_bucket_mb=0.01"];
    let out = s.with_fault("rank=1,call_ms=20", &["--max-restarts", "0"], &settings);
    assert!(out.status.success(), "{}", text(&out));
    let named = s.bench.metrics("run", "event").into_iter().find(|event| event["event"] == "straggler").unwrap();
    assert_eq!(named["rank"], 1, "{named}");
}

#[test]
fn with_real_nccl_and_no_gpu_preflight_says_so_and_auto_takes_mpi() {
    let test = "with_real_nccl_and_no_gpu_preflight_says_so_and_auto_takes_mpi";
    if Path::new("/proc/driver/nvidia").exists() {
        return cannot_run(test, "this machine has an NVIDIA driver");
    }
    let nvidia = match stand_in::nvidia() {
        Ok(nvidia) => nvidia,
        Err(why) => return skip(test, &why),
    };
    let bench = Bench::new();
    // The wheel has no libnccl.so.
    symlink(nvidia.join("nccl/lib/libnccl.so.2"), bench.path().join("libnccl.so")).unwrap();
    let libraries = format!("{}:{}", bench.path().display(), nvidia.join("cu13/lib").display());
    let run = |settings: &[&str]| {
        let arguments = [&["--nproc-per-node", "2", "small.toml", "run.dir=run"], settings].concat();
        bench.command("jcs-launch", &arguments).env("LD_LIBRARY_PATH", &libraries).output().unwrap()
    };
    // They are there, and load.
    let mut doctor = bench.command("jcs", &["doctor", "--json", "report.json"]);
    let out = doctor.env("LD_LIBRARY_PATH", &libraries).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    let report = std::fs::read_to_string(bench.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let host = &report["hosts"][0];
    assert!(host["nccl"].as_str().is_some_and(|version| version.starts_with("2.")), "{host}");
    assert_eq!(host["no_nccl"], serde_json::Value::Null, "{host}");
    let out = run(&["run.device=auto", "comm.backend=nccl"]);
    assert_eq!(out.status.code(), Some(6), "{}", text(&out));
    assert!(last_line(&out).contains("no GPU and no NVIDIA driver"), "{}", text(&out));
    // Past the preflight, the worker says it.
    let out = run(&["comm.backend=nccl", "run.device=cpu"]);
    let last = last_line(&out);
    assert!(
        out.status.code() == Some(2) && last.contains("there is no NVIDIA driver on this machine"),
        "{}",
        text(&out)
    );
    let out = run(&["run.device=auto"]);
    assert!(out.status.success() && text(&out).contains("gradients travel by MPI"), "{}", text(&out));
}
