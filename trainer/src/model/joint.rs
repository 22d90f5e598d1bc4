//! The whole of JCS: segmentation with the classifier's encoder beside its own.

use super::decoder::Decoder;
use super::fuse::Fuse;
use super::layers::height_width;
use super::res2net::{self, Res2Net};
use super::vgg::{self, Vgg16};
use super::{Shape, Store, Tap};
use tch::Tensor;

/// VGG-16 and Res2Net-101, their fusion, and the decoder of [`super::Single`]: 117.7 M parameters at width 1.
#[derive(Debug)]
pub struct Joint {
    vgg16: Vgg16,
    res2net: Res2Net,
    fuse: Fuse,
    decoder: Decoder,
}

impl Joint {
    /// Registers the network's tensors in `store`, in the official order.
    pub fn new(store: &mut Store, shape: &Shape) -> Joint {
        let (vgg, res2net) = (vgg::channels(shape.width), res2net::channels(shape.width));
        let mut root = store.root();
        Joint {
            vgg16: Vgg16::new(root.child("vgg16"), shape),
            res2net: Res2Net::new(&mut root.child("res2net"), shape),
            fuse: Fuse::new(root.child("fuse"), vgg, res2net, &shape.norms),
            decoder: Decoder::new(&mut root, vgg),
        }
    }

    /// `(N, 3, H, W)` normalised float32 → logits `(N, 5, H, W)`.
    pub fn logits(&self, x: &Tensor, tap: Tap<'_>) -> Tensor {
        self.logits_from(self.vgg16.stem(x), self.res2net.stem(x), tap)
    }

    /// As [`Self::logits`], from the first stages' outputs: of VGG `(N, 64, H, W)`, of Res2Net `(N, 64, H/2, W/2)`.
    pub fn logits_from(&self, vgg: Tensor, res2net: Tensor, tap: Tap<'_>) -> Tensor {
        let size = height_width(&vgg);
        let mut features = self.vgg16.features(vgg);
        // The sixth feature is made before the fusion.
        let sixth = self.decoder.enhance(&mut features, tap);
        let res2net = self.res2net.features(res2net, &mut |name, t| tap(&format!("res2net.{name}"), t));
        let mut fused = self.fuse.forward(&features, &res2net);
        tap("fuse.fuse_modules.4", &fused[4]);
        fused.push(sixth);
        self.decoder.logits(&fused, size, tap)
    }
}
