//! Checkpoints in an object store (moto), which may lose them, be away, or die.

use end_to_end::moto::{Gate, KEY, Moto, SECRET, breaking_way, free_port, python, use_server};
use end_to_end::{Bench, last_line, signal, text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Rates that do not depend on the number of steps.
const SETTINGS: [&str; 3] = ["checkpoint.every_steps=4", "optim.schedule=constant", "train.global_batch=2"];

/// Training that uploads to `s3://bucket/RUN` at `port`.
fn command(bench: &Bench, port: u16, run: &str, settings: &[&str]) -> Command {
    let mut command = bench.command("jcs-launch", &["--nproc-per-node", "2", "--max-restarts", "0", "small.toml"]);
    command.arg(format!("run.dir={run}")).arg(format!("checkpoint.upload=s3://bucket/runs/{run}"));
    command.args(SETTINGS).args(settings).stdout(Stdio::piped()).stderr(Stdio::piped());
    use_server(&mut command, port);
    command
}

fn train(bench: &Bench, port: u16, run: &str, settings: &[&str]) -> Output {
    let out = command(bench, port, run, settings).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    out
}

fn start(bench: &Bench, port: u16, run: &str, settings: &[&str]) -> Child {
    command(bench, port, run, settings).spawn().unwrap()
}

fn stopped(child: Child) -> Output {
    signal(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    out
}

fn events(bench: &Bench, run: &str, event: &str) -> Vec<Value> {
    bench.metrics(run, "event").into_iter().filter(|line| line["event"] == event).collect()
}

/// Waits for an event that `wanted` likes.
fn wait_for(bench: &Bench, run: &str, event: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        if let Some(found) = events(bench, run, event).into_iter().find(&wanted) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(150), "no {event} in {run}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn folders(moto: &Moto, run: &str) -> Vec<String> {
    let files = moto.files(&format!("runs/{run}/"));
    let complete = files.iter().filter_map(|file| file.strip_suffix("/MANIFEST.json"));
    complete.map(str::to_owned).collect()
}

/// Nothing that was printed or written may hold a credential; moto logs the requests that it gets.
fn keeps_its_secrets(bench: &Bench, out: &Output) {
    assert!(![KEY, SECRET].iter().any(|secret| text(out).contains(secret)), "{}", text(out));
    let found = Command::new("grep").args(["-rlE", &format!("{KEY}|{SECRET}")]).arg(bench.path()).output().unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.lines().all(|file| file.contains("moto-")), "{found}");
}

#[test]
fn a_lost_run_directory_comes_back_from_the_store() {
    let Some(python) = python("a_lost_run_directory_comes_back_from_the_store") else { return };
    let (bench, port) = (Bench::new(), free_port());
    let moto = Moto::start(&python, port, bench.path());
    let port = breaking_way(port, 3 << 20);
    // Wide enough for files that go in parts.
    let wide = ["model.width=0.25", "checkpoint.keep_last=2"];
    let steps = |steps: &'static str| [&wide[..], &[steps]].concat();
    bench.train(2, "whole", &[&SETTINGS[..], &steps("train.max_steps=16")].concat());

    let out = train(&bench, port, "run", &steps("train.max_steps=10"));
    assert!(text(&out).contains("trying again"), "no connection broke: {}", text(&out));
    let uploaded = events(&bench, "run", "uploaded");
    let last = uploaded.last().unwrap();
    let written = bench.metrics("run", "checkpoint").pop().unwrap();
    assert_eq!((&last["name"], &last["step"]), (&written["name"], &written["step"]));
    let sent = |event: &Value| event["bytes"].as_u64().unwrap();
    assert_eq!(sent(&uploaded[0]), sent(&bench.metrics("run", "checkpoint")[0]), "{uploaded:?}");
    assert!(last["name"] == "step-00000010" && last["seconds"].as_f64().unwrap() > 0.0, "{last}");
    assert_eq!(moto.read("runs/run/latest"), "step-00000010\n");
    assert_eq!(moto.read("runs/run/best"), "step-00000010\n");
    let there = folders(&moto, "run");
    assert!(there.len() <= 2 && there.last().unwrap() == "step-00000010", "{there:?}");
    assert_eq!(moto.files("runs/run/step-00000010/").len(), 4);
    assert!(moto.requests().iter().any(|line| line.contains("partNumber=2")), "nothing went in parts");

    fs::rename(bench.path().join("run"), bench.path().join("lost")).unwrap();
    let out = train(&bench, port, "run", &steps("train.max_steps=16"));
    assert!(text(&out).contains("going on after step 10"), "{}", text(&out));
    assert!(text(&out).contains("trying again"), "no connection broke: {}", text(&out));
    assert!(bench.weights("whole", 16) == bench.weights("run", 16), "weights differ");
    assert!(bench.moments("whole", 16) == bench.moments("run", 16), "moments differ");
    assert_eq!(events(&bench, "run", "resume")[0]["generation"], 2);
    assert_eq!(moto.read("runs/run/latest"), "step-00000016\n");
    assert!(folders(&moto, "run").len() <= 3, "{:?}", moto.files("runs/run/"));

    // Nothing newer in the store: what is here is good enough, and nothing is fetched.
    let out = train(&bench, port, "run", &steps("train.max_steps=16"));
    assert!(text(&out).contains("is finished") && !text(&out).contains("fetching"), "{}", text(&out));
    // Names that went astray in the store are mended, and files that are there are not sent again.
    let sent =
        || moto.requests().iter().filter(|line| line.contains("PUT") && line.contains("model.safetensors")).count();
    let before = sent();
    moto.remove("runs/run/latest");
    moto.remove("runs/run/best");
    train(&bench, port, "run", &steps("train.max_steps=16"));
    assert_eq!(moto.read("runs/run/latest"), "step-00000016\n");
    assert_eq!(
        moto.read("runs/run/best").trim(),
        fs::read_to_string(bench.path().join("run/checkpoints/best")).unwrap().trim()
    );
    assert_eq!(sent(), before);
    fs::remove_dir_all(bench.path().join("run")).unwrap();
    let out = command(&bench, port, "run", &["run.resume=never"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
    assert!(last_line(&out).contains("s3://bucket/runs/run/step-00000016"), "{}", last_line(&out));
    keeps_its_secrets(&bench, &out);
}

#[test]
fn the_best_checkpoint_goes_along_where_the_store_lacks_it() {
    let Some(python) = python("the_best_checkpoint_goes_along_where_the_store_lacks_it") else { return };
    let (bench, port) = (Bench::new(), free_port());
    let moto = Moto::start(&python, port, bench.path());
    // No weight moves by so little: of equal networks the first is the best.
    let settings = ["optim.lr=1e-30", "eval.every_epochs=1", "checkpoint.keep_last=1", "train.max_steps=24"];
    train(&bench, port, "run", &settings);
    let best = fs::read_to_string(bench.path().join("run/checkpoints/best")).unwrap();
    let folder = format!("runs/run/{}/", best.trim());
    let files = || moto.files(&folder);
    assert_ne!(best, moto.read("runs/run/latest"));
    assert_eq!((moto.read("runs/run/best"), files().len()), (best.clone(), 4));
    moto.remove("runs/run/best");
    files().iter().for_each(|file| moto.remove(&format!("{folder}{file}")));
    assert_eq!(files().len(), 0);
    train(&bench, port, "run", &settings);
    assert_eq!((moto.read("runs/run/best"), files().len()), (best.clone(), 4));
}

#[test]
fn what_is_incomplete_or_damaged_in_the_store_is_passed_over() {
    let name = "what_is_incomplete_or_damaged_in_the_store_is_passed_over";
    let Some(python) = python(name) else { return };
    let (bench, port) = (Bench::new(), free_port());
    let moto = Moto::start(&python, port, bench.path());
    for steps in ["train.max_steps=4", "train.max_steps=8", "train.max_steps=12"] {
        train(&bench, port, "run", &[steps]);
    }
    let whole = bench.weights("run", 12);
    assert_eq!(folders(&moto, "run"), ["step-00000004", "step-00000008", "step-00000012"]);
    moto.remove("runs/run/step-00000012/MANIFEST.json");
    moto.flip("runs/run/step-00000008/model.safetensors");
    fs::remove_dir_all(bench.path().join("run")).unwrap();
    let out = train(&bench, port, "run", &["train.max_steps=12"]);
    let said = text(&out);
    assert!(said.contains("step-00000012 (at http://127.0.0.1") && said.contains("has no MANIFEST.json"), "{said}");
    assert!(said.contains("is damaged: model.safetensors has checksum"), "{said}");
    assert!(said.contains("going on after step 4"), "{said}");
    assert!(bench.weights("run", 12) == whole, "weights differ");
    assert_eq!(moto.files("runs/run/step-00000012/").len(), 4);
    // Only damaged ones: no start afresh, as with a run directory.
    fs::remove_dir_all(bench.path().join("run")).unwrap();
    folders(&moto, "run").iter().for_each(|folder| moto.flip(&format!("runs/run/{folder}/state.json")));
    let out = command(&bench, port, "run", &[]).output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    assert!(last_line(&out).contains("none of the checkpoints"), "{}", last_line(&out));
}

#[test]
fn a_store_that_is_away_stops_no_training_but_is_no_secret() {
    let name = "a_store_that_is_away_stops_no_training_but_is_no_secret";
    let Some(python) = python(name) else { return };
    let (bench, port) = (Bench::new(), free_port());
    let unreachable = |out: &Output| {
        let last = last_line(out);
        assert_eq!(out.status.code(), Some(4), "{}", text(out));
        assert!(last.contains("s3://bucket/runs/") && last.contains("8 attempts"), "{last}");
        keeps_its_secrets(&bench, out);
    };
    // Away from the start.
    unreachable(&command(&bench, port, "run", &["train.max_steps=8"]).output().unwrap());
    assert!(bench.metrics("run", "train").is_empty());

    // Away for a while.
    let mut moto = Moto::start(&python, port, bench.path());
    let child =
        start(&bench, port, "run", &["train.max_steps=100000", "checkpoint.every_steps=50", "checkpoint.keep_last=2"]);
    wait_for(&bench, "run", "uploaded", |_| true);
    moto.kill();
    let failed = wait_for(&bench, "run", "upload_failed", |_| true);
    assert!(failed["problem"].as_str().unwrap().contains("8 attempts"), "{failed}");
    let moto = Moto::start(&python, port, bench.path());
    let uploaded = wait_for(&bench, "run", "uploaded", |event| event["step"].as_u64() > failed["step"].as_u64());
    assert!(folders(&moto, "run").last().unwrap().as_str() >= uploaded["name"].as_str().unwrap());
    // What is uploaded after the request to stop is told, too.
    let out = stopped(child);
    let last = bench.metrics("run", "checkpoint").pop().unwrap();
    assert_eq!(moto.read("runs/run/latest").trim(), last["name"], "{}", text(&out));
    assert_eq!(events(&bench, "run", "uploaded").pop().unwrap()["name"], last["name"]);
    keeps_its_secrets(&bench, &out);
}

#[test]
fn a_store_that_is_away_at_the_end_gets_the_last_checkpoint_later() {
    let name = "a_store_that_is_away_at_the_end_gets_the_last_checkpoint_later";
    let Some(python) = python(name) else { return };
    let (bench, port) = (Bench::new(), free_port());
    let mut moto = Moto::start(&python, port, bench.path());
    let child = start(&bench, port, "run", &["train.max_steps=60"]);
    bench.wait_for_step("run", 2);
    moto.kill();
    let out = child.wait_with_output().unwrap();
    let last = last_line(&out);
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(last.contains("step-00000060 could not be uploaded: s3://bucket/runs/run/"), "{last}");
    assert!(last.contains("8 attempts"), "{last}");
    assert_eq!(events(&bench, "run", "upload_failed").pop().unwrap()["name"], "step-00000060");
    let verified = bench.run("jcs", &["inspect", "run"]);
    assert!(verified.status.success() && text(&verified).contains("every checksum"), "{}", text(&verified));
    // The same command has nothing to train, but still that to upload.
    let moto = Moto::start(&python, port, bench.path());
    let out = train(&bench, port, "run", &["train.max_steps=60"]);
    assert!(text(&out).contains("is finished"), "{}", text(&out));
    assert_eq!(moto.read("runs/run/latest"), "step-00000060\n");
    assert_eq!(moto.files("runs/run/step-00000060/").len(), 4);
}

#[test]
fn a_preempted_run_does_not_wait_for_a_store_that_is_away() {
    let name = "a_preempted_run_does_not_wait_for_a_store_that_is_away";
    let Some(python) = python(name) else { return };
    let (bench, port) = (Bench::new(), free_port());
    let mut moto = Moto::start(&python, port, bench.path());
    let mut command = command(&bench, port, "run", &["train.max_steps=100000"]);
    let child = command.args(["--grace-period", "5"]).spawn().unwrap();
    bench.wait_for_step("run", 6);
    moto.kill();
    let began = Instant::now();
    let out = stopped(child);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(last_line(&out).contains("preempted after the checkpoint of step"), "{}", last_line(&out));
    let verified = bench.run("jcs", &["inspect", "run"]);
    assert!(verified.status.success() && text(&verified).contains("every checksum"), "{}", text(&verified));
    bench.assert_nothing_left();
}

#[test]
fn where_nothing_can_be_put_is_refused() {
    let bench = Bench::new();
    for (url, words) in [
        ("https://me:hidden@127.0.0.1:9/x", ["https://127.0.0.1:9/x", "takes no files"]),
        ("s3://me:hidden@bucket/x", ["AWS_SECRET_ACCESS_KEY", "no user"]),
        ("elsewhere", ["elsewhere", "s3://BUCKET/PREFIX"]),
    ] {
        let out = bench.try_train(2, "run", &[&format!("checkpoint.upload={url}")]);
        let last = last_line(&out);
        assert_eq!(out.status.code(), Some(2), "{}", text(&out));
        assert!(last.contains("checkpoint.upload") && words.iter().all(|word| last.contains(word)), "{last}");
        assert!(!text(&out).contains("hidden"), "{}", text(&out));
        let found = Command::new("grep").args(["-rl", "hidden"]).arg(bench.path()).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", text(&found));
    }
}

#[test]
fn a_superseded_start_points_at_nothing_in_the_store() {
    let name = "a_superseded_start_points_at_nothing_in_the_store";
    let Some(python) = python(name) else { return };
    let (bench, port) = (Bench::new(), free_port());
    let moto = Moto::start(&python, port, bench.path());
    // The only checkpoint is the last one: at the end, all wait for its upload. Once it is told of, nobody else looks at the lock.
    let gate = Gate::before(port, "model.safetensors");
    let child = start(&bench, gate.port, "run", &["train.max_steps=4"]);
    gate.await_request();
    let began = Instant::now();
    while bench.metrics("run", "checkpoint").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "the checkpoint is not told of");
        std::thread::sleep(Duration::from_millis(20));
    }
    let owner = serde_json::json!({ "generation": 7, "host": "elsewhere", "pid": 1 });
    let mut file = fs::File::options().write(true).open(bench.path().join("run/.lock")).unwrap();
    file.write_all(format!("{:<255}\n", owner.to_string()).as_bytes()).unwrap();
    gate.open();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(4), "{}", text(&out));
    assert!(last_line(&out).contains("superseded by generation 7 on host elsewhere"), "{}", text(&out));
    // What was on its way has arrived; nothing vouches for it, and nothing names it.
    assert_eq!(
        moto.files("runs/run/"),
        ["model.safetensors", "optimizer.safetensors", "state.json"].map(|file| format!("step-00000004/{file}"))
    );
    bench.assert_nothing_left();
}
