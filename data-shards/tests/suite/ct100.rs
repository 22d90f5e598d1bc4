//! Real slices, where they are.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::path::Path;

use data_shards::augment::Augment;
use data_shards::{Dataset, Geometry};

#[test]
fn ct100_loads() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/ct100");
    if !folder.is_dir() {
        eprintln!("SKIPPED ct100_loads: {} is absent", folder.display());
        return;
    }
    let dataset = Dataset::open(&crate::of(&folder.join("train.txt")), Geometry::imagenet(192, 192)).unwrap();
    assert_eq!(dataset.len(), 79);
    dataset.check_masks().unwrap();
    let lesions = (0..8).map(|index| dataset.load(index, 0, 0, &Augment::OFFICIAL).unwrap()).filter(|sample| {
        assert_eq!(sample.source_size, (512, 512));
        assert!(crate::floats(sample).iter().all(|value| (-2.2..2.7).contains(value)));
        sample.mask.contains(&1)
    });
    assert!(lesions.count() >= 6);
}
