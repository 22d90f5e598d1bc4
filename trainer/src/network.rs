//! A network with its tensors: what weights files hold, and what travels in their metadata.

use crate::loss::{self, ClassTargets};
use crate::model::{self, Cls, ClsOutput, Group, Joint, Norms, Shape, Single, Statistics, Store};
use crate::weights::{self, Weights};
use data_shards::features::Wanted;
use data_shards::{Fit, Geometry, PixelType};
use protocol::config::{self, Config, Loss, Model, ModelKind, Norm};
use protocol::config::{SIDES, WIDTHS};
use std::collections::HashMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// What a weights file says about the network and its input.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The network.
    pub kind: ModelKind,
    /// Channel multiplier.
    pub width: f64,
    /// Whether its norms are all ordinary ones, rather than the official network's.
    pub trained_norms: bool,
    /// Whether it takes features in place of images.
    pub from_features: bool,
    /// Height and width that the network was trained at, in pixels.
    pub size: (usize, usize),
    /// Whether the file says that size.
    pub says_size: bool,
    /// Mean that is taken from each channel of 0…1.
    pub mean: [f32; 3],
    /// Standard deviation that it is divided by.
    pub std: [f32; 3],
    /// What was assumed because the file does not say it.
    pub assumed: Vec<String>,
}

impl Description {
    /// What the configuration asks for.
    pub fn of(config: &Config) -> Description {
        let size = config.data.size.height_width();
        let g = Geometry::imagenet(size.0, size.1);
        let Model { kind, width, .. } = config.model;
        let trained_norms = config.model.norm() != Norm::Frozen;
        let from_features = config.data.input == config::Input::Features;
        let says_size = false;
        let (mean, std, assumed) = (g.mean, g.std, Vec::new());
        Description { kind, width, trained_norms, from_features, size, says_size, mean, std, assumed }
    }

    /// What the metadata of a weights file says; the official defaults, named in `assumed`, where it is silent.
    pub fn from_metadata(weights: &Weights) -> Result<Description, weights::Error> {
        let mut d = Description::of(&Config::default());
        let get = |key: &str| weights.metadata.get(key);
        let wrong = |key: &str, value: &str| weights::Error::Format {
            file: weights.file.clone(),
            problem: format!("metadata '{key}' = '{value}' is not understood"),
        };
        match get("kind").map(String::as_str) {
            None => {
                d.kind = kind_of(weights);
                d.assumed.push(format!("kind = {}", d.kind.name()));
            }
            Some(name) => d.kind = ModelKind::named(name).ok_or_else(|| wrong("kind", name))?,
        }
        d.trained_norms = match get("norm").map(String::as_str) {
            None => weights::has_trained_encoder(weights),
            Some("frozen") => false,
            Some("trained") => true,
            Some(other) => return Err(wrong("norm", other)),
        };
        d.from_features = match get("input").map(String::as_str) {
            None | Some("images") => false,
            Some("features") => true,
            Some(other) => return Err(wrong("input", other)),
        };
        match get("width") {
            None => {
                d.width = width_of(weights);
                d.assumed.push(format!("width = {}", d.width));
            }
            Some(v) => d.width = v.parse().ok().filter(|w| WIDTHS.contains(w)).ok_or_else(|| wrong("width", v))?,
        }
        match get("size") {
            None => {
                let side = if d.kind == ModelKind::Cls { 224 } else { 512 };
                d.size = (side, side);
                d.assumed.push(format!("size = {side} × {side}"));
            }
            Some(v) => {
                d.size = pair(v).ok_or_else(|| wrong("size", v))?;
                d.says_size = true;
            }
        }
        for (key, target) in [("mean", &mut d.mean), ("std", &mut d.std)] {
            match get(key) {
                None => d.assumed.push(format!("{key} of ImageNet")),
                Some(v) => *target = triple(v).ok_or_else(|| wrong(key, v))?,
            }
        }
        Ok(d)
    }

    /// The metadata for a weights file.
    pub fn to_metadata(&self) -> HashMap<String, String> {
        let list = |v: &[f32; 3]| v.map(|x| x.to_string()).join(",");
        HashMap::from([
            ("format".into(), "jcs 1".into()),
            ("kind".into(), self.kind.name().into()),
            ("width".into(), self.width.to_string()),
            ("input".into(), if self.from_features { "features" } else { "images" }.into()),
            ("norm".into(), if self.trained_norms { "trained" } else { "frozen" }.into()),
            ("size".into(), format!("{}x{}", self.size.0, self.size.1)),
            ("mean".into(), list(&self.mean)),
            ("std".into(), list(&self.std)),
        ])
    }

