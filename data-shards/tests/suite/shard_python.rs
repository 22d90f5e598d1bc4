//! Python's `webdataset` reads the shards as they are.

use std::process::Command;

use data_shards::shard::{Kinds, LocalShards, Record, Shards};

use crate::shard_sets::{featured, record, set};

/// Prints a line `key extension crc32` for each member of each sample, and one for each array as numpy sees it.
const READ: &str = r#"
import io, json, sys, zlib, numpy, webdataset
for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False, empty_check=False):
    for name, data in sample.items():
        if name.startswith("__"):
            continue
        print(sample["__key__"], name, f"{zlib.crc32(data):08x}")
        if name.endswith("npy"):
            array = numpy.load(io.BytesIO(data))
            print(sample["__key__"], array.dtype, *array.shape, array.sum(dtype="i8"))
        if name == "json":
            facts = json.loads(data)
            print(sample["__key__"], json.dumps([facts["label"], facts["patient"], facts["slice"]]))
"#;

fn python_or_skip(test: &str) -> Option<String> {
    end_to_end::skip::python(test, "numpy, webdataset")
}

/// The reader in docs/shard-format.md.
#[test]
fn the_documented_reader_works() {
    let Some(python) = python_or_skip("the_documented_reader_works") else { return };
    let page = include_str!("../../../docs/shard-format.md");
    let blocks: Vec<&str> =
        page.split("```python\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    let reader = blocks.iter().find(|block| block.contains("def member")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let train = folder.path().join("train");
    std::fs::create_dir(&train).unwrap();
    let records: Vec<Record> = (0..12).map(record).collect();
    set(&train, Some("train"), &records, 5);
    let all = "for row in rows:\n    print(row['key'], row['patient'], member(row, 'png').hex())\n";
    let program = format!("{reader}\n{all}");
    let done = Command::new(python)
        .args(["-W", "error::DeprecationWarning", "-c", &program])
        .current_dir(folder.path())
        .output();
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let line = |record: &Record| {
        let hex: String = record.image.iter().flatten().map(|byte| format!("{byte:02x}")).collect();
        format!("{} {} {hex}\n", record.key, record.patient.as_deref().unwrap_or_default())
    };
    assert_eq!(String::from_utf8(done.stdout).unwrap(), records.iter().map(line).collect::<String>());
}

#[test]
fn webdataset_reads_the_same_keys_and_bytes() {
    let Some(python) = python_or_skip("webdataset_reads_the_same_keys_and_bytes") else { return };
    let folder = tempfile::tempdir().unwrap();
    let records: Vec<Record> = (0..17).map(|at| if at % 3 == 0 { featured(at) } else { record(at) }).collect();
    let index = set(folder.path(), Some("train"), &records, 5);
    let shards = index.shards().iter().map(|shard| folder.path().join(&shard.name));
    let done = Command::new(python).args(["-c", READ]).args(shards).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let found = String::from_utf8(done.stdout).unwrap();
    let mut expected = String::new();
    for (sample, record) in records.iter().enumerate() {
        let key = &record.key;
        let reader = LocalShards.open(&index, index.shard_of(sample).unwrap()).unwrap();
        let members = reader.read(&index, sample, Kinds::ALL).unwrap();
        for kind in index.kinds(sample).iter() {
            let bytes = members.get(kind).unwrap();
            expected += &format!("{key} {} {:08x}\n", kind.extension(), crc32fast::hash(bytes));
            match kind.extension() {
                "json" => {
                    let label = record.label.map_or("null".to_owned(), |label| u8::from(label).to_string());
                    let patient = serde_json::to_string(&record.patient).unwrap();
                    expected += &format!("{key} [{label}, {patient}, {sample}]\n");
                }
                "vgg.npy" => expected += &numpy_line(key, sample, 16),
                "res2net.npy" => expected += &numpy_line(key, sample, 8),
                _ => (),
            }
        }
    }
    assert_eq!(found, expected);
}

fn numpy_line(key: &str, sample: usize, side: usize) -> String {
    let sum: usize = (0..4 * side * side).map(|place| (place + sample) % 256).sum();
    format!("{key} uint8 1 4 {side} {side} {sum}\n")
}
