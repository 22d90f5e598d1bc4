//! Layers that the networks share.

use super::norm::{Norm, Norms};
use super::{Init, Scope};
use tch::{Kind, Tensor};

/// A square 2-D convolution (`torch.nn.Conv2d`).
#[derive(Debug)]
pub(crate) struct Conv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
    padding: i64,
    dilation: i64,
}

impl Conv {
    /// `kernel`×`kernel` with bias, stride 1, padded so that height and width stay.
    pub(crate) fn new(mut scope: Scope<'_>, input: i64, output: i64, kernel: i64) -> Conv {
        Self::with(&mut scope, [output, input, kernel, kernel], 1, Init::He).biased(&mut scope)
    }

    /// 3×3 with bias and this dilation, padded so that height and width stay.
    pub(crate) fn dilated(mut scope: Scope<'_>, channels: i64, dilation: i64) -> Conv {
        let conv = Self::with(&mut scope, [channels, channels, 3, 3], dilation, Init::He);
        conv.biased(&mut scope)
    }

    /// 1×1 with bias to a single map, started close to zero, so that every pixel starts at probability 1/2.
    pub(crate) fn head(mut scope: Scope<'_>, input: i64) -> Conv {
        Self::with(&mut scope, [1, input, 1, 1], 1, Init::Normal(0.01)).biased(&mut scope)
    }

    /// `kernel`×`kernel` without bias, padded so that stride 1 keeps height and width.
    pub(crate) fn unbiased(mut scope: Scope<'_>, [input, output]: [i64; 2], kernel: i64, stride: i64) -> Conv {
        Conv { stride, ..Self::with(&mut scope, [output, input, kernel, kernel], 1, Init::He) }
    }

    fn with(scope: &mut Scope<'_>, shape: [i64; 4], dilation: i64, init: Init) -> Conv {
        let weight = scope.parameter("weight", &shape, init);
        Conv { weight, bias: None, stride: 1, padding: dilation * (shape[3] / 2), dilation }
    }

    fn biased(self, scope: &mut Scope<'_>) -> Conv {
        let bias = scope.parameter("bias", &[self.weight.size()[0]], Init::Const(0.0));
        Conv { bias: Some(bias), ..self }
    }

    /// `(N, input, H, W)` → `(N, output, H / stride, W / stride)`, rounded up.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let Conv { weight, bias, stride, padding, dilation } = self;
        x.conv2d(weight, bias.as_ref(), [*stride; 2], [*padding; 2], [*dilation; 2], 1)
    }
}

/// Convolution and ReLU; its tensors are named `conv.weight`, `conv.bias`.
#[derive(Debug)]
pub(crate) struct ConvRelu(Conv);

impl ConvRelu {
    pub(crate) fn new(mut scope: Scope<'_>, input: i64, output: i64, kernel: i64) -> ConvRelu {
        ConvRelu(Conv::new(scope.child("conv"), input, output, kernel))
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward(x).relu_()
    }
}

/// Convolution, batch norm and ReLU: `conv.*`, `bn.*`.
#[derive(Debug)]
pub(crate) struct ConvNormRelu {
    conv: Conv,
    norm: Norm,
}

impl ConvNormRelu {
    pub(crate) fn new(mut scope: Scope<'_>, input: i64, output: i64, norms: &Norms) -> ConvNormRelu {
        ConvNormRelu {
            conv: Conv::new(scope.child("conv"), input, output, 3),
            norm: Norm::new(scope.child("bn"), output, norms),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        self.norm.forward(&self.conv.forward(x)).relu_()
    }
}

/// Squeeze and excitation (Hu et al., 2018): scales each channel by a gate computed from all means.
#[derive(Debug)]
pub(crate) struct SqueezeExcite {
    linear1: Linear,
    linear2: Linear,
}

impl SqueezeExcite {
    /// `hidden` units between the two linear layers.
    pub(crate) fn new(mut scope: Scope<'_>, channels: i64, hidden: i64) -> SqueezeExcite {
        SqueezeExcite {
            linear1: Linear::new(scope.child("linear1"), channels, hidden),
            linear2: Linear::new(scope.child("linear2"), hidden, channels),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let means = x.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        let gates = self.linear2.forward(&self.linear1.forward(&means).relu()).sigmoid();
        x * gates.unsqueeze(-1).unsqueeze(-1)
    }
}

/// A linear layer (`torch.nn.Linear`).
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn unbiased(mut scope: Scope<'_>, input: i64, output: i64) -> Linear {
        Linear { weight: scope.parameter("weight", &[output, input], Init::He), bias: None }
    }

    fn new(mut scope: Scope<'_>, input: i64, output: i64) -> Linear {
        let weight = scope.parameter("weight", &[output, input], Init::He);
        Linear { weight, bias: Some(scope.parameter("bias", &[output], Init::Const(0.0))) }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, self.bias.as_ref())
    }

    /// The weights of one output.
    pub(crate) fn row(&self, output: i64) -> Tensor {
        self.weight.get(output)
    }
}

/// `x` resized to height and width of `size`, bilinear, `align_corners = false`.
pub fn bilinear(x: &Tensor, size: (i64, i64)) -> Tensor {
    if height_width(x) == size {
        return x.shallow_clone();
    }
    x.upsample_bilinear2d([size.0, size.1], false, None, None)
}

/// Height and width of `(N, C, H, W)`.
pub(crate) fn height_width(x: &Tensor) -> (i64, i64) {
    let size = x.size();
    (size[2], size[3])
}
