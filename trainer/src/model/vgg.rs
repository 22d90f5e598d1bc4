//! VGG-16 with frozen norms, pooled after the first three stages only.

use super::layers::ConvNormRelu;
use super::{Scope, scaled};
use tch::Tensor;

/// Width and number of blocks of each stage.
const STAGES: [(i64, usize); 5] = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)];
/// Stages 4 and 5 both run at 1/8.
const POOLED_AFTER: [bool; 5] = [true, true, true, false, false];

/// The encoder.
#[derive(Debug)]
pub(super) struct Vgg16 {
    stages: Vec<Vec<ConvNormRelu>>,
}

impl Vgg16 {
    pub(super) fn new(mut scope: Scope<'_>, width: f64) -> Vgg16 {
        let mut input = 3;
        let mut stage = |index: usize, (channels, blocks): (i64, usize)| {
            let output = scaled(channels, width);
            let block = |b: usize| {
                let name = format!("conv{}_{}", index + 1, b + 1);
                ConvNormRelu::new(scope.child(name), std::mem::replace(&mut input, output), output)
            };
            (0..blocks).map(block).collect()
        };
        let stages = STAGES.iter().enumerate().map(|(i, s)| stage(i, *s)).collect();
        Vgg16 { stages }
    }

    /// `(N, 3, H, W)` → the last block of each stage, at 1, 1/2, 1/4, 1/8, 1/8.
    pub(super) fn forward(&self, x: &Tensor) -> Vec<Tensor> {
        let mut features: Vec<Tensor> = Vec::with_capacity(5);
        for (i, blocks) in self.stages.iter().enumerate() {
            let input = match features.last() {
                None => x.shallow_clone(),
                Some(f) if POOLED_AFTER[i - 1] => f.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
                Some(f) => f.shallow_clone(),
            };
            features.push(blocks.iter().fold(input, |x, block| block.forward(&x)));
        }
        features
    }
}
