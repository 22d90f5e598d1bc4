//! Shards and indexes that are not as they should be: each its own error, named to the byte, and no panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_shards::shard::{
    Error, Head, Index, Kinds, Listing, LocalShards, Member, Record, Report, ShardReader, Shards, shard_name, unlisted,
    verify, write_index,
};
use sha2::{Digest, Sha256};

use crate::shard_sets::{collection, images, png, record, set, shards};

fn check(index: &Index) -> Report {
    verify(index, &LocalShards, &|_, _| ())
}

fn texts(report: &Report) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Changes a file in place.
fn alter(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Replaces the table of samples, and makes the index list the new one.
fn rewrite_samples(dir: &Path, change: impl Fn(String) -> String) {
    let samples = change(fs::read_to_string(dir.join("samples.csv")).unwrap());
    fs::write(dir.join("samples.csv"), &samples).unwrap();
    rewrite_index(dir, |index| {
        index["samples_file"]["bytes"] = samples.len().into();
        index["samples_file"]["sha256"] = sum(samples.as_bytes()).into();
    });
}

fn rewrite_index(dir: &Path, change: impl Fn(&mut serde_json::Value)) {
    let mut index = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    change(&mut index);
    fs::write(dir.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

fn open_error(dir: &Path) -> Error {
    Index::open(dir).unwrap_err()
}

#[test]
fn a_flipped_byte_is_named_before_it_is_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let index = images(folder.path(), 12);
    assert!(check(&index).is_sound() && unlisted(&index).unwrap().is_empty());
    let path = folder.path().join("data-000001.tar");
    let sound = fs::read(&path).unwrap();
    for sample in index.samples_of(1) {
        let key = index.key(sample).unwrap();
        for Member { kind, offset, size, crc32 } in index.members(sample) {
            for at in [0, size / 2, size - 1] {
                let at = (offset + at) as usize;
                let mut bytes = sound.clone();
                bytes[at] ^= 1 << (at % 8);
                fs::write(&path, &bytes).unwrap();
                let damaged = crc32fast::hash(&bytes[offset as usize..][..size as usize]);
                let text = format!(
                    "{}: sample `{key}`: {} is damaged: its CRC-32 is {damaged:08x}, expected {crc32:08x}: copy the shard again, or pack again",
                    path.display(),
                    kind.name(key)
                );
                let reader = LocalShards.open(&index, 1).unwrap();
                assert_eq!(reader.read(&index, sample, Kinds::ALL).unwrap_err().to_string(), text);
                for other in index.samples_of(1).filter(|other| *other != sample) {
                    reader.read(&index, other, Kinds::ALL).unwrap();
                }
                let report = check(&index);
                let found = texts(&report);
                assert_eq!((found.len(), report.others), (2, 0));
                let whole = format!("its SHA-256 is {}, expected {}", sum(&bytes), sum(&sound));
                assert!(found.iter().any(|found| found.contains(&whole)) && found.contains(&text), "{found:?}");
            }
        }
    }
}

#[test]
fn every_other_byte_of_a_shard_is_verified_too() {
    let folder = tempfile::tempdir().unwrap();
    let index = images(folder.path(), 3);
    let path = folder.path().join("data-000000.tar");
    let len = fs::metadata(&path).unwrap().len() as usize;
    for at in (0..len).step_by(61) {
        alter(&path, |bytes| bytes[at] ^= 0x10);
        assert!(!check(&index).is_sound(), "byte {at}");
        alter(&path, |bytes| bytes[at] ^= 0x10);
    }
    assert!(check(&index).is_sound());
}

#[test]
fn a_shard_cut_short_missing_or_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let index = images(folder.path(), 12);
    let path = folder.path().join("data-000001.tar");
    let sound = fs::read(&path).unwrap();
    for (bytes, expected) in [
        (sound[..sound.len() - 1].to_vec(), "is cut short"),
        (Vec::new(), "is cut short"),
        ([&sound[..], b"x"].concat(), "is too long"),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = ShardReader::open(&index, 1, &path).unwrap_err();
        assert!(
            matches!(error, Error::Length { found, expected, .. } if (found, expected) == (bytes.len() as u64, sound.len() as u64))
        );
        assert!(error.to_string().starts_with(&format!("{} {expected} (it has {} bytes", path.display(), bytes.len())));
        assert_eq!(texts(&check(&index)), [error.to_string()]);
        assert_eq!(LocalShards.check(&index).unwrap_err().to_string(), error.to_string());
    }
    // Cut while it is open.
    fs::write(&path, &sound).unwrap();
    let reader = ShardReader::open(&index, 1, &path).unwrap();
    fs::write(&path, &sound[..600]).unwrap();
    assert!(matches!(reader.read(&index, 9, Kinds::ALL), Err(Error::Read { .. })));
    fs::remove_file(&path).unwrap();
    let error = LocalShards.open(&index, 1).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "{} is missing; {} lists it: copy it again, or pack again",
            path.display(),
            folder.path().join("index.json").display()
        )
    );
    assert_eq!(texts(&check(&index)), [error]);
}

