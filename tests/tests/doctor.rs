//! `jcs doctor`, alone and with other workers.

use end_to_end::numbers::at_most;
use end_to_end::{last_line, stand_in, text};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn run(folder: &Path, program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(end_to_end::binary(program));
    command.args(args).current_dir(folder).env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
    command.output().unwrap()
}

fn report(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn rows<'a>(report: &'a Value, part: &str) -> &'a Vec<Value> {
    report[part].as_array().unwrap()
}

/// Whether this machine has a GPU; what the other rows say of it is then another matter.
fn has_gpu(report: &Value) -> bool {
    rows(report, "step").iter().any(|row| row["device"] != "cpu" && row["verdict"] != "none")
}

#[test]
fn alone_it_says_what_there_is_and_what_it_cannot_check() {
    let folder = TempDir::new().unwrap();
    let out = run(folder.path(), "jcs", &["doctor", "--device", "cpu", "--json", "report.json"]);
    assert!(out.status.success(), "{}", text(&out));
    let said = String::from_utf8(out.stdout.clone()).unwrap();
    for words in ["jcs doctor: 1 worker on 1 host", "libtorch 2.13.0, Open MPI v5", "alone: ", "Nothing is wrong."] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(said.lines().all(|line| line.chars().count() < 102), "{said}");
    let report = report(&folder.path().join("report.json"));
    assert_eq!((&report["verdict"], &report["workers"]), (&"ok".into(), &1.into()));
    let verdicts = |part: &str| rows(&report, part).iter().map(|row| row["verdict"].clone()).collect::<Vec<_>>();
    assert_eq!(verdicts("sums"), ["none"; 6]);
    assert_eq!(verdicts("step"), ["ok", "none"]);
    assert_eq!(report["overlap"]["verdict"], "none");
    let host = &rows(&report, "hosts")[0];
    assert!(host["cores"].as_u64() >= Some(1) && host["memory_bytes"].as_u64() > Some(1 << 20), "{host}");
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["report.json"]);
}

#[test]
fn two_workers_add_up_right_and_measure() {
    let folder = TempDir::new().unwrap();
    let args = ["--nproc-per-node", "2", "doctor", "--backend", "mpi", "--device", "cpu", "--json", "report.json"];
    let out = run(folder.path(), "jcs-launch", &args);
    assert!(out.status.success(), "{}", text(&out));
    let said = String::from_utf8(out.stdout.clone()).unwrap();
    assert!(said.lines().all(|line| line.starts_with("[rank 0] ") && line.chars().count() < 111), "{said}");
    let report = report(&folder.path().join("report.json"));
    assert_eq!((&report["verdict"], &report["workers"]), (&"ok".into(), &2.into()));
    assert_eq!(rows(&report, "hosts")[0]["ranks"], Value::from(vec![0, 1]));
    let sizes: Vec<(u64, &str)> =
        rows(&report, "sums").iter().map(|r| (r["bytes"].as_u64().unwrap(), r["kind"].as_str().unwrap())).collect();
    let float = |bytes| (bytes, "float32");
    let floats = [4 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20].map(float);
    assert_eq!(sizes, [&floats[..], &[(1 << 20, "float64")]].concat());
    for row in rows(&report, "sums") {
        let (seconds, rate) = (row["seconds"].as_f64().unwrap(), row["bus_bandwidth"].as_f64().unwrap());
        assert!(row["verdict"] == "ok" && seconds > 0.0, "{row}");
        let expected = row["bytes"].as_f64().unwrap() / seconds;
        assert!((rate - expected).abs() < 1e-6 * expected, "{row}");
    }
    let ranks: Vec<&Value> = rows(&report, "step").iter().map(|row| &row["rank"]).collect();
    assert_eq!(ranks, [&Value::from(0), &Value::from(1), &Value::Null]);
    assert!(rows(&report, "step").iter().take(2).all(|row| row["verdict"] == "ok" && row["weights_difference"] == 0.0));
    let overlap = &report["overlap"];
    assert_eq!(overlap["verdict"], "ok", "{overlap}");
    at_most("weights with overlap and without", overlap["weights_difference"].as_f64().unwrap(), 1e-3);
    let (on, off) = (&overlap["rows"][0], &overlap["rows"][1]);
    assert!(on["overlap"] == true && off["overlap"] == false && on["communication"].as_f64() > Some(0.0), "{overlap}");
    // Without overlap all of it is seen.
    assert!(off["hidden"].as_f64().unwrap() < 0.2, "{overlap}");
}

/// `jcs-launch doctor` over the stand-ins, one of which may do harm.
fn over_stand_ins(libraries: &Path, folder: &Path, workers: &str, fault: &str) -> Output {
    let args = ["--nproc-per-node", workers, "doctor", "--backend", "nccl", "--device", "cpu", "--json", "report.json"];
    let mut command = Command::new(end_to_end::binary("jcs-launch"));
    command.args(args).current_dir(folder).env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
    command.env("LD_LIBRARY_PATH", libraries).env("STAND_IN_DIR", folder).env("STAND_IN_FAULT", fault);
    command.output().unwrap()
}

