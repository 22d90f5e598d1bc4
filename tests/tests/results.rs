//! What training leaves, and the commands that use it.

use end_to_end::{Bench, text};
use serde_json::Value;
use std::fs;

#[test]
fn a_run_leaves_what_the_contract_names() {
    let bench = Bench::new();
    bench.train(2, "run", &["eval.every_epochs=1", "train.epochs=1"]);
    let run = bench.path().join("run");
    let file = |name: &str| assert!(run.join(name).is_file(), "{name} is missing");
    [
        "config.resolved.toml",
        "metrics.jsonl",
        "summary.json",
        "logs/rank-0.log",
        "logs/rank-1.log",
        "logs/launcher.log",
    ]
    .iter()
    .for_each(|n| file(n));
    for name in ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"] {
        file(&format!("checkpoints/step-00000008/{name}"));
    }
    for pointer in ["best", "latest"] {
        assert_eq!(fs::read_to_string(run.join("checkpoints").join(pointer)).unwrap(), "step-00000008\n");
    }
    assert_eq!(fs::read_dir(run.join("tensorboard")).unwrap().count(), 1);
    let lines = bench.metrics("run", "train");
    for key in "step epoch samples loss lr step_seconds samples_per_second data_seconds comm_exposed_seconds grad_norm"
        .split(' ')
    {
        assert!(lines.iter().all(|l| l[key].is_number()), "{key}");
    }
    let eval = bench.metrics("run", "eval");
    assert!(["dice", "iou", "mae"].iter().all(|k| eval[0][k].is_number()), "{eval:?}");
}

#[test]
fn evaluation_does_not_depend_on_the_number_of_workers() {
    let bench = Bench::new();
    bench.train(1, "run", &["train.max_steps=2"]);
    let mut results = Vec::new();
    for workers in ["1", "3"] {
        let file = format!("eval-{workers}.json");
        let args = ["--nproc-per-node", workers, "eval", "small.toml", "--weights", "run", "--json", &file];
        let out = bench.run("jcs-launch", &args);
        assert!(out.status.success(), "{}", text(&out));
        results.push(fs::read_to_string(bench.path().join(file)).unwrap());
    }
    assert_eq!(results[0], results[1]);
    let split: Value = serde_json::from_str(&results[0]).unwrap();
    let list = fs::read_to_string(bench.path().join("phantom/eval.txt")).unwrap();
    assert_eq!(split["samples"], list.lines().count());
}

#[test]
fn prediction_writes_mask_overlay_tensors_and_report() {
    let bench = Bench::new();
    bench.train(1, "run", &["train.max_steps=2"]);
    let out = bench.run("jcs", &["predict", "--weights", "run", "--out", "out", "--save-tensors", "phantom/images"]);
    assert!(out.status.success(), "{}", text(&out));
    let images = fs::read_dir(bench.path().join("phantom/images")).unwrap().count();
    let csv = fs::read_to_string(bench.path().join("out/predictions.csv")).unwrap();
    assert_eq!(csv.lines().count(), images + 1);
    let first = csv.lines().nth(1).unwrap().split(',').nth(1).unwrap();
    let folder = bench.path().join("out").join(first);
    for name in ["mask.png", "overlay.png", "result.json", "tensors.safetensors"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    assert!(fs::read_to_string(bench.path().join("out/report.html")).unwrap().contains(first));
    let inspected = bench.run("jcs", &["inspect", folder.join("tensors.safetensors").to_str().unwrap()]);
    let shown = text(&inspected);
    assert!(shown.contains("input  1x3x64x64  Float") && shown.contains("logits  1x5x64x64"), "{shown}");
    let launched = bench
        .run("jcs-launch", &["--nproc-per-node", "2", "predict", "--weights", "run", "--out", "two", "phantom/images"]);
    assert!(launched.status.success(), "{}", text(&launched));
    assert_eq!(fs::read_to_string(bench.path().join("two/predictions.csv")).unwrap(), csv);
}

#[test]
fn inspect_describes_runs_checkpoints_and_weights() {
    let bench = Bench::new();
    bench.train(1, "run", &["train.max_steps=2"]);
    let show = |path: &str| {
        let out = bench.run("jcs", &["inspect", path]);
        assert!(out.status.success(), "{}", text(&out));
        String::from_utf8(out.stdout).unwrap()
    };
    assert!(show("run").contains("latest      step-00000002"));
    assert!(show("run/checkpoints/step-00000002").contains("every checksum is right"));
    let weights = show("run/checkpoints/step-00000002/model.safetensors");
    assert!(
        weights.contains("width       0.125") && weights.contains("vgg16.conv1_1.conv.weight  8x3x3x3"),
        "{weights}"
    );
}
