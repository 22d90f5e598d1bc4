//! The optimizer, over flat buffers, and its learning rate.
//!
//! Values, gradients and state of all parameters of a bucket lie in one flat tensor each, so that a
//! step is a dozen operations a bucket instead of a dozen a parameter.

mod adam;
mod loss_scale;
mod schedule;
mod sgd;

pub use loss_scale::LossScale;
pub use schedule::learning_rate;

use adam::Adam;
use protocol::config::{Optim, OptimName};
use sgd::Sgd;
use tch::Tensor;

/// One flat buffer with all that belongs to it; all tensors have its shape.
#[derive(Debug)]
pub struct Part<'a> {
    /// The weights, changed in place.
    pub values: &'a mut Tensor,
    /// Their gradient, which may be changed.
    pub gradient: &'a mut Tensor,
    /// The optimizer's own, one for each of [`Optimizer::slots`].
    pub slots: &'a mut [Tensor],
    /// Factor of the rate of each element; none: 1.
    pub rates: Option<&'a Tensor>,
}

/// The optimizer of a run.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Rule,
    groups: Vec<(String, f64)>,
}

#[derive(Clone, Debug)]
enum Rule {
    Adam(Adam),
    Sgd(Sgd),
}

impl Optimizer {
    /// The optimizer that the configuration asks for.
    pub fn new(optim: &Optim) -> Optimizer {
        let rule = match optim.name {
            OptimName::Adam | OptimName::Adamw => Rule::Adam(Adam::new(optim)),
            OptimName::Sgd => Rule::Sgd(Sgd::new(optim)),
        };
        Optimizer { rule, groups: optim.groups.iter().map(|(part, factor)| (part.clone(), *factor)).collect() }
    }

    /// Names of what it keeps for each parameter (those of PyTorch), all 0 at the start.
    pub fn slots(&self) -> &'static [&'static str] {
        match self.rule {
            Rule::Adam(_) => adam::SLOTS,
            Rule::Sgd(_) => sgd::SLOTS,
        }
    }

    /// Factor of the rate of a parameter: that of the longest of `optim.groups` that its name begins with.
    pub fn factor(&self, parameter: &str) -> f64 {
        let fits = |part: &str| {
            parameter.strip_prefix(part).is_some_and(|rest| part.is_empty() || rest.is_empty() || rest.starts_with('.'))
        };
        let longest = self.groups.iter().filter(|(part, _)| fits(part)).max_by_key(|(part, _)| part.len());
        longest.map_or(1.0, |(_, factor)| *factor)
    }

    /// A group that no parameter belongs to.
    pub fn idle_group<'a>(&'a self, parameters: &[&str]) -> Option<&'a str> {
        let used = |part: &str| {
            parameters.iter().any(|p| p.strip_prefix(part).is_some_and(|r| r.is_empty() || r.starts_with('.')))
        };
        self.groups.iter().map(|(part, _)| part.as_str()).find(|part| !part.is_empty() && !used(part))
    }

    /// One update; `step` counts updates from 1.
    pub fn update(&self, part: Part<'_>, lr: f64, step: u64) {
        tch::no_grad(|| match &self.rule {
            Rule::Adam(adam) => adam.update(part, lr, step),
            Rule::Sgd(sgd) => sgd.update(part, lr),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_longest_group_counts_and_names_end_at_dots() {
        let groups = [("vgg16", 0.1), ("vgg16.conv1_1", 0.0), ("gpd", 2.0)];
        let groups: BTreeMap<String, f64> = groups.iter().map(|(n, f)| ((*n).to_owned(), *f)).collect();
        let optimizer = Optimizer::new(&Optim { groups, ..Optim::default() });
        let names =
            ["vgg16.conv1_1.conv.weight", "vgg16.conv1_2.conv.weight", "gpd1.end_conv.conv.bias", "cls1.weight"];
        assert_eq!(names.map(|n| optimizer.factor(n)), [0.0, 0.1, 1.0, 1.0]);
        assert_eq!(optimizer.idle_group(&names), Some("gpd"));
    }

    /// Three steps with the third weight at half the rate. The values are those of torch.optim (PyTorch 2.13, float64), given
    /// that weight in a parameter group of its own.
    #[test]
    fn steps_are_those_of_pytorch() {
        let gradients = [[0.1, -0.2, 0.3], [0.4, 0.1, -0.05], [-0.3, 0.02, 1e-3]];
        for (name, theirs) in [
            (OptimName::Adam, [0.9765222195621491, -1.9737522791546827, 0.48904530632837084]),
            (OptimName::Adamw, [0.9769599462572541, -1.9810700218913297, 0.4899796677905812]),
            (OptimName::Sgd, [0.987092598, -1.985476196, 0.49500582456250003]),
        ] {
            let optim =
                Optim { name, betas: [0.8, 0.95], eps: 1e-3, weight_decay: 0.1, momentum: 0.9, ..Optim::default() };
            let optimizer = Optimizer::new(&optim);
            let mut values = Tensor::from_slice(&[1.0, -2.0, 0.5]);
            let mut slots: Vec<Tensor> = optimizer.slots().iter().map(|_| values.zeros_like()).collect();
            let rates = Tensor::from_slice(&[1.0, 1.0, 0.5]);
            for (step, gradient) in (1..).zip(&gradients) {
                let mut gradient = Tensor::from_slice(gradient);
                let part =
                    Part { values: &mut values, gradient: &mut gradient, slots: &mut slots, rates: Some(&rates) };
                optimizer.update(part, 0.01, step);
            }
            let ours = Vec::<f64>::try_from(&values).unwrap();
            assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-12), "{name:?}: {ours:?}");
        }
    }
}
