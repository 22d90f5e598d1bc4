//! The decoder with attentive feature fusion (paper, section on the segmentation branch).

use super::Scope;
use super::layers::{ConvRelu, SqueezeExcite, bilinear, height_width};
use tch::Tensor;

/// Six features, from fine to coarse, to five maps of features.
#[derive(Debug)]
pub(super) struct Fpn {
    lateral: Vec<ConvRelu>,
    upward: Vec<ConvRelu>,
    fuse: Vec<Fusion>,
    start: ConvRelu,
}

impl Fpn {
    /// `channels` of the six features; input and output widths are equal.
    pub(super) fn new(mut scope: Scope<'_>, channels: [i64; 6]) -> Fpn {
        let half = |i: usize| if i < 5 { channels[i] / 2 } else { channels[i] };
        let lateral =
            (0..6).map(|i| ConvRelu::new(scope.child("inners_a").child(i), channels[i], half(i), 1)).collect();
        let upward =
            (0..5).map(|i| ConvRelu::new(scope.child("inners_b").child(i), channels[i + 1], half(i), 1)).collect();
        let fuse = (0..5).map(|i| Fusion::new(scope.child("fuse").child(i), channels[i])).collect();
        let start = ConvRelu::new(scope.child("fuse").child(5), channels[5], channels[5], 3);
        Fpn { lateral, upward, fuse, start }
    }

    /// Outputs 0 (fine) to 4 (coarse), each of its feature's size.
    pub(super) fn forward(&self, features: &[Tensor]) -> Vec<Tensor> {
        let mut s = self.start.forward(&self.lateral[5].forward(&features[5]));
        let mut outputs = Vec::with_capacity(5);
        for i in (0..5).rev() {
            let high = bilinear(&self.upward[i].forward(&s), height_width(&features[i]));
            let low = self.lateral[i].forward(&features[i]);
            s = self.fuse[i].forward(&low, &high);
            outputs.push(s.shallow_clone());
        }
        outputs.reverse();
        outputs
    }
}

/// Attentive feature fusion of two features of C/2 channels each, to C.
#[derive(Debug)]
struct Fusion {
    se1: SqueezeExcite,
    conv1: ConvRelu,
    se2: SqueezeExcite,
    reduce: ConvRelu,
    conv2: ConvRelu,
}

impl Fusion {
    fn new(mut scope: Scope<'_>, channels: i64) -> Fusion {
        let wide = channels * 3 / 2;
        Fusion {
            se1: SqueezeExcite::new(scope.child("se1"), channels, 1),
            conv1: ConvRelu::new(scope.child("conv1"), channels, channels, 3),
            se2: SqueezeExcite::new(scope.child("se2"), wide, 1),
            reduce: ConvRelu::new(scope.child("reduce_conv"), wide, channels, 1),
            conv2: ConvRelu::new(scope.child("conv2"), channels, channels, 3),
        }
    }

    fn forward(&self, low: &Tensor, high: &Tensor) -> Tensor {
        let x = self.se1.forward(&Tensor::cat(&[low, high], 1));
        let x = self.conv1.forward(&x);
        let x = self.se2.forward(&Tensor::cat(&[&x, high], 1));
        self.conv2.forward(&self.reduce.forward(&x))
    }
}
