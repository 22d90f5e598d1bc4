//! The segmentation branch of JCS.

use super::fpn::Fpn;
use super::gpd::Gpd;
use super::layers::{Conv, bilinear, height_width};
use super::vgg::Vgg16;
use super::{Store, scaled};
use tch::Tensor;

/// Maps that the network puts out; map 0 is the prediction, all are supervised.
pub const MAPS: i64 = 5;

/// What fixes the network's shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SingleConfig {
    /// Channel multiplier; 1 is the published network.
    pub width: f64,
}

/// VGG-16, two enhanced feature modules, decoder and five heads: 42.5 M parameters at width 1.
#[derive(Debug)]
pub struct Single {
    vgg16: Vgg16,
    gpd: Gpd,
    gpd1: Gpd,
    fpn: Fpn,
    heads: Vec<Conv>,
}

impl Single {
    /// Registers the network's tensors in `store`, in the official order.
    pub fn new(store: &mut Store, config: SingleConfig) -> Single {
        let [c1, c2, c3, c4] = [64, 128, 256, 512].map(|c| scaled(c, config.width));
        let channels = [c1, c2, c3, c4, c4, c4];
        let mut root = store.root();
        Single {
            vgg16: Vgg16::new(root.child("vgg16"), config.width),
            gpd: Gpd::new(root.child("gpd"), c4, [1, 3, 6, 9]),
            gpd1: Gpd::new(root.child("gpd1"), c4, [1, 2, 3, 4]),
            fpn: Fpn::new(root.child("fpn"), channels),
            heads: (0..5).map(|i| Conv::head(root.child(format!("cls{}", i + 1)), channels[i])).collect(),
        }
    }

    /// `(N, 3, H, W)` normalised float32 → probabilities `(N, 5, H, W)`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.logits(x).sigmoid()
    }

    /// As [`Self::forward`], before the sigmoid.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        self.logits_tapped(x, &mut |_, _| {})
    }

    /// As [`Self::logits`]; shows `tap` inner activations by their official names.
    pub fn logits_tapped(&self, x: &Tensor, tap: &mut dyn FnMut(&str, &Tensor)) -> Tensor {
        let mut features = self.vgg16.forward(x);
        tap("vgg16.conv5_3", &features[4]);
        features[4] = self.gpd.forward(&features[4]);
        tap("gpd", &features[4]);
        let sixth = self.gpd1.forward(&features[4].max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false));
        tap("gpd1", &sixth);
        features.push(sixth);
        let decoded = self.fpn.forward(&features);
        tap("fpn.fuse.4", &decoded[4]);
        let maps: Vec<Tensor> =
            decoded.iter().zip(&self.heads).map(|(d, head)| bilinear(&head.forward(d), height_width(x))).collect();
        Tensor::cat(&maps, 1)
    }
}
