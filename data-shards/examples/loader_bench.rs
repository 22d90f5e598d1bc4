//! How many samples a second the loader delivers: `loader_bench SHARDS float|byte official|full WORKERS SAMPLES`.
//!
//! Samples are copied into one buffer a batch of 8, as PyTorch's `DataLoader` stacks them. One line of JSON; `bench/loader.py` starts
//! it among its peers. With 0 workers the calling thread does the work, for a profile.
#![expect(clippy::print_stdout, reason = "a measurement")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use data_shards::augment::Augment;
use data_shards::{Dataset, Geometry, Loader, LoaderSettings, PixelType, Pixels, Request, Sample, Source};

const SIDE: usize = 512;
const BATCH: usize = 8;
const WARM_UP: usize = 6 * BATCH;

/// One batch.
#[derive(Default)]
struct Batch {
    floats: Vec<f32>,
    bytes: Vec<u8>,
    masks: Vec<u8>,
}

impl Batch {
    fn add(&mut self, sample: &Sample) {
        match &sample.image {
            Pixels::Float(values) => self.floats.extend_from_slice(values),
            Pixels::Byte { values, .. } => self.bytes.extend_from_slice(values),
            Pixels::None => {}
        }
        self.masks.extend_from_slice(&sample.mask);
    }

    fn clear(&mut self) {
        self.floats.clear();
        self.bytes.clear();
        self.masks.clear();
    }
}

fn recipe(name: &str) -> Augment {
    match name {
        "full" => Augment {
            flip_horizontal: 0.5,
            brightness: 0.2,
            contrast: 0.2,
            scale: 0.1,
            rotation: 15.0,
            noise: 0.05,
            ..Augment::OFFICIAL
        },
        _ => Augment::OFFICIAL,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [shards, pixels, name, workers, samples] = &arguments[..] else {
        println!("loader_bench SHARDS float|byte official|full WORKERS SAMPLES");
        return;
    };
    let pixels = if pixels == "byte" { PixelType::Byte } else { PixelType::Float };
    let (workers, samples): (usize, usize) = (workers.parse().unwrap(), samples.parse().unwrap());
    let source = Source { from: PathBuf::from(shards).into(), ..Source::default() };
    let dataset = Arc::new(Dataset::open(&source, Geometry { pixels, ..Geometry::imagenet(SIDE, SIDE) }).unwrap());
    let of = Arc::clone(&dataset);
    let requests = (0..)
        .flat_map(move |epoch| of.epoch_order(1, epoch, true).into_iter().map(move |index| Request { index, epoch }));
    // As far ahead as 2 workers of PyTorch with a prefetch factor of 4 would be is 64; this is enough.
    let settings = LoaderSettings { seed: 1, augment: recipe(name), workers, queue: 2 * BATCH };
    let mut loader = Loader::new(dataset, requests, settings);
    let (mut batch, mut start, mut taken) = (Batch::default(), Instant::now(), 0);
    while taken < WARM_UP + samples {
        batch.clear();
        for _ in 0..BATCH {
            let sample = loader.next().unwrap().unwrap();
            batch.add(&sample);
            loader.give_back(sample);
        }
        std::hint::black_box(&batch);
        taken += BATCH;
        if taken == WARM_UP {
            start = Instant::now();
        }
    }
    let rate = (taken - WARM_UP) as f64 / start.elapsed().as_secs_f64();
    println!("{{\"samples_per_second\": {rate:.1}}}");
}
