//! VGG-16 with frozen norms, pooled after the first three stages only.

use super::layers::ConvNormRelu;
use super::{Scope, Shape, scaled};
use tch::Tensor;

/// Width and number of blocks of each stage.
const STAGES: [(i64, usize); 5] = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)];
/// Of stages 2 to 5: stages 4 and 5 both run at 1/8.
const POOLED_BEFORE: [bool; 4] = [true, true, true, false];

/// Channels of the five features at this width.
pub(super) fn channels(width: f64) -> [i64; 5] {
    STAGES.map(|(c, _)| scaled(c, width))
}

/// The encoder.
#[derive(Debug)]
pub(super) struct Vgg16 {
    stages: Vec<Vec<ConvNormRelu>>,
}

impl Vgg16 {
    /// Channels of the five features are those of [`channels`].
    pub(super) fn new(mut scope: Scope<'_>, shape: &Shape) -> Vgg16 {
        let mut input = 3;
        let mut stage = |index: usize, (channels, blocks): (i64, usize)| {
            let output = scaled(channels, shape.width);
            let block = |b: usize| {
                let name = format!("conv{}_{}", index + 1, b + 1);
                ConvNormRelu::new(scope.child(name), std::mem::replace(&mut input, output), output, &shape.norms)
            };
            (0..blocks).map(block).collect()
        };
        let stages = STAGES.iter().enumerate().map(|(i, s)| stage(i, *s)).collect();
        Vgg16 { stages }
    }

    /// `(N, 3, H, W)` → the first stage, `(N, 64, H, W)`.
    pub(super) fn stem(&self, x: &Tensor) -> Tensor {
        forward(&self.stages[0], x.shallow_clone())
    }

    /// The first stage → the last block of each stage, at 1, 1/2, 1/4, 1/8, 1/8.
    pub(super) fn features(&self, first: Tensor) -> Vec<Tensor> {
        let mut features = vec![first];
        for (stage, pooled) in self.stages[1..].iter().zip(POOLED_BEFORE) {
            let f = &features[features.len() - 1];
            let input = if pooled { f.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false) } else { f.shallow_clone() };
            features.push(forward(stage, input));
        }
        features
    }
}

fn forward(blocks: &[ConvNormRelu], x: Tensor) -> Tensor {
    blocks.iter().fold(x, |x, block| block.forward(&x))
}
