//! The classification branch of JCS.

use super::layers::Linear;
use super::res2net::{self, Res2Net};
use super::{Shape, Store};
use tch::{Kind, Tensor};

/// Classes: index 1 is COVID-19.
const CLASSES: i64 = 2;
/// The class that the attention map explains.
const COVID: i64 = 1;

/// Res2Net-101 with its names at the root, global average pool and a linear layer.
#[derive(Debug)]
pub struct Cls {
    res2net: Res2Net,
    fc: Linear,
}

/// What the classifier puts out.
#[derive(Debug)]
pub struct ClsOutput {
    /// `(N, 2)`.
    pub logits: Tensor,
    /// Activation of the last layer, `(N, 2048, H/32, W/32)`.
    pub layer4: Tensor,
}

impl Cls {
    /// Registers the network's tensors in `store`, in the official order.
    pub fn new(store: &mut Store, shape: &Shape) -> Cls {
        let mut root = store.root();
        let res2net = Res2Net::new(&mut root, shape);
        let [.., last] = res2net::channels(shape.width);
        Cls { res2net, fc: Linear::unbiased(root.child("fc"), last, CLASSES) }
    }

    /// `(N, 3, H, W)` normalised float32 → logits.
    pub fn forward(&self, x: &Tensor) -> ClsOutput {
        self.forward_from(self.res2net.stem(x))
    }

    /// As [`Self::forward`], from the stem's output `(N, 64, H/2, W/2)`.
    pub fn forward_from(&self, x0: Tensor) -> ClsOutput {
        let mut features = self.res2net.features(x0, &mut |_, _| {});
        // Five features always.
        let layer4 = features.swap_remove(4);
        let pooled = layer4.mean_dim([2i64, 3].as_slice(), false, None::<Kind>);
        ClsOutput { logits: self.fc.forward(&pooled), layer4 }
    }

    /// The last layer's activations, weighted by what they mean for COVID-19 (`fc.weight[1]`): `(N, H/32, W/32)`.
    pub fn activation(&self, output: &ClsOutput) -> Tensor {
        let weights = self.fc.row(COVID).view([1, -1, 1, 1]);
        (&output.layer4 * weights).sum_dim_intlist([1i64].as_slice(), false, None::<Kind>)
    }
}

/// Grad-CAM (Selvaraju et al., ICCV 2017) of the logit of COVID-19 on the last layer, `(N, H/32, W/32)`, not scaled, from
/// [`Cls::activation`]. The gradient of the logit is the same at every place, `fc.weight[1] / (H·W)`, for what follows the
/// layer is linear; no backward pass is needed.
pub fn grad_cam(activation: &Tensor) -> Tensor {
    let places: i64 = activation.size().iter().skip(1).product();
    (activation / places as f64).relu()
}
