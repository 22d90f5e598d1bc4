//! First-stage features in place of images, as the public COVID-CS release has them.

use end_to_end::{Bench, text};
use std::fs;
use std::path::Path;

/// A tagged element of a MATLAB 5 file, padded to 8 bytes.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), (data.len() as u32).to_le_bytes()].concat();
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A variable of class uint8 and this shape; `value` of each index, column by column as MATLAB has it.
fn variable(name: &str, shape: [usize; 4], value: impl Fn([usize; 4]) -> u8) -> Vec<u8> {
    let [a, b, c, d] = shape;
    let mut values = Vec::with_capacity(a * b * c * d);
    for l in 0..d {
        for k in 0..c {
            for j in 0..b {
                values.extend((0..a).map(|i| value([i, j, k, l])));
            }
        }
    }
    let flags = element(6, &[9, 0, 0, 0, 0, 0, 0, 0]);
    let sizes: Vec<u8> = shape.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect();
    element(14, &[flags, element(5, &sizes), element(1, name.as_bytes()), element(2, &values)].concat())
}

fn file(path: &Path, seed: usize, channels: usize, side: usize) {
    let mut bytes = format!("{:<116}", "MATLAB 5.0 MAT-file").into_bytes();
    bytes.extend([0; 8]);
    bytes.extend([0, 1, b'I', b'M']);
    let value = |[_, c, y, x]: [usize; 4]| ((c * 7 + y * 3 + x * (1 + seed % 3) + seed) % 40) as u8;
    bytes.extend(variable("vgg_feats", [1, channels, side, side], value));
    bytes.extend(variable("res2net_feats", [1, channels, side / 2, side / 2], value));
    fs::write(path, bytes).unwrap();
}

/// A file of features for each image of the phantom, in the lists' places of the images.
fn features(bench: &Bench) {
    let phantom = bench.path().join("phantom");
    fs::create_dir(phantom.join("features")).unwrap();
    for list in ["train", "eval"] {
        let text = fs::read_to_string(phantom.join(format!("{list}.txt"))).unwrap();
        let lines = text.lines().enumerate().map(|(i, line)| {
            let (image, mask) = line.split_once(' ').unwrap();
            let mat = image.replace("images/", "features/").replace(".png", ".mat");
            file(&phantom.join(&mat), i, 8, 64);
            format!("{mat} {mask}\n")
        });
        fs::write(phantom.join(format!("{list}-features.txt")), lines.collect::<String>()).unwrap();
    }
    let labels = fs::read_to_string(phantom.join("labels.csv")).unwrap();
    let labels = labels.replace("images/", "features/").replace(".png", ".mat");
    fs::write(phantom.join("labels.csv"), labels).unwrap();
}

const FEATURES: [&str; 4] = [
    "data.input=features",
    "data.train=phantom/train-features.txt",
    "data.eval=phantom/eval-features.txt",
    "train.max_steps=2",
];

#[test]
fn all_networks_train_and_evaluate_from_features() {
    let bench = Bench::new();
    features(&bench);
    for kind in ["single", "joint", "cls"] {
        let kind_setting = format!("model.kind={kind}");
        let settings = [&FEATURES[..], &[kind_setting.as_str(), "train.micro_batch=2"]].concat();
        let out = bench.try_train(2, kind, &settings);
        assert!(out.status.success(), "{}", text(&out));
        // The first stages take no part.
        let said = text(&out);
        assert!(said.contains("the first stages take no part (") && !said.contains("is frozen"), "{said}");
        let key = if kind == "cls" { "auroc" } else { "dice" };
        let args = [&["eval", "small.toml", "--weights", kind, "--json", "e.json"][..], &FEATURES[..3]].concat();
        let eval = bench.run("jcs", &args);
        assert!(eval.status.success(), "{}", text(&eval));
        let json: serde_json::Value = serde_json::from_slice(&fs::read(bench.path().join("e.json")).unwrap()).unwrap();
        assert!(json[key].is_number(), "{json}");
        let trained = bench.metrics(kind, "eval");
        assert_eq!(trained[0][key], json[key]);
    }
    // Weights of images, as the official ones are.
    bench.train(1, "images", &["train.max_steps=1"]);
    let args = [&["eval", "small.toml", "--weights", "images", "--json", "e.json"][..], &FEATURES[..3]].concat();
    let eval = bench.run("jcs", &args);
    assert!(eval.status.success(), "{}", text(&eval));
}

#[test]
fn a_file_without_what_is_wanted_is_found_before_the_first_step() {
    let bench = Bench::new();
    features(&bench);
    let list = fs::read_to_string(bench.path().join("phantom/train-features.txt")).unwrap();
    let last = list.lines().last().unwrap().split_once(' ').unwrap().0;
    file(&bench.path().join("phantom").join(last), 0, 7, 64);
    let out = bench.try_train(2, "run", &FEATURES);
    assert_eq!(out.status.code(), Some(3), "{}", text(&out));
    assert!(text(&out).contains("before its first step") && text(&out).contains("`vgg_feats` is [1, 7, 64, 64]"));
}

#[test]
fn features_of_another_network_or_format_are_refused() {
    let bench = Bench::new();
    features(&bench);
    let refused = |what: &str| {
        let out = bench.try_train(1, "run", &FEATURES);
        assert_eq!(out.status.code(), Some(3), "{}", text(&out));
        assert!(text(&out).contains(what), "{}", text(&out));
        fs::remove_dir_all(bench.path().join("run")).ok();
    };
    let list = fs::read_to_string(bench.path().join("phantom/train-features.txt")).unwrap();
    let mat = bench.path().join("phantom").join(list.split(' ').next().unwrap());
    for side in fs::read_dir(bench.path().join("phantom/features")).unwrap().flatten() {
        file(&side.path(), 0, 16, 32);
    }
    refused("expected [1, 8, height, width]");
    fs::write(&mat, format!("{:<512}", "MATLAB 7.3 MAT-file, Platform: GLNXA64")).unwrap();
    refused("save -v7");
    fs::remove_file(&mat).unwrap();
    refused("train-features.txt:1");
}
