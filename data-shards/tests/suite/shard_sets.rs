//! Small data sets of shards for the tests.

use std::path::{Path, PathBuf};

use data_shards::npy;
use data_shards::shard::{Feature, Finished, Index, Record, ShardWriter, shard_name, write_collection, write_index};
use serde_json::json;

/// A gray PNG of 8 x 6 pixels.
pub(crate) fn png(pixels: impl Fn(u8) -> u8) -> Vec<u8> {
    let pixels: Vec<u8> = (0..48).map(pixels).collect();
    let image = image::GrayImage::from_raw(8, 6, pixels).unwrap();
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

/// Sample `at`: pixels that tell it apart; a mask but for every fifth; every fourth has no label, every seventh no patient.
pub(crate) fn record(at: u8) -> Record {
    let facts = json!({"width": 8, "height": 6, "slice": at});
    Record {
        key: format!("s{at:03}"),
        image: Some(png(|place| place.wrapping_mul(3).wrapping_add(at))),
        mask: (at % 5 != 4).then(|| png(|place| if place % 7 == at % 7 { 255 } else { 0 })),
        features: Vec::new(),
        label: (at % 4 != 3).then_some(at.is_multiple_of(2)),
        patient: (at % 7 != 6).then(|| format!("p{}, \"{}\"", at / 3, at / 3)),
        facts: facts.as_object().cloned().unwrap(),
    }
}

/// The same with features in place of an image.
pub(crate) fn featured(at: u8) -> Record {
    let array = |channels: usize, side: usize| {
        let values: Vec<u8> = (0..channels * side * side).map(|place| (place as u8).wrapping_add(at)).collect();
        npy::write(Path::new("test"), &[1, channels, side, side], &values).unwrap()
    };
    let features = vec![(Feature::Res2Net, array(4, 8)), (Feature::Vgg, array(4, 16))];
    Record { image: None, features, ..record(at) }
}

/// Shards of up to `each` of the records.
pub(crate) fn shards(dir: &Path, split: Option<&str>, records: &[Record], each: usize) -> Vec<Finished> {
    let shard = |(number, records): (usize, &[Record])| {
        let mut writer = ShardWriter::create(dir, &shard_name(split, number)).unwrap();
        records.iter().for_each(|record| writer.add(record).unwrap());
        writer.finish().unwrap()
    };
    records.chunks(each).enumerate().map(shard).collect()
}

/// A data set.
pub(crate) fn set(dir: &Path, split: Option<&str>, records: &[Record], each: usize) -> Index {
    write_index(dir, split, shards(dir, split, records, each)).unwrap();
    Index::open(dir).unwrap()
}

/// A data set of `count` images in shards of five.
pub(crate) fn images(dir: &Path, count: u8) -> Index {
    set(dir, None, &(0..count).map(record).collect::<Vec<_>>(), 5)
}

/// A collection of two splits; the folder of the first.
pub(crate) fn collection(dir: &Path) -> PathBuf {
    for (split, range) in [("train", 0..12), ("val", 12..20)] {
        std::fs::create_dir(dir.join(split)).unwrap();
        set(&dir.join(split), Some(split), &range.map(record).collect::<Vec<_>>(), 5);
    }
    write_collection(dir, &["train", "val"]).unwrap();
    dir.join("train")
}
