//! From the data set to batches of tensors.

use crate::Error;
use crate::network::{Description, Input};
use data_shards::augment::Augment;
use data_shards::features::Maps;
use data_shards::remote::{CacheSettings, Location};
use data_shards::{
    Dataset, Features, Fold, Geometry, Loader, LoaderSettings, Part, PixelType, Pixels, Request, Sample, Source,
    partition,
};
use protocol::config::{self, Batches, Config, ModelKind};
use protocol::env::Place;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};
use torch_ext::CopyStream;

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
    /// Stacks samples, in their order, on `device`. `geometry` is that of images; all features must have one size.
    pub fn stack(samples: &[Sample], geometry: &Geometry, device: Device) -> Result<Batch, Error> {
        Ok(Collated::new(samples, geometry)?.try_map(|t| t.f_to(device))?.into_batch())
    }

    /// Its first samples, in the same memory.
    pub fn first(&self, samples: usize) -> Batch {
        let first = |t: &Tensor| t.narrow(0, 0, samples as i64);
        Batch {
            input: self.input.map(first),
            masks: first(&self.masks),
            has_mask: first(&self.has_mask),
            classes: first(&self.classes),
            indices: self.indices.iter().take(samples).copied().collect(),
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

/// The samples of a micro-batch side by side, as the loader made them; nothing is computed yet.
struct Collated {
    /// Images may be bytes, and then have a `scaling`.
    input: Input,
    /// Mean and standard deviation, `(1, 3, 1, 1)`.
    scaling: Option<[Tensor; 2]>,
    /// `(N, H, W)` bytes.
    masks: Tensor,
    has_mask: Tensor,
    classes: Tensor,
    indices: Vec<usize>,
}

impl Collated {
    /// In the host's memory.
    fn new(samples: &[Sample], geometry: &Geometry) -> Result<Collated, Error> {
        let features: Vec<&Features> = samples.iter().filter_map(|s| s.features.as_ref()).collect();
        let (height, width) = features.first().map_or((geometry.height, geometry.width), |f| f.size());
        let (h, w) = (height as i64, width as i64);
        let input = if features.is_empty() {
            Input::Images(stack_images(samples, geometry))
        } else {
            let stacked = |of: fn(&Features) -> Option<&Maps>| stack_maps(&features, of);
            Input::Features { vgg: stacked(|f| f.vgg.as_ref())?, res2net: stacked(|f| f.res2net.as_ref())? }
        };
        let bytes = features.is_empty() && geometry.pixels == PixelType::Byte;
        let of_channels = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]);
        let mask = |s: &Sample| Tensor::from_slice(&s.mask).view([1, h, w]);
        let has_mask: Vec<f32> = samples.iter().map(|s| f32::from(u8::from(s.has_mask))).collect();
        let one_hot = |s: &Sample| [Some(false), Some(true)].map(|class| f32::from(u8::from(s.label == class)));
        let classes: Vec<f32> = samples.iter().flat_map(one_hot).collect();
        Ok(Collated {
            input,
            scaling: bytes.then(|| [geometry.mean, geometry.std].map(of_channels)),
            masks: Tensor::cat(&samples.iter().map(mask).collect::<Vec<_>>(), 0),
            has_mask: Tensor::from_slice(&has_mask),
            classes: Tensor::from_slice(&classes).view([-1, 2]),
            indices: samples.iter().map(|s| s.index).collect(),
        })
    }

    /// The same with another tensor in place of each: on another device.
    fn try_map<E>(&self, f: impl Fn(&Tensor) -> Result<Tensor, E>) -> Result<Collated, E> {
        Ok(Collated {
            input: self.input.try_map(&f)?,
            scaling: self.scaling.as_ref().map(|[mean, std]| Ok([f(mean)?, f(std)?])).transpose()?,
            masks: f(&self.masks)?,
            has_mask: f(&self.has_mask)?,
            classes: f(&self.classes)?,
            indices: self.indices.clone(),
        })
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let others = [&self.masks, &self.has_mask, &self.classes];
        self.input.tensors().chain(self.scaling.iter().flatten()).chain(others)
    }

    /// Normalised floats, computed where the tensors are.
    fn into_batch(self) -> Batch {
        let input = match &self.scaling {
            None => self.input,
            Some([mean, std]) => self.input.map(|images| (images.to_kind(Kind::Float) / 255.0 - mean) / std),
        };
        Batch {
            input,
            masks: self.masks.to_kind(Kind::Float),
            has_mask: self.has_mask,
            classes: self.classes,
            indices: self.indices,
        }
    }
}

