//! Shards that are as they should be: what is written is read, and the bytes are the same each time.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use data_shards::shard::{
    Collection, Error, Feature, Finished, Head, Index, Kind, Kinds, LocalShards, Named, Record, ShardWriter, Shards,
    check_key, write_collection, write_index,
};
use sha2::{Digest, Sha256};

use crate::shard_sets::{collection, featured, images, png, record, set, shards};

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let records: Vec<Record> = (0..13).map(|at| if at % 3 == 0 { featured(at) } else { record(at) }).collect();
    let index = set(folder.path(), Some("train"), &records, 5);
    assert_eq!((index.len(), index.shards().len(), index.split()), (13, 3, Some("train")));
    assert_eq!(
        files(folder.path()),
        ["index.json", "samples.csv", "train-000000.tar", "train-000001.tar", "train-000002.tar"]
    );
    for (at, record) in records.iter().enumerate() {
        let row = index.row(at).unwrap();
        assert_eq!((&row.key, row.label, &row.patient), (&record.key, record.label, &record.patient));
        assert_eq!(index.shard_of(at), Some(at / 5));
        let members = LocalShards.open(&index, at / 5).unwrap().read(&index, at, Kinds::ALL).unwrap();
        assert_eq!(members.get(Kind::Image), record.image.as_deref());
        assert_eq!(members.get(Kind::Mask), record.mask.as_deref());
        let feature = |kind| record.features.iter().find(|(f, _)| *f == kind).map(|(_, bytes)| &bytes[..]);
        assert_eq!(members.get(Kind::Vgg), feature(Feature::Vgg));
        assert_eq!(members.get(Kind::Res2Net), feature(Feature::Res2Net));
        let facts: serde_json::Value = serde_json::from_slice(members.get(Kind::Facts).unwrap()).unwrap();
        assert_eq!(facts["slice"], at);
        assert_eq!(facts["label"], record.label.map_or(serde_json::Value::Null, |label| u8::from(label).into()));
    }
    assert_eq!((index.row(13), index.key(13), index.shard_of(13), index.label(13)), (None, None, None, None));
    let only = LocalShards.open(&index, 0).unwrap().read(&index, 1, Kinds::NONE.with(Kind::Image)).unwrap();
    assert!(only.get(Kind::Image).is_some() && only.get(Kind::Mask).is_none() && only.get(Kind::Facts).is_none());
    let reader = LocalShards.open(&index, 0).unwrap();
    assert!(matches!(reader.read(&index, 5, Kinds::ALL), Err(Error::NoSample { sample: 5, first: 0, len: 5, .. })));
}

