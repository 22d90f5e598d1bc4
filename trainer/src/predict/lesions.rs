//! Where the lesions are: the segmentation's part of a result.

use super::{Files, Request, overlay};
use crate::error::Error;
use crate::network::{Description, Input, Network, Output};
use data_shards::decode::Rgb;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// What the segmentation says about an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lesions {
    /// Probability from which a pixel counts as lesion.
    pub threshold: f64,
    /// Pixels of the input that count as lesion.
    pub lesion_pixels: u64,
    /// The same as a share of all pixels.
    pub lesion_share: f64,
    /// Largest probability.
    pub max_probability: f64,
}

/// Writes `mask.png` and `overlay.png`, and returns what they show. `image` is `(1, 3, H, W)`.
pub(super) fn find(
    request: &Request<'_>,
    (network, description): (&Network, &Description),
    image: Tensor,
    original: &Rgb,
    files: &mut Files,
) -> Result<Lesions, Error> {
    let Output::Maps(logits) = tch::no_grad(|| network.forward(&Input::Images(image.shallow_clone()))) else {
        return Err(Error::Usage(format!("a network of kind {} puts out no maps", description.kind.name())));
    };
    let logits = logits.to_kind(Kind::Float);
    let output = logits.sigmoid();
    let whole = [original.height as i64, original.width as i64];
    let probability = super::resized(&output.narrow(1, 0, 1), whole);
    let mask: Vec<bool> = probability.iter().map(|p| f64::from(*p) >= request.threshold).collect();
    files.write("mask.png", &overlay::mask_png(&mask, original)?)?;
    files.write("overlay.png", &overlay::overlay_png(&mask, original)?)?;
    files.keep([("input", image), ("output", output), ("logits", logits)]);
    let lesion_pixels = mask.iter().filter(|m| **m).count() as u64;
    Ok(Lesions {
        threshold: request.threshold,
        lesion_pixels,
        lesion_share: lesion_pixels as f64 / mask.len().max(1) as f64,
        max_probability: probability.iter().copied().fold(0.0, f32::max).into(),
    })
}
