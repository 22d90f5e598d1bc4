//! Samples: their arithmetic, and their order whatever the threads.

use std::sync::Arc;

use data_shards::augment::Augment;
use data_shards::{Dataset, Error, Geometry, Loader, LoaderSettings, Request, load_image};

fn settings(workers: usize) -> LoaderSettings {
    let augment = Augment { flip_horizontal: 0.5, brightness: 0.1, contrast: 0.1, crop: 0.2, ..Augment::OFFICIAL };
    LoaderSettings { seed: 5, augment, workers, queue: 4 }
}

fn requests() -> impl Iterator<Item = Request> + Send + 'static {
    (0..3).flat_map(|epoch| [4, 0, 3, 1, 2, 6, 5].map(|index| Request { index, epoch }))
}

#[test]
fn a_sample_is_normalised_planes() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 2);
    let geometry = Geometry::imagenet(6, 8);
    let dataset = Dataset::open(&crate::of(&list), geometry).unwrap();
    let sample = dataset.load(1, 0, 0, &Augment::NONE).unwrap();
    assert_eq!((sample.image.len(), sample.mask.len(), sample.source_size), (3 * 48, 48, (6, 8)));
    for (at, value) in sample.image.iter().enumerate() {
        let (channel, place) = (at / 48, at % 48);
        let expected = ((place * 3 + 1) as f32 / 255.0 - geometry.mean[channel]) / geometry.std[channel];
        assert!((value - expected).abs() < 1e-5);
    }
    assert!(sample.mask.iter().enumerate().all(|(place, &value)| value == f32::from(u8::from(place % 7 == 1))));
    let (image, original) = load_image(&dataset.entry(1).image, &geometry).unwrap();
    assert_eq!((image, original.width, original.height), (sample.image, 8, 6));
}

#[test]
fn flips_turn_image_and_mask_alike() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(&crate::of(&crate::small_set(folder.path(), 1)), crate::plain(6, 8)).unwrap();
    let plain = dataset.load(0, 0, 0, &Augment::NONE).unwrap();
    let both = Augment { flip_vertical: 1.0, flip_horizontal: 1.0, ..Augment::NONE };
    let turned = dataset.load(0, 0, 0, &both).unwrap();
    let reversed: Vec<f32> = plain.image[..48].iter().rev().copied().collect();
    assert_eq!(turned.image[..48], reversed);
    assert_eq!(turned.mask, plain.mask.iter().rev().copied().collect::<Vec<_>>());
    let vertical = dataset.load(0, 0, 0, &Augment { flip_vertical: 1.0, ..Augment::NONE }).unwrap();
    assert_eq!(vertical.mask[..8], plain.mask[40..]);
}

#[test]
fn brightness_and_contrast_stay_within_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(&crate::of(&crate::small_set(folder.path(), 1)), crate::plain(6, 8)).unwrap();
    let wild = Augment { brightness: 3.0, contrast: 3.0, ..Augment::NONE };
    for epoch in 0..20 {
        let sample = dataset.load(0, epoch, 0, &wild).unwrap();
        assert!(sample.image.iter().all(|value| (0.0..=1.0).contains(value)));
    }
}

#[test]
fn the_order_and_the_bytes_do_not_depend_on_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Arc::new(Dataset::open(&crate::of(&crate::small_set(folder.path(), 7)), crate::plain(5, 9)).unwrap());
    let runs = [0, 1, 3].map(|workers| {
        Loader::new(Arc::clone(&dataset), requests(), settings(workers)).map(Result::unwrap).collect::<Vec<_>>()
    });
    assert_eq!(runs[0].iter().map(|sample| sample.index).take(8).collect::<Vec<_>>(), [4, 0, 3, 1, 2, 6, 5, 4]);
    assert_eq!(runs[0].len(), 21);
    assert!(runs[0] == runs[1] && runs[0] == runs[2]);
}

#[test]
fn a_bad_sample_is_an_error_in_its_place_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Arc::new(Dataset::open(&crate::of(&crate::small_set(folder.path(), 3)), crate::plain(5, 9)).unwrap());
    std::fs::write(folder.path().join("i1.png"), "gone bad").unwrap();
    let asked = [0, 1, 2, 99].map(|index| Request { index, epoch: 0 });
    let answers: Vec<_> = Loader::new(dataset, asked.into_iter(), settings(2)).collect();
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(&answers[1], Err(Error::Decode { path, .. }) if path.ends_with("i1.png")));
    assert!(matches!(answers[3], Err(Error::Index { index: 99, len: 3, .. })));
    assert_eq!(answers.len(), 4);
}

#[test]
fn dropping_a_loader_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Arc::new(Dataset::open(&crate::of(&crate::small_set(folder.path(), 2)), crate::plain(5, 9)).unwrap());
    let endless = (0..).map(|epoch| Request { index: 1, epoch });
    for taken in 0..5 {
        let mut loader = Loader::new(Arc::clone(&dataset), endless.clone(), settings(3));
        assert_eq!(loader.by_ref().take(taken).filter(Result::is_ok).count(), taken);
        drop(loader);
        // Only a thread that is left could still hold the data set.
        assert_eq!(Arc::strong_count(&dataset), 1);
    }
}
