//! The fusion of the two encoders (paper, section on joint classification and segmentation).

use super::Scope;
use super::layers::{Conv, bilinear, height_width};
use super::norm::{BatchNorm, Norms};
use tch::Tensor;

/// Five pairs of features to five features.
#[derive(Debug)]
pub(super) struct Fuse {
    stages: Vec<[ConvBatchRelu; 3]>,
}

impl Fuse {
    /// `vgg`, `res2net`: channels of the features that come; a fused feature has those of `vgg`. Tensors are
    /// registered in the official order: kind of module first, then stage.
    pub(super) fn new(mut scope: Scope<'_>, vgg: [i64; 5], res2net: [i64; 5], norms: &Norms) -> Fuse {
        let mut of_kind = |kind: &str, both: bool| -> Vec<ConvBatchRelu> {
            let mut scope = scope.child(kind);
            let input = |i: usize| vgg[i] + if both { res2net[i] } else { 0 };
            (0..5).map(|i| ConvBatchRelu::new(scope.child(i), input(i), vgg[i], norms)).collect()
        };
        let kinds = [of_kind("cat_modules", true), of_kind("se_modules", false), of_kind("fuse_modules", false)];
        let [cat, se, fuse] = kinds.map(Vec::into_iter);
        Fuse { stages: cat.zip(se).zip(fuse).map(|((cat, se), fuse)| [cat, se, fuse]).collect() }
    }

    /// Each VGG feature at its Res2Net feature's size, and both together through three convolutions.
    pub(super) fn forward(&self, vgg: &[Tensor], res2net: &[Tensor]) -> Vec<Tensor> {
        let pairs = self.stages.iter().zip(vgg.iter().zip(res2net));
        let fused = |(modules, (v, r)): (&[ConvBatchRelu; 3], (&Tensor, &Tensor))| {
            let x = Tensor::cat(&[&bilinear(v, height_width(r)), r], 1);
            modules.iter().fold(x, |x, module| module.forward(&x))
        };
        pairs.map(fused).collect()
    }
}

/// 3×3 convolution, ordinary batch norm and ReLU: `conv.*`, `bn.*`.
#[derive(Debug)]
struct ConvBatchRelu {
    conv: Conv,
    norm: BatchNorm,
}

impl ConvBatchRelu {
    fn new(mut scope: Scope<'_>, input: i64, output: i64, norms: &Norms) -> ConvBatchRelu {
        let conv = Conv::new(scope.child("conv"), input, output, 3);
        ConvBatchRelu { conv, norm: BatchNorm::new(scope.child("bn"), output, norms) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.norm.forward(&self.conv.forward(x)).relu_()
    }
}
