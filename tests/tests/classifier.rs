//! The classifier: training from labels, folds, attention supervision, mixing; and the pipeline of all stages.

use end_to_end::numbers::at_most;
use end_to_end::{Bench, text};
use serde_json::Value;
use std::fs;

/// Settings of a small classifier, beside those of `small.toml`.
const CLS: [&str; 7] = [
    "model.kind=cls",
    "data.train=phantom/labels.csv",
    "data.eval=",
    "data.fold=1/3",
    "train.global_batch=8",
    "train.micro_batch=4",
    "eval.patient_slices=1",
];

fn settings<'a>(more: &[&'a str]) -> Vec<&'a str> {
    CLS.iter().copied().chain(more.iter().copied()).collect()
}

fn summary(bench: &Bench, run: &str) -> Value {
    serde_json::from_slice(&fs::read(bench.path().join(run).join("summary.json")).unwrap()).unwrap()
}

#[test]
fn two_workers_train_a_classifier_with_synchronised_norms() {
    let bench = Bench::new();
    let more = ["optim.name=sgd", "optim.lr=0.01", "mix.alpha=0.4", "train.max_steps=6"];
    bench.train(2, "run", &settings(&more));
    let losses: Vec<f64> = bench.metrics("run", "train").iter().map(|l| l["loss"].as_f64().unwrap()).collect();
    assert!(losses.len() == 6 && losses.iter().all(|l| l.is_finite()), "{losses:?}");
    let eval = &summary(&bench, "run")["eval"];
    assert!(["sensitivity", "specificity", "accuracy", "auroc"].iter().all(|k| eval[k].is_number()), "{eval}");
    assert_eq!((eval["patients"]["count"].as_u64(), eval["resampled"].as_str()), (Some(2), Some("patients")), "{eval}");
    assert!(eval["patients"]["curve"].is_array() && eval["intervals"].is_object(), "{eval}");
    // The same again, with one rank's share of the data: statistics, gradients and weights are those of all.
    bench.train(2, "again", &settings(&more));
    assert!(bench.weights("run", 6) == bench.weights("again", 6), "weights differ");
}

#[test]
fn a_stopped_classifier_goes_on_bit_for_bit() {
    let bench = Bench::new();
    let whole = settings(&["optim.name=sgd", "train.max_steps=6", "checkpoint.every_steps=3"]);
    bench.train(2, "whole", &whole);
    bench.train(2, "part", &whole);
    fs::remove_dir_all(bench.path().join("part/checkpoints/step-00000006")).unwrap();
    fs::write(bench.path().join("part/checkpoints/latest"), "step-00000003\n").unwrap();
    bench.train(2, "part", &whole);
    assert!(bench.weights("whole", 6) == bench.weights("part", 6), "weights differ");
    assert!(bench.moments("whole", 6) == bench.moments("part", 6), "momenta differ");
}

#[test]
fn attention_is_supervised_where_there_are_masks_only() {
    let bench = Bench::new();
    // Masks for every other slice: the ranks' micro-batches have different shares of them.
    let labels = fs::read_to_string(bench.path().join("phantom/labels.csv")).unwrap();
    let with_masks: String = labels
        .lines()
        .enumerate()
        .map(|(i, line)| match i {
            0 => format!("{line},mask\n"),
            _ if i % 2 == 1 => format!("{line},{}\n", line.split(',').next().unwrap().replace("images", "masks")),
            _ => format!("{line},\n"),
        })
        .collect();
    fs::write(bench.path().join("phantom/with-masks.csv"), with_masks).unwrap();
    let more = ["data.train=phantom/with-masks.csv", "train.max_steps=3", "loss.pixel=0.5"];
    bench.train(2, "with", &settings(&more));
    bench.train(2, "without", &settings(&["data.train=phantom/with-masks.csv", "train.max_steps=3"]));
    assert!(bench.weights("with", 3) != bench.weights("without", 3), "the masks changed nothing");
}

#[test]
fn prediction_tells_the_class_and_what_speaks_for_it() {
    let bench = Bench::new();
    bench.train(1, "cls", &settings(&["train.max_steps=1"]));
    bench.train(1, "single", &["train.max_steps=1"]);
    let predict = |more: &[&str]| {
        let arguments = [&["predict", "--out", "out", "--save-tensors", "phantom/images"], more].concat();
        let out = bench.run("jcs", &arguments);
        (out.status.code(), text(&out))
    };
    let folder = |image: &str| bench.path().join("out").join(image);
    let image = fs::read_dir(bench.path().join("phantom/images")).unwrap().next().unwrap().unwrap().path();
    let image = image.file_stem().unwrap().to_str().unwrap().to_owned();
    let result =
        || -> Value { serde_json::from_slice(&fs::read(folder(&image).join("result.json")).unwrap()).unwrap() };

    assert_eq!(predict(&["--weights", "cls"]).0, Some(0));
    let alone = result();
    assert!(alone["covid_probability"].is_number() && alone["lesion_share"].is_null(), "{alone}");
    assert!(!folder(&image).join("mask.png").exists());

    let (code, said) = predict(&["--weights", "single", "--cls-weights", "cls"]);
    assert_eq!(code, Some(0), "{said}");
    for name in ["attention.png", "mask.png", "overlay.png", "tensors.safetensors"] {
        assert!(folder(&image).join(name).is_file(), "{name}");
    }
    let both = result();
    assert!(both["lesion_share"].is_number() && both["class"] == alone["class"], "{both}");
    assert_eq!(both["covid_probability"], alone["covid_probability"]);
    let csv = fs::read_to_string(bench.path().join("out/predictions.csv")).unwrap();
    assert!(csv.starts_with("input,folder,height,width,class,covid_probability,lesion_pixels"), "{csv}");

    // For the official implementation: no counters, and the same answers.
    let model = "cls/checkpoints/step-00000001/model.safetensors";
    let out = bench.run("jcs", &["convert", model, "official.safetensors", "--frozen-norms"]);
    assert!(out.status.success(), "{}", text(&out));
    let inspected = text(&bench.run("jcs", &["inspect", "official.safetensors"]));
    assert!(
        inspected.contains("layer1.0.bn1.running_var") && !inspected.contains("num_batches_tracked"),
        "{inspected}"
    );
    assert_eq!(predict(&["--weights", "official.safetensors"]).0, Some(0));
    let difference = result()["covid_probability"].as_f64().unwrap() - alone["covid_probability"].as_f64().unwrap();
    at_most("probability with frozen norms", difference.abs(), 1e-5);

    for wrong in [["--weights", "cls", "--cls-weights", "cls"], ["--weights", "single", "--cls-weights", "single"]] {
        let (code, said) = predict(&wrong);
        assert!(code == Some(2) && said.contains("classifier"), "{said}");
    }
}

