//! Bad input: one clear message, the contract's exit code, and no checkpoint lost.

use end_to_end::skip::cannot_run;
use end_to_end::{Bench, text};
use std::fs;
use std::process::{Command, Output};

#[track_caller]
fn refused(out: &Output, code: i32, says: &[&str]) {
    let all = text(out);
    assert_eq!(out.status.code(), Some(code), "{all}");
    for part in says {
        assert!(all.contains(part), "'{part}' is not in:\n{all}");
    }
    assert!(!all.contains("panicked"), "{all}");
}

fn alone(bench: &Bench, settings: &[&str]) -> Output {
    let mut args = vec!["train", "small.toml", "run.dir=run", "train.max_steps=2"];
    args.extend(settings);
    bench.run("jcs", &args)
}

/// The image and mask of the first line of the training list.
fn first_sample(bench: &Bench) -> (String, String) {
    let list = fs::read_to_string(bench.path().join("phantom/train.txt")).unwrap();
    let (image, mask) = list.lines().next().unwrap().split_once(' ').unwrap();
    (image.to_owned(), mask.to_owned())
}

#[test]
fn a_missing_image() {
    let bench = Bench::new();
    let (image, _) = first_sample(&bench);
    fs::remove_file(bench.path().join("phantom").join(&image)).unwrap();
    refused(&alone(&bench, &[]), 3, &["train.txt:1", &image]);
    refused(&bench.try_train(2, "run", &[]), 3, &["train.txt:1", &image]);
    assert!(!bench.path().join("run/metrics.jsonl").exists(), "training began");
}

#[test]
fn an_unreadable_image() {
    let bench = Bench::new();
    let (image, _) = first_sample(&bench);
    fs::write(bench.path().join("phantom").join(&image), b"no image").unwrap();
    refused(&alone(&bench, &[]), 3, &["train.txt:1", &image]);
}

#[test]
fn an_image_cut_short_is_found_when_it_is_read() {
    let bench = Bench::new();
    let (image, _) = first_sample(&bench);
    let file = bench.path().join("phantom").join(&image);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    refused(&alone(&bench, &["train.max_steps=40"]), 3, &[&image]);
}

#[test]
fn a_mask_of_another_size() {
    let bench = Bench::new();
    let (_, mask) = first_sample(&bench);
    let other = bench.run("data-shards", &["phantom", "other", "--patients", "4", "--size", "96"]);
    assert!(other.status.success());
    let (_, theirs) = fs::read_to_string(bench.path().join("other/train.txt"))
        .unwrap()
        .lines()
        .next()
        .map(|l| l.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap())
        .unwrap();
    fs::copy(bench.path().join("other").join(theirs), bench.path().join("phantom").join(&mask)).unwrap();
    refused(&alone(&bench, &[]), 3, &["train.txt:1", &mask, "96", "64"]);
}

#[test]
fn an_empty_list() {
    let bench = Bench::new();
    fs::write(bench.path().join("phantom/train.txt"), "\r\n").unwrap();
    refused(&alone(&bench, &[]), 3, &["train.txt"]);
}

#[test]
fn a_misspelt_key() {
    let bench = Bench::new();
    refused(&alone(&bench, &["train.epocs=3"]), 2, &["train.epocs=3", "did you mean 'train.epochs'"]);
    refused(&bench.try_train(2, "run", &["train.epocs=3"]), 2, &["did you mean 'train.epochs'"]);
    assert!(!bench.path().join("run").exists(), "something started");
}

#[test]
fn a_batch_that_does_not_divide() {
    let bench = Bench::new();
    let out = bench.try_train(2, "run", &["train.global_batch=5", "train.micro_batch=2"]);
    refused(&out, 2, &["argument 'train.global_batch=5'", "5 = 2 × 2 + 1", "train.global_batch=4"]);
    let out = bench.try_train(3, "run", &["train.global_batch=2"]);
    refused(&out, 2, &["fewer than the 3 workers", "train.global_batch=3"]);
    refused(&alone(&bench, &["train.global_batch=1000"]), 2, &["1000", "data.train has only"]);
}

#[test]
fn weights_of_another_network() {
    let bench = Bench::new();
    bench.train(1, "narrow", &["train.max_steps=1"]);
    let out = alone(&bench, &["model.width=0.25", "model.init=narrow"]);
    refused(&out, 3, &["another network", "vgg16.conv1_1.conv.weight", "[8, 3, 3, 3]", "[16, 3, 3, 3]"]);
    fs::write(bench.path().join("junk.safetensors"), b"junk").unwrap();
    refused(&alone(&bench, &["model.init=junk.safetensors"]), 3, &["junk.safetensors"]);
    let out = bench.run("jcs", &["predict", "--weights", "nowhere", "--out", "o", "phantom/images"]);
    refused(&out, 2, &["nowhere"]);
}