    /// The features that the network takes, where it takes no images.
    pub fn features(&self) -> Option<Wanted> {
        self.from_features.then(|| Wanted {
            vgg: self.kind != ModelKind::Cls,
            res2net: self.kind != ModelKind::Single,
            channels: model::scaled(64, self.width) as usize,
        })
    }

    /// Size and normalisation, for the loader.
    pub fn geometry(&self) -> Geometry {
        let of_images = if self.kind == ModelKind::Cls { Fit::CentreCrop } else { Fit::Stretch };
        let fit = self.features().map_or(of_images, Fit::Features);
        let (height, width) = self.size;
        Geometry { height, width, mean: self.mean, std: self.std, fit, pixels: PixelType::Float }
    }
}

fn pair(v: &str) -> Option<(usize, usize)> {
    let (h, w) = v.split_once('x')?;
    let side = |text: &str| text.parse().ok().filter(|n| SIDES.contains(n));
    Some((side(h)?, side(w)?))
}

fn triple(v: &str) -> Option<[f32; 3]> {
    let numbers: Vec<f32> = v.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok().filter(|v: &[f32; 3]| v.iter().all(|x| x.is_finite()))
}

/// The width of a file without metadata, by the first norm of an encoder, which has 64 channels at width 1.
fn width_of(weights: &Weights) -> f64 {
    let is_first = |name: &str| ["vgg16.conv1_1.bn.weight", "res2net.bn1.weight", "bn1.weight"].contains(&name);
    let channels = weights.tensors.iter().find(|(name, _)| is_first(name)).map(|(_, tensor)| tensor.numel());
    channels.map(|n| n as f64 / 64.0).filter(|width| WIDTHS.contains(width)).unwrap_or(1.0)
}

/// What a file without metadata holds, by its tensors.
fn kind_of(weights: &Weights) -> ModelKind {
    let has = |prefix: &str| weights.tensors.iter().any(|(name, _)| name.starts_with(prefix));
    match (has("res2net."), has("vgg16.")) {
        (true, _) => ModelKind::Joint,
        (false, true) => ModelKind::Single,
        (false, false) => {
            if has("layer4.") {
                ModelKind::Cls
            } else {
                ModelKind::Single
            }
        }
    }
}

/// The layers of a network.
#[derive(Debug)]
enum Layers {
    Single(Box<Single>),
    Joint(Box<Joint>),
    Cls(Box<Cls>),
}

/// What a network takes in.
#[derive(Debug)]
pub enum Input {
    /// `(N, 3, H, W)`, normalised float32.
    Images(Tensor),
    /// The outputs of its encoders' first stages, as far as it has them.
    Features {
        /// `(N, 64, H, W)`
        vgg: Option<Tensor>,
        /// `(N, 64, H/2, W/2)`
        res2net: Option<Tensor>,
    },
}

impl Input {
    /// The same with another tensor in place of each.
    pub fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Input {
        match self {
            Input::Images(t) => Input::Images(f(t)),
            Input::Features { vgg, res2net } => {
                Input::Features { vgg: vgg.as_ref().map(&f), res2net: res2net.as_ref().map(&f) }
            }
        }
    }

    /// As [`Self::map`], with what may fail.
    pub fn try_map<E>(&self, f: impl Fn(&Tensor) -> Result<Tensor, E>) -> Result<Input, E> {
        Ok(match self {
            Input::Images(t) => Input::Images(f(t)?),
            Input::Features { vgg, res2net } => Input::Features {
                vgg: vgg.as_ref().map(&f).transpose()?,
                res2net: res2net.as_ref().map(&f).transpose()?,
            },
        })
    }

    /// Its tensors.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let (first, second) = match self {
            Input::Images(t) => (Some(t), None),
            Input::Features { vgg, res2net } => (vgg.as_ref(), res2net.as_ref()),
        };
        first.into_iter().chain(second)
    }
}

/// What a network puts out.
#[derive(Debug)]
pub enum Output {
    /// Logits of five maps, `(N, 5, H, W)`.
    Maps(Tensor),
    /// Of the classifier.
    Classes {
        /// `(N, 2)`; index 1 is COVID-19.
        logits: Tensor,
        /// Logit of COVID-19 at each place of the last layer, `(N, H/32, W/32)`.
        activation: Tensor,
    },
}

/// A network and its tensors.
pub struct Network {
    /// The tensors.
    pub store: Store,
    layers: Layers,
    /// Of norms that learn.
    statistics: Option<Arc<Statistics>>,
}

