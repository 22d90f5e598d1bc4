//! Lists, tables, and folders of images and features.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use data_shards::pack::{PackError, Watch, Why, key_file, pack, private_report};
use data_shards::phantom;
use data_shards::shard::Kind;

use super::{holds, noise, options, packed, read, tree, try_all, try_pack};
use crate::mat_files::{COMPRESSED, Variable};

#[test]
fn the_phantoms_lists_are_splits_and_nothing_gives_a_patient_away() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("phantom"), folder.path().join("out"));
    phantom::generate(&source, phantom::Settings { patients: 6, size: 64, seed: 1 }, &|_, _| {}).unwrap();
    let (report, samples) = packed(&source, &out, &options());
    assert_eq!(
        report.splits.iter().map(|split| split.split.as_deref()).collect::<Vec<_>>(),
        [Some("train"), Some("eval")]
    );
    assert_eq!((samples.len(), report.patients, report.left_out.len()), (24, 6, 0));
    assert!(samples.iter().all(|sample| sample.label.is_some() && sample.mask().is_some()));
    // Each image and its mask are the pixels of one file each.
    let pixels = |folder: &str| -> Vec<Vec<u8>> {
        let files = fs::read_dir(source.join(folder)).unwrap();
        files.map(|file| image::open(file.unwrap().path()).unwrap().into_luma8().into_raw()).collect()
    };
    let (images, masks) = (pixels("images"), pixels("masks"));
    assert!(samples.iter().all(|sample| images.contains(&sample.grey()) && masks.contains(&sample.mask().unwrap())));
    for (path, bytes) in tree(&out) {
        for name in ["p0001", "p0002", "p0006", "_s1"] {
            assert!(!holds(&bytes, name), "{name} in {}", path.display());
        }
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&key_file(&out)), mode(&private_report(&out))], [0o600, 0o600]);
    // The same again: complete, and nothing is touched.
    let before = tree(&out);
    assert!(try_pack(&source, &out, &options()).unwrap().already);
    assert_eq!(tree(&out), before);
}

#[test]
fn kept_ids_are_readable() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("phantom"), folder.path().join("out"));
    phantom::generate(&source, phantom::Settings { patients: 2, size: 32, seed: 1 }, &|_, _| {}).unwrap();
    let options = data_shards::pack::Options { keep_ids: true, ..options() };
    let (_, samples) = packed(&source, &out, &options);
    assert!(samples.iter().any(|sample| sample.patient.as_deref() == Some("p0002")));
    assert!(samples.iter().all(|sample| sample.key.starts_with("images_p000")), "{}", samples[0].key);
    assert_eq!(samples[0].facts()["file"].as_str().map(|file| file.starts_with("images/p000")), Some(true));
    assert!(!key_file(&out).exists());
}

/// `CLASS/PATIENT/N.png`, and a class of JPEGs without patients.
fn classes(root: &Path) {
    for (number, (class, patient)) in
        [("covid", "P1"), ("covid", "P2"), ("normal", "Q1"), ("odd", "R1")].into_iter().enumerate()
    {
        let folder = root.join(class).join(patient);
        fs::create_dir_all(&folder).unwrap();
        for slice in 0..2 {
            crate::png(&folder.join(format!("{slice}.png")), 8, 6, &noise(10 * number + slice, 48));
        }
    }
}

#[test]
fn folders_by_class_and_patient() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    classes(&source);
    let jpeg = source.join("normal/x.jpg");
    image::save_buffer(&jpeg, &noise(99, 64), 8, 8, image::ExtendedColorType::L8).unwrap();
    let rgb = source.join("covid/colour.png");
    image::save_buffer(&rgb, &noise(98, 48), 4, 4, image::ExtendedColorType::Rgb8).unwrap();
    let deep: Vec<u8> = noise(97, 32);
    image::save_buffer(source.join("covid/deep.png"), &deep, 4, 4, image::ExtendedColorType::L16).unwrap();
    fs::write(source.join("notes.txt"), "nothing").unwrap();
    let (report, samples) = packed(&source, &out, &options());
    assert_eq!((samples.len(), report.patients, report.left_out.len()), (11, 4, 0));
    assert_eq!(report.splits[0].labels, [6, 3, 2]);
    assert!(report.notes.iter().any(|note| note.contains("no label for what is in odd")), "{:?}", report.notes);
    let grey = image::open(&jpeg).unwrap();
    assert!(samples.iter().any(|sample| sample.image() == grey), "a grey JPEG stays as it is decoded");
    assert!(samples.iter().any(|sample| sample.image() == image::open(&rgb).unwrap()));
    assert!(samples.iter().any(|sample| sample.image().as_luma16().is_some()));
}

