//! Which ranks are slower than the rest. Pure: it is told what each rank needed in each step.
//!
//! Ranks step together, so that the wall clock shows one number for all of them. What tells them apart is the time until a
//! rank has its own gradients (data, forward and backward passes) of a micro-batch, without its waits for the others.

/// Steps that are looked at together.
const WINDOW: usize = 20;
/// So many times as long as the others is slow.
const SLOW: f64 = 1.5;
/// Less than this is noise, whatever the ratio.
const NOISE_SECONDS: f64 = 0.01;

/// The times of the last steps, of all ranks.
#[derive(Debug, Default)]
pub(super) struct Stragglers {
    /// By step, then by rank.
    steps: Vec<Vec<f64>>,
    slow: Vec<usize>,
}

/// A rank that became slower than the rest, or as fast as they.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) rank: usize,
    /// Median of its seconds a step.
    pub(super) seconds: f64,
    /// Median of the other ranks' medians.
    pub(super) others: f64,
    /// Whether it is slow now.
    pub(super) slow: bool,
}

impl Stragglers {
    /// Takes in the seconds of every rank in a step; now and then says what has changed.
    pub(super) fn on_step(&mut self, seconds: Vec<f64>) -> Vec<Change> {
        self.steps.push(seconds);
        if self.steps.len() < WINDOW {
            return Vec::new();
        }
        let steps = std::mem::take(&mut self.steps);
        let ranks = steps.iter().map(Vec::len).min().unwrap_or_default();
        let medians: Vec<f64> = (0..ranks).map(|r| median(steps.iter().map(|s| s[r]).collect())).collect();
        let changes = (0..ranks).filter_map(|rank| {
            let others = median(medians.iter().enumerate().filter(|(r, _)| *r != rank).map(|(_, m)| *m).collect());
            let seconds = medians[rank];
            let slow = seconds > SLOW * others && seconds - others > NOISE_SECONDS;
            (slow != self.slow.contains(&rank)).then_some(Change { rank, seconds, others, slow })
        });
        let changes: Vec<Change> = changes.collect();
        for change in &changes {
            self.slow.retain(|rank| *rank != change.rank);
            if change.slow {
                self.slow.push(change.rank);
            }
        }
        changes
    }
}

/// NaN of nothing: then nobody is slower.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that is said of `steps` steps in which the ranks take so long, but for one hiccup of rank 0.
    fn said(stragglers: &mut Stragglers, steps: usize, seconds: &[f64]) -> Vec<(usize, bool)> {
        let step = |i| {
            let mut seconds = seconds.to_vec();
            seconds[0] += if i == 3 { 100.0 } else { 0.0 };
            seconds
        };
        let changes: Vec<Change> = (0..steps).flat_map(|i| stragglers.on_step(step(i))).collect();
        changes.into_iter().map(|c| (c.rank, c.slow)).collect()
    }

    #[test]
    fn a_slow_rank_is_named_once_and_again_when_it_has_recovered() {
        let mut s = Stragglers::default();
        assert_eq!(said(&mut s, 60, &[1.0, 1.2, 1.1]), []);
        assert_eq!(said(&mut s, 60, &[1.0, 1.1, 1.7]), [(2, true)]);
        assert_eq!(said(&mut s, 60, &[1.0, 1.1, 1.2]), [(2, false)]);
        assert_eq!(said(&mut Stragglers::default(), 20, &[1.6, 1.0]), [(0, true)]);
    }

    #[test]
    fn milliseconds_are_noise_and_one_rank_is_never_slow() {
        assert_eq!(said(&mut Stragglers::default(), 40, &[0.001, 0.009]), []);
        assert_eq!(said(&mut Stragglers::default(), 40, &[5.0]), []);
    }
}
