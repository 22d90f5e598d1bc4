//! Training from shards: those of this machine, and those of a server that speaks S3 (moto) and dies.

use end_to_end::moto::{KEY, Moto, SECRET, free_port, python, use_server};
use end_to_end::{Bench, last_line, repository, signal, text};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The address of the evaluation samples has a collection's, the training samples their own.
const DATA: [&str; 2] = ["data.train=shards/train", "data.eval=shards"];
const LONG: [&str; 2] = ["train.max_steps=24", "checkpoint.every_steps=4"];
/// Every change there is, on 8 bits.
const EVERYTHING: [&str; 3] = [
    "train.global_batch=2",
    "data.normalize=device",
    "data.augment={ crop = 0.1, flip_vertical = 0.5, flip_horizontal = 0.5, brightness = 0.1, contrast = 0.1, scale = 0.2, \
     rotation = 15, noise = 0.05 }",
];

/// A bench with its phantoms packed into `shards`.
fn packed(patients: &str) -> Bench {
    let bench = Bench::new();
    for arguments in [
        &["phantom", "many", "--patients", patients, "--size", "64", "--seed", "3"][..],
        &["pack", "many", "shards", "--seed", "5"],
    ] {
        let out = bench.run("data-shards", arguments);
        assert!(out.status.success(), "{}", text(&out));
    }
    bench
}

/// The same with few samples a shard.
fn small(bench: &Bench, python: &str, samples: &str) {
    let script = repository().join("tests/python/small_shards.py");
    let out = Command::new(python).arg(script).arg(bench.path().join("shards")).arg(samples).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
}

#[test]
fn training_goes_on_from_shards_with_another_number_of_workers() {
    let bench = packed("8");
    let settings: Vec<&str> = DATA.into_iter().chain(LONG).chain(EVERYTHING).collect();
    bench.train(2, "whole", &settings);
    let child = bench.start_training(2, "stopped", &settings);
    bench.wait_for_step("stopped", 9);
    signal(Pid::from_raw(child.id() as i32), Signal::SIGTERM);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(143), "{}", text(&out));
    bench.train(1, "stopped", &settings);
    // Two workers of one micro-batch are one worker of two.
    assert!(bench.weights("whole", 24) == bench.weights("stopped", 24), "weights differ");
    let out = bench.run("jcs", &["eval", "small.toml", "--weights", "whole", DATA[0], DATA[1]]);
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains("\"dice\""), "{}", text(&out));
}

