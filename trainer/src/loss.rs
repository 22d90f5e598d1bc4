//! The segmentation loss of the official code.

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
