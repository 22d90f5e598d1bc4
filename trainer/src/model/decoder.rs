//! From the encoder's features to five maps: what the segmentation branch and the joint network share.

use super::Scope;
use super::fpn::Fpn;
use super::gpd::Gpd;
use super::layers::{Conv, bilinear};
use tch::Tensor;

/// Enhanced feature modules, decoder and heads.
#[derive(Debug)]
pub(super) struct Decoder {
    gpd: Gpd,
    gpd1: Gpd,
    fpn: Fpn,
    heads: Vec<Conv>,
}

impl Decoder {
    /// `channels` of the encoder's five features.
    pub(super) fn new(root: &mut Scope<'_>, channels: [i64; 5]) -> Decoder {
        let [c0, c1, c2, c3, c4] = channels;
        Decoder {
            gpd: Gpd::new(root.child("gpd"), c4, [1, 3, 6, 9]),
            gpd1: Gpd::new(root.child("gpd1"), c4, [1, 2, 3, 4]),
            fpn: Fpn::new(root.child("fpn"), [c0, c1, c2, c3, c4, c4]),
            heads: (0..5).map(|i| Conv::head(root.child(format!("cls{}", i + 1)), channels[i])).collect(),
        }
    }

    /// Enhances the fifth feature in place, and makes the sixth from it.
    pub(super) fn enhance(&self, features: &mut [Tensor], tap: &mut dyn FnMut(&str, &Tensor)) -> Tensor {
        features[4] = self.gpd.forward(&features[4]);
        tap("gpd", &features[4]);
        let sixth = self.gpd1.forward(&features[4].max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false));
        tap("gpd1", &sixth);
        sixth
    }

    /// Six features → `(N, 5, H, W)` logits, where `(H, W)` is `size`.
    pub(super) fn logits(&self, six: &[Tensor], size: (i64, i64), tap: &mut dyn FnMut(&str, &Tensor)) -> Tensor {
        let decoded = self.fpn.forward(six);
        tap("fpn.fuse.4", &decoded[4]);
        let maps: Vec<Tensor> =
            decoded.iter().zip(&self.heads).map(|(d, head)| bilinear(&head.forward(d), size)).collect();
        Tensor::cat(&maps, 1)
    }
}
