//! What a connection between two ranks is worth.

/// How fast two ranks add up numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairSpeed {
    /// Seconds for the numbers asked for, at best.
    pub seconds: f64,
    /// Seconds for a single number, at best.
    pub latency_seconds: f64,
    /// Whether all sums were right.
    pub correct: bool,
}
