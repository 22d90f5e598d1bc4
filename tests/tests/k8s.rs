//! The manifests of `k8s/`: rendered, validated, each rule broken once, and their pods run on hosts of the tests' own.

use end_to_end::hosts::{Hosts, kill};
use end_to_end::moto::{self, KEY, SECRET};
use end_to_end::pods::{Pod, Pods, fill, tools};
use end_to_end::{Bench, repository, text};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(300);

fn checker(what: &str) -> String {
    let script = repository().join("tests/python/k8s.py");
    let out = Command::new(repository().join(".deps/k8s/bin/python")).arg(script).arg(what).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    text(&out)
}

#[test]
fn manifests_fit_kubernetes_and_each_other() {
    if tools("manifests_fit_kubernetes_and_each_other") {
        assert!(checker("check").contains("0 complaints"));
    }
}

#[test]
fn each_rule_is_seen_when_it_is_broken() {
    if tools("each_rule_is_seen_when_it_is_broken") {
        assert!(checker("broken").contains("rules broken"));
    }
}

#[test]
fn the_launcher_accepts_the_arguments_of_every_overlay() {
    let bench = Bench::new();
    let test = "the_launcher_accepts_the_arguments_of_every_overlay";
    if !tools(test) {
        return;
    }
    // For the pods' names.
    let Some(hosts) = Hosts::bare(test, 1, &bench) else { return };
    for (overlay, plan) in [
        ("base", "2 nodes × 1 worker"),
        ("cpu", "2 nodes × 2 workers"),
        ("kueue", "2 nodes × 1 worker"),
        ("s3", "2 nodes × 1 worker"),
        ("elastic", "3 nodes × 1 worker"),
    ] {
        let out = Pods::new(&hosts, &bench, overlay).dry_run(1);
        assert!(out.status.success() && text(&out).contains(plan), "{overlay}: {}", text(&out));
    }
    // Understood; this machine is none of those that it is for.
    let out = Pods::new(&hosts, &bench, "gpu").dry_run(1);
    let has_gpus = std::path::Path::new("/proc/driver/nvidia/gpus").exists();
    assert!(has_gpus || text(&out).contains("device cuda: this machine shows no GPU"), "{}", text(&out));
}

/// A bench with shards in the volume, and bare hosts with the pods' names.
fn cluster(test: &str, count: usize, bench: &Bench) -> Option<Hosts> {
    if !tools(test) {
        return None;
    }
    let hosts = Hosts::bare(test, count, bench)?;
    fill(bench, &["pack", "phantom", "shards/demo"]);
    Some(hosts)
}

fn short<'a>(hosts: &'a Hosts, bench: &'a Bench, overlay: &'a str, steps: u64) -> Pods<'a> {
    let mut pods = Pods::new(hosts, bench, overlay);
    let (steps, all) =
        (format!("train.max_steps={steps}"), ["model.width=0.125", "data.size=64", "checkpoint.every_steps=5"]);
    pods.settings = all.iter().map(|setting| (*setting).to_owned()).chain([steps]).collect();
    pods
}

fn codes(pods: &mut [Pod]) -> Vec<Option<i32>> {
    pods.iter_mut().map(|pod| pod.end(SOON).code()).collect()
}

