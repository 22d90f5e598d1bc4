//! What the trainer relies on, on real files in temporary folders.

mod ct100;
mod decoding;
mod leaks;
mod leaks_real;
mod lists;
mod loading;
mod mat;
mod mat_damage;
mod mat_files;
mod mat_scipy;
mod pack;
mod phantoms;
mod pure;
mod remote;
mod resampling;
mod shard_damage;
mod shard_dataset;
mod shard_large;
mod shard_order;
mod shard_python;
mod shard_sets;
mod shards;
mod tables;

use std::path::{Path, PathBuf};

use data_shards::{Geometry, Sample, Source};

/// A gray PNG of this size with these pixels.
fn png(path: &Path, width: u32, height: u32, pixels: &[u8]) -> PathBuf {
    image::save_buffer(path, pixels, width, height, image::ExtendedColorType::L8).unwrap();
    path.to_owned()
}

/// No normalisation: what is loaded are the 0..1 values.
fn plain(height: usize, width: usize) -> Geometry {
    Geometry { height, width, mean: [0.0; 3], std: [1.0; 3], ..Geometry::imagenet(height, width) }
}

/// The values of a sample that was asked for as such.
fn floats(sample: &Sample) -> &[f32] {
    sample.image.float().unwrap()
}

/// All samples of a list, whose paths count from its folder.
fn of(list: &Path) -> Source {
    Source { from: list.to_owned().into(), ..Source::default() }
}

/// A list of `count` 8 x 6 images whose pixels tell them apart, with masks.
fn small_set(folder: &Path, count: u8) -> PathBuf {
    let lines: Vec<String> = (0..count)
        .map(|at| {
            let pixels: Vec<u8> = (0..48).map(|place| place * 3 + at).collect();
            let mask: Vec<u8> = (0..48).map(|place| if place % 7 == at % 7 { 255 } else { 0 }).collect();
            png(&folder.join(format!("i{at}.png")), 8, 6, &pixels);
            png(&folder.join(format!("m{at}.png")), 8, 6, &mask);
            format!("i{at}.png m{at}.png\n")
        })
        .collect();
    let list = folder.join("list.txt");
    std::fs::write(&list, lines.concat()).unwrap();
    list
}