#[test]
fn what_a_classifier_needs_is_said() {
    let bench = Bench::new();
    let refused = |more: &[&str], code: i32, what: &[&str]| {
        let out = bench.try_train(2, "run", &settings(more));
        assert_eq!(out.status.code(), Some(code), "{}", text(&out));
        for what in what {
            assert!(text(&out).contains(what), "{what}: {}", text(&out));
        }
    };
    refused(&["train.global_batch=12"], 2, &["model.norm = sync", "train.global_batch=16 works"]);
    refused(&["data.fold=4/3"], 2, &["data.fold", "1 <= K <= N"]);
    refused(&["data.eval=phantom/eval.txt"], 2, &["data.fold", "leave data.eval out"]);
    refused(&["data.size=[64,96]"], 2, &["data.size", "square"]);
    refused(&["optim.groups.layer9=0.1"], 2, &["optim.groups", "layer9"]);
    fs::remove_file(bench.path().join("phantom/labels.csv")).unwrap();
    refused(
        &["data.train=phantom/train.txt", "data.fold="],
        3,
        &["phantom/train.txt:1", "has no label", "data.labels"],
    );
}

#[test]
fn a_pipeline_trains_its_stages_and_goes_on_in_the_middle_of_one() {
    let bench = Bench::new();
    let stage = |name: &str, more: &[(&str, &str)]| {
        let base =
            fs::read_to_string(bench.path().join("small.toml")).unwrap().replace("max_steps = 8", "max_steps = 4");
        let with = |text: String, (table, keys): &(&str, &str)| text.replace(table, &format!("{table}\n{keys}"));
        fs::write(bench.path().join(name), more.iter().fold(base, with)).unwrap();
    };
    stage("cls.toml", &[("[model]", "kind = 'cls'"), ("[train]", "micro_batch = 2")]);
    stage("single.toml", &[]);
    let joint = "kind = 'joint'\ninit_cls = '@cls'\ninit_vgg = '@single'";
    stage("joint.toml", &[("[model]", joint), ("[optim]", "groups = { vgg16 = 0.1 }")]);
    fs::write(
        bench.path().join("all.toml"),
        "[train]\nstages = ['cls.toml', 'single.toml', 'joint.toml']\n[run]\ndevice = 'cpu'\n",
    )
    .unwrap();
    let missing = |run: &str| {
        fs::write(bench.path().join("gone.toml"), "[train]\nstages = ['cls.toml', 'nodata.toml']\n").unwrap();
        fs::write(bench.path().join("nodata.toml"), "[data]\ntrain = 'gone.txt'\n").unwrap();
        bench.run("jcs", &["train", "gone.toml", &format!("run.dir={run}"), "run.device=cpu"])
    };
    let out = missing("gone");
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    assert!(text(&out).contains("stage nodata: ") && !bench.path().join("gone/cls").exists(), "{}", text(&out));
    let launch = |run: &str, more: &[&str]| {
        let dir = format!("run.dir={run}");
        let out = bench.run(
            "jcs-launch",
            &[&["--nproc-per-node", "2", "all.toml", &dir, "checkpoint.every_steps=2"][..], more].concat(),
        );
        assert!(out.status.success(), "{}", text(&out));
        text(&out)
    };
    let said = launch("whole", &[]);
    assert!(said.contains("model.init_cls: ") && said.contains("left over: fc.weight"), "{said}");
    launch("stopped", &[]);
    // As if it had been stopped in the middle of its last stage.
    fs::remove_dir_all(bench.path().join("stopped/joint/checkpoints/step-00000004")).unwrap();
    fs::write(bench.path().join("stopped/joint/checkpoints/latest"), "step-00000002\n").unwrap();
    let said = launch("stopped", &[]);
    assert!(said.contains("stopped/single is finished") && said.contains("going on after step 2"), "{said}");
    assert!(bench.weights("whole/joint", 4) == bench.weights("stopped/joint", 4), "weights differ");
    let out = bench.run("jcs", &["inspect", "whole"]);
    assert!(text(&out).contains("whole/joint"), "{}", text(&out));
    let stages = &summary(&bench, "whole")["stages"];
    assert!(["cls", "single", "joint"].iter().all(|s| stages[s]["status"] == "finished"), "{stages}");
}
