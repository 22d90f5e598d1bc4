//! Batch norms (Ioffe and Szegedy, 2015).

use super::{Init, Scope};
use tch::Tensor;

/// As `torch.nn.BatchNorm2d`.
const EPSILON: f64 = 1e-5;

/// Batch norm whose four tensors never change: `y = x·s + (b − mean·s)`, `s = weight / sqrt(var)`,
/// without epsilon.
#[derive(Debug)]
pub(crate) struct FrozenNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
}

impl FrozenNorm {
    pub(crate) fn new(scope: Scope<'_>, channels: i64) -> FrozenNorm {
        Self::scaled(scope, channels, 1.0)
    }

    /// Starts with `scale` instead of 1. At the end of residual branches, which nothing else keeps from growing.
    pub(crate) fn scaled(mut scope: Scope<'_>, channels: i64, scale: f64) -> FrozenNorm {
        FrozenNorm {
            weight: scope.buffer("weight", &[channels], scale),
            bias: scope.buffer("bias", &[channels], 0.0),
            mean: scope.buffer("running_mean", &[channels], 0.0),
            var: scope.buffer("running_var", &[channels], 1.0),
        }
    }

    /// In the official order of operations: folding the norm into the weights rounds otherwise, and is no faster.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let scale = &self.weight * self.var.rsqrt();
        let shift = &self.bias - &self.mean * &scale;
        x * scale.view([1, -1, 1, 1]) + shift.view([1, -1, 1, 1])
    }
}

/// An ordinary batch norm in evaluation mode: scale and shift learn, the running statistics stay, as the
/// official training of the joint network has it.
#[derive(Debug)]
pub(crate) struct RunningNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
}

impl RunningNorm {
    pub(crate) fn new(mut scope: Scope<'_>, channels: i64) -> RunningNorm {
        let norm = RunningNorm {
            weight: scope.parameter("weight", &[channels], Init::Const(1.0)),
            bias: scope.parameter("bias", &[channels], Init::Const(0.0)),
            mean: scope.buffer("running_mean", &[channels], 0.0),
            var: scope.buffer("running_var", &[channels], 1.0),
        };
        scope.counter("num_batches_tracked");
        norm
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        x.batch_norm(weight, bias, Some(&self.mean), Some(&self.var), false, 0.0, EPSILON, false)
    }
}
