//! How long an index takes to open, and in how much memory: `index_open [SAMPLES]`, COVID-CS's 144,167 if left out.
//!
//! The index is written by one process, and opened by another, whose memory is therefore that of opening alone.
#![expect(clippy::print_stdout, reason = "a measurement")]

#[path = "../tests/suite/shard_large.rs"]
mod shard_large;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use data_shards::shard::Index;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, dir] = &arguments[..]
        && flag == "--open"
    {
        return open(Path::new(dir));
    }
    let samples = arguments.first().map_or(144_167, |text| text.parse().expect("a number of samples"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    shard_large::write(folder.path(), samples);
    let me = std::env::current_exe().expect("the path of this program");
    let done = Command::new(me).arg("--open").arg(folder.path()).status().expect("a process of its own");
    assert!(done.success(), "{done}");
}

fn open(dir: &Path) {
    let start = Instant::now();
    let index = Index::open(dir).expect("an index");
    let seconds = start.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map_or("unknown", str::trim);
    println!(
        "{} samples in {} shards: opened in {seconds:.3} s, peak memory {peak}",
        index.len(),
        index.shards().len()
    );
}