#[test]
fn a_shard_that_the_index_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let index = images(folder.path(), 6);
    shards(folder.path(), Some("other"), &[record(7)], 1);
    let found = unlisted(&index).unwrap();
    let path = folder.path().join("other-000000.tar");
    assert!(matches!(&found[..], [Error::Unlisted { path: found, .. }] if *found == path));
    assert!(found[0].to_string().contains("other-000000.tar is not listed in "));
}

#[test]
fn an_index_of_another_version_or_format() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    images(dir, 3);
    rewrite_index(dir, |index| index["version"] = 2.into());
    let error = open_error(dir);
    assert!(matches!(error, Error::Version { found: 2, .. }));
    let text = error.to_string();
    assert!(
        text.ends_with("version 2 of the format, but this program reads versions up to 1: use a newer data-shards")
    );
    // A newer version may look in any way beside.
    fs::write(dir.join("index.json"), r#"{"format":"jcs-shards","version":7,"shards":"elsewhere"}"#).unwrap();
    assert!(matches!(open_error(dir), Error::Version { found: 7, .. }));
    for (text, found) in [("{}", "absent"), (r#"{"format":"other"}"#, "\"other\""), ("[]", "absent"), ("3", "absent")] {
        fs::write(dir.join("index.json"), text).unwrap();
        assert!(matches!(open_error(dir), Error::Format { found: f, .. } if f == found), "{text}");
    }
    for version in ["0", "-1", "\"1\"", "1.5", "null"] {
        fs::write(dir.join("index.json"), format!(r#"{{"format":"jcs-shards","version":{version}}}"#)).unwrap();
        assert!(matches!(open_error(dir), Error::Damaged { .. }), "{version}");
    }
    fs::write(dir.join("index.json"), "{").unwrap();
    assert!(matches!(open_error(dir), Error::Damaged { .. }));
    fs::remove_file(dir.join("index.json")).unwrap();
    let error = open_error(dir);
    assert!(matches!(error, Error::NoIndex { .. }) && error.to_string().contains("has no index.json: make a data set"));
}

#[test]
fn an_index_with_names_and_numbers_that_none_may_have() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    images(dir, 7);
    let sound = fs::read(dir.join("index.json")).unwrap();
    let error = |change: &dyn Fn(&mut serde_json::Value)| {
        fs::write(dir.join("index.json"), &sound).unwrap();
        rewrite_index(dir, change);
        open_error(dir)
    };
    for name in ["../data-000000.tar", "/etc/passwd", "", ".tar", "a\u{0}.tar", "..", "data-000000.tar/"] {
        assert!(matches!(error(&|index| index["shards"][0]["name"] = name.into()), Error::Name { what: "shard", .. }));
        assert!(matches!(error(&|index| index["split"] = name.into()), Error::Name { what: "split", .. }));
        assert!(matches!(error(&|index| index["samples_file"]["name"] = name.into()), Error::Damaged { .. }));
    }
    assert!(matches!(
        error(&|index| index["shards"][0]["name"] = "data-000001.tar".into()),
        Error::Twice { what: "shard", .. }
    ));
    for (sha, count) in [("0", 5), ("G", 5), ("", 6), ("", -1), ("", i64::MAX)] {
        let changed = error(&|index| {
            if !sha.is_empty() {
                index["shards"][0]["sha256"] = sha.repeat(if sha == "G" { 64 } else { 63 }).into();
            }
            index["shards"][0]["samples"] = count.into();
        });
        assert!(matches!(changed, Error::Damaged { .. }), "{changed}");
    }
    assert!(matches!(error(&|index| index["shards"][1]["samples"] = u64::MAX.into()), Error::Damaged { .. }));
    assert!(matches!(
        error(&|index| (index["shards"], index["samples"]) = (serde_json::json!([]), 0.into())),
        Error::NoSamples { .. }
    ));
    let splits = |splits: serde_json::Value| error(&|index| index["splits"] = splits.clone());
    assert!(matches!(splits(serde_json::json!([])), Error::NoSamples { .. }));
    assert!(matches!(splits(serde_json::json!(["a", ".."])), Error::Name { what: "split", .. }));
    assert!(matches!(splits(serde_json::json!(["a", "a"])), Error::Twice { what: "split", .. }));
    assert!(matches!(splits(serde_json::json!(3)), Error::Damaged { .. }));
}

#[test]
fn samples_that_are_not_those_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let index = images(dir, 12);
    let other = tempfile::tempdir().unwrap();
    set(other.path(), None, &(1..13).map(record).collect::<Vec<_>>(), 5);
    let samples = fs::read(dir.join("samples.csv")).unwrap();
    let mismatch = |expected: &str| {
        let error = open_error(dir);
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        assert!(
            error.to_string().contains("samples.csv does not match the index.json beside it")
                && error.to_string().contains(expected),
            "{error}"
        );
    };
    fs::copy(other.path().join("samples.csv"), dir.join("samples.csv")).unwrap();
    mismatch("");
    alter(&dir.join("samples.csv"), |bytes| bytes.truncate(700));
    mismatch("it has 700 bytes, listed are");
    fs::write(dir.join("samples.csv"), &samples).unwrap();
    alter(&dir.join("samples.csv"), |bytes| bytes[400] ^= 1);
    mismatch("its SHA-256 is ");
    // With the right checksum, but other samples than the shards are listed with.
    let of = |change: &dyn Fn(String) -> String| {
        fs::write(dir.join("samples.csv"), &samples).unwrap();
        rewrite_samples(dir, change);
    };
    of(&|text| text.lines().take(12).map(|line| format!("{line}\n")).collect());
    mismatch("it has 11 samples, listed are 12");
    of(&|text| format!("{text}{}\n", text.lines().last().unwrap()));
    mismatch("line 14 is beyond the 12 samples listed");
    of(&|text| text.replacen("\ns005,1,", "\ns005,0,", 1));
    mismatch("line 7 is of shard 0, listed is shard 1");
    of(&|text| text.replacen("s000,0,1,\"p0, \"\"0\"\"\"", "s000,0,1,else", 1));
    mismatch("patients, listed are");
    fs::write(dir.join("samples.csv"), &samples).unwrap();
    rewrite_samples(dir, |text| text);
    assert_eq!(Index::open(dir).unwrap().row(11), index.row(11));
    fs::remove_file(dir.join("samples.csv")).unwrap();
    assert!(matches!(open_error(dir), Error::Read { path, .. } if path.ends_with("samples.csv")));
}

/// The cells of the first sample: key, shard, label, patient, then offset, size and checksum of png, mask and json.
#[test]
fn rows_that_make_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let index = images(dir, 12);
    let samples = fs::read_to_string(dir.join("samples.csv")).unwrap();
    let bytes = index.shards()[0].bytes;
    let with = |column: usize, cell: &str| {
        fs::write(dir.join("samples.csv"), &samples).unwrap();
        rewrite_samples(dir, |text| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            // The third sample's patient has no comma of its own before this column: take the cells by the csv crate.
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(lines[3].as_bytes());
            let mut cells: Vec<String> = reader.records().next().unwrap().unwrap().iter().map(str::to_owned).collect();
            cells[column] = cell.to_owned();
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(&cells).unwrap();
            lines[3] = String::from_utf8(writer.into_inner().unwrap()).unwrap().trim_end().to_owned();
            lines.join("\n") + "\n"
        });
        open_error(dir)
    };
    for (column, cell) in [
        (0, "a.b"),
        (0, ""),
        (1, ""),
        (1, "-0"),
        (1, "+0"),
        (1, "99999999999999999999"),
        (2, "2"),
        (2, "true"),
        (4, ""),
        (4, "-512"),
        (4, "5e3"),
        (5, "18446744073709551616"),
        (6, ""),
        (6, "+1234567"),
        (6, "123456789"),
        (6, "1234567g"),
    ] {
        let error = with(column, cell);
        assert!(matches!(error, Error::Row { line: 4, .. }), "{column} {cell}: {error}");
        assert!(error.to_string().contains("samples.csv:4: "), "{error}");
    }
    let max = u64::MAX.to_string();
    for (column, cell) in [
        (4, "0"),
        (4, "513"),
        (4, max.as_str()),
        (4, "18446744073709551104"),
        (4, &bytes.next_multiple_of(512).to_string()),
        (5, max.as_str()),
        (5, "4294967296"),
        (5, &bytes.to_string()),
    ] {
        let error = with(column, cell);
        assert!(
            matches!(&error, Error::Place { line: 4, member, .. } if member == "s002.png"),
            "{column} {cell}: {error}"
        );
        assert!(error.to_string().contains("data-000000.tar has "), "{error}");
    }
    fs::write(dir.join("samples.csv"), &samples).unwrap();
    for (from, to) in [("key,", "keys,"), ("s002,", "s002,0,"), ("s002,", "s\u{e9}")] {
        rewrite_samples(dir, |text| text.replacen(from, to, 1));
        assert!(matches!(open_error(dir), Error::Row { .. }), "{to}");
        fs::write(dir.join("samples.csv"), &samples).unwrap();
    }
    rewrite_samples(dir, |_| String::new());
    assert!(matches!(open_error(dir), Error::Row { line: 1, .. }));
}

