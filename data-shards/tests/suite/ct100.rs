//! Real slices, where they are.

use data_shards::augment::Augment;
use data_shards::{Dataset, Geometry};

#[test]
fn ct100_loads() {
    let Some(folder) = end_to_end::skip::data("ct100_loads", "ct100") else { return };
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
