//! From the data set to batches of tensors.

use crate::Error;
use crate::network::Description;
use data_shards::augment::Augment;
use data_shards::{Dataset, Loader, LoaderSettings, Request, Sample, order, partition};
use protocol::config::{self, Batches, Config};
use protocol::env::Place;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Tensor};

/// A micro-batch.
pub struct Batch {
    /// `(N, 3, H, W)` float32, normalised.
    pub images: Tensor,
    /// `(N, H, W)` float32, 0 or 1.
    pub masks: Tensor,
    /// Index of each sample in the data set.
    pub indices: Vec<usize>,
}

impl Batch {
    /// Stacks samples, in their order, on `device`.
    pub fn stack(samples: &[Sample], (height, width): (usize, usize), device: Device) -> Batch {
        let (h, w) = (height as i64, width as i64);
        let image = |s: &Sample| Tensor::from_slice(&s.image).view([1, 3, h, w]);
        let mask = |s: &Sample| Tensor::from_slice(&s.mask).view([1, h, w]);
        let cat = |parts: Vec<Tensor>| Tensor::cat(&parts, 0).to_device(device);
        Batch {
            images: cat(samples.iter().map(image).collect()),
            masks: cat(samples.iter().map(mask).collect()),
            indices: samples.iter().map(|s| s.index).collect(),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// Opens a list file and checks that every image and mask of it is there and fits.
pub fn open(list: &Path, config: &Config, description: &Description) -> Result<Dataset, Error> {
    let dataset = Dataset::open(list, config.data.root.as_deref(), description.geometry())?;
    dataset.check_masks()?;
    Ok(dataset)
}

/// The augmentation that the configuration asks for.
pub fn augmentation(augment: &config::Augment) -> Augment {
    match augment {
        config::Augment::Switch(true) => Augment::OFFICIAL,
        config::Augment::Switch(false) => Augment::NONE,
        config::Augment::Table(t) => Augment {
            crop: t.crop,
            crop_probability: 0.5,
            flip_vertical: t.flip_vertical,
            flip_horizontal: t.flip_horizontal,
            brightness: t.brightness,
            contrast: t.contrast,
        },
    }
}

/// Which samples this worker takes in which step.
#[derive(Clone, Debug)]
pub struct Plan {
    samples: usize,
    seed: u64,
    shuffle: bool,
    batches: Batches,
    mine: Range<usize>,
}

impl Plan {
    /// The plan of the worker at `place` for a data set of `samples` samples.
    pub fn new(samples: usize, config: &Config, batches: Batches, place: &Place) -> Result<Plan, Error> {
        if samples < batches.global {
            let largest = samples / batches.micro * batches.micro;
            let remedy = match largest >= batches.micro * place.world_size {
                true => format!("train.global_batch={largest} works"),
                false => format!("use fewer workers than {} or a smaller train.micro_batch", place.world_size),
            };
            return Err(Error::Usage(format!(
                "train.global_batch: {} samples a step, but data.train has only {samples}; {remedy}",
                batches.global
            )));
        }
        let mine = partition::micro_batches_of(place.rank.0, place.world_size, batches.global, batches.micro);
        Ok(Plan { samples, seed: config.run.seed, shuffle: config.data.shuffle, batches, mine })
    }

    /// Steps of an epoch; the last incomplete global batch is left out.
    pub fn steps_per_epoch(&self) -> u64 {
        partition::steps_per_epoch(self.samples, self.batches.global) as u64
    }

    /// Micro-batches that this worker takes in each step.
    pub fn micro_batches(&self) -> usize {
        self.mine.len()
    }

    /// What this worker asks the loader for, from step `from` up to step `to`.
    fn requests(self, from: u64, to: u64) -> impl Iterator<Item = Request> + Send + 'static {
        let mut epoch_order: Option<(u64, Vec<u32>)> = None;
        (from..to).flat_map(move |step| {
            let epoch = step / self.steps_per_epoch();
            if epoch_order.as_ref().is_none_or(|(e, _)| *e != epoch) {
                epoch_order = Some((epoch, order::epoch_order(self.samples, self.seed, epoch, self.shuffle)));
            }
            let order = epoch_order.as_ref().map_or(&[][..], |(_, o)| o);
            let in_epoch = (step % self.steps_per_epoch()) as usize;
            let Batches { global, micro } = self.batches;
            let samples = |m| partition::samples_of_micro_batch(order, in_epoch, global, micro, m).to_vec();
            let indices: Vec<u32> = self.mine.clone().flat_map(samples).collect();
            indices.into_iter().map(move |index| Request { index, epoch })
        })
    }
}

/// This worker's training batches, in order.
pub struct BatchStream {
    loader: Loader,
    micro: usize,
    size: (usize, usize),
    device: Device,
}

/// How many micro-batches are decoded ahead.
const AHEAD: usize = 4;

impl BatchStream {
    /// Batches from step `from` up to step `to`.
    pub fn new(dataset: Arc<Dataset>, plan: &Plan, config: &Config, device: Device, from: u64, to: u64) -> BatchStream {
        let micro = plan.batches.micro;
        let settings = LoaderSettings {
            seed: config.run.seed,
            augment: augmentation(&config.data.augment),
            workers: config.data.workers,
            queue: AHEAD * micro.max(config.data.workers),
        };
        let loader = Loader::new(dataset, plan.clone().requests(from, to), settings);
        BatchStream { loader, micro, size: config.data.size.height_width(), device }
    }

    /// The next micro-batch. Not to be called more often than the plan has micro-batches.
    pub fn next_batch(&mut self) -> Result<Batch, Error> {
        let samples = self.loader.by_ref().take(self.micro).collect::<Result<Vec<_>, _>>()?;
        Ok(Batch::stack(&samples, self.size, self.device))
    }
}