/// A listing may claim sizes that no shard has: nothing is reserved by them.
#[test]
fn members_larger_than_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    images(dir, 3);
    rewrite_index(dir, |index| index["shards"][0]["bytes"] = u64::MAX.into());
    let size = |text: &str, size: &str| {
        let line = text.lines().nth(2).unwrap();
        let (mut cells, place) = (line.split(',').map(str::to_owned).collect::<Vec<_>>(), line.split(',').count() - 14);
        cells[place] = size.to_owned();
        text.replacen(line, &cells.join(","), 1)
    };
    rewrite_samples(dir, |text| size(&text, &(1u64 << 30).to_string()));
    let index = Index::open(dir).unwrap();
    assert_eq!(index.members(1).next().unwrap().size, 1 << 30);
    assert!(matches!(ShardReader::open(&index, 0, &dir.join("data-000000.tar")), Err(Error::Length { .. })));
    rewrite_samples(dir, |text| size(&text, &((1u64 << 30) + 1).to_string()));
    assert!(matches!(open_error(dir), Error::Place { size: 1_073_741_825, .. }));
}

#[test]
fn no_byte_changed_anywhere_in_an_index_is_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path(), 6);
    let head = fs::read(folder.path().join("index.json")).unwrap();
    let samples = fs::read(folder.path().join("samples.csv")).unwrap();
    let listing = |bytes: &[u8]| match Head::parse(Path::new("index.json"), bytes) {
        Ok(Head::DataSet(listing)) => Some(listing),
        _ => None,
    };
    for at in 0..head.len() {
        for byte in [0, b'0', b'9', b'"', head[at] ^ 1, 0xff] {
            let mut changed = head.clone();
            changed[at] = byte;
            if let Some(listing) = listing(&changed) {
                let _ = Index::parse(folder.path(), listing, &samples);
            }
        }
    }
    let sound = listing(&head).unwrap();
    for at in 0..samples.len() {
        for byte in [0, b'0', b'9', b',', b'"', b'\n', samples[at] ^ 1, 0xff] {
            let mut changed = samples.clone();
            changed[at] = byte;
            let mut listing: Listing = sound.clone();
            listing.samples_file.sha256 = sum(&changed);
            if let Ok(index) = Index::parse(folder.path(), listing, &changed) {
                (0..index.len()).for_each(|sample| drop(index.row(sample).unwrap()));
                let _ = check(&index);
            }
        }
    }
}