impl Network {
    /// A network with random weights drawn from `seed`, in evaluation mode. Norms that learn take their
    /// statistics over `group`, where there is one.
    pub fn random(description: &Description, device: Device, seed: u64, group: Option<Arc<dyn Group>>) -> Network {
        tch::manual_seed(seed as i64);
        let mut store = Store::new(device);
        let statistics =
            description.trained_norms.then(|| group.map_or_else(Statistics::local, Statistics::of_all_ranks));
        let norms = statistics.clone().map_or(Norms::Frozen, Norms::Batch);
        let shape = Shape { width: description.width, norms };
        let layers = match description.kind {
            ModelKind::Single => Layers::Single(Box::new(Single::new(&mut store, &shape))),
            ModelKind::Joint => Layers::Joint(Box::new(Joint::new(&mut store, &shape))),
            ModelKind::Cls => Layers::Cls(Box::new(Cls::new(&mut store, &shape))),
        };
        Network { store, layers, statistics }
    }

    /// The network that a weights file holds, with what the file says about it.
    pub fn from_weights(weights: &Weights, device: Device) -> Result<(Network, Description), weights::Error> {
        let description = Description::from_metadata(weights)?;
        let network = Network::random(&description, device, 0, None);
        weights::load_into(&network.store, weights).map_err(|e| match e {
            weights::Error::Mismatch { file, problem } if !description.assumed.is_empty() => {
                let assumed = description.assumed.join(", ");
                weights::Error::Mismatch {
                    file,
                    problem: format!("{problem} (it does not say, so assumed: {assumed})"),
                }
            }
            other => other,
        })?;
        Ok((network, description))
    }

    /// Training mode: norms that learn use the batch's statistics. Without it they use the running ones.
    pub fn set_training(&self, training: bool) {
        if let Some(statistics) = &self.statistics {
            statistics.set_training(training);
        }
    }

    /// Freezes the parameters that the loss does not depend on, found by one backward pass over an empty
    /// input, and returns their names. The same on every rank.
    pub fn freeze_unused(&mut self, description: &Description, weights: &Loss) -> Result<Vec<String>, tch::TchError> {
        let side = 32;
        let options = (Kind::Float, self.store.device());
        let empty = |channels: usize, side: i64| Tensor::zeros([1, channels as i64, side, side], options);
        let input = match description.features() {
            None => Input::Images(empty(3, side)),
            Some(wanted) => Input::Features {
                vgg: wanted.vgg.then(|| empty(wanted.channels, side)),
                res2net: wanted.res2net.then(|| empty(wanted.channels, side / 2)),
            },
        };
        let mask = Tensor::zeros([1, side, side], options);
        let loss = match self.forward(&input) {
            Output::Maps(logits) => loss::segmentation(&logits, &mask, weights),
            Output::Classes { logits, activation } => {
                let classes = Tensor::full([1, 2], 0.5, options);
                let targets = ClassTargets { classes, masks: mask, has_mask: Tensor::ones([1], options) };
                loss::classification(&logits, &activation, &targets, [1.0; 2], weights)
            }
        };
        loss.f_backward()?;
        Ok(self.store.freeze_without_gradient())
    }

    /// Logits of the input. Features that the network needs must be there.
    pub fn forward(&self, input: &Input) -> Output {
        let no_tap = &mut |_: &str, _: &Tensor| {};
        let given = |t: &Option<Tensor>| t.as_ref().map_or_else(Tensor::new, Tensor::shallow_clone);
        match (&self.layers, input) {
            (Layers::Single(single), Input::Images(x)) => Output::Maps(single.logits(x, no_tap)),
            (Layers::Single(single), Input::Features { vgg, .. }) => {
                Output::Maps(single.logits_from(given(vgg), no_tap))
            }
            (Layers::Joint(joint), Input::Images(x)) => Output::Maps(joint.logits(x, no_tap)),
            (Layers::Joint(joint), Input::Features { vgg, res2net }) => {
                Output::Maps(joint.logits_from(given(vgg), given(res2net), no_tap))
            }
            (Layers::Cls(cls), Input::Images(x)) => classes(cls, cls.forward(x)),
            (Layers::Cls(cls), Input::Features { res2net, .. }) => classes(cls, cls.forward_from(given(res2net))),
        }
    }
}

fn classes(cls: &Cls, output: ClsOutput) -> Output {
    let activation = cls.activation(&output);
    Output::Classes { logits: output.logits, activation }
}