/// A change here is a change of the format: readers elsewhere, and fingerprints of runs, depend on it.
#[test]
fn the_bytes_never_change() {
    let folder = tempfile::tempdir().unwrap();
    let fixed = Record {
        key: "a-1".into(),
        image: Some(b"\x89PNG\r\n\x1a\nno image".to_vec()),
        label: Some(true),
        patient: Some("x,\"y\"".into()),
        ..Record::default()
    };
    set(folder.path(), None, &[fixed], 5);
    let tar = fs::read(folder.path().join("data-000000.tar")).unwrap();
    // By tests/suite/golden.py, which writes the tar of its own.
    let sum: String = Sha256::digest(&tar).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((tar.len(), sum.as_str()), (3072, "a7e692bebf99f54d42c3ebcd580da148eacaae45ac0f75077725e6ecb48b63e4"));
    let samples = fs::read_to_string(folder.path().join("samples.csv")).unwrap();
    let (header, row) = samples.trim_end().split_once('\n').unwrap();
    let members = "png_offset,png_size,png_crc32,mask_offset,mask_size,mask_crc32,json_offset,json_size,json_crc32,\
        vgg_offset,vgg_size,vgg_crc32,res2net_offset,res2net_size,res2net_crc32";
    assert_eq!(header, format!("key,shard,label,patient,{members}"));
    assert_eq!(row, r#"a-1,0,1,"x,""y""",512,16,ccf6c3eb,,,,1536,31,519f3fcd,,,,,,"#);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("index.json")).unwrap()).unwrap();
    let samples_sum = "92b1920b624604d6f1a491ad45e5b6f8cec6c72c29c089b921e9e5062810f59b";
    let expected = serde_json::json!({
        "format": "jcs-shards",
        "version": 1,
        "split": null,
        "samples": 1,
        "patients": 1,
        "samples_file": {"name": "samples.csv", "bytes": 252, "sha256": samples_sum},
        "shards": [{"name": "data-000000.tar", "bytes": 3072, "sha256": sum, "samples": 1}],
    });
    assert_eq!(index, expected);
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let bytes = [(); 2].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        images(folder.path(), 13);
        files(folder.path()).iter().map(|name| fs::read(folder.path().join(name)).unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn the_tar_crate_and_the_listing_agree() {
    let folder = tempfile::tempdir().unwrap();
    let index = images(folder.path(), 7);
    for (number, shard) in index.shards().iter().enumerate() {
        let bytes = fs::read(folder.path().join(&shard.name)).unwrap();
        assert_eq!(bytes.len() as u64, shard.bytes);
        let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sum, shard.sha256);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entries = archive.entries().unwrap();
        for sample in index.samples_of(number) {
            for member in index.members(sample) {
                let mut entry = entries.next().unwrap().unwrap();
                assert_eq!(entry.path().unwrap().to_str().unwrap(), member.kind.name(index.key(sample).unwrap()));
                assert_eq!((entry.raw_file_position(), entry.size()), (member.offset, member.size));
                assert_eq!((entry.header().mtime().unwrap(), entry.header().mode().unwrap()), (0, 0o644));
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                assert_eq!(crc32fast::hash(&content), member.crc32);
            }
        }
        assert!(entries.next().is_none());
    }
}

#[test]
fn records_that_no_shard_may_hold() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(folder.path(), "data-000000.tar").unwrap();
    writer.add(&record(0)).unwrap();
    let before = writer.bytes();
    let npy = featured(1).features.remove(0);
    let facts = |name: &str| serde_json::Map::from_iter([(name.to_owned(), 1.into())]);
    for (bad, expected) in [
        (record(0), "`s000` cannot be written: the key is already in data-000000.tar"),
        (Record { key: "a.b".into(), ..record(1) }, "`a.b` cannot be written: no key"),
        (Record { key: "a/b".into(), ..record(1) }, "no key"),
        (Record { key: String::new(), ..record(1) }, "no key"),
        (Record { key: "é".into(), ..record(1) }, "no key"),
        (Record { key: "k".repeat(81), ..record(1) }, "no key"),
        (Record { image: None, ..record(1) }, "neither an image nor features"),
        (Record { image: Some(b"GIF89a".to_vec()), ..record(1) }, "s001.png does not begin as a .png does"),
        (Record { mask: Some(Vec::new()), ..record(1) }, "s001.mask.png does not begin"),
        (Record { features: vec![(Feature::Vgg, png(|_| 0))], ..record(1) }, "s001.vgg.npy does not begin"),
        (Record { features: vec![npy.clone(), npy], ..record(1) }, "the same feature twice"),
        (Record { patient: Some(String::new()), ..record(1) }, "a patient id must have"),
        (Record { patient: Some("a\nb".into()), ..record(1) }, "a patient id must have"),
        (Record { facts: facts("label"), ..record(1) }, "`label` among its facts"),
        (Record { facts: facts("patient"), ..record(1) }, "`patient` among its facts"),
    ] {
        let error = writer.add(&bad).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(writer.bytes(), before, "a refused record left bytes");
    }
    writer.add(&Record { key: "Az09_-".repeat(13), ..record(1) }).unwrap();
    assert_eq!(writer.finish().unwrap().rows.len(), 2);
    check_key(&"k".repeat(80)).unwrap();
}

#[test]
fn a_writer_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ShardWriter::create(folder.path(), "data-000000.tar").unwrap();
    writer.add(&record(0)).unwrap();
    assert_eq!(files(folder.path()), [".data-000000.tar.partial"]);
    drop(writer);
    assert!(files(folder.path()).is_empty());
    for name in ["", "a", "../a.tar", "a/b.tar", ".tar", "a.b.tar", ".a.tar"] {
        assert!(matches!(ShardWriter::create(folder.path(), name), Err(Error::Name { what: "shard", .. })), "{name}");
    }
    let nowhere = ShardWriter::create(&folder.path().join("none"), "a.tar").err().unwrap().to_string();
    assert!(nowhere.starts_with("cannot write ") && nowhere.contains("a.tar"), "{nowhere}");
}