/// `(N, 3, H, W)`, normalised float32 or bytes; bytes have one channel where all images are gray.
fn stack_images(samples: &[Sample], geometry: &Geometry) -> Tensor {
    let (h, w) = (geometry.height as i64, geometry.width as i64);
    let one = |sample: &Sample| match &sample.image {
        Pixels::Float(values) => Tensor::from_slice(values).view([1, 3, h, w]),
        Pixels::Byte { channels, values } => Tensor::from_slice(values).view([1, *channels as i64, h, w]),
        Pixels::None => Tensor::zeros([1, 3, h, w], (Kind::Float, Device::Cpu)),
    };
    let images: Vec<Tensor> = samples.iter().map(one).collect();
    let channels = images.iter().map(|image| image.size()[1]).max().unwrap_or(3);
    let images: Vec<Tensor> = images.iter().map(|image| image.expand([1, channels, h, w], false)).collect();
    Tensor::cat(&images, 0)
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
    open_as(split, config, description.kind, description.geometry())
}

/// As [`open`] of the samples to train on, in the form that `data.normalize` says.
pub fn open_for_training(config: &Config, description: &Description) -> Result<Option<Dataset>, Error> {
    let pixels = match config.data.normalize {
        config::Normalize::Host => PixelType::Float,
        config::Normalize::Device => PixelType::Byte,
    };
    open_as(Split::Train, config, description.kind, Geometry { pixels, ..description.geometry() })
}

fn open_as(split: Split, config: &Config, kind: ModelKind, geometry: Geometry) -> Result<Option<Dataset>, Error> {
    let Some(source) = source(split, config)? else { return Ok(None) };
    let mut dataset = Dataset::open(&source, geometry)?;
    match kind {
        ModelKind::Cls => dataset.require_labels()?,
        ModelKind::Single | ModelKind::Joint => dataset.require_masks()?,
    }
    if !source.from.is_remote() {
        dataset.check_masks()?;
    }
    Ok(Some(dataset))
}

fn source(split: Split, config: &Config) -> Result<Option<Source>, Error> {
    let data = &config.data;
    let wrong = |problem| Error::Usage(format!("data.fold: {problem}"));
    let fold = data.fold().map(|text| text.parse::<Fold>().map_err(wrong)).transpose()?;
    let part = fold.map(|fold| Part { fold, held_out: split == Split::Eval });
    let (key, path, splits): (_, _, &[&str]) = match (split, fold) {
        (Split::Train, _) | (Split::Eval, Some(_)) => ("data.train", &data.train, &["train"]),
        (Split::Eval, None) => ("data.eval", &data.eval, &["val", "eval", "test"]),
    };
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let from = location(path).map_err(|error| Error::Usage(format!("{key}: {error}")))?;
    let (root, labels, cache) = (data.root.clone(), data.labels.clone(), cache(data));
    Ok(Some(Source { from, splits, cache, root, labels, part }))
}

/// Where the value of `data.train` or `data.eval` leads.
fn location(path: &Path) -> Result<Location, data_shards::remote::Error> {
    match path.to_str().filter(|_| config::is_url(path)) {
        Some(url) => Location::parse(url),
        None => Ok(Location::from(path.to_owned())),
    }
}

