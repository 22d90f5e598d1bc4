//! Batch norms (Ioffe and Szegedy, 2015).

use super::{Init, Scope};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tch::{Kind, Tensor};

/// As `torch.nn.BatchNorm2d`.
const EPSILON: f64 = 1e-5;
/// Share of a batch in the running statistics, as `torch.nn.BatchNorm2d`.
const MOMENTUM: f64 = 0.1;

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
    pub(crate) fn new(mut scope: Scope<'_>, channels: i64, scale: f64) -> FrozenNorm {
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
        let y = x * scale.view([1, -1, 1, 1]) + shift.view([1, -1, 1, 1]);
        // Under autocast as `torch.nn.functional.batch_norm`: computed in float32, and of the input's type.
        if y.kind() == x.kind() { y } else { y.to_kind(x.kind()) }
    }
}

/// Where the norms of a network take their statistics from.
#[derive(Clone, Debug)]
pub enum Norms {
    /// Encoders have frozen norms, the fusion uses its running statistics: the official networks.
    Frozen,
    /// All are ordinary batch norms.
    Batch(Arc<Statistics>),
}

/// The other ranks, as a batch norm needs them.
pub trait Group: Send + Sync + std::fmt::Debug {
    /// This rank.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world_size(&self) -> usize;

    /// Replaces a contiguous tensor by its sum over the ranks.
    fn sum(&self, tensor: &Tensor) -> Result<(), String>;
}

/// How ordinary batch norms work at the moment; shared by all norms of a network.
#[derive(Debug, Default)]
pub struct Statistics {
    training: AtomicBool,
    group: Option<Arc<dyn Group>>,
}

impl Statistics {
    /// In evaluation mode, without other ranks.
    pub fn local() -> Arc<Statistics> {
        Arc::default()
    }

    /// In evaluation mode; in training mode statistics are those of the batches of all ranks together.
    pub fn of_all_ranks(group: Arc<dyn Group>) -> Arc<Statistics> {
        Arc::new(Statistics { training: AtomicBool::new(false), group: Some(group) })
    }

    /// In training mode norms use the statistics of the batch, and move the running ones towards them.
    pub fn set_training(&self, training: bool) {
        self.training.store(training, Ordering::Relaxed);
    }
}

/// A norm of an encoder: frozen, or an ordinary one.
#[derive(Debug)]
pub(crate) enum Norm {
    Frozen(FrozenNorm),
    Batch(BatchNorm),
}

impl Norm {
    pub(crate) fn new(scope: Scope<'_>, channels: i64, norms: &Norms) -> Norm {
        Self::scaled(scope, channels, norms, 1.0)
    }

    /// A frozen one starts with `scale`: at the end of residual branches nothing else keeps their sum from growing.
    pub(crate) fn scaled(scope: Scope<'_>, channels: i64, norms: &Norms, scale: f64) -> Norm {
        match norms {
            Norms::Frozen => Norm::Frozen(FrozenNorm::new(scope, channels, scale)),
            Norms::Batch(_) => Norm::Batch(BatchNorm::new(scope, channels, norms)),
        }
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Norm::Frozen(norm) => norm.forward(x),
            Norm::Batch(norm) => norm.forward(x),
        }
    }
}

/// An ordinary batch norm (`torch.nn.BatchNorm2d`, and over all ranks `torch.nn.SyncBatchNorm`): scale and shift learn.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    batches: Tensor,
    /// None: the running statistics are used, and stay.
    statistics: Option<Arc<Statistics>>,
}

impl BatchNorm {
    /// Registers its tensors in `scope`.
    pub fn new(mut scope: Scope<'_>, channels: i64, norms: &Norms) -> BatchNorm {
        BatchNorm {
            weight: scope.parameter("weight", &[channels], Init::Const(1.0)),
            bias: scope.parameter("bias", &[channels], Init::Const(0.0)),
            mean: scope.buffer("running_mean", &[channels], 0.0),
            var: scope.buffer("running_var", &[channels], 1.0),
            batches: scope.counter("num_batches_tracked"),
            statistics: match norms {
                Norms::Frozen => None,
                Norms::Batch(statistics) => Some(Arc::clone(statistics)),
            },
        }
    }

    /// `(N, C, H, W)` → the same shape.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let statistics = self.statistics.as_ref().filter(|s| s.training.load(Ordering::Relaxed));
        match statistics.map(|s| &s.group) {
            None => self.normalise(x, false),
            Some(None) => {
                self.count();
                self.normalise(x, true)
            }
            Some(Some(group)) => self.normalise_over(x, group),
        }
    }

    fn normalise(&self, x: &Tensor, training: bool) -> Tensor {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        x.batch_norm(weight, bias, Some(&self.mean), Some(&self.var), training, MOMENTUM, EPSILON, false)
    }

    fn normalise_over(&self, x: &Tensor, group: &Arc<dyn Group>) -> Tensor {
        let x32 = x.to_kind(Kind::Float);
        let Moments { count, mean, squares } = moments_over(&x32, group);
        let var = squares / count;
        self.count();
        self.track(&mean.detach(), &(var.detach() * (count / (count - 1.0).max(1.0))));
        let scale = &self.weight * (var + EPSILON).rsqrt();
        let shift = &self.bias - mean * &scale;
        (x32 * scale.view([1, -1, 1, 1]) + shift.view([1, -1, 1, 1])).to_kind(x.kind())
    }

    /// Moves the running statistics.
    fn track(&self, mean: &Tensor, unbiased_var: &Tensor) {
        tch::no_grad(|| {
            let _ = self.mean.shallow_clone().lerp_(mean, MOMENTUM);
            let _ = self.var.shallow_clone().lerp_(unbiased_var, MOMENTUM);
        });
    }

    fn count(&self) {
        let _ = self.batches.shallow_clone().g_add_scalar_(1);
    }
}

/// Statistics of each channel over the batches of all ranks.
struct Moments {
    /// Values of each channel.
    count: f64,
    mean: Tensor,
    /// Sum of the squared distances from the mean.
    squares: Tensor,
}

/// One collective: every rank contributes count, mean and squared distances as a row of a matrix of zeros,
/// which are then merged (Chan et al., 1979): exact for unequal batches, and no difference of large sums is taken.
fn moments_over(x: &Tensor, group: &Arc<dyn Group>) -> Moments {
    let size = x.size();
    let (channels, count) = (size[1], size[0] * size[2] * size[3]);
    let (var, mean) = x.var_mean_dim([0i64, 2, 3].as_slice(), false, false);
    let counts = Tensor::full([channels], count as f64, (Kind::Float, x.device()));
    let row = Tensor::cat(&[counts, mean, var * count as f64], 0).unsqueeze(0);
    let (rank, world) = (group.rank() as i64, group.world_size() as i64);
    let padding = [0, 0, rank, world - 1 - rank];
    let padded = row.pad(padding, "constant", 0.0);
    let (summing, kept) = (Arc::clone(group), padded.shallow_clone());
    // A failure is kept by the group, which the training step asks; until then this rank goes on alone.
    let all = torch_ext::sum_over_ranks(&padded, move |t| summing.sum(t)).unwrap_or(kept);
    let part = |i: i64| all.narrow(1, i * channels, channels);
    let (counts, means, squares) = (part(0).detach(), part(1), part(2));
    let total = counts.select(1, 0).sum(Kind::Double).double_value(&[]);
    let over_ranks = |t: &Tensor| t.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
    let mean = over_ranks(&(&counts * &means)) / total;
    let between = over_ranks(&(&counts * (&means - &mean).square()));
    Moments { count: total, squares: over_ranks(&squares) + between, mean }
}
