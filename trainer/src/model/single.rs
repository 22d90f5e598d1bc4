//! The segmentation branch of JCS.

use super::decoder::Decoder;
use super::layers::height_width;
use super::vgg::{self, Vgg16};
use super::{Shape, Store, Tap};
use tch::Tensor;

/// VGG-16, two enhanced feature modules, decoder and five heads: 42.5 M parameters at width 1.
#[derive(Debug)]
pub struct Single {
    vgg16: Vgg16,
    decoder: Decoder,
}

impl Single {
    /// Registers the network's tensors in `store`, in the official order.
    pub fn new(store: &mut Store, shape: &Shape) -> Single {
        let mut root = store.root();
        Single {
            vgg16: Vgg16::new(root.child("vgg16"), shape),
            decoder: Decoder::new(&mut root, vgg::channels(shape.width)),
        }
    }

    /// `(N, 3, H, W)` normalised float32 → logits `(N, 5, H, W)`.
    pub fn logits(&self, x: &Tensor, tap: Tap<'_>) -> Tensor {
        self.logits_from(self.vgg16.stem(x), tap)
    }

    /// As [`Self::logits`], from the first stage's output `(N, 64, H, W)`.
    pub fn logits_from(&self, first: Tensor, tap: Tap<'_>) -> Tensor {
        let size = height_width(&first);
        let mut features = self.vgg16.features(first);
        tap("vgg16.conv5_3", &features[4]);
        let sixth = self.decoder.enhance(&mut features, tap);
        features.push(sixth);
        self.decoder.logits(&features, size, tap)
    }
}
