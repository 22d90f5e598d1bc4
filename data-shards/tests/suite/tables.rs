//! Tables of samples: labels, patients, folds, and the classifier's way to its input.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use data_shards::augment::{Augment, mixing_share};
use data_shards::{Dataset, Error, Fit, Fold, Geometry, Part, Source};

/// Ten patients with two 20 x 10 images each, every third patient positive.
fn cohort(folder: &Path) -> Source {
    let mut text = "File,patient,label,note\r\n".to_owned();
    for patient in 0..10u8 {
        for slice in 0..2u8 {
            let name = format!("p{patient}_{slice}.png");
            crate::png(&folder.join(&name), 20, 10, &[patient * 20 + slice; 200]);
            text += &format!("{name},P{patient},{},\"a, b\"\r\n", u8::from(patient % 3 == 0));
        }
    }
    let table = folder.join("all.csv");
    fs::write(&table, text).unwrap();
    crate::of(&table)
}

#[test]
fn a_table_gives_labels_and_patients() {
    let folder = tempfile::tempdir().unwrap();
    let mut dataset = Dataset::open(&cohort(folder.path()), crate::plain(32, 32)).unwrap();
    assert_eq!((dataset.len(), dataset.patients().len()), (20, 10));
    assert_eq!((dataset.label_of(0), dataset.label_of(2), dataset.patient_of(19)), (Some(true), Some(false), Some(9)));
    dataset.require_labels().unwrap();
    let error = dataset.require_masks().unwrap_err().to_string();
    assert!(error.contains("all.csv:2: ") && error.contains("has no mask, and 20 of 20 samples"), "{error}");
    let sample = dataset.load(0, 0, 0, &Augment::NONE).unwrap();
    assert_eq!((sample.has_mask, sample.label, sample.mask.len()), (false, Some(true), 32 * 32));
}

#[test]
fn a_table_beside_a_list_adds_labels_and_patients() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 2);
    fs::write(folder.path().join("labels.csv"), "file,label,patient_id\ni1.png,1,X\nother.png,0,Y\n").unwrap();
    let mut dataset = Dataset::open(&crate::of(&list), crate::plain(32, 32)).unwrap();
    assert_eq!([dataset.label_of(0), dataset.label_of(1)], [None, Some(true)]);
    assert_eq!(dataset.patients(), ["X"]);
    assert!(matches!(dataset.require_labels(), Err(Error::Lacking { line: 1, count: 1, total: 2, .. })));
    // One of another kind says nothing; a wrong one, and a named one of other images, are errors.
    let beside = |text: &str| {
        fs::write(folder.path().join("labels.csv"), text).unwrap();
        Dataset::open(&crate::of(&list), crate::plain(32, 32))
    };
    assert!(beside("slice,finding\n1,2\n").unwrap().patients().is_empty());
    assert!(matches!(beside("file,label\ni1.png,COVID\n"), Err(Error::Table { line: 2, .. })));
    let source = Source { labels: Some(folder.path().join("labels.csv")), ..crate::of(&list) };
    beside("file,label\nelsewhere/i1.png,1\n").unwrap();
    let named = Dataset::open(&source, crate::plain(32, 32));
    assert!(matches!(named, Err(Error::OtherLabels { .. })), "{named:?}");
}

#[test]
fn labels_count_in_the_fingerprint_where_they_are_required() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 2);
    let fingerprints = [("0", "1"), ("1", "0")].map(|(first, second)| {
        fs::write(folder.path().join("labels.csv"), format!("file,label\ni0.png,{first}\ni1.png,{second}\n")).unwrap();
        let mut dataset = Dataset::open(&crate::of(&list), crate::plain(32, 32)).unwrap();
        let before = dataset.fingerprint();
        dataset.require_labels().unwrap();
        (before, dataset.fingerprint())
    });
    assert_eq!(fingerprints[0].0, fingerprints[1].0);
    assert_ne!(fingerprints[0].1, fingerprints[1].1);
}