#[test]
fn the_whole_of_it_runs_over_the_stand_ins() {
    let Some(libraries) = stand_in::build("the_whole_of_it_runs_over_the_stand_ins") else { return };
    let folder = TempDir::new().unwrap();
    for workers in ["1", "4"] {
        let out = over_stand_ins(&libraries, folder.path(), workers, "");
        assert!(out.status.success(), "{}", text(&out));
        assert_eq!(stand_in::violations(folder.path()), [""; 0], "{}", text(&out));
        let report = report(&folder.path().join("report.json"));
        assert_eq!(report["verdict"], "ok", "{report}");
        assert!(
            report["collectives"].as_str().unwrap().starts_with(if workers == "1" { "alone" } else { "nccl (2." }),
            "{}",
            report["collectives"]
        );
        let host = &rows(&report, "hosts")[0];
        assert_eq!((rows(host, "gpus").len(), &host["no_nccl"]), (8, &Value::Null), "{host}");
        assert!(host["gpus"][0]["name"].as_str().unwrap().contains("stand-in"), "{host}");
        let verdict = if workers == "1" { "none" } else { "ok" };
        assert!(rows(&report, "sums").iter().all(|row| row["verdict"] == verdict), "{report}");
        assert_eq!(report["overlap"]["verdict"], verdict, "{report}");
    }
}

#[test]
fn what_goes_wrong_over_the_stand_ins_is_told_with_its_rank() {
    let Some(libraries) = stand_in::build("what_goes_wrong_over_the_stand_ins_is_told_with_its_rank") else { return };
    let folder = TempDir::new().unwrap();
    // The second size, and a bucket of overlap, which comes after all sums and the weights of rank 0.
    for (fault, part, words) in [
        ("rank=1,op=30,wrong", "sums", "all-reduce of 64 KiB (float32): 16384 of 16384 sums are wrong"),
        ("rank=1,op=250,wrong", "overlap", "its weights are not those of rank 0"),
        ("rank=1,op=30,error=system", "sums", "NCCL failed"),
        ("rank=1,op=250,error=system", "overlap", "NCCL failed"),
    ] {
        let out = over_stand_ins(&libraries, folder.path(), "2", fault);
        assert_eq!(out.status.code(), Some(4), "{fault}: {}", text(&out));
        let last = last_line(&out);
        assert!(last.contains("rank 1") && last.contains(words), "{fault}: {}", text(&out));
        let report = report(&folder.path().join("report.json"));
        assert_eq!(report["verdict"], "wrong", "{fault}: {report}");
        assert_eq!(rows(&report, "sums")[0]["verdict"], "ok", "{fault}: {report}");
        let wrong = if part == "sums" { &report["sums"][1] } else { &report["overlap"] };
        assert_eq!((&wrong["verdict"], &report["finished"]), (&"wrong".into(), &true.into()), "{fault}: {report}");
        assert_eq!(
            rows(wrong, if fault.contains("error") { "failed" } else { "wrong" })[0]["rank"],
            1,
            "{fault}: {report}"
        );
        let problem = rows(&report, "problems").iter().find(|problem| problem["rank"] == 1).unwrap();
        assert!(problem["problem"].as_str().unwrap().contains(words), "{fault}: {report}");
    }
}