#[test]
fn a_flipped_byte_is_named_before_it_reaches_training() {
    let bench = packed("8");
    let shard = bench.path().join("shards/train/train-000000.tar");
    let mut file = std::fs::File::options().read(true).write(true).open(&shard).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let at = bytes.windows(4).position(|window| window == b"IDAT").unwrap() as u64 + 9;
    file.seek(std::io::SeekFrom::Start(at)).unwrap();
    file.write_all(&[bytes[at as usize] ^ 4]).unwrap();
    let out = bench.try_train(2, "run", &[DATA[0], DATA[1], "train.max_steps=40"]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    let last = last_line(&out);
    assert!(["train-000000.tar", ".png", "CRC-32"].iter().all(|word| last.contains(word)), "{last}");
    let out = bench.run("data-shards", &["verify", "shards"]);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let bench = packed("8");
    let refused = |settings: &[&str], code: i32, words: &[&str]| {
        let out = bench.try_train(1, "run", settings);
        let last = last_line(&out);
        assert_eq!(out.status.code(), Some(code), "{}", text(&out));
        assert!(words.iter().all(|word| last.contains(word)), "{words:?}: {last}");
    };
    refused(&["data.train=shards/eval/eval-000000.tar", DATA[1]], 3, &["eval-000000.tar"]);
    refused(&["data.train=gs://bucket/x", DATA[1]], 2, &["data.train: ", "`gs://` is not supported"]);
    let url = ["data.train=http://me:hidden@127.0.0.1:9/x", DATA[1]];
    let out = bench.run("jcs-launch", &["--dry-run", "small.toml", url[0]]);
    assert!(text(&out).contains("http://***@127.0.0.1:9/x") && !text(&out).contains("hidden"), "{}", text(&out));
    refused(&["data.trains=http://me:hidden@127.0.0.1:9/x"], 2, &["http://***@127.0.0.1:9/x", "data.train"]);
    refused(&["data.train=phantom", DATA[1]], 3, &["phantom", "index.json", "data-shards pack"]);
    refused(&[DATA[0], DATA[1], "data.labels=phantom/labels.csv"], 2, &["labels.csv"]);
    std::fs::write(bench.path().join("shards/train/index.json"), r#"{"format":"jcs-shards","version":2}"#).unwrap();
    refused(&DATA, 3, &["version 2", "use a newer"]);
}

/// Shards that the server delivered.
fn delivered(moto: &Moto) -> Vec<String> {
    let log = moto.requests();
    let gets = log.iter().filter(|line| line.contains("\"GET /bucket/") && line.contains(".tar HTTP"));
    gets.filter_map(|line| Some(line.split(".tar HTTP").next()?.rsplit('/').next()?.to_owned())).collect()
}

/// Training from the server at `port`, with a cache of its own.
fn remote(bench: &Bench, port: u16, run: &str, cache: &str) -> Command {
    let mut command = bench.command("jcs-launch", &["--nproc-per-node", "2", "--max-restarts", "0", "small.toml"]);
    command.args(["data.train=s3://bucket/covid/train", "data.eval=s3://bucket/covid", "checkpoint.every_steps=4"]);
    command.args(["train.max_steps=96", "train.global_batch=4", "train.micro_batch=2"]);
    command.args([format!("run.dir={run}"), format!("data.cache_dir={cache}")]);
    use_server(&mut command, port);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finished(out: &Output) {
    assert!(out.status.success(), "{}", text(out));
}

#[test]
fn training_streams_from_s3_and_survives_its_server() {
    let name = "training_streams_from_s3_and_survives_its_server";
    let Some(python) = python(name) else { return };
    let bench = packed("64");
    small(&bench, &python, "4");
    let port = free_port();
    let mut moto = Moto::start(&python, port, bench.path());

    finished(&remote(&bench, port, "whole", "cache").output().unwrap());
    let each = delivered(&moto);
    let shards = (0..48).map(|at| format!("train-{at:06}")).collect::<Vec<_>>();
    let once = |shard: &String| each.iter().filter(|name| *name == shard).count();
    assert!(shards.iter().all(|shard| once(shard) == 1), "each once for both workers: {each:?}");

    // Killed while half of the first epoch's shards are still to come, and started again: training waits, and goes on.
    let child = remote(&bench, port, "waiting", "cache-2").spawn().unwrap();
    bench.wait_for_step("waiting", 4);
    moto.kill();
    let before = std::fs::read_dir(bench.path().join("cache-2/shards-1")).unwrap().flatten();
    let there = before.flat_map(|set| std::fs::read_dir(set.path()).into_iter().flatten().flatten()).count();
    assert!(there < 40, "{there} files were there already");
    bench.wait_for_log("waiting", "going on in ");
    let mut moto = Moto::start(&python, port, bench.path());
    finished(&child.wait_with_output().unwrap());
    assert!(bench.weights("whole", 96) == bench.weights("waiting", 96), "weights differ");

    // Left dead.
    let begin = Instant::now();
    let child = remote(&bench, port, "dead", "cache-3").spawn().unwrap();
    bench.wait_for_step("dead", 6);
    moto.kill();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    let last = last_line(&out);
    assert!(last.contains("s3://bucket/covid/train/train-0000") && last.contains("8 attempts"), "{last}");
    assert!(begin.elapsed() < Duration::from_secs(150), "given up after {:?}", begin.elapsed());
    assert!(![KEY, SECRET].iter().any(|secret| text(&out).contains(secret)), "{}", text(&out));

    // With the server back, the run goes on where it was.
    let moto = Moto::start(&python, port, bench.path());
    finished(&remote(&bench, port, "dead", "cache-3").output().unwrap());
    assert!(bench.weights("whole", 96) == bench.weights("dead", 96), "weights differ");
    assert!(delivered(&moto).len() < 49, "what has arrived is kept");
    let secret = Command::new("grep").args(["-rlE", &format!("{KEY}|{SECRET}")]).arg(bench.path()).output().unwrap();
    let found = String::from_utf8_lossy(&secret.stdout).into_owned();
    // Moto logs the requests that it gets.
    assert!(found.lines().all(|file| file.contains("moto-")), "{found}");
}