#[test]
fn folds_divide_the_patients() {
    let folder = tempfile::tempdir().unwrap();
    let mut source = cohort(folder.path());
    let mut patients = |number: usize, held_out: bool| {
        source.part = Some(Part { fold: Fold { number, of: 3 }, held_out });
        let dataset = Dataset::open(&source, crate::plain(32, 32)).unwrap();
        assert_eq!(dataset.len(), 2 * dataset.patients().len(), "a patient was divided");
        dataset.patients().iter().cloned().collect::<BTreeSet<_>>()
    };
    let mut seen = BTreeSet::new();
    for number in 1..=3 {
        let (out, kept) = (patients(number, true), patients(number, false));
        assert!(out.is_disjoint(&kept) && out.len() + kept.len() == 10, "{out:?}");
        assert!(seen.is_disjoint(&out));
        seen.extend(out);
    }
    assert_eq!(seen.len(), 10);
    source.part = Some(Part { fold: Fold { number: 1, of: 1000 }, held_out: true });
    assert!(matches!(Dataset::open(&source, crate::plain(32, 32)), Err(Error::Fold { number: 1, of: 1000, .. })));
}

#[test]
fn wrong_tables_are_refused_with_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let error = |text: &str| {
        let table = folder.path().join("t.csv");
        fs::write(&table, text).unwrap();
        Dataset::open(&crate::of(&table), crate::plain(32, 32)).unwrap_err().to_string()
    };
    assert!(error("a,b\n1,2\n").contains("t.csv:1: no column `file`"));
    assert!(error("file,label\nx.png,1\ny.png,2\n").contains("t.csv:3: label `2`"));
    assert!(error("file,label\nx.png,1\ny.png,1,7\n").contains("t.csv:3: "));
    assert!(error("file,label\n\nx.png,1\r\n\r\n\ny.png,2\n").contains("t.csv:6: label `2`"));
    assert!(error("file,label\n\"x\ny.png\",1\n\nz.png,2\n").contains("t.csv:5: label `2`"));
    assert!(error("file,label\n,1\n").contains("t.csv:2: no file is named"));
    assert!(error("file,label\n").contains("the list is empty"));
    assert!(error("file,label\ngone.png,1\n").contains("gone.png"));
}

#[test]
fn the_classifier_sees_the_middle_of_the_image() {
    let folder = tempfile::tempdir().unwrap();
    // 320 x 160, resized to 128 x 64 and cut to 56 x 56: columns 36 to 91 of the small image.
    let pixels: Vec<u8> = (0..320 * 160).map(|at| ((at % 320) * 255 / 319) as u8).collect();
    crate::png(&folder.path().join("ramp.png"), 320, 160, &pixels);
    fs::write(folder.path().join("t.csv"), "file,label\nramp.png,0\n").unwrap();
    let geometry = Geometry { fit: Fit::CentreCrop, ..crate::plain(56, 56) };
    let dataset = Dataset::open(&crate::of(&folder.path().join("t.csv")), geometry).unwrap();
    let sample = dataset.load(0, 0, 0, &Augment::NONE).unwrap();
    let expected = |column: usize| (36 + column) as f32 / 127.0;
    for column in [0, 28, 55] {
        let value = crate::floats(&sample)[column];
        assert!((value - expected(column)).abs() < 0.01, "{column}: {value}");
    }
    let anywhere = Augment { crop: 0.1, crop_probability: 1.0, ..Augment::NONE };
    let firsts: Vec<f32> =
        (0..20).map(|epoch| crate::floats(&dataset.load(0, epoch, 0, &anywhere).unwrap())[0]).collect();
    assert!(firsts.iter().any(|first| *first < 0.1) && firsts.iter().any(|first| *first > 0.4), "{firsts:?}");
}

#[test]
fn mixing_shares_are_those_of_the_beta_distribution() {
    // Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1)).
    for alpha in [0.2, 1.0, 2.0] {
        let shares: Vec<f64> = (0..4000).map(|step| mixing_share(alpha, 3, step, 1)).collect();
        let mean = shares.iter().sum::<f64>() / 4000.0;
        let variance = shares.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 4000.0;
        assert!((mean - 0.5).abs() < 0.03, "{alpha}: {mean}");
        assert!((variance - 0.25 / (2.0 * alpha + 1.0)).abs() < 0.01, "{alpha}: {variance}");
    }
    assert_eq!(mixing_share(0.2, 3, 7, 1), mixing_share(0.2, 3, 7, 1));
}
