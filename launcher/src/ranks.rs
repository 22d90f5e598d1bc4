//! `--ranks-filter`: a set of ranks, written `0,2-3`. Pure.

use protocol::Rank;
use std::ops::RangeInclusive;

/// The ranks whose output the terminal shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RanksFilter(Vec<RangeInclusive<usize>>);

/// A filter that cannot be read, or that names ranks which the job does not have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not of the form.
    #[error("--ranks-filter {text}: {part:?} is neither a rank nor a range of ranks (as in 0,2-3)")]
    Syntax {
        /// The whole value.
        text: String,
        /// The part that is wrong.
        part: String,
    },
    /// A rank beyond the job.
    #[error("--ranks-filter {text}: there is no rank {rank} among {world_size} workers (0 to {})", world_size - 1)]
    NoSuchRank {
        /// The whole value.
        text: String,
        /// The rank.
        rank: usize,
        /// Workers in all.
        world_size: usize,
    },
}

impl RanksFilter {
    /// The filter that shows everything.
    pub fn all() -> RanksFilter {
        RanksFilter(vec![0..=usize::MAX])
    }

    /// Reads `0,2-3` for a job of `world_size` workers.
    pub fn parse(text: &str, world_size: usize) -> Result<RanksFilter, FilterError> {
        let ranges = text.split(',').map(|part| {
            let range = range(part.trim());
            let range = range.ok_or_else(|| FilterError::Syntax { text: text.into(), part: part.into() })?;
            match *range.end() {
                rank if rank >= world_size => Err(FilterError::NoSuchRank { text: text.into(), rank, world_size }),
                _ => Ok(range),
            }
        });
        Ok(RanksFilter(ranges.collect::<Result<_, _>>()?))
    }

    /// Whether `rank` is shown.
    pub fn shows(&self, rank: Rank) -> bool {
        self.0.iter().any(|range| range.contains(&rank.0))
    }
}

fn range(part: &str) -> Option<RangeInclusive<usize>> {
    let (from, to) = part.split_once('-').unwrap_or((part, part));
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from <= to).then_some(from..=to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_ranges() {
        let filter = RanksFilter::parse("0,2-3", 5).unwrap();
        let shown: Vec<usize> = (0..5).filter(|&r| filter.shows(Rank(r))).collect();
        assert_eq!(shown, [0, 2, 3]);
        assert!(RanksFilter::all().shows(Rank(1000)));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "a", "1-", "-1", "3-2", "0,,1", "0-1-2"] {
            assert!(matches!(RanksFilter::parse(bad, 8), Err(FilterError::Syntax { .. })), "{bad}");
        }
        let error = RanksFilter::parse("0,4", 4).unwrap_err().to_string();
        assert_eq!(error, "--ranks-filter 0,4: there is no rank 4 among 4 workers (0 to 3)");
    }
}
