//! All-reduces of whole numbers, whose sums are exact in any order: are they right, and how fast?

use super::report::{Problem, Verdict};
use super::{Failure, agree, attempt, essence, finite};
use crate::job::Job;
use crate::{Error, ddp};
use collectives::{Label, Moment};
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
/// Repetitions before those that count: the first connects the ranks, and waits for the last of them.
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
    /// Of one of them, where all follow each other without a pause, on the slowest rank.
    pub(super) seconds: Option<f64>,
    /// 2 (n − 1) / n × bytes / seconds, as nccl-tests has it.
    pub(super) bus_bandwidth: Option<f64>,
    /// Ranks that got wrong sums.
    pub(super) wrong: Vec<WrongSums>,
    /// Ranks on which it failed.
    pub(super) failed: Vec<Problem>,
}

/// A rank that got wrong sums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct WrongSums {
    pub(super) rank: usize,
    /// How many, in the worst repetition.
    pub(super) elements: i64,
}

/// What a rank saw of a row.
#[derive(Clone, Copy, Serialize, Deserialize)]
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
            failed: Vec::new(),
        }
    }

    /// One without numbers.
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

    fn name(&self) -> String {
        format!("all-reduce of {} ({})", self.size(), self.kind)
    }

    fn failure(&self, failed: &Problem) -> String {
        format!("{}: {}", self.name(), failed.problem)
    }

    /// How many wrong sums a rank got, in words.
    fn problem(&self, wrong: &WrongSums) -> String {
        let elements = self.bytes / if self.kind == "float64" { 8 } else { 4 };
        format!("{}: {} of {elements} sums are wrong", self.name(), wrong.elements)
    }
}

/// Everything that is wrong, in the order of the rows.
pub(super) fn problems(rows: &[SumRow], control: &Job) -> Vec<Problem> {
    let of_row = |row: &SumRow| {
        let wrong: Vec<Problem> =
            row.wrong.iter().map(|wrong| Problem::of(control, wrong.rank, row.problem(wrong))).collect();
        let failed = row.failed.iter().map(|failed| Problem { problem: row.failure(failed), ..failed.clone() });
        wrong.into_iter().chain(failed).collect::<Vec<_>>()
    };
    rows.iter().flat_map(of_row).collect()
}

/// Adds up, on all ranks of `job` together; `control` hears of it, whatever becomes of the sums. After a size that fails
/// nothing is tried.
pub(super) fn measure(job: &Job, control: &Job) -> Result<Vec<SumRow>, Error> {
    let mut rows = Vec::new();
    let mut sound = job.place.world_size > 1;
    for &round in &ROUNDS {
        if !sound {
            rows.push(SumRow::untried(round));
            continue;
        }
        let mine = attempt(|| add_up(job, round)).map_err(|e| Failure::of(&e, essence));
        let row = match agree(control, mine, PHASE)? {
            Ok(seen) => SumRow::of(round, &seen),
            Err(failed) => SumRow { verdict: Verdict::Wrong, failed, ..SumRow::untried(round) },
        };
        sound = row.failed.is_empty();
        rows.push(row);
    }
    Ok(rows)
}

fn add_up(job: &Job, (bytes, kind, repetitions): (usize, Kind, usize)) -> Result<Seen, Error> {
    let label = Label::new(0, PHASE);
    let numbers = numbers(bytes, kind).to_device(job.device);
    let mine = &numbers * factor(job.place.rank.0);
    let expected = &numbers * (0..job.place.world_size).map(factor).sum::<f64>();
    let all = mine.unsqueeze(0).repeat([(WARM_UP + repetitions) as i64, 1]);
    let mut pending = Vec::new();
    // One after the other without a pause: a rank that is late delays the first, which is not timed.
    for repetition in 0..WARM_UP + repetitions {
        let buffer = DeviceBuffer::new(&all.select(0, repetition as i64)).map_err(ddp::Error::from)?;
        pending.push(job.collective.all_reduce(buffer, label));
    }
    let spans = pending.into_iter().map(|pending| pending.wait()).collect::<Result<Vec<_>, _>>()?;
    job.collective.settle()?;
    let finished = |i: usize| spans.get(i).map_or_else(Moment::now, |span| span.finished.clone());
    let seconds = finished(WARM_UP - 1).until(&finished(WARM_UP + repetitions - 1)).as_secs_f64() / repetitions as f64;
    let wrong = all.ne_tensor(&expected).sum_dim_intlist([1i64].as_slice(), false, Kind::Int64).max().int64_value(&[]);
    Ok(Seen { seconds, wrong })
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