#[test]
fn splits_are_by_patient_and_stay_when_patients_are_added() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let shares = Some("train=0.5,val=0.5".parse().unwrap());
    let options = data_shards::pack::Options { split: shares, keep_ids: true, ..options() };
    let splits = |out: &str| -> BTreeMap<String, String> {
        let (_, samples) = packed(&source, &folder.path().join(out), &options);
        let mut splits: BTreeMap<String, String> = BTreeMap::new();
        for sample in samples {
            let (patient, split) = (sample.patient.unwrap(), sample.split.unwrap());
            assert_eq!(splits.entry(patient).or_insert(split.clone()), &split, "a patient was divided");
        }
        splits
    };
    let add = |range: std::ops::Range<usize>| {
        for patient in range {
            let folder = source.join(format!("covid/patient-{patient}"));
            fs::create_dir_all(&folder).unwrap();
            (0..2).for_each(|slice| {
                drop(crate::png(&folder.join(format!("{slice}.png")), 8, 6, &noise(7 * patient + slice, 48)))
            });
        }
    };
    add(0..12);
    let few = splits("few");
    add(12..40);
    let many = splits("many");
    assert_eq!((few.len(), many.len()), (12, 40));
    assert!(few.iter().all(|(patient, split)| many[patient] == *split));
    assert!((10..=30).contains(&many.values().filter(|split| *split == "train").count()));
    // Nobody knows whose the image is.
    crate::png(&source.join("covid/alone.png"), 8, 6, &noise(1, 48));
    let error = try_pack(&source, &folder.path().join("none"), &options).unwrap_err();
    assert!(matches!(&error, PackError::NoPatient { count: 1, .. }) && error.is_input(), "{error}");
    assert!(!folder.path().join("none").exists());
}

#[test]
fn masks_of_other_values_need_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let list = crate::small_set(folder.path(), 3);
    for at in 0..3 {
        crate::png(&folder.path().join(format!("m{at}.png")), 8, 6, &[[0; 16], [1; 16], [2; 16]].concat());
    }
    let error = try_pack(&list, &out, &options()).unwrap_err();
    assert!(
        error.is_input()
            && error.to_string().contains("these masks hold 0,1,2; where that is lesion, say --mask-values 1,2"),
        "{error}"
    );
    let options = data_shards::pack::Options { mask_values: Some("2".parse().unwrap()), ..options() };
    let (_, samples) = packed(&list, &out, &options);
    assert!(samples.iter().all(|sample| sample.mask().unwrap() == [[0; 32].to_vec(), [255; 16].to_vec()].concat()));
}

#[test]
fn a_mask_without_a_lesion_by_any_name_is_left_out_with_its_image() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 3);
    crate::png(&folder.path().join("m1.png"), 8, 6, &[[0; 24], [128; 24]].concat());
    crate::png(&folder.path().join("m2.png"), 8, 6, &[0; 48]);
    let (report, samples) = packed(&list, &folder.path().join("out"), &options());
    assert_eq!((samples.len(), report.left_out.len(), report.left_out[0].why), (2, 1, Why::Mask));
    assert!(report.left_out[0].reason.contains("holds 128 and no 255"), "{}", report.left_out[0]);
}

#[test]
fn leaking_splits_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    for at in 0..4 {
        crate::png(&source.join(format!("{at}.png")), 64, 64, &noise(at, 4096));
    }
    let table = |names: &[&str]| names.iter().fold("file,label\n".to_owned(), |text, name| text + name + ",1\n");
    let [train, val] = ["train.csv", "split_val.csv"].map(|name| source.join(name));
    fs::write(&train, table(&["0.png", "1.png", "2.png"])).unwrap();
    fs::write(&val, table(&["2.png", "3.png"])).unwrap();
    let sources = [train, val];
    let error = try_all(&sources, &out, &options()).unwrap_err();
    assert!(
        error.is_input() && error.to_string().contains("2.png") && error.to_string().contains("--allow-leaks"),
        "{error}"
    );
    assert!(!out.exists(), "nothing was written");
    let options = data_shards::pack::Options { allow_leaks: true, ..options() };
    let report = try_all(&sources, &out, &options).unwrap();
    assert_eq!(report.samples(), 5);
    assert!(report.notes.iter().any(|note| note.contains("1 leaks between splits")), "{:?}", report.notes);
    assert_eq!(read(&out).iter().filter(|sample| sample.split.as_deref() == Some("val")).count(), 2);
}

