//! Any bytes as `index.json`, `samples.csv` and a shard, one behind the other with a mark between: an index or an error, and
//! from an index nothing but members that hold what it says.
//!
//! `python3 seeds_shard.py corpus/shard`, then `cargo +nightly fuzz run shard -- -rss_limit_mb=2048`. Sizes and SHA-256 in
//! the listing are made right, for no input would ever guess them.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use data_shards::npy;
use data_shards::shard::{Head, Index, Kinds, Listing, LocalShards, SetInfo, ShardReader, verify};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

const MARK: &[u8] = b"\0\xff--\xff\0";

/// A folder of this process, in memory where there is such a place.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = base.join(format!("data-shards-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
});

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The input, taken apart at the marks; what is missing is empty.
fn parts(mut bytes: &[u8]) -> [&[u8]; 3] {
    let mut next = || match bytes.windows(MARK.len()).position(|window| window == MARK) {
        Some(at) => {
            let part = &bytes[..at];
            bytes = &bytes[at + MARK.len()..];
            part
        }
        None => std::mem::take(&mut bytes),
    };
    [next(), next(), next()]
}

fn read_all(index: &Index, tar: &[u8]) {
    assert!(!index.is_empty());
    let path = FOLDER.join(&index.shards()[0].name);
    let reader = ShardReader::open(index, 0, &path).expect("a shard of the size listed");
    for sample in index.samples_of(0) {
        let row = index.row(sample).expect("a sample of the index");
        if let Ok(members) = reader.read(index, sample, Kinds::ALL) {
            for member in row.members {
                let bytes = &tar[usize::try_from(member.offset).unwrap()..][..usize::try_from(member.size).unwrap()];
                assert_eq!(members.get(member.kind), Some(bytes));
            }
        }
    }
    let report = verify(index, &LocalShards, &|_, _| ());
    assert!(report.problems.iter().all(|problem| !problem.to_string().is_empty()));
    assert_eq!(SetInfo::of(index).samples, index.len());
}

fuzz_target!(|bytes: &[u8]| {
    let [head, samples, tar] = parts(bytes);
    let _ = npy::read(Path::new("fuzz.npy"), tar);
    let Ok(Head::DataSet(mut listing)) = Head::parse(Path::new("index.json"), head) else { return };
    let Listing { samples_file, shards, .. } = &mut listing;
    (samples_file.bytes, samples_file.sha256) = (samples.len() as u64, sum(samples));
    (shards[0].bytes, shards[0].sha256) = (tar.len() as u64, sum(tar));
    let path = FOLDER.join(&shards[0].name);
    if let Ok(index) = Index::parse(&FOLDER, listing, samples) {
        std::fs::write(&path, tar).expect("room for a shard");
        read_all(&index, tar);
        let _ = std::fs::remove_file(path);
    }
});