#[test]
fn gpus_that_cannot_be_used_are_told_with_the_report() {
    let Some(libraries) = stand_in::build("gpus_that_cannot_be_used_are_told_with_the_report") else { return };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("report.json");
    std::fs::write(&file, r#"{"verdict": "ok"}"#).unwrap();
    let doctor = |args: &[&str]| {
        let args = [&["--nproc-per-node", "2", "doctor", "--json", "report.json"], args].concat();
        let mut command = Command::new(end_to_end::binary("jcs-launch"));
        command.args(args).current_dir(folder.path()).env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
        command.env("LD_LIBRARY_PATH", &libraries).env("STAND_IN_DIR", folder.path());
        command.env("STAND_IN_SAME_UUID", "1").output().unwrap()
    };
    let out = doctor(&["--backend", "nccl"]);
    let last = last_line(&out);
    assert!(
        out.status.code() == Some(4) && last.contains("--backend nccl, but the driver is a stand-in"),
        "{}",
        text(&out)
    );
    let wrong = report(&file);
    assert_eq!((&wrong["verdict"], &wrong["hosts"][0]["verdict"]), (&"wrong".into(), &"wrong".into()), "{wrong}");
    assert_eq!(rows(&wrong, "problems").len(), 2, "{wrong}");
    // Both workers have what seems to be one GPU.
    let out = doctor(&["--backend", "nccl", "--device", "cpu"]);
    let same = "ranks 0 and 1 have the same GPU";
    assert!(out.status.code() == Some(4) && last_line(&out).contains(same), "{}", text(&out));
    let wrong = report(&file);
    assert_eq!((&wrong["hosts"][0]["verdict"], &wrong["finished"]), (&"ok".into(), &true.into()), "{wrong}");
    assert!(rows(&wrong, "problems")[0]["problem"].as_str().unwrap().contains(same), "{wrong}");
}

#[test]
fn the_report_goes_into_a_pipe_too() {
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::symlink("/dev/stdout", folder.path().join("out")).unwrap();
    let out = run(folder.path(), "jcs", &["doctor", "--device", "cpu", "--json", "out"]);
    assert!(out.status.success() && folder.path().join("out").is_symlink(), "{}", text(&out));
    let said = String::from_utf8(out.stdout).unwrap();
    let json = &said[said.find('{').unwrap()..=said.rfind('}').unwrap()];
    assert_eq!(serde_json::from_str::<Value>(json).unwrap()["verdict"], "ok", "{said}");
}

#[test]
fn what_stands_before_the_report_stays() {
    let folder = TempDir::new().unwrap();
    let issue = folder.path().join("issue.md");
    std::fs::write(&issue, "It is slow.\n").unwrap();
    let out = std::fs::OpenOptions::new().append(true).open(&issue).unwrap();
    let mut command = Command::new(end_to_end::binary("jcs"));
    command.args(["doctor", "--device", "cpu", "--json", "/dev/stdout"]).stdout(out).stdin(Stdio::null());
    assert!(command.status().unwrap().success());
    let said = std::fs::read_to_string(&issue).unwrap();
    let json = &said[said.find('{').unwrap()..];
    assert!(said.starts_with("It is slow.\njcs doctor: 1 worker") && said.contains("Nothing is wrong.\n{"), "{said}");
    assert_eq!(serde_json::from_str::<Value>(json).unwrap()["verdict"], "ok", "{said}");
}

#[test]
fn an_old_report_is_nobodys_through_a_link_either() {
    let folder = TempDir::new().unwrap();
    let (file, link) = (folder.path().join("kept.json"), folder.path().join("report.json"));
    std::fs::write(&file, r#"{"verdict": "ok"}"#).unwrap();
    std::os::unix::fs::symlink("kept.json", &link).unwrap();
    // The workers do not even meet.
    let mut command = Command::new(end_to_end::binary("jcs"));
    command.args(["doctor", "--json", "report.json"]).current_dir(folder.path()).env("OMPI_COMM_WORLD_SIZE", "2");
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    let report = report(&file);
    assert_eq!((&report["verdict"], &report["problems"][0]["rank"]), (&"wrong".into(), &0.into()), "{report}");
    assert!(report["problems"][0]["problem"].as_str().unwrap().contains("start the job with jcs-launch"), "{report}");
    assert!(link.is_symlink());
}

#[test]
fn what_cannot_be_had_is_told() {
    let folder = TempDir::new().unwrap();
    let probe = run(folder.path(), "jcs", &["doctor", "--json", "report.json"]);
    assert!(probe.status.success(), "{}", text(&probe));
    if has_gpu(&report(&folder.path().join("report.json"))) {
        return end_to_end::skip::cannot_run("what_cannot_be_had_is_told", "this machine has a GPU: nothing to refuse");
    }
    for args in [["--backend", "nccl"], ["--device", "cuda"]] {
        let alone = run(folder.path(), "jcs", &[&["doctor", "--json", "report.json"], &args[..]].concat());
        assert_eq!(alone.status.code(), Some(4), "{}", text(&alone));
        let said = String::from_utf8_lossy(&alone.stderr).into_owned();
        assert!(said.trim_end().lines().count() == 1 && said.contains("but libcuda.so.1"), "{said}");
        let report = report(&folder.path().join("report.json"));
        assert_eq!(
            (&report["verdict"], &report["hosts"][0]["verdict"]),
            (&"wrong".into(), &"wrong".into()),
            "{report}"
        );
        let both = run(folder.path(), "jcs-launch", &[&["--nproc-per-node", "2", "doctor"], &args[..]].concat());
        let last = last_line(&both);
        // The launcher knows of itself where there is no GPU for a worker that must have one.
        let expected = if args[0] == "--device" { (2, "shows no GPU") } else { (4, "but libcuda.so.1") };
        assert!(both.status.code() == Some(expected.0) && last.contains(expected.1), "{}", text(&both));
    }
    let both = run(folder.path(), "jcs", &["doctor", "--device", "cuda", "--backend", "mpi"]);
    assert!(both.status.code() == Some(2) && both.stdout.is_empty(), "{}", text(&both));
    std::os::unix::fs::symlink("nothing", folder.path().join("dangling")).unwrap();
    for file in ["none/report.json", ".", "dangling"] {
        let nowhere = run(folder.path(), "jcs", &["doctor", "--device", "cpu", "--json", file]);
        assert_eq!(nowhere.status.code(), Some(2), "{}", text(&nowhere));
        let said = last_line(&nowhere);
        assert!(nowhere.stdout.is_empty() && said.contains(&format!("cannot write {file}: ")), "{}", text(&nowhere));
    }
}