#[test]
fn a_finished_shard_is_there_with_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let finished = shards(folder.path(), None, &[record(0), featured(1)], 5).remove(0);
    assert!(finished.is_in(folder.path()));
    fs::write(folder.path().join(&finished.name), "short").unwrap();
    assert!(!finished.is_in(folder.path()));
}

#[test]
fn an_index_is_written_last_and_only_for_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    images(dir, 7);
    let finished = || shards(dir, None, &[record(0), record(1)], 1);
    let refused = |shards: Vec<Finished>| write_index(dir, None, shards).unwrap_err();
    let mut twice = finished();
    twice[1].rows[0].key = "s000".into();
    assert!(matches!(refused(twice), Error::Twice { what: "key", name, .. } if name == "s000"));
    let mut twice = finished();
    twice[1].name = twice[0].name.clone();
    assert!(matches!(refused(twice), Error::Twice { what: "shard", .. }));
    assert!(matches!(refused(Vec::new()), Error::NoSamples { .. }));
    assert!(matches!(write_index(dir, Some("a/b"), finished()), Err(Error::Name { what: "split", .. })));
    let mut long = finished();
    long[0].bytes += 1;
    assert!(matches!(refused(long), Error::Missing { .. }));
    assert_eq!(Index::open(dir).unwrap().len(), 7, "a refused index replaced the one that was there");
    // Something that cannot be replaced by a file: the old index must be gone by then.
    let shards = finished();
    fs::remove_file(dir.join("samples.csv")).unwrap();
    fs::create_dir_all(dir.join("samples.csv/full")).unwrap();
    assert!(matches!(refused(shards), Error::Write { .. }));
    assert!(!dir.join("index.json").exists() && !dir.join(".samples.csv.partial").exists());
}

#[test]
fn collections_name_their_splits() {
    let folder = tempfile::tempdir().unwrap();
    let train = collection(folder.path());
    let named = |split: &str, dir| Named { split: Some(split.to_owned()), dir };
    let opened = Collection::open(folder.path()).unwrap();
    assert_eq!(opened.sets, [named("train", train.clone()), named("val", folder.path().join("val"))]);
    assert_eq!(Collection::open(&train).unwrap().sets, [named("train", train.clone())]);
    assert_eq!(Collection::find(folder.path(), &["train"]).unwrap(), train);
    assert_eq!(Collection::find(&train, &["val"]).unwrap(), train);
    let error = Collection::find(folder.path(), &["test"]).unwrap_err().to_string();
    assert!(error.contains("a collection of the splits train, val: name the one that is meant, as in"), "{error}");
    assert!(matches!(Index::open(folder.path()), Err(Error::Splits { .. })));
    assert!(matches!(write_collection(folder.path(), &["train", "none"]), Err(Error::Missing { .. })));
    assert!(matches!(write_collection(folder.path(), &["train", "train"]), Err(Error::Twice { what: "split", .. })));
    assert!(matches!(write_collection(folder.path(), &[".."]), Err(Error::Name { what: "split", .. })));
    assert!(matches!(write_collection::<&str>(folder.path(), &[]), Err(Error::NoSamples { .. })));
    let text = fs::read(folder.path().join("index.json")).unwrap();
    assert_eq!(Head::parse(Path::new("x"), &text).unwrap(), Head::Collection(vec!["train".into(), "val".into()]));
}

/// The whole of COVID-CS, by its index, in a process that may not map 200 MB. How fast: `cargo run --example index_open`.
#[test]
fn an_index_of_144167_samples_opens_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    crate::shard_large::write(folder.path(), 144_167);
    let index = Index::open(folder.path()).unwrap();
    assert_eq!((index.len(), index.patients().len(), index.shards().len()), (144_167, 751, 71));
    for sample in [0, 2047, 2048, 144_166] {
        assert_eq!(index.row(sample).unwrap(), crate::shard_large::row(sample as u64));
        assert_eq!(index.shard_of(sample), Some(sample / 2048));
    }
    let info = "ulimit -v 195312 && exec \"$0\" info \"$1\"";
    let output = Command::new("sh").args(["-c", info, env!("CARGO_BIN_EXE_data-shards")]).arg(folder.path()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("144167 in 71 shards"));
}
