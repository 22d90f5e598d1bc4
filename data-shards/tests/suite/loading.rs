//! Samples: their arithmetic, and their order whatever the threads.

use std::sync::Arc;

use data_shards::augment::Augment;
use data_shards::{
    Dataset, Error, Fit, Geometry, Loader, LoaderSettings, PixelType, Pixels, Request, Sample, load_image,
};

fn settings(workers: usize) -> LoaderSettings {
    let augment = Augment {
        flip_horizontal: 0.5,
        brightness: 0.1,
        contrast: 0.1,
        crop: 0.2,
        scale: 0.1,
        rotation: 20.0,
        noise: 0.1,
        ..Augment::OFFICIAL
    };
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
    assert_eq!((crate::floats(&sample).len(), sample.mask.len(), sample.source_size), (3 * 48, 48, (6, 8)));
    for (at, value) in crate::floats(&sample).iter().enumerate() {
        let (channel, place) = (at / 48, at % 48);
        let expected = ((place * 3 + 1) as f32 / 255.0 - geometry.mean[channel]) / geometry.std[channel];
        assert!((value - expected).abs() < 1e-5);
    }
    assert!(sample.mask.iter().enumerate().all(|(place, &value)| value == u8::from(place % 7 == 1)));
    let (image, original) = load_image(&dataset.entry(1).image, &geometry).unwrap();
    assert_eq!((&image[..], original.width, original.height), (crate::floats(&sample), 8, 6));
}

#[test]
fn flips_turn_image_and_mask_alike() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(&crate::of(&crate::small_set(folder.path(), 1)), crate::plain(6, 8)).unwrap();
    let plain = dataset.load(0, 0, 0, &Augment::NONE).unwrap();
    let both = Augment { flip_vertical: 1.0, flip_horizontal: 1.0, ..Augment::NONE };
    let turned = dataset.load(0, 0, 0, &both).unwrap();
    let reversed: Vec<f32> = crate::floats(&plain)[..48].iter().rev().copied().collect();
    assert_eq!(crate::floats(&turned)[..48], reversed);
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
        assert!(crate::floats(&sample).iter().all(|value| (0.0..=1.0).contains(value)));
    }
}

/// All samples, each handed back after it was copied where `give_back` is set.
fn all(dataset: &Arc<Dataset>, workers: usize, give_back: bool) -> Vec<Sample> {
    let mut loader = Loader::new(Arc::clone(dataset), requests(), settings(workers));
    let mut samples = Vec::new();
    while let Some(sample) = loader.next() {
        let sample = sample.unwrap();
        samples.push(sample.clone());
        if give_back {
            loader.give_back(sample);
        }
    }
    samples
}

#[test]
fn the_order_and_the_bytes_do_not_depend_on_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 7);
    for (pixels, fit) in [
        (PixelType::Float, Fit::Stretch),
        (PixelType::Byte, Fit::Stretch),
        (PixelType::Float, Fit::CentreCrop),
        (PixelType::Byte, Fit::CentreCrop),
    ] {
        let geometry = Geometry { pixels, fit, ..crate::plain(5, 9) };
        let dataset = Arc::new(Dataset::open(&crate::of(&list), geometry).unwrap());
        let runs = [(0, false), (1, false), (3, false), (0, true), (3, true)]
            .map(|(workers, give_back)| all(&dataset, workers, give_back));
        assert_eq!(runs[0].iter().map(|sample| sample.index).take(8).collect::<Vec<_>>(), [4, 0, 3, 1, 2, 6, 5, 4]);
        assert_eq!(runs[0].len(), 21);
        assert!(runs.iter().all(|run| *run == runs[0]));
    }
}

#[test]
fn bytes_are_levels_of_as_many_channels_as_the_file_has() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 2);
    let colour: Vec<u8> = (0..144).collect();
    image::save_buffer(folder.path().join("i1.png"), &colour, 8, 6, image::ExtendedColorType::Rgb8).unwrap();
    let geometry = Geometry { pixels: PixelType::Byte, ..Geometry::imagenet(6, 8) };
    let dataset = Dataset::open(&crate::of(&list), geometry).unwrap();
    let image = |index| dataset.load(index, 0, 0, &Augment::NONE).unwrap().image;
    assert_eq!(image(0), Pixels::Byte { channels: 1, values: (0..48).map(|place| place * 3).collect() });
    let planes = (0..3).flat_map(|channel| (0..48).map(move |place| place * 3 + channel)).collect();
    assert_eq!(image(1), Pixels::Byte { channels: 3, values: planes });
    let (prediction, _) = load_image(&dataset.entry(0).image, &geometry).unwrap();
    assert_eq!(prediction.len(), 3 * 48, "prediction stays normalised");
}

#[test]
fn noise_depends_on_seed_epoch_and_sample() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 2);
    for at in 0..2 {
        crate::png(&folder.path().join(format!("i{at}.png")), 8, 6, &[128; 48]);
    }
    let dataset = Dataset::open(&crate::of(&list), crate::plain(6, 8)).unwrap();
    let noisy = Augment { noise: 0.1, ..Augment::NONE };
    let image = |index, epoch, seed| dataset.load(index, epoch, seed, &noisy).unwrap().image;
    let one = image(0, 0, 0);
    assert_eq!(one, image(0, 0, 0));
    for other in [image(1, 0, 0), image(0, 1, 0), image(0, 0, 1)] {
        assert_ne!(one, other);
    }
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
