//! Res2Net-101 v1b 26w×4s (Gao et al., TPAMI 2021), without its classifier.

use super::layers::Conv;
use super::norm::{Norm, Norms};
use super::{Scope, Shape, scaled};
use tch::Tensor;

/// Planes, blocks and stride of each layer.
const LAYERS: [(i64, usize, i64); 4] = [(64, 3, 1), (128, 4, 2), (256, 23, 2), (512, 3, 2)];
/// Groups of channels in a block.
const SCALE: i64 = 4;

/// Scale of a residual branch at the start from random weights: the sum of 33 branches of scale 1 would explode.
const RESIDUAL_SCALE: f64 = 0.2;

/// The encoder.
#[derive(Debug)]
pub(super) struct Res2Net {
    convs: [Conv; 3],
    norms: [Norm; 3],
    layers: Vec<Vec<Block>>,
}

/// Channels of the five features at this width.
pub(super) fn channels(width: f64) -> [i64; 5] {
    [64, 256, 512, 1024, 2048].map(|c| scaled(c, width))
}

impl Res2Net {
    /// Registers its tensors right in `scope`.
    pub(super) fn new(scope: &mut Scope<'_>, shape: &Shape) -> Res2Net {
        let Shape { width, norms } = shape;
        let width = *width;
        let [c1, c2] = [32, 64].map(|c| scaled(c, width));
        let mut stem = scope.child("conv1");
        let conv0 = Conv::unbiased(stem.child(0), [3, c1], 3, 2);
        let norm0 = Norm::new(stem.child(1), c1, norms);
        let conv1 = Conv::unbiased(stem.child(3), [c1, c1], 3, 1);
        let norm1 = Norm::new(stem.child(4), c1, norms);
        let conv2 = Conv::unbiased(stem.child(6), [c1, c2], 3, 1);
        let norm2 = Norm::new(scope.child("bn1"), c2, norms);
        let outputs = channels(width);
        let mut layer = |i: usize| {
            let mut scope = scope.child(format!("layer{}", i + 1));
            let (planes, blocks, stride) = LAYERS[i];
            let (planes, output) = (scaled(planes, width), outputs[i + 1]);
            let shape = |b: usize| BlockShape {
                input: if b == 0 { outputs[i] } else { output },
                inner: (planes * 26 / 64).max(1),
                output,
                stride: if b == 0 { stride } else { 1 },
                first: b == 0,
            };
            (0..blocks).map(|b| Block::new(scope.child(b), &shape(b), norms)).collect()
        };
        let layers = (0..LAYERS.len()).map(&mut layer).collect();
        Res2Net { convs: [conv0, conv1, conv2], norms: [norm0, norm1, norm2], layers }
    }

    /// `(N, 3, H, W)` → x0, the stem's `(N, 64, H/2, W/2)`.
    pub(super) fn stem(&self, x: &Tensor) -> Tensor {
        let steps = self.convs.iter().zip(&self.norms);
        steps.fold(x.shallow_clone(), |x, (conv, norm)| norm.forward(&conv.forward(&x)).relu_())
    }

    /// x0 → x0 and the outputs of the four layers, at 1/2 to 1/32. Shows `tap` the layers by name.
    pub(super) fn features(&self, x0: Tensor, tap: &mut dyn FnMut(&str, &Tensor)) -> Vec<Tensor> {
        let mut x = x0.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        let mut features = vec![x0];
        for (i, blocks) in self.layers.iter().enumerate() {
            x = blocks.iter().fold(x, |x, block| block.forward(&x));
            tap(&format!("layer{}", i + 1), &x);
            features.push(x.shallow_clone());
        }
        features
    }
}

struct BlockShape {
    input: i64,
    /// Channels of one group.
    inner: i64,
    output: i64,
    stride: i64,
    first: bool,
}

/// A Bottle2neck: between two 1×1 convolutions, groups of channels that see more and more.
#[derive(Debug)]
struct Block {
    conv1: Conv,
    norm1: Norm,
    convs: Vec<Conv>,
    norms: Vec<Norm>,
    conv3: Conv,
    norm3: Norm,
    /// Of a layer's first block.
    downsample: Option<(Conv, Norm)>,
    stride: i64,
}

impl Block {
    fn new(mut scope: Scope<'_>, s: &BlockShape, norms: &Norms) -> Block {
        let wide = s.inner * SCALE;
        let conv1 = Conv::unbiased(scope.child("conv1"), [s.input, wide], 1, 1);
        let norm1 = Norm::new(scope.child("bn1"), wide, norms);
        let group = |i| Conv::unbiased(scope.child("convs").child(i), [s.inner; 2], 3, s.stride);
        let convs = (0..SCALE - 1).map(group).collect();
        let inner = (0..SCALE - 1).map(|i| Norm::new(scope.child("bns").child(i), s.inner, norms)).collect();
        let conv3 = Conv::unbiased(scope.child("conv3"), [wide, s.output], 1, 1);
        let norm3 = Norm::scaled(scope.child("bn3"), s.output, norms, RESIDUAL_SCALE);
        let downsample = s.first.then(|| {
            let mut scope = scope.child("downsample");
            let conv = Conv::unbiased(scope.child(1), [s.input, s.output], 1, 1);
            (conv, Norm::new(scope.child(2), s.output, norms))
        });
        Block { conv1, norm1, convs, norms: inner, conv3, norm3, downsample, stride: s.stride }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let groups = self.norm1.forward(&self.conv1.forward(x)).relu_().chunk(SCALE, 1);
        let mut outputs: Vec<Tensor> = Vec::with_capacity(groups.len());
        for (i, (conv, norm)) in self.convs.iter().zip(&self.norms).enumerate() {
            let input = match outputs.last() {
                Some(before) if self.downsample.is_none() => before + &groups[i],
                _ => groups[i].shallow_clone(),
            };
            outputs.push(norm.forward(&conv.forward(&input)).relu_());
        }
        outputs.push(self.last_group(&groups[groups.len() - 1]));
        let y = self.norm3.forward(&self.conv3.forward(&Tensor::cat(&outputs, 1)));
        (y + self.residual(x)).relu_()
    }

    fn last_group(&self, group: &Tensor) -> Tensor {
        match self.downsample {
            Some(_) => group.avg_pool2d([3, 3], [self.stride; 2], [1, 1], false, true, None),
            None => group.shallow_clone(),
        }
    }

    fn residual(&self, x: &Tensor) -> Tensor {
        let Some((conv, norm)) = &self.downsample else { return x.shallow_clone() };
        let pooled = x.avg_pool2d([self.stride; 2], [self.stride; 2], [0, 0], true, false, None);
        norm.forward(&conv.forward(&pooled))
    }
}
