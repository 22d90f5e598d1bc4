//! What the workers of a preflight print, and the launcher reads: one line each, with a mark before it, because mpirun and
//! others print lines, too. Pure.

use serde::{Deserialize, Serialize};

/// Precedes each line.
const MARK: &str = "jcs-preflight: ";
/// Up to so many hosts all pairs are measured.
const ALL_PAIRS: usize = 8;

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Report {
    /// A worker runs.
    Started {
        /// Its rank, which is the number of its host.
        rank: usize,
        /// What its host calls itself.
        host: String,
    },
    /// It is connected with all others.
    Connected {
        /// Its rank.
        rank: usize,
    },
    /// Two of them added up numbers.
    Measured(Measured),
}

/// What came of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// One rank.
    pub a: usize,
    /// The other.
    pub b: usize,
    /// Bytes of numbers added up in a second.
    pub bytes_per_second: f64,
    /// Seconds for a single number.
    pub latency: f64,
    /// Whether the sums were right.
    pub correct: bool,
}

impl Report {
    /// As it is printed, without the line's end.
    pub fn line(&self) -> String {
        format!("{MARK}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// From a line, whatever stands before the mark.
    pub fn read(line: &str) -> Option<Report> {
        let (_, text) = line.split_once(MARK)?;
        serde_json::from_str(text.trim()).ok()
    }
}

/// Which pairs of `hosts` hosts are measured, in the same order by every rank: all of few; of many each one with its
/// neighbour, in a ring, and with the first.
pub fn pairs_of(hosts: usize) -> Vec<(usize, usize)> {
    let all = (0..hosts).flat_map(|a| (a + 1..hosts).map(move |b| (a, b)));
    all.filter(|(a, b)| hosts <= ALL_PAIRS || *a == 0 || b - a == 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_written() {
        let measured = Measured { a: 0, b: 2, bytes_per_second: 1.5e8, latency: 3e-5, correct: true };
        for report in [
            Report::Started { rank: 1, host: "gpu02".into() },
            Report::Connected { rank: 3 },
            Report::Measured(measured),
        ] {
            assert_eq!(Report::read(&format!("[1,0]<stdout>: {}\n", report.line())), Some(report));
        }
        assert_eq!(Report::read("jcs-preflight: rubbish"), None);
        assert_eq!(Report::read("rubbish"), None);
    }

    #[test]
    fn few_hosts_have_all_pairs_and_many_a_ring_and_a_star() {
        assert_eq!(pairs_of(3), [(0, 1), (0, 2), (1, 2)]);
        assert_eq!((pairs_of(0).len(), pairs_of(1).len(), pairs_of(8).len()), (0, 0, 28));
        let many = pairs_of(9);
        // Nine neighbours in the ring, and seven more with the first: those between are its neighbours.
        assert_eq!(many.len(), 9 + 6);
        assert!(many.contains(&(0, 8)) && many.contains(&(7, 8)) && !many.contains(&(2, 4)));
    }
}
