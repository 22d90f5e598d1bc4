//! The contract's section Equality.

use end_to_end::Bench;
use end_to_end::numbers::{OneWorker, at_most};

/// Steps of `small.toml`.
const STEPS: u64 = 8;

#[test]
fn repetition_is_equal_bit_for_bit() {
    let bench = Bench::new();
    for run in ["a", "b"] {
        bench.train(2, run, &[]);
    }
    assert!(bench.weights("a", STEPS) == bench.weights("b", STEPS), "weights differ");
    assert!(bench.moments("a", STEPS) == bench.moments("b", STEPS), "moments differ");
    let losses = |run| bench.metrics(run, "train").iter().map(|l| l["loss"].to_string()).collect::<Vec<_>>();
    assert_eq!(losses("a"), losses("b"));
}

#[test]
fn two_workers_of_one_equal_one_worker_of_two_bit_for_bit() {
    let bench = Bench::new();
    bench.train(2, "two", &["train.global_batch=2"]);
    bench.train(1, "one", &["train.global_batch=2"]);
    assert!(bench.weights("two", STEPS) == bench.weights("one", STEPS), "weights differ");
    assert!(bench.moments("two", STEPS) == bench.moments("one", STEPS), "moments differ");
    for (a, b) in bench.metrics("two", "train").iter().zip(bench.metrics("one", "train")) {
        assert_eq!((&a["loss"], &a["grad_norm"]), (&b["loss"], &b["grad_norm"]));
    }
}

#[test]
fn the_joint_network_is_trained_by_two_workers_as_by_one_bit_for_bit() {
    let bench = Bench::new();
    let settings = ["model.kind=joint", "train.global_batch=2", "train.max_steps=3"];
    bench.train(2, "two", &settings);
    bench.train(1, "one", &settings);
    assert!(bench.weights("two", 3) == bench.weights("one", 3), "weights differ");
    let eval = bench.run("jcs", &["eval", "small.toml", "--weights", "two"]);
    assert!(eval.status.success(), "{}", String::from_utf8_lossy(&eval.stderr));
}

#[test]
fn three_workers_of_two_differ_from_one_worker_of_six_by_rounding_alone() {
    let bench = Bench::new();
    let others = ["train.micro_batch=2", "train.micro_batch=3", "train.micro_batch=6"];
    let one = OneWorker::train(&bench, &["train.global_batch=6"], "train.micro_batch=1", others);
    bench.train(3, "three", one.settings());
    one.assert_rounding_alone("three");
    let samples = |run| bench.metrics(run, "train").iter().map(|l| l["samples"].to_string()).collect::<Vec<_>>();
    assert_eq!(samples("three"), samples("one"));
}

#[test]
fn uneven_shares_train_the_same_samples() {
    // 3 micro-batches on 2 workers: rank 0 takes two, rank 1 one.
    let bench = Bench::new();
    bench.train(2, "two", &["train.global_batch=3"]);
    bench.train(1, "one", &["train.global_batch=3"]);
    let first_loss = |run| bench.metrics(run, "train")[0]["loss"].as_f64().unwrap();
    assert_eq!(first_loss("two"), first_loss("one"));
    let (a, b) = (bench.metrics("two", "train"), bench.metrics("one", "train"));
    let last = |m: &[serde_json::Value]| m.last().unwrap()["loss"].as_f64().unwrap();
    at_most("the last of 8 losses, of itself", (last(&a) - last(&b)).abs() / last(&b), 1e-3);
}

#[test]
fn without_overlap_the_result_is_the_same_and_nothing_leaves_before_the_end() {
    let bench = Bench::new();
    bench.train(2, "with", &[]);
    bench.train(2, "without", &["comm.overlap=false"]);
    assert!(bench.weights("with", STEPS) == bench.weights("without", STEPS), "weights differ");
    // When the first sum began, as a share of the backward pass.
    let starts = |run| bench.metrics(run, "train").iter().map(|l| l["comm_first_start"].as_f64().unwrap()).collect();
    let (mut with, without): (Vec<f64>, Vec<f64>) = (starts("with"), starts("without"));
    with.sort_by(f64::total_cmp);
    assert!(with[with.len() / 2] < 1.0, "nothing overlapped: {with:?}");
    assert!(without.iter().all(|start| *start >= 1.0), "something left before the end: {without:?}");
}