/// What a writer of its own might do: whole bytes with wrong meaning.
#[test]
fn samples_that_are_whole_but_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let large = image::GrayImage::new(9, 6);
    let mut file = std::io::Cursor::new(Vec::new());
    large.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let mut cut = png(|place| place);
    cut.truncate(50);
    let records = [
        record(0),
        Record { image: Some(file.into_inner()), ..record(1) },
        Record { mask: Some(png(|place| u8::from(place == 3))), ..record(2) },
        Record { image: Some(cut), ..record(3) },
        Record { features: vec![(data_shards::shard::Feature::Vgg, b"\x93NUMPY!".to_vec())], ..record(4) },
    ];
    let mut finished = shards(dir, None, &records, 3);
    // A label that is not that of KEY.json.
    finished[0].rows[0].label = Some(false);
    write_index(dir, None, finished).unwrap();
    let report = check(&Index::open(dir).unwrap());
    let found = texts(&report);
    let tar = |number: usize| dir.join(shard_name(None, number)).display().to_string();
    assert_eq!(found[0], format!("{}: sample `s000`: `label` of its json is not that of the index", tar(0)));
    assert_eq!(found[1], format!("{}: sample `s001`: its mask is 8x6, its image 9x6", tar(0)));
    assert_eq!(found[2], format!("{}: sample `s002`: its mask holds 1; expected 0 and 255", tar(0)));
    assert!(found[3].starts_with(&format!("{}/s003.png: cannot decode", tar(1))), "{found:?}");
    assert!(found[4].starts_with(&format!("{}/s004.vgg.npy: no .npy file", tar(1))), "{found:?}");
    assert_eq!(found.len(), 5);
}

