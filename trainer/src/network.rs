//! A network with its tensors: what weights files hold, and what travels in their metadata.

use crate::loss;
use crate::model::{Joint, Norms, Shape, Single, Store};
use crate::weights::{self, Weights};
use data_shards::Geometry;
use protocol::config::{Config, Loss, Model, ModelKind};
use protocol::config::{SIDES, WIDTHS};
use std::collections::HashMap;
use tch::{Device, Kind, Tensor};

/// What a weights file says about the network and its input.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The network.
    pub kind: ModelKind,
    /// Channel multiplier.
    pub width: f64,
    /// Height and width that the network was trained at, in pixels.
    pub size: (usize, usize),
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
        Description { kind, width, size, mean: g.mean, std: g.std, assumed: Vec::new() }
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
        match get("width") {
            None => d.assumed.push("width = 1".into()),
            Some(v) => d.width = v.parse().ok().filter(|w| WIDTHS.contains(w)).ok_or_else(|| wrong("width", v))?,
        }
        match get("size") {
            None => d.assumed.push("size = 512 × 512".into()),
            Some(v) => d.size = pair(v).ok_or_else(|| wrong("size", v))?,
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
            ("size".into(), format!("{}x{}", self.size.0, self.size.1)),
            ("mean".into(), list(&self.mean)),
            ("std".into(), list(&self.std)),
        ])
    }

    /// Size and normalisation, for the loader.
    pub fn geometry(&self) -> Geometry {
        Geometry { height: self.size.0, width: self.size.1, mean: self.mean, std: self.std }
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

/// What a file without metadata holds, by its tensors.
fn kind_of(weights: &Weights) -> ModelKind {
    match weights.tensors.iter().any(|(name, _)| name.starts_with("res2net.")) {
        true => ModelKind::Joint,
        false => ModelKind::Single,
    }
}

/// The layers of a network.
#[derive(Debug)]
enum Layers {
    Single(Box<Single>),
    Joint(Box<Joint>),
}

/// A network and its tensors.
pub struct Network {
    /// The tensors.
    pub store: Store,
    layers: Layers,
}

impl Network {
    /// A network with random weights drawn from `seed`.
    pub fn random(description: &Description, device: Device, seed: u64) -> Network {
        tch::manual_seed(seed as i64);
        let mut store = Store::new(device);
        let shape = Shape { width: description.width, norms: Norms::Frozen };
        let layers = match description.kind {
            ModelKind::Single => Layers::Single(Box::new(Single::new(&mut store, &shape))),
            ModelKind::Joint => Layers::Joint(Box::new(Joint::new(&mut store, &shape))),
        };
        Network { store, layers }
    }

    /// The network that a weights file holds, with what the file says about it.
    pub fn from_weights(weights: &Weights, device: Device) -> Result<(Network, Description), weights::Error> {
        let description = Description::from_metadata(weights)?;
        let network = Network::random(&description, device, 0);
        weights::load_into(&network.store, weights)?;
        Ok((network, description))
    }

    /// Freezes the parameters that the loss does not depend on, found by one backward pass over an empty
    /// image, and returns their names. The same on every rank.
    pub fn freeze_unused(&mut self, weights: &Loss) -> Result<Vec<String>, tch::TchError> {
        let side = 32;
        let image = Tensor::zeros([1, 3, side, side], (Kind::Float, self.store.device()));
        let mask = Tensor::zeros([1, side, side], (Kind::Float, self.store.device()));
        loss::segmentation(&self.logits(&image), &mask, weights).f_backward()?;
        Ok(self.store.freeze_without_gradient())
    }

    /// `(N, 3, H, W)` normalised → logits `(N, 5, H, W)`.
    pub fn logits(&self, images: &Tensor) -> Tensor {
        match &self.layers {
            Layers::Single(single) => single.logits(images, &mut |_, _| {}),
            Layers::Joint(joint) => joint.logits(images, &mut |_, _| {}),
        }
    }
}