#[test]
fn a_second_set_of_lists_is_not_mixed_with_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    crate::small_set(&source, 4);
    for (name, lines) in [("train.txt", 0..3), ("test.txt", 3..4), ("split_train.txt", 0..2)] {
        let lines: String = lines.map(|at| format!("i{at}.png m{at}.png\r\n")).collect();
        fs::write(source.join(name), lines).unwrap();
    }
    let options = data_shards::pack::Options { allow_leaks: true, ..options() };
    let (report, samples) = packed(&source, &out, &options);
    assert_eq!(samples.len(), 4);
    assert!(report.notes.iter().any(|note| note.contains("split_train.txt are not")), "{:?}", report.notes);
}

#[test]
fn two_lists_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lists = ["a", "b"].map(|place| {
        fs::create_dir(folder.path().join(place)).unwrap();
        let list = crate::small_set(&folder.path().join(place), 3);
        let named = list.with_file_name("train.txt");
        fs::rename(list, &named).unwrap();
        named
    });
    let out = folder.path().join("out");
    let error = super::try_all(&lists, &out, &options()).unwrap_err();
    assert!(matches!(&error, data_shards::pack::PackError::SameSplit { split, .. } if split == "train"), "{error}");
    assert!(!out.exists());
}

#[test]
fn values_that_were_named_are_said_where_no_mask_holds_them() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 3);
    let options = data_shards::pack::Options { mask_values: Some("1,2".parse().unwrap()), ..options() };
    let error = try_pack(&list, &folder.path().join("out"), &options).unwrap_err().to_string();
    assert!(error.contains("only 1,2 counts as lesion, and these masks hold 0,255;"), "{error}");
}

#[test]
fn masks_are_found_by_name_and_those_without_an_image_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (source, masks) = (folder.path().join("source"), folder.path().join("masks"));
    classes(&source);
    fs::create_dir_all(masks.join("covid/P1")).unwrap();
    // `0.png` is the name of a slice of everybody, `1.png` too; `alone.png` that of one image.
    crate::png(&source.join("normal/Q1/alone.png"), 8, 6, &noise(71, 48));
    for name in ["covid/P1/0.png", "1.png", "alone.png", "other.png"] {
        crate::png(&masks.join(name), 8, 6, &[[0; 24], [255; 24]].concat());
    }
    let options = data_shards::pack::Options { masks: Some(masks), keep_ids: true, ..options() };
    let (report, samples) = packed(&source, &folder.path().join("out"), &options);
    let masked = samples.iter().filter(|sample| sample.mask().is_some()).map(|sample| sample.facts()["file"].clone());
    assert_eq!(masked.collect::<Vec<_>>(), ["covid/P1/0.png", "normal/Q1/alone.png"]);
    let [one, other] = &report.left_out[..] else { panic!("{:?}", report.left_out) };
    assert!(one.input.ends_with("/1.png") && other.input.ends_with("other.png"), "{one} {other}");
    assert!(
        one.why == Why::Mask && report.notes.contains(&"7 of 9 inputs have no mask".to_owned()),
        "{:?}",
        report.notes
    );
}

#[test]
fn links_in_a_circle_end_and_a_pipe_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    classes(&source);
    std::os::unix::fs::symlink("..", source.join("covid/up")).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(source.join("covid/pipe.png")).status().unwrap();
    assert!(pipe.success());
    let (report, samples) = packed(&source, &folder.path().join("out"), &options());
    assert_eq!((samples.len(), report.left_out.len()), (8, 0));
}

#[test]
fn a_table_that_does_not_fit_the_files_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    classes(&source);
    let rows = "file,label,patient_id\ncovid/P1/0.png,1,A\nodd/R1/0.png,0,B\nodd/R1/gone.png,0,B\n";
    fs::write(source.join("labels.csv"), rows).unwrap();
    let (report, _) = packed(&source, &out, &options());
    assert_eq!((report.samples(), report.left_out.len()), (8, 1));
    assert!(report.left_out[0].to_string().contains("gone.png") && report.left_out[0].reason.contains("labels.csv:4 "));
    assert!(report.notes.iter().any(|note| note.starts_with("6 of 8 inputs have no row")), "{:?}", report.notes);
    // Asked again it says the same, and that all of it is there.
    let again = try_pack(&source, &out, &options()).unwrap();
    assert_eq!((again.already, &again.left_out, &again.notes), (true, &report.left_out, &report.notes));
    fs::remove_file(out.join("data-000000.tar")).unwrap();
    let error = try_pack(&source, &out, &options()).unwrap_err().to_string();
    assert!(error.contains("data-000000.tar is missing"), "{error}");
}

