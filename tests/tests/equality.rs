//! The contract's section Equality.

use end_to_end::{Bench, values};

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
fn three_workers_of_two_are_close_to_one_worker_of_six() {
    let bench = Bench::new();
    let settings = ["train.global_batch=6", "train.max_steps=10"];
    bench.train(3, "three", &settings);
    bench.train(1, "one", &settings);
    bench.train(1, "start", &["train.global_batch=6", "train.max_steps=1", "optim.lr=0"]);
    let (a, b, start) =
        (values(&bench.weights("three", 10)), values(&bench.weights("one", 10)), values(&bench.weights("start", 1)));
    let norm = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt();
    let (apart, moved) = (norm(&a, &b), norm(&a, &start));
    assert!(moved > 1e-2, "nothing was learned: {moved:.2e}");
    assert!(apart / moved <= 1e-3, "{:.2e} apart", apart / moved);
    let epochs = |run| bench.metrics(run, "train").iter().map(|l| l["samples"].to_string()).collect::<Vec<_>>();
    assert_eq!(epochs("three"), epochs("one"));
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
    assert!((last(&a) - last(&b)).abs() < 1e-3 * last(&b), "{} and {}", last(&a), last(&b));
}

#[test]
fn without_overlap_the_result_is_the_same() {
    let bench = Bench::new();
    bench.train(2, "with", &[]);
    bench.train(2, "without", &["comm.overlap=false"]);
    assert!(bench.weights("with", STEPS) == bench.weights("without", STEPS), "weights differ");
}
