//! The phantom: the same bytes on any number of threads, exact masks, honest lists.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use data_shards::phantom::{PhantomError, SLICES, Settings, generate};
use data_shards::{Dataset, Geometry, decode};

const SMALL: Settings = Settings { patients: 4, size: 64, seed: 3 };

fn generated(folder: &Path, settings: Settings, threads: usize) -> std::path::PathBuf {
    let out = folder.join(format!("phantom{threads}"));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| generate(&out, settings, &|_, _| {})).unwrap();
    out
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for part in ["", "images", "masks"] {
        for file in fs::read_dir(folder.join(part)).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let [one, three] = [1, 3].map(|threads| files(&generated(folder.path(), SMALL, threads)));
    assert_eq!(one.len(), 3 + 2 * 4 * SLICES);
    assert!(one == three);
    let other = files(&generated(folder.path(), Settings { seed: 4, ..SMALL }, 2));
    assert_ne!(one["images/p0001_s1.png"], other["images/p0001_s1.png"]);
    // Nothing temporary is left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn masks_agree_with_labels_and_lie_in_the_body() {
    let folder = tempfile::tempdir().unwrap();
    let out = generated(folder.path(), Settings { patients: 8, ..SMALL }, 2);
    let labels = fs::read_to_string(out.join("labels.csv")).unwrap();
    let mut lines = labels.lines();
    assert_eq!(lines.next(), Some("file,label,patient_id"));
    let mut positive = 0;
    for line in lines {
        let [file, label, _]: [&str; 3] = line.split(',').collect::<Vec<_>>().try_into().unwrap();
        let mask = decode::mask(&out.join(file.replace("images", "masks"))).unwrap();
        assert_eq!(mask.data.contains(&1), label == "1", "{line}");
        positive += usize::from(label == "1");
        // The body fills the ellipse; the outermost band of the image is air.
        let inside = |at: usize| {
            let [x, y] = [at % 64, at / 64].map(|part| (part as f64 - 31.5) / 32.0);
            (x / 0.9).hypot(y / 0.75) < 1.0
        };
        assert!(mask.data.iter().enumerate().all(|(at, &value)| value == 0 || inside(at)), "{line}");
    }
    assert_eq!(positive, 4 * SLICES);
}

#[test]
fn lists_are_split_by_patient_with_both_classes_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let out = generated(folder.path(), SMALL, 2);
    let labels = fs::read_to_string(out.join("labels.csv")).unwrap();
    let geometry = Geometry::imagenet(32, 32);
    let sides = ["train.txt", "eval.txt"].map(|list| {
        let dataset = Dataset::open(&crate::of(&out.join(list)), geometry).unwrap();
        dataset.check_masks().unwrap();
        let text = fs::read_to_string(out.join(list)).unwrap();
        let of = |line: &str| labels.lines().find(|label| line.starts_with(label.split(',').next().unwrap())).unwrap();
        text.lines()
            .map(|line| of(line).split_once(',').unwrap().1.to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    });
    assert!(sides[0].is_disjoint(&sides[1]));
    for side in &sides {
        assert!(
            side.iter().any(|patient| patient.starts_with('0')) && side.iter().any(|patient| patient.starts_with('1'))
        );
    }
}

#[test]
fn what_is_there_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("taken");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("thesis.txt"), "precious").unwrap();
    assert!(matches!(generate(&out, SMALL, &|_, _| {}), Err(PhantomError::Occupied { .. })));
    let file = out.join("thesis.txt");
    assert!(matches!(generate(&file, SMALL, &|_, _| {}), Err(PhantomError::Occupied { .. })));
    assert_eq!(fs::read_to_string(file).unwrap(), "precious");
    assert!(matches!(generate(Path::new("/"), SMALL, &|_, _| {}), Err(PhantomError::NoName { .. })));
}

#[test]
fn the_command() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/phantom");
    let run = |size: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_data-shards"));
        command.arg("phantom").arg(&out).args(["--patients", "2", "--size", size]).output().unwrap()
    };
    assert_eq!(run("7").status.code(), Some(2));
    let done = run("48");
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("4 slices of 1 patients in train.txt"));
    let again = run("48");
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists and is not empty"));
}
