//! All-reduces of whole numbers, whose sums are exact in any order: are they right, and how fast?

use super::{Verdict, finite, median, tell};
use crate::job::Job;
use crate::{Error, ddp};
use collectives::Label;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};
use torch_ext::DeviceBuffer;

/// What is added up: bytes a rank, type, and how often.
const ROUNDS: [(usize, Kind, usize); 6] = [
    (4 << 10, Kind::Float, 20),
    (64 << 10, Kind::Float, 20),
    (1 << 20, Kind::Float, 20),
    (16 << 20, Kind::Float, 10),
    (64 << 20, Kind::Float, 5),
    (1 << 20, Kind::Double, 20),
];
/// Repetitions before those that count: the first connects the ranks.
const WARM_UP: usize = 2;
/// The numbers of rank 0 are 1, 2, … up to this, again and again: a prime, so that no part looks like another.
const PERIOD: i64 = 251;
/// Ranks have up to so many times the numbers of rank 0. Float32 holds every sum of up to 5,000 ranks exactly.
const FACTORS: usize = 13;
const PHASE: &str = "check of sums";

/// An all-reduce of one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SumRow {
    pub(super) verdict: Verdict,
    /// That each rank has.
    pub(super) bytes: usize,
    /// `float32` or `float64`.
    pub(super) kind: &'static str,
    /// That were timed.
    pub(super) repetitions: usize,
    /// Median of the repetitions on the slowest rank.
    pub(super) seconds: Option<f64>,
    /// 2 (n − 1) / n × bytes / seconds, as nccl-tests has it.
    pub(super) bus_bandwidth: Option<f64>,
    /// Ranks that got wrong sums.
    pub(super) wrong: Vec<WrongSums>,
}

/// A rank that got wrong sums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct WrongSums {
    pub(super) rank: usize,
    /// How many, in the worst repetition.
    pub(super) elements: i64,
}

/// What a rank saw of a row.
#[derive(Serialize, Deserialize)]
struct Seen {
    seconds: f64,
    wrong: i64,
}

impl SumRow {
    fn of((bytes, kind, repetitions): (usize, Kind, usize), seen: &[Seen]) -> SumRow {
        let wrong = seen.iter().enumerate().filter(|(_, seen)| seen.wrong > 0);
        let wrong: Vec<WrongSums> = wrong.map(|(rank, seen)| WrongSums { rank, elements: seen.wrong }).collect();
        let seconds = seen.iter().map(|seen| seen.seconds).fold(0.0, f64::max);
        SumRow {
            verdict: Verdict::of(wrong.is_empty()),
            bytes,
            kind: if kind == Kind::Double { "float64" } else { "float32" },
            repetitions,
            seconds: Some(seconds),
            bus_bandwidth: bus_bandwidth(bytes, seen.len(), seconds),
            wrong,
        }
    }

    /// One that a worker without others does not try.
    fn untried((bytes, kind, _): (usize, Kind, usize)) -> SumRow {
        let row = SumRow::of((bytes, kind, 0), &[]);
        SumRow { verdict: Verdict::None, seconds: None, bus_bandwidth: None, ..row }
    }

    /// `64 MiB`, `4 KiB`.
    pub(super) fn size(&self) -> String {
        match self.bytes {
            bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
            bytes => format!("{} KiB", bytes >> 10),
        }
    }

    /// What is wrong on a rank, in words.
    pub(super) fn problem(&self, wrong: &WrongSums) -> String {
        let elements = self.bytes / if self.kind == "float64" { 8 } else { 4 };
        format!("all-reduce of {} ({}): {} of {elements} sums are wrong", self.size(), self.kind, wrong.elements)
    }
}

/// Adds up, on all ranks together.
pub(super) fn measure(job: &Job) -> Result<Vec<SumRow>, Error> {
    if job.place.world_size == 1 {
        return Ok(ROUNDS.iter().map(|&round| SumRow::untried(round)).collect());
    }
    let row = |&round: &(usize, Kind, usize)| Ok(SumRow::of(round, &tell(job, &add_up(job, round)?, PHASE)?));
    ROUNDS.iter().map(row).collect()
}