#[test]
fn a_tar_whose_members_are_not_those_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let layout = |change: &dyn Fn(&mut Vec<u8>)| {
        fs::write(dir.join("index.json"), "").unwrap();
        let mut finished = shards(dir, None, &[record(0), record(1)], 5);
        let path = dir.join(&finished[0].name);
        alter(&path, change);
        let bytes = fs::read(&path).unwrap();
        (finished[0].bytes, finished[0].sha256) = (bytes.len() as u64, sum(&bytes));
        write_index(dir, None, finished).unwrap();
        texts(&check(&Index::open(dir).unwrap()))
    };
    assert!(layout(&|_| ()).is_empty());
    let header = |bytes: &mut Vec<u8>, change: &dyn Fn(&mut tar::Header)| {
        let mut header = tar::Header::from_byte_slice(bytes[..512].try_into().unwrap()).clone();
        change(&mut header);
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
    };
    let found = layout(&|bytes| header(bytes, &|header| header.set_path("other.png").unwrap()));
    assert!(matches!(&found[..], [one] if one.contains("other.png is where s000.png should be")), "{found:?}");
    let found = layout(&|bytes| header(bytes, &|header| header.set_size(3)));
    assert!(matches!(&found[..], [one] if one.contains("s000.png has 3 bytes by its header")), "{found:?}");
    let found = layout(&|bytes| header(bytes, &|header| header.set_entry_type(tar::EntryType::Symlink)));
    assert!(matches!(&found[..], [one] if one.contains("is where s000.png should be")), "{found:?}");
    let found = layout(&|bytes| bytes[300] = 1);
    assert!(matches!(&found[..], [one] if one.contains("the tar header before s000.png is damaged")), "{found:?}");
    let found = layout(&|bytes| bytes.truncate(bytes.len() - 1024));
    assert!(matches!(&found[..], [one] if one.contains("it has no end")), "{found:?}");
    let found = layout(&|bytes| {
        let (end, first) = (bytes.len() - 1024, bytes[..1024].to_vec());
        bytes.splice(end..end, first);
    });
    assert!(matches!(&found[..], [one] if one.contains("members follow that the index does not have")), "{found:?}");
}

