//! Data sets on servers, fetched by threads and processes that share a cache.

mod cache;
mod child;
mod fetching;
mod s3;
mod secrets;
mod server;
mod sets;
mod tls;

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use data_shards::remote::{CacheSettings, Held, Location, Patience, Remote};
use sha2::{Digest, Sha256};

/// A file that passes for a shard.
#[derive(Clone)]
struct Shard {
    name: String,
    bytes: Vec<u8>,
    sha256: String,
}

impl Shard {
    fn new(name: &str, size: usize) -> Shard {
        let seed = name.bytes().fold(size as u32, |sum, byte| sum.wrapping_mul(131).wrapping_add(u32::from(byte)));
        let noise = |at: usize| ((at as u32 ^ seed).wrapping_mul(2_654_435_761) >> 13) as u8;
        Shard::of(name, (0..size).map(noise).collect())
    }

    fn of(name: &str, bytes: Vec<u8>) -> Shard {
        let sha256 = sha256(&bytes);
        Shard { name: name.to_owned(), bytes, sha256 }
    }

    /// `count` of them.
    fn several(count: usize, size: usize) -> Vec<Shard> {
        (0..count).map(|at| Shard::new(&format!("train-{at:06}.tar"), size)).collect()
    }

    fn file(&self) -> (String, Vec<u8>) {
        (self.name.clone(), self.bytes.clone())
    }

    fn get(&self, remote: &Remote) -> Result<Held, data_shards::remote::Error> {
        remote.shard(&self.name, self.bytes.len() as u64, &self.sha256)
    }

    /// Gets it and compares its bytes.
    fn arrives(&self, remote: &Remote) {
        compare(&self.get(remote).unwrap_or_else(|error| panic!("{error}")), &self.sha256, 0);
    }

    /// Why it cannot be had.
    fn fails(&self, remote: &Remote) -> data_shards::remote::Error {
        self.get(remote).expect_err("it arrived")
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the file by its handle and by its name, `hold` milliseconds apart.
fn compare(held: &Held, sha256_: &str, hold: u64) {
    let mut bytes = vec![0; held.file().metadata().unwrap().len() as usize];
    held.file().read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(sha256(&bytes), sha256_, "by its handle: {}", held.path().display());
    sleep(hold);
    let again = std::fs::read(held.path()).expect("the cache gave up a file that is read");
    assert!(again == bytes, "by its name: {}", held.path().display());
}

fn sleep(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// With pauses that suit tests.
fn settings(dir: &Path, limit_bytes: Option<u64>) -> CacheSettings {
    let patience = Patience {
        attempts: 5,
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_millis(800),
        silence: Duration::from_secs(3),
        room: Duration::from_secs(20),
    };
    CacheSettings { dir: dir.to_owned(), limit_bytes, patience }
}

fn open(url: &str, cache: &Path) -> Remote {
    Remote::open(&Location::parse(url).unwrap(), settings(cache, None)).unwrap()
}

/// Files of the cache with their sizes, its own small ones left out.
fn files(cache: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let list = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    for folder in list(&cache.join("shards-1")).filter(|entry| entry.path().is_dir()) {
        for file in list(&folder.path()) {
            let name = file.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".meta") && !name.ends_with(".failed") {
                found.extend(file.metadata().ok().map(|meta| (name, meta.len())));
            }
        }
    }
    found
}

/// Waits until `condition` holds.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {what}");
        sleep(5);
    }
}