fn add_up(job: &Job, (bytes, kind, repetitions): (usize, Kind, usize)) -> Result<Seen, Error> {
    let label = Label::new(0, PHASE);
    let numbers = numbers(bytes, kind).to_device(job.device);
    let mine = &numbers * factor(job.place.rank.0);
    let expected = &numbers * (0..job.place.world_size).map(factor).sum::<f64>();
    let mut buffer = mine.empty_like();
    let (mut seconds, mut wrong) = (Vec::new(), 0);
    for repetition in 0..WARM_UP + repetitions {
        buffer.copy_(&mine);
        // All begin together, so that none counts its wait for a late one as the sum's time.
        job.collective.barrier(label)?;
        let span = job.collective.all_reduce(DeviceBuffer::new(&buffer).map_err(ddp::Error::from)?, label).wait()?;
        job.collective.settle()?;
        wrong = buffer.ne_tensor(&expected).sum(Kind::Int64).int64_value(&[]).max(wrong);
        if repetition >= WARM_UP {
            seconds.push(span.duration().as_secs_f64());
        }
    }
    Ok(Seen { seconds: median(seconds), wrong })
}

/// Rank 0's.
fn numbers(bytes: usize, kind: Kind) -> Tensor {
    let elements = (bytes / kind.elt_size_in_bytes()) as i64;
    let period = Tensor::arange_start(1, PERIOD + 1, (kind, tch::Device::Cpu));
    period.repeat([(elements as u64).div_ceil(PERIOD as u64) as i64]).narrow(0, 0, elements).contiguous()
}

/// How many times rank 0's numbers a rank has.
fn factor(rank: usize) -> f64 {
    (rank % FACTORS + 1) as f64
}

/// What the links between the ranks carry where an all-reduce is optimal, whatever the number of ranks.
fn bus_bandwidth(bytes: usize, ranks: usize, seconds: f64) -> Option<f64> {
    let ranks = ranks as f64;
    finite(2.0 * (ranks - 1.0) / ranks * bytes as f64 / seconds)
}

#[cfg(test)]
impl SumRow {
    /// 1 MiB by two ranks in a millisecond.
    pub(super) fn example(verdict: Verdict) -> SumRow {
        let seen = || Seen { seconds: 1e-3, wrong: 0 };
        SumRow { verdict, ..SumRow::of((1 << 20, Kind::Float, 20), &[seen(), seen()]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_bandwidth_is_that_of_nccl_tests() {
        assert_eq!(bus_bandwidth(1000, 2, 1e-3), Some(1e6));
        assert_eq!(bus_bandwidth(1000, 8, 1e-3), Some(1.75e6));
        assert_eq!(bus_bandwidth(1000, 2, 0.0), None);
    }

    #[test]
    fn sums_of_many_ranks_are_exact_in_float32() {
        let most = PERIOD as f64 * (0..5000).map(factor).sum::<f64>();
        assert!(most <= f64::from(1 << 24), "{most}");
        let numbers = numbers(64 << 10, Kind::Float);
        assert_eq!((numbers.numel(), numbers.kind()), (16 << 10, Kind::Float));
        assert_eq!(
            (numbers.double_value(&[0]), numbers.double_value(&[251]), numbers.double_value(&[500])),
            (1.0, 1.0, 250.0)
        );
    }

    #[test]
    fn the_slowest_rank_counts_and_the_wrong_one_is_named() {
        let seen = [Seen { seconds: 1.0, wrong: 0 }, Seen { seconds: 2.0, wrong: 7 }];
        let row = SumRow::of((4 << 10, Kind::Double, 3), &seen);
        assert_eq!((row.verdict, row.seconds, row.bus_bandwidth), (Verdict::Wrong, Some(2.0), Some(2048.0)));
        assert_eq!(row.problem(&row.wrong[0]), "all-reduce of 4 KiB (float64): 7 of 512 sums are wrong");
        assert_eq!(row.wrong[0].rank, 1);
    }
}
