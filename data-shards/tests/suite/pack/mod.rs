//! Packing: sources to shards and back.

mod compressed;
mod dicom;
mod flat;
mod hostile;
mod interrupted;
mod nifti;
mod real;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use data_shards::pack::{Options, PackError, Report, Watch, pack};
use data_shards::shard::{Collection, Index, Kind, Kinds, LocalShards, Shards};
use image::DynamicImage;
use serde_json::Value;

/// A sample as it was read back, every checksum verified.
pub(super) struct Read {
    pub(super) split: Option<String>,
    pub(super) key: String,
    pub(super) label: Option<bool>,
    pub(super) patient: Option<String>,
    pub(super) members: BTreeMap<Kind, Vec<u8>>,
}

impl Read {
    pub(super) fn image(&self) -> DynamicImage {
        image::load_from_memory(&self.members[&Kind::Image]).unwrap()
    }

    pub(super) fn grey(&self) -> Vec<u8> {
        self.image().as_luma8().expect("8-bit grey").as_raw().clone()
    }

    pub(super) fn mask(&self) -> Option<Vec<u8>> {
        let mask = self.members.get(&Kind::Mask)?;
        Some(image::load_from_memory(mask).unwrap().as_luma8().expect("8-bit grey").as_raw().clone())
    }

    pub(super) fn facts(&self) -> Value {
        serde_json::from_slice(&self.members[&Kind::Facts]).unwrap()
    }
}

pub(super) fn options() -> Options {
    Options { jobs: 2, ..Options::default() }
}

pub(super) fn try_pack(source: &Path, out: &Path, options: &Options) -> Result<Report, PackError> {
    try_all(&[source.to_owned()], out, options)
}

pub(super) fn try_all(sources: &[PathBuf], out: &Path, options: &Options) -> Result<Report, PackError> {
    let stop = AtomicBool::new(false);
    pack(sources, out, options, &Watch { stage: &|_| {}, progress: &|_, _| {}, stop: &stop })
}

/// Packs, and reads everything back.
pub(super) fn packed(source: &Path, out: &Path, options: &Options) -> (Report, Vec<Read>) {
    let report = try_pack(source, out, options).unwrap();
    let samples = read(out);
    assert_eq!(report.samples(), samples.len());
    (report, samples)
}

/// By key within the splits, which is the order of slices.
pub(super) fn read(out: &Path) -> Vec<Read> {
    let mut samples = Vec::new();
    for set in Collection::open(out).unwrap().sets {
        let index = Index::open(&set.dir).unwrap();
        for at in 0..index.len() {
            let reader = LocalShards.open(&index, index.shard_of(at).unwrap()).unwrap();
            let members = reader.read(&index, at, Kinds::ALL).unwrap();
            let row = index.row(at).unwrap();
            let members = Kind::ALL.into_iter().filter_map(|kind| Some((kind, members.get(kind)?.to_vec()))).collect();
            let split = set.split.clone();
            samples.push(Read { split, key: row.key, label: row.label, patient: row.patient, members });
        }
    }
    samples.sort_by(|a, b| (&a.split, &a.key).cmp(&(&b.split, &b.key)));
    samples
}

/// All files below a folder, by their paths.
pub(super) fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

pub(super) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What no image of a test looks like by chance, told apart by a number.
pub(super) fn noise(seed: usize, count: usize) -> Vec<u8> {
    let mut state = seed as u64 * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}