#[test]
fn a_run_with_other_settings_is_not_continued() {
    let bench = Bench::new();
    bench.train(1, "run", &["train.max_steps=2"]);
    refused(&bench.try_train(1, "run", &["optim.lr=2e-3"]), 2, &["optim.lr = 0.001 in the checkpoint, 0.002 now"]);
    refused(&bench.try_train(1, "run", &["data.eval=phantom/train.txt"]), 2, &["data.eval: ", " samples ("]);
    refused(&bench.try_train(1, "run", &["model.init=run"]), 2, &["model.init = null in the checkpoint, \"run\" now"]);
    bench.train(1, "run", &["optim.lr=2e-3", "run.allow_changes=true"]);
    refused(&bench.try_train(1, "run", &["run.resume=never", "optim.lr=2e-3"]), 2, &["run.resume = never"]);
    refused(&bench.try_train(1, "fresh", &["run.resume=must"]), 2, &["run.resume = must"]);
    let out = bench.try_train(1, "run", &["optim.lr=2e-3"]);
    refused(&out, 0, &["is finished: step 8 of 8"]);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_an_earlier_one() {
    let bench = Bench::new();
    bench.train(1, "run", &["checkpoint.every_steps=2"]);
    let whole = bench.weights("run", 8);
    let file = bench.path().join("run/checkpoints/step-00000008/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let out = bench.try_train(1, "run", &["checkpoint.every_steps=2"]);
    refused(&out, 0, &["step-00000008 is damaged", "set aside", "going on after step 6"]);
    assert!(bench.weights("run", 8) == whole, "weights differ");
}

#[test]
fn a_checkpoint_that_cannot_be_read_for_now_or_is_of_a_newer_program_is_not_set_aside() {
    let bench = Bench::new();
    bench.train(1, "run", &[]);
    let again = || bench.run("jcs", &["train", "small.toml", "run.dir=run"]);
    let newest = bench.path().join("run/checkpoints/step-00000008");
    let (model, away) = (newest.join("model.safetensors"), newest.join("away"));
    std::fs::rename(&model, &away).unwrap();
    std::os::unix::fs::symlink("model.safetensors", &model).unwrap();
    refused(&again(), 4, &["cannot read", "model.safetensors"]);
    std::fs::rename(&away, &model).unwrap();
    let manifest = newest.join("MANIFEST.json");
    let whole = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, whole.replace("\"format\": 1", "\"format\": 99")).unwrap();
    refused(&again(), 2, &["step-00000008", "format 99", "or a newer one"]);
    std::fs::write(&manifest, whole).unwrap();
    assert!(text(&again()).contains("is finished"));
}

#[test]
fn weights_of_a_damaged_checkpoint_are_refused() {
    let bench = Bench::new();
    bench.train(1, "run", &["train.max_steps=2"]);
    let file = bench.path().join("run/checkpoints/step-00000002/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    for weights in ["run", "run/checkpoints/step-00000002", "run/checkpoints/step-00000002/model.safetensors"] {
        let out = bench.run("jcs", &["predict", "--weights", weights, "--out", "o", "phantom/images"]);
        refused(&out, 3, &["is damaged", "model.safetensors has checksum"]);
    }
}

#[test]
fn numbers_beyond_any_job() {
    let bench = Bench::new();
    refused(&alone(&bench, &["train.micro_batch=9223372036854775807"]), 2, &["train.micro_batch"]);
    refused(&alone(&bench, &["train.epochs=9223372036854775807"]), 2, &["train.epochs"]);
    let mut command = bench.command("jcs", &["train", "small.toml"]);
    refused(&command.env("RANK", "3").output().unwrap(), 2, &["RANK=3 is not below WORLD_SIZE=1"]);
}

#[test]
fn outputs_that_cannot_be_written_are_found_before_the_work() {
    let bench = Bench::new();
    bench.train(1, "run", &["train.max_steps=1"]);
    let eval = ["eval", "small.toml", "--weights", "run", "--json", "/proc/none/eval.json"];
    refused(&bench.run("jcs", &eval), 2, &["/proc/none/eval.json"]);
    let predict = ["predict", "--weights", "run", "--out", "/proc/none", "phantom/images"];
    refused(&bench.run("jcs", &predict), 2, &["/proc/none"]);
}

#[test]
fn no_space_left_loses_no_checkpoint() {
    let bench = Bench::new();
    let mount = bench.path().join("small-disk");
    fs::create_dir(&mount).unwrap();
    if !run("mount", &["-t", "tmpfs", "-o", "size=9m", "tmpfs", mount.to_str().unwrap()]) {
        return cannot_run("no_space_left_loses_no_checkpoint", "a tmpfs cannot be mounted (needs root)");
    }
    let out = bench.try_train(2, "small-disk/run", &["checkpoint.every_steps=1", "--no-preflight"]);
    let complete: Vec<_> =
        fs::read_dir(mount.join("run/checkpoints")).unwrap().flatten().map(|e| e.file_name()).collect();
    let latest = fs::read_to_string(mount.join("run/checkpoints/latest")).unwrap();
    let inspected = bench.run("jcs", &["inspect", &format!("small-disk/run/checkpoints/{}", latest.trim())]);
    run("umount", &["-l", mount.to_str().unwrap()]);
    refused(&out, 4, &["No space left on device", "the earlier checkpoints are untouched"]);
    assert!(inspected.status.success(), "{}", text(&inspected));
    assert!(complete.iter().all(|n| !n.to_string_lossy().starts_with(".tmp")), "{complete:?}");
}

#[test]
fn a_read_only_run_directory() {
    let bench = Bench::new();
    let mount = bench.path().join("read-only");
    fs::create_dir(&mount).unwrap();
    if !run("mount", &["-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", mount.to_str().unwrap()]) {
        return cannot_run("a_read_only_run_directory", "a tmpfs cannot be mounted (needs root)");
    }
    let out = alone(&bench, &["run.dir=read-only/run"]);
    let launched = bench.try_train(2, "read-only/run", &[]);
    run("umount", &["-l", mount.to_str().unwrap()]);
    refused(&out, 2, &["read-only/run", "run.dir=PATH"]);
    refused(&launched, 2, &["read-only/run"]);
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
}
