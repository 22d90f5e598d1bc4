//! From the data set to batches of tensors.

use crate::Error;
use crate::network::{Description, Input};
use data_shards::augment::Augment;
use data_shards::features::Maps;
use data_shards::{Dataset, Features, Fold, Loader, LoaderSettings, Part, Request, Sample, Source, order, partition};
use protocol::config::{self, Batches, Config, ModelKind};
use protocol::env::Place;
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Tensor};

/// A micro-batch.
pub struct Batch {
    /// Images, or features in their place.
    pub input: Input,
    /// `(N, H, W)` float32, 0 or 1; 0 where there is no mask.
    pub masks: Tensor,
    /// `(N)` float32, 1 where there is a mask, else 0.
    pub has_mask: Tensor,
    /// `(N, 2)` float32, 1 at the class; both 0 where it is not known.
    pub classes: Tensor,
    /// Index of each sample in the data set.
    pub indices: Vec<usize>,
}

impl Batch {
    /// Stacks samples, in their order, on `device`. `size` is that of images; all features must have one size.
    pub fn stack(samples: &[Sample], size: (usize, usize), device: Device) -> Result<Batch, Error> {
        let features: Vec<&Features> = samples.iter().filter_map(|s| s.features.as_ref()).collect();
        let (height, width) = features.first().map_or(size, |f| f.size());
        let (h, w) = (height as i64, width as i64);
        let cat = |parts: Vec<Tensor>| Tensor::cat(&parts, 0).to_device(device);
        let input = if features.is_empty() {
            let image = |s: &Sample| Tensor::from_slice(&s.image).view([1, 3, h, w]);
            Input::Images(cat(samples.iter().map(image).collect()))
        } else {
            let stacked =
                |of: fn(&Features) -> Option<&Maps>| stack_maps(&features, of).map(|m| m.map(|t| t.to_device(device)));
            Input::Features { vgg: stacked(|f| f.vgg.as_ref())?, res2net: stacked(|f| f.res2net.as_ref())? }
        };
        let mask = |s: &Sample| Tensor::from_slice(&s.mask).view([1, h, w]);
        let has_mask: Vec<f32> = samples.iter().map(|s| f32::from(u8::from(s.has_mask))).collect();
        let one_hot = |s: &Sample| [Some(false), Some(true)].map(|class| f32::from(u8::from(s.label == class)));
        let classes: Vec<f32> = samples.iter().flat_map(one_hot).collect();
        Ok(Batch {
            input,
            masks: cat(samples.iter().map(mask).collect()),
            has_mask: Tensor::from_slice(&has_mask).to_device(device),
            classes: Tensor::from_slice(&classes).view([-1, 2]).to_device(device),
            indices: samples.iter().map(|s| s.index).collect(),
        })
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

fn stack_maps(features: &[&Features], of: fn(&Features) -> Option<&Maps>) -> Result<Option<Tensor>, Error> {
    let maps: Vec<&Maps> = features.iter().filter_map(|f| of(f)).collect();
    let Some(first) = maps.first() else { return Ok(None) };
    if let Some(other) = maps.iter().find(|m| (m.height, m.width) != (first.height, first.width)) {
        return Err(Error::Usage(format!(
            "features of {} × {} and of {} × {} cannot be in one micro-batch: train.micro_batch=1 works",
            first.height, first.width, other.height, other.width
        )));
    }
    let shape = [1, first.channels as i64, first.height as i64, first.width as i64];
    let tensors: Vec<Tensor> = maps.iter().map(|m| Tensor::from_slice(&m.values).view(shape)).collect();
    Ok(Some(Tensor::cat(&tensors, 0)))
}

/// Which samples of the configuration are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// To train on.
    Train,
    /// To evaluate on.
    Eval,
}

/// Opens a split and checks that every image, and what else the kind of network needs, is there and fits. None where the
/// configuration names no such samples.
pub fn open(split: Split, config: &Config, description: &Description) -> Result<Option<Dataset>, Error> {
    let Some(source) = source(split, config)? else { return Ok(None) };
    let mut dataset = Dataset::open(&source, description.geometry())?;
    match description.kind {
        ModelKind::Cls => dataset.require_labels()?,
        ModelKind::Single | ModelKind::Joint => dataset.require_masks()?,
    }
    dataset.check_masks()?;
    Ok(Some(dataset))
}

fn source(split: Split, config: &Config) -> Result<Option<Source>, Error> {
    let data = &config.data;
    let wrong = |problem| Error::Usage(format!("data.fold: {problem}"));
    let fold = data.fold().map(|text| text.parse::<Fold>().map_err(wrong)).transpose()?;
    let part = fold.map(|fold| Part { fold, held_out: split == Split::Eval });
    let list = match (split, fold) {
        (Split::Train, _) | (Split::Eval, Some(_)) => &data.train,
        (Split::Eval, None) => &data.eval,
    };
    let source = Source { list: list.clone(), root: data.root.clone(), labels: data.labels.clone(), part };
    Ok((!list.as_os_str().is_empty()).then_some(source))
}

/// Weight of each class by which both count alike; 1 and 1 where a class is absent.
pub fn class_balance(dataset: &Dataset) -> [f64; 2] {
    let positive = (0..dataset.len()).filter(|i| dataset.label_of(*i) == Some(true)).count() as f64;
    let all = dataset.len() as f64;
    if positive == 0.0 || positive == all { [1.0; 2] } else { [all / (2.0 * (all - positive)), all / (2.0 * positive)] }
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

    /// Number of its first micro-batch among those of all workers in a step.
    pub fn first_micro_batch(&self) -> usize {
        self.mine.start
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
        Batch::stack(&samples, self.size, self.device)
    }
}