fn await_checkpoint(bench: &Bench, pods: &[Pod]) {
    let (began, latest) = (Instant::now(), bench.path().join("runs/demo/checkpoints/latest"));
    while !latest.exists() {
        let said: Vec<String> = pods.iter().map(Pod::said).collect();
        assert!(began.elapsed() < SOON, "no checkpoint: {said:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn weights(bench: &Bench, step: u64) -> Vec<u8> {
    std::fs::read(bench.path().join(format!("runs/demo/checkpoints/step-{step:08}/model.safetensors"))).unwrap()
}

#[test]
fn pods_of_the_base_train_whenever_their_names_appear() {
    let bench = Bench::new();
    let Some(hosts) = cluster("pods_of_the_base_train_whenever_their_names_appear", 2, &bench) else { return };
    let pods = short(&hosts, &bench, "base", 10);
    let mut running = [pods.start(0), pods.start(1)];
    std::thread::sleep(Duration::from_secs(2));
    pods.resolve(2);
    assert_eq!(codes(&mut running), [Some(0), Some(0)], "{}\n{}", running[0].said(), running[1].said());
    let last: serde_json::Value = serde_json::from_slice(&std::fs::read(&running[0].termination).unwrap()).unwrap();
    assert_eq!((last["exit_code"].as_i64(), last["end"].as_str()), (Some(0), Some("done")), "{last}");
}

#[test]
fn a_deleted_pod_ends_all_with_a_checkpoint_and_new_ones_go_on_bit_for_bit() {
    let bench = Bench::new();
    let test = "a_deleted_pod_ends_all_with_a_checkpoint_and_new_ones_go_on_bit_for_bit";
    let Some(hosts) = cluster(test, 2, &bench) else { return };
    let mut pods = short(&hosts, &bench, "base", 120);
    pods.resolve(2);
    pods.env.push(("JCS_RUN".into(), "demo".into()));
    let mut whole = [pods.start(0), pods.start(1)];
    assert_eq!(codes(&mut whole), [Some(0), Some(0)], "{}", whole[0].said());
    let expected = weights(&bench, 120);
    std::fs::remove_dir_all(bench.path().join("runs/demo")).unwrap();
    for deleted in [1, 0] {
        let mut running = [pods.start(0), pods.start(1)];
        await_checkpoint(&bench, &running);
        running[deleted].ask();
        assert_eq!(codes(&mut running), [Some(143), Some(143)], "{}\n{}", running[0].said(), running[1].said());
        let mut next = [pods.start(0), pods.start(1)];
        assert_eq!(codes(&mut next), [Some(0), Some(0)], "{}", next[0].said());
        assert!(next[0].said().contains("going on after step"), "{}", next[0].said());
        assert!(weights(&bench, 120) == expected, "weights differ");
        std::fs::remove_dir_all(bench.path().join("runs/demo")).unwrap();
    }
}

#[test]
fn a_pod_that_is_killed_outright_is_replaced_and_the_run_goes_on() {
    let bench = Bench::new();
    let Some(hosts) = cluster("a_pod_that_is_killed_outright_is_replaced_and_the_run_goes_on", 2, &bench) else {
        return;
    };
    let pods = short(&hosts, &bench, "base", 60);
    pods.resolve(2);
    // An agent's pod: the launcher starts the job again on the next one.
    let (mut first, mut second) = (pods.start(0), pods.start(1));
    await_checkpoint(&bench, &[]);
    second.kill();
    // The Job's controller replaces a pod that failed after 10 s at the earliest: longer than the restarts would take.
    await_said(&first, " s more at the most (--rejoin-timeout)");
    std::thread::sleep(Duration::from_secs(8));
    let mut third = pods.start(1);
    assert_eq!(first.end(SOON).code(), Some(0), "{}", first.said());
    assert_eq!(third.end(SOON).code(), Some(0), "{}", third.said());
    assert!(first.said().contains("restart"), "{}", first.said());
    std::fs::remove_dir_all(bench.path().join("runs/demo")).unwrap();
    // The launcher's: the agent waits for the next one.
    let (mut first, mut second) = (pods.start(0), pods.start(1));
    await_checkpoint(&bench, &[]);
    first.kill();
    let mut next = pods.start(0);
    assert_eq!(next.end(SOON).code(), Some(0), "{}", next.said());
    assert_eq!(second.end(SOON).code(), Some(0), "{}", second.said());
}

#[test]
fn a_wrong_configuration_ends_at_once() {
    let bench = Bench::new();
    let Some(hosts) = cluster("a_wrong_configuration_ends_at_once", 2, &bench) else { return };
    let mut pods = short(&hosts, &bench, "base", 10);
    pods.settings.push("train.no_such_key=1".into());
    pods.resolve(2);
    let mut first = pods.start(0);
    assert_eq!(first.end(Duration::from_secs(30)).code(), Some(2), "{}", first.said());
    assert!(first.said().contains("no_such_key"), "{}", first.said());
}

fn await_said(pod: &Pod, text: &str) {
    let began = Instant::now();
    while !pod.said().contains(text) {
        assert!(began.elapsed() < SOON, "pod {} does not say {text:?}: {}", pod.index, pod.said());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pod_whose_node_vanishes_is_replaced_and_the_run_goes_on() {
    let bench = Bench::new();
    let Some(hosts) = cluster("a_pod_whose_node_vanishes_is_replaced_and_the_run_goes_on", 2, &bench) else { return };
    let mut pods = short(&hosts, &bench, "base", 60);
    // Of a node that does not answer nothing is heard; the workers give each other up.
    pods.settings.push("comm.timeout_s=5".into());
    pods.resolve(2);
    let (mut first, second) = (pods.start(0), pods.start(1));
    await_checkpoint(&bench, &[]);
    hosts.cut_off(2);
    await_said(&first, "; restart 1 of");
    drop(second);
    hosts.reconnect(2);
    let mut third = pods.start(1);
    assert_eq!(first.end(SOON).code(), Some(0), "{}", first.said());
    assert_eq!(third.end(SOON).code(), Some(0), "{}", third.said());
}

#[test]
fn an_elastic_job_goes_on_without_a_pod_and_takes_it_back() {
    let bench = Bench::new();
    let Some(hosts) = cluster("an_elastic_job_goes_on_without_a_pod_and_takes_it_back", 3, &bench) else { return };
    let mut pods = short(&hosts, &bench, "elastic", 200);
    pods.settings.push("eval.every_epochs=0".into());
    pods.resolve(3);
    let (mut first, mut second, mut third) = (pods.start(0), pods.start(1), pods.start(2));
    await_checkpoint(&bench, &[]);
    third.ask();
    assert_eq!(third.end(SOON).code(), Some(143), "{}", third.said());
    await_said(&first, "has left; the job goes on without it, from the checkpoint of step");
    await_said(&first, "going on with 2 ");
    // Its replacement is there, and joins at the next start.
    let mut replacement = pods.start(2);
    await_said(&replacement, "a launcher is here");
    kill(second.worker());
    let mut rest = [&mut first, &mut second, &mut replacement];
    let codes: Vec<_> = rest.iter_mut().map(|pod| pod.end(SOON).code()).collect();
    assert_eq!(codes, [Some(0); 3], "{}", first.said());
    assert!(first.said().contains("going on with 3 "), "{}", first.said());
}

#[test]
fn where_too_few_would_be_left_an_elastic_job_ends_with_a_checkpoint() {
    let bench = Bench::new();
    let test = "where_too_few_would_be_left_an_elastic_job_ends_with_a_checkpoint";
    let Some(hosts) = cluster(test, 3, &bench) else { return };
    let pods = short(&hosts, &bench, "elastic", 100_000);
    pods.resolve(3);
    let mut running = [pods.start(0), pods.start(1), pods.start(2)];
    await_checkpoint(&bench, &running);
    running[2].ask();
    await_said(&running[0], "going on with 2 ");
    running[1].ask();
    assert_eq!(codes(&mut running), [Some(143); 3], "{}", running[0].said());
}

/// A store on host 3, with the shards in it, and that alone.
fn store(hosts: &Hosts, bench: &Bench, python: &str) -> Child {
    let mut server = hosts.command(3, python);
    server.args(["-m", "moto.server", "-H", "0.0.0.0", "-p", "5000"]).stdout(Stdio::null());
    server.stderr(std::fs::File::create(bench.path().join("moto.log")).unwrap());
    let server = server.spawn().unwrap();
    let shards = bench.path().join("shards/demo");
    look(hosts, python, "upload.py", &[shards.to_str().unwrap(), "jcs/training/shards/demo"]);
    std::fs::remove_dir_all(shards).unwrap();
    server
}

fn look(hosts: &Hosts, python: &str, script: &str, arguments: &[&str]) -> String {
    let script = repository().join("tests/python").join(script);
    let out = hosts.command(3, python).arg(script).arg("http://127.0.0.1:5000").args(arguments).output().unwrap();
    assert!(out.status.success(), "{}", text(&out));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn pods_that_share_nothing_go_on_from_the_store_bit_for_bit() {
    let bench = Bench::new();
    let test = "pods_that_share_nothing_go_on_from_the_store_bit_for_bit";
    let Some(python) = moto::python(test) else { return };
    let Some(hosts) = cluster(test, 3, &bench) else { return };
    let mut server = store(&hosts, &bench, &python);
    let mut pods = short(&hosts, &bench, "s3", 120);
    pods.resolve(2);
    let secret = [
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", "http://10.77.0.3:5000"),
    ];
    pods.env.extend(secret.map(|(name, value)| (name.to_owned(), value.to_owned())));
    // The runs are told apart by the folder of the store.
    let named = |run: &str| format!("checkpoint.upload=s3://jcs/training/runs/{run}");
    let weights = |run: &str| {
        let file = format!("training/runs/{run}/step-00000120/model.safetensors");
        look(&hosts, &python, "bucket.py", &["digest", &file, "jcs"])
    };
    pods.settings.push(named("whole"));
    let mut whole = [pods.start(0), pods.start(1)];
    assert_eq!(codes(&mut whole), [Some(0), Some(0)], "{}", whole[0].said());
    *pods.settings.last_mut().unwrap() = named("parts");
    let mut running = [pods.start(0), pods.start(1)];
    let began = Instant::now();
    while !look(&hosts, &python, "bucket.py", &["list", "training/runs/parts/", "jcs"]).contains("latest") {
        assert!(began.elapsed() < SOON, "no checkpoint in the store: {}", running[0].said());
    }
    running[1].ask();
    assert_eq!(codes(&mut running), [Some(143), Some(143)], "{}\n{}", running[0].said(), running[1].said());
    let mut next = [pods.start(0), pods.start(1)];
    assert_eq!(codes(&mut next), [Some(0), Some(0)], "{}", next[0].said());
    assert!(next[0].said().contains("going on after step"), "{}", next[0].said());
    assert_eq!(weights("whole"), weights("parts"));
    let said: String = whole.iter().chain(&running).chain(&next).map(Pod::said).collect();
    assert!(![KEY, SECRET].iter().any(|secret| said.contains(secret)));
    server.kill().unwrap();
    server.wait().unwrap();
}
