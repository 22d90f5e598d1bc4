//! The losses: of segmentation as in the official code, of the classifier.

use crate::model::bilinear;
use protocol::config::{DiceOver, Loss};
use tch::{Kind, Tensor};

/// Keeps the Dice term defined where neither prediction nor mask has a lesion.
const EPSILON: f64 = 1e-5;

/// Sum over the five maps of `bce · BCE(p, t) + dice · (1 − (2·Σpt + ε) / (Σp + Σt + ε))`, the mean
/// resp. the sums over the whole micro-batch (or each sample, see [`DiceOver`]). A scalar.
///
/// `logits` is `(N, 5, H, W)`, `mask` `(N, H, W)` of 0 and 1. Computed in float32 from the logits, which is
/// the same function as from the probabilities but for its finite logarithms: the official BCE clamps
/// them at −100.
pub fn segmentation(logits: &Tensor, mask: &Tensor, weights: &Loss) -> Tensor {
    let logits = logits.to_kind(Kind::Float);
    let target = mask.unsqueeze(1).expand_as(&logits);
    let maps = logits.size()[1] as f64;
    let bce = logits.binary_cross_entropy_with_logits::<Tensor>(&target, None, None, tch::Reduction::Mean) * maps;
    let dice = dice_losses(&logits.sigmoid(), &target, weights.dice_over);
    bce * weights.bce + dice * weights.dice
}

/// What the classifier should have said; mixed samples have mixed targets.
#[derive(Debug)]
pub struct ClassTargets {
    /// Share of each class, `(N, 2)`.
    pub classes: Tensor,
    /// Share of lesion at each pixel, `(N, H, W)`.
    pub masks: Tensor,
    /// Whether (1) there is a mask, or not (0), `(N)`.
    pub has_mask: Tensor,
}

/// `cross_entropy · CE + pixel · BCE`, each a mean over the N samples of the micro-batch. A scalar.
///
/// `logits` is `(N, 2)`; each class counts with its weight in `balance`. The second term compares `activation`, `(N, h, w)`
/// logits, resized to the masks, with the masks; a sample without one counts 0 there, but stays in the graph, so
/// that all ranks have the same one.
pub fn classification(
    logits: &Tensor,
    activation: &Tensor,
    targets: &ClassTargets,
    balance: [f64; 2],
    weights: &Loss,
) -> Tensor {
    let samples = logits.size()[0] as f64;
    // Made there: a copy would wait for all that the device has been asked for.
    let balance = Tensor::cat(&balance.map(|weight| Tensor::full([1], weight, (Kind::Float, logits.device()))), 0);
    let log_p = logits.log_softmax(1, Kind::Float);
    let loss = (&targets.classes * balance * log_p).sum(Kind::Float) * (-weights.cross_entropy / samples);
    if weights.pixel == 0.0 {
        return loss;
    }
    let size = targets.masks.size();
    let attention = bilinear(&activation.to_kind(Kind::Float).unsqueeze(1), (size[1], size[2])).squeeze_dim(1);
    let pixels = attention.binary_cross_entropy_with_logits::<Tensor>(&targets.masks, None, None, tch::Reduction::None);
    let of_sample = pixels.mean_dim([1i64, 2].as_slice(), false, Kind::Float);
    loss + (of_sample * &targets.has_mask).sum(Kind::Float) * (weights.pixel / samples)
}

fn dice_losses(p: &Tensor, t: &Tensor, over: DiceOver) -> Tensor {
    let dims: &[i64] = match over {
        DiceOver::Batch => &[0, 2, 3],
        DiceOver::Sample => &[2, 3],
    };
    let sum = |x: &Tensor| x.sum_dim_intlist(dims, false, Kind::Float);
    let ratio = (sum(&(p * t)) * 2.0 + EPSILON) / (sum(p) + sum(t) + EPSILON);
    let losses: Tensor = 1.0 - ratio;
    match over {
        DiceOver::Batch => losses.sum(Kind::Float),
        DiceOver::Sample => losses.mean_dim([0i64].as_slice(), false, Kind::Float).sum(Kind::Float),
    }
}