#[test]
fn leaks_that_were_allowed_are_noted_after_an_interruption_too() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    crate::small_set(&source, 3);
    let lists = ["train.csv", "val.csv"].map(|name| source.join(name));
    fs::write(&lists[0], "file,patient\ni0.png,A\ni1.png,B\n").unwrap();
    fs::write(&lists[1], "file,patient\ni2.png,A\n").unwrap();
    let options = data_shards::pack::Options { allow_leaks: true, ..options() };
    let (stop, packing) = (AtomicBool::new(false), AtomicBool::new(false));
    let stage = |what: &str| packing.store(what == "packing", Ordering::Relaxed);
    let progress = |_: usize, _: usize| stop.store(packing.load(Ordering::Relaxed), Ordering::Relaxed);
    let stopped = pack(&lists, &out, &options, &Watch { stage: &stage, progress: &progress, stop: &stop });
    assert!(matches!(stopped, Err(PackError::Stopped)), "{stopped:?}");
    assert_eq!(fs::metadata(out.join(".pack")).unwrap().permissions().mode() & 0o777, 0o700);
    let report = try_all(&lists, &out, &options).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("leak: patient p")), "{:?}", report.notes);
    assert!(!out.join(".pack").exists());
}

#[test]
fn features_become_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir_all(source.join("covid/P1")).unwrap();
    let (vgg, res2net): (Vec<u8>, Vec<u8>) = ((0..=255).chain(0..=255).collect(), (0..128).collect());
    let variables = [
        Variable::bytes("vgg_feats", &[1, 2, 16, 16], &vgg),
        Variable::bytes("res2net_feats", &[1, 2, 8, 8], &res2net),
    ];
    fs::write(source.join("covid/P1/a.mat"), COMPRESSED.variables(&variables)).unwrap();
    fs::write(source.join("covid/P1/b.mat"), COMPRESSED.variables(&variables[1..])).unwrap();
    let floats = Variable { class: 7, storage: 7, values: vec![0.123; 128], ..variables[1].clone() };
    fs::write(source.join("covid/P1/c.mat"), COMPRESSED.variables(&[floats])).unwrap();
    let (report, samples) = packed(&source, &out, &options());
    assert_eq!((samples.len(), report.left_out.len()), (2, 1));
    assert!(report.left_out[0].reason.contains("save it as uint8"), "{}", report.left_out[0]);
    let both = samples.iter().find(|sample| sample.members.contains_key(&Kind::Vgg)).unwrap();
    let file = |kind: Kind| data_shards::npy::read(Path::new("x"), &both.members[&kind]).unwrap();
    assert_eq!(file(Kind::Vgg), (vec![2, 16, 16], data_shards::mat::Values::U8(vgg)));
    assert_eq!(file(Kind::Res2Net), (vec![2, 8, 8], data_shards::mat::Values::U8(res2net)));
    assert!(samples.iter().all(|sample| sample.label == Some(true) && sample.patient.is_some()));
}

#[test]
fn sources_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    classes(&source);
    let refused = |out: &Path| try_pack(&source, out, &options()).unwrap_err();
    assert!(matches!(refused(&source.join("out")), PackError::Within { .. }));
    let occupied = folder.path().join("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("mine"), "x").unwrap();
    assert!(matches!(refused(&occupied), PackError::Occupied { .. }));
    assert!(!key_file(&occupied).exists());
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let error = try_pack(&empty, &folder.path().join("out"), &options()).unwrap_err();
    assert!(matches!(error, PackError::Nothing { .. }) && error.is_input(), "{error}");
    fs::write(source.join("covid/v.nii"), "x").unwrap();
    let error = refused(&folder.path().join("out"));
    assert!(matches!(error, PackError::Mixed { .. }) && error.to_string().contains("8 for --format folder"), "{error}");
    assert!(!folder.path().join("out").exists());
}
