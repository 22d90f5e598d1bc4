//! The enhanced feature module (paper, section on the segmentation branch; `gpd` in the official code).

use super::Scope;
use super::layers::{Conv, ConvRelu, SqueezeExcite};
use tch::Tensor;

/// Four dilated convolutions side by side, between two 1×1 convolutions.
#[derive(Debug)]
pub(super) struct Gpd {
    expand: ConvRelu,
    reduce: ConvRelu,
    end: ConvRelu,
    se: SqueezeExcite,
    dilated: Vec<Conv>,
}

impl Gpd {
    /// Tensors are registered in the official order.
    pub(super) fn new(mut scope: Scope<'_>, channels: i64, dilations: [i64; 4]) -> Gpd {
        let wide = 2 * channels;
        let group = wide / 4;
        Gpd {
            expand: ConvRelu::new(scope.child("expand_conv"), channels, wide, 1),
            reduce: ConvRelu::new(scope.child("reduce_conv"), wide, channels, 1),
            end: ConvRelu::new(scope.child("end_conv"), channels, channels, 3),
            se: SqueezeExcite::new(scope.child("se_block"), wide, wide / 4),
            dilated: dilations
                .iter()
                .enumerate()
                .map(|(i, d)| Conv::dilated(scope.child("dilation_convs").child(i), group, *d))
                .collect(),
        }
    }

    /// `(N, C, H, W)` → the same shape.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let groups = self.expand.forward(x).chunk(4, 1);
        let groups: Vec<Tensor> = groups.iter().zip(&self.dilated).map(|(g, conv)| conv.forward(g)).collect();
        let x = self.se.forward(&Tensor::cat(&groups, 1).relu_());
        self.end.forward(&self.reduce.forward(&x))
    }
}