/// Takes credentials out of URLs. For a configuration whose URLs are open, before it is written anywhere.
pub fn hide_credentials(config: &mut Config) {
    if let Some(url) = &mut config.checkpoint.upload {
        *url = protocol::without_credentials(url);
    }
    for path in [&mut config.data.train, &mut config.data.eval] {
        if let Ok(url) = location(path).map(|from| from.to_string())
            && config::is_url(path)
        {
            *path = PathBuf::from(url);
        }
    }
}

fn cache(data: &config::Data) -> CacheSettings {
    let default = CacheSettings::default();
    let limit_bytes = data.cache_limit.as_ref().and_then(config::Bytes::number);
    CacheSettings { dir: data.cache_dir.clone().unwrap_or(default.dir), limit_bytes, ..default }
}

/// How many samples there are, and which, for [`crate::ddp::same_everywhere`].
pub fn describe(train: &Dataset, eval: Option<&Dataset>) -> Vec<String> {
    let set = |name: &str, set: &Dataset| format!("{name}: {} samples ({:.12}…)", set.len(), set.fingerprint());
    std::iter::once(set("data.train", train)).chain(eval.map(|eval| set("data.eval", eval))).collect()
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
            scale: t.scale,
            rotation: t.rotation,
            noise: t.noise,
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
    fn requests(self, dataset: Arc<Dataset>, from: u64, to: u64) -> impl Iterator<Item = Request> + Send + 'static {
        let mut epoch_order: Option<(u64, Vec<u32>)> = None;
        (from..to).flat_map(move |step| {
            let epoch = step / self.steps_per_epoch();
            if epoch_order.as_ref().is_none_or(|(e, _)| *e != epoch) {
                epoch_order = Some((epoch, dataset.epoch_order(self.seed, epoch, self.shuffle)));
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
///
/// Those for a GPU go there by a stream of their own, while another stream computes. They are handed over to it when they
/// are asked for.
pub struct BatchStream {
    dataset: Arc<Dataset>,
    loader: Loader,
    micro: usize,
    geometry: Geometry,
    device: Device,
    /// None on a CPU.
    copies: Option<CopyStream>,
    /// What [`Self::prepare`] has got, on its way to the device.
    prepared: Option<Result<Option<Collated>, Error>>,
    /// Micro-batches of the plan that were not begun.
    left: u64,
}

/// How many micro-batches are decoded ahead.
const AHEAD: usize = 4;

impl BatchStream {
    /// Batches from step `from` up to step `to`.
    pub fn new(
        dataset: Arc<Dataset>,
        plan: &Plan,
        config: &Config,
        device: Device,
        from: u64,
        to: u64,
    ) -> Result<BatchStream, Error> {
        let micro = plan.batches.micro;
        let settings = LoaderSettings {
            seed: config.run.seed,
            augment: augmentation(&config.data.augment),
            workers: config.data.workers,
            queue: AHEAD * micro.max(config.data.workers),
        };
        let geometry = *dataset.geometry();
        let copies = match device {
            Device::Cuda(number) => Some(CopyStream::new(number)?),
            _ => None,
        };
        let loader = Loader::new(dataset.clone(), plan.clone().requests(dataset.clone(), from, to), settings);
        let left = to.saturating_sub(from) * plan.micro_batches() as u64;
        Ok(BatchStream { dataset, loader, micro, geometry, device, copies, prepared: None, left })
    }

    /// The next micro-batch. Not to be called more often than the plan has micro-batches. `None` where `stop` says so before
    /// it is there; then nothing more may be asked for.
    pub fn next_batch(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<Batch>, Error> {
        let begun = match self.prepared.take() {
            Some(prepared) => prepared?,
            None => self.begin(stop)?,
        };
        let Some(begun) = begun else { return Ok(None) };
        if let Some(copies) = &self.copies {
            copies.hand_over(begun.tensors())?;
        }
        Ok(Some(begun.into_batch()))
    }

    /// Whether [`Self::prepare`] does anything.
    pub fn is_for_gpu(&self) -> bool {
        self.copies.is_some()
    }

    /// For a GPU: waits for the samples of the next micro-batch, if the plan has one, and sends them on their way while the
    /// GPU computes what it was asked for. An error, or a `stop`, is what [`Self::next_batch`] then tells.
    pub fn prepare(&mut self, stop: &dyn Fn() -> bool) {
        if self.is_for_gpu() {
            self.look_ahead(stop);
        }
    }

    fn look_ahead(&mut self, stop: &dyn Fn() -> bool) {
        if self.left > 0 && self.prepared.is_none() {
            self.prepared = Some(self.begin(stop));
        }
    }

    /// The next micro-batch on its way to the device.
    fn begin(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<Collated>, Error> {
        self.left = self.left.saturating_sub(1);
        let mut samples = Vec::with_capacity(self.micro);
        for _ in 0..self.micro {
            let Some(sample) = next_sample(&mut self.loader, &self.dataset, stop)? else { return Ok(None) };
            samples.push(sample);
        }
        let collated = Collated::new(&samples, &self.geometry)?;
        samples.into_iter().for_each(|sample| self.loader.give_back(sample));
        Ok(Some(match &self.copies {
            Some(copies) => collated.try_map(|t| copies.upload(t))?,
            None => collated.try_map(|t| t.f_to(self.device))?,
        }))
    }

    /// Lets go of the threads that load, whatever they wait for. Nothing more may be asked for.
    pub fn abandon(&mut self) {
        self.dataset.stop();
        self.loader.abandon();
    }
}

/// The loader's next sample; none at its end, and where `stop` says so first. The loader is then of no more use.
pub(crate) fn next_sample(
    loader: &mut Loader,
    dataset: &Dataset,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Sample>, Error> {
    if !loader.wait(stop) {
        dataset.stop();
        loader.abandon();
        return Ok(None);
    }
    // An error is reported at once, not after the patience of threads that wait for a server as well.
    Ok(loader.next().transpose().inspect_err(|_| dataset.stop())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(image: Pixels) -> Sample {
        let (features, mask, label) = (None, vec![0, 1, 1, 0, 0, 1], Some(true));
        Sample { index: 0, image, features, mask, has_mask: true, label, source_size: (2, 3) }
    }

    #[test]
    fn bytes_are_normalised_as_floats_are() {
        let levels: Vec<u8> = vec![0, 51, 102, 153, 204, 255];
        let colour: Vec<u8> = (0..18).map(|at| at * 14).collect();
        let geometry = |pixels| Geometry { pixels, ..Geometry::imagenet(2, 3) };
        let Geometry { mean, std, .. } = geometry(PixelType::Float);
        let float = |bytes: &[u8]| {
            let value = |(at, byte): (usize, &u8)| (f32::from(*byte) / 255.0 - mean[at / 6]) / std[at / 6];
            Pixels::Float(bytes.iter().enumerate().map(value).collect())
        };
        let byte = |channels, values: &[u8]| sample(Pixels::Byte { channels, values: values.to_vec() });
        let bytes = [byte(1, &levels), byte(3, &colour)];
        let floats = [sample(float(&levels.repeat(3))), sample(float(&colour))];
        let stack = |samples: &[Sample], pixels| Batch::stack(samples, &geometry(pixels), Device::Cpu).unwrap();
        let (bytes, floats) = (stack(&bytes, PixelType::Byte), stack(&floats, PixelType::Float));
        let (Input::Images(a), Input::Images(b)) = (&bytes.input, &floats.input) else { panic!("no images") };
        assert_eq!((a.size(), a.kind()), (vec![2, 3, 2, 3], Kind::Float));
        let apart = ((a - b).abs() / (b.abs() + 1.0)).max().double_value(&[]);
        end_to_end::numbers::at_most("bytes normalised on the device", apart, 1e-6);
        assert_eq!(bytes.masks.kind(), Kind::Float);
        assert_eq!(f64::try_from(bytes.masks.sum(None)).unwrap(), 6.0);
        let gray = stack(&[sample(Pixels::Byte { channels: 1, values: levels })], PixelType::Byte);
        let Input::Images(gray) = gray.input else { panic!("no images") };
        assert_eq!(gray.size(), [1, 3, 2, 3], "gray alone has three channels, too");
    }

    /// A folder with images of 32 × 32 pixels and a list of them, of which the last one is cut off where `damaged`.
    fn images(name: &str, damaged: bool) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("jcs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut list = String::new();
        for i in 0..4u8 {
            let pixel = |x: u32, y: u32| image::Luma([(x * 7 + y * 5) as u8 ^ (i * 50)]);
            image::GrayImage::from_fn(32, 32, pixel).save(dir.join(format!("{i}.png"))).unwrap();
            image::GrayImage::from_fn(32, 32, |x, _| image::Luma([if x > 9 { 255 } else { 0 }]))
                .save(dir.join(format!("{i}-mask.png")))
                .unwrap();
            list += &format!("{i}.png {i}-mask.png\n");
        }
        if damaged {
            let whole = std::fs::read(dir.join("3.png")).unwrap();
            std::fs::write(dir.join("3.png"), &whole[..whole.len() / 2]).unwrap();
        }
        std::fs::write(dir.join("list.txt"), list).unwrap();
        dir
    }

    /// Two epochs of the images in `dir`, two micro-batches of one sample a step, in their order or not.
    fn stream(dir: &Path, shuffle: bool) -> BatchStream {
        let mut config = Config::default();
        config.data.train = dir.join("list.txt");
        config.data.size = config::Size::Square(32);
        config.data.shuffle = shuffle;
        let dataset = Arc::new(open_for_training(&config, &Description::of(&config)).unwrap().unwrap());
        let plan = Plan::new(dataset.len(), &config, Batches { global: 2, micro: 1 }, &Place::ALONE).unwrap();
        BatchStream::new(dataset, &plan, &config, Device::Cpu, 0, 4).unwrap()
    }

    #[test]
    fn looking_ahead_changes_nothing() {
        let dir = images("ahead", false);
        let (mut plain, mut ahead) = (stream(&dir, true), stream(&dir, true));
        let go_on = || false;
        for i in 0..8 {
            let [a, b] = [&mut plain, &mut ahead].map(|stream| stream.next_batch(&go_on).unwrap().unwrap());
            assert_eq!(a.indices, b.indices);
            let (Input::Images(a), Input::Images(b)) = (&a.input, &b.input) else { panic!("no images") };
            assert!(a.equal(b));
            ahead.look_ahead(&go_on);
            ahead.look_ahead(&go_on);
            assert_eq!(ahead.prepared.is_some(), i < 7, "no more batches than the plan has");
        }
        plain.prepare(&go_on);
        assert!(plain.prepared.is_none(), "on a CPU nothing is prepared");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_error_ahead_waits_until_the_batch_is_asked_for() {
        let dir = images("damaged", true);
        let mut stream = stream(&dir, false);
        for _ in 0..3 {
            assert!(stream.next_batch(&|| false).unwrap().is_some());
            stream.look_ahead(&|| false);
        }
        let error = stream.next_batch(&|| false).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("3.png"), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_first_samples_of_a_batch_are_a_batch() {
        let samples = [0u8, 90, 180].map(|level| sample(Pixels::Byte { channels: 1, values: vec![level; 6] }));
        let geometry = Geometry { pixels: PixelType::Byte, ..Geometry::imagenet(2, 3) };
        let whole = Batch::stack(&samples, &geometry, Device::Cpu).unwrap();
        let (first, two) = (whole.first(2), Batch::stack(&samples[..2], &geometry, Device::Cpu).unwrap());
        let (Input::Images(a), Input::Images(b)) = (&first.input, &two.input) else { panic!("no images") };
        assert!(a.equal(b) && first.masks.equal(&two.masks) && first.classes.equal(&two.classes));
        assert_eq!((first.len(), first.has_mask.size()), (2, vec![2]));
    }
}