fn command(arguments: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_data-shards")).args(arguments).arg(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn verify_lists_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let train = collection(folder.path());
    let (code, said, _) = command(&["verify"], folder.path());
    assert_eq!(code, Some(0));
    assert!(
        said.contains("12 samples in 3 shards, all as they were written") && said.contains("8 samples in 2 shards")
    );
    let index = Index::open(&train).unwrap();
    let flip = |sample: usize| {
        let at = index.members(sample).next().unwrap().offset as usize + 60;
        let path: PathBuf = train.join(&index.shards()[index.shard_of(sample).unwrap()].name);
        alter(&path, |bytes| bytes[at] ^= 1);
    };
    flip(1);
    flip(3);
    fs::remove_file(train.join("train-000001.tar")).unwrap();
    fs::copy(train.join("train-000002.tar"), train.join("train-000009.tar")).unwrap();
    rewrite_index(&folder.path().join("val"), |index| index["version"] = 9.into());
    let (code, said, problems) = command(&["verify"], folder.path());
    assert_eq!(code, Some(3));
    for expected in [
        "sample `s001`: s001.png is damaged",
        "sample `s003`: s003.png is damaged",
        "train-000000.tar is damaged: its SHA-256",
        "train-000001.tar is missing",
        "train-000009.tar is not listed",
        "version 9 of the format",
    ] {
        assert_eq!(problems.matches(expected).count(), 1, "{expected} in {problems}");
    }
    assert!(said.contains("12 samples in 3 shards, 5 problems"), "{said}");
    assert_eq!(command(&["verify"], &folder.path().join("none")).0, Some(3));
}

#[test]
fn info_counts() {
    let folder = tempfile::tempdir().unwrap();
    collection(folder.path());
    let (code, said, _) = command(&["info", "--json"], folder.path());
    assert_eq!(code, Some(0));
    let info: serde_json::Value = serde_json::from_str(&said).unwrap();
    let train = &info["sets"][0];
    assert_eq!((&train["split"], &train["samples"], &train["shards"]), (&"train".into(), &12.into(), &3.into()));
    // Of 0 to 11: every fourth has no label, the others are positive where they are even.
    assert_eq!(train["labels"], serde_json::json!({"positive": 6, "negative": 3, "unknown": 3}));
    // Patients are threes of samples; 6 has none: {0 1 2} {3 4 5} {7 8} {9 10 11}.
    assert_eq!(train["patients"], serde_json::json!({"positive": 4, "negative": 0, "unknown": 0}));
    assert_eq!((&train["without_patient"], &train["masks"], &train["images"]), (&1.into(), &10.into(), &12.into()));
    let (code, said, _) = command(&["info"], folder.path());
    assert_eq!(code, Some(0));
    assert!(said.contains("(split val)") && said.contains("12 in 3 shards"), "{said}");
    assert!(said.contains("6 positive (50.0 %), 3 negative (25.0 %), 3 unknown"), "{said}");
    let (code, _, problem) = command(&["info"], &folder.path().join("none"));
    assert!(code == Some(3) && problem.contains("index.json"), "{problem}");
}
