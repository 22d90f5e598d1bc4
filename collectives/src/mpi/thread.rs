//! The thread that makes all MPI calls.

use crate::{Error, Label, Moment, PairSpeed, Span};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::request::{Request, StaticScope};
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::*;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};
use torch_ext::{DeviceBuffer, ElementType};

/// How often a pair is measured; the best one counts, because whatever disturbs only slows down.
const PAIR_REPETITIONS: usize = 3;

/// One operation and what it is for.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) label: Label,
}

type Answer<T> = Sender<Result<T, Error>>;

pub(super) enum Work {
    AllReduce { buffer: DeviceBuffer, answer: Answer<Span> },
    Broadcast { buffer: DeviceBuffer, root: usize, answer: Answer<()> },
    AllGather { bytes: Vec<u8>, answer: Answer<Vec<Vec<u8>>> },
    Barrier { answer: Answer<()> },
    Any { flag: bool, answer: Answer<bool> },
    Pair { ranks: (usize, usize), elements: usize, answer: Answer<Option<PairSpeed>> },
    Shutdown { answer: Answer<()> },
}

/// A sum of two ranks.
struct Sum {
    /// Until it was here.
    here: Duration,
    /// Until the other rank had it, too, and this one knew.
    on_both: Duration,
    right: bool,
}

/// What the thread found at its start.
pub(super) struct World {
    pub(super) rank: usize,
    pub(super) size: usize,
    pub(super) library: String,
}

/// Runs jobs until shutdown, a missed deadline, or the end of the queue. In the last two cases
/// MPI is neither asked again nor finalised: a request may still be in flight.
pub(super) fn run(queue: Receiver<Job>, ready: Sender<World>, timeout: Duration) {
    let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else { return };
    let world = universe.world();
    let mut thread = Thread {
        rank: world.rank() as usize,
        size: world.size() as usize,
        world,
        timeout,
        scratch: Vec::new(),
        sum: Box::leak(Box::new(SystemOperation::sum())),
        max: Box::leak(Box::new(SystemOperation::max())),
    };
    if ready.send(World { rank: thread.rank, size: thread.size, library: super::mpi_version() }).is_err() {
        return std::mem::forget(universe);
    }
    for job in queue {
        match thread.run(job) {
            Next::Go => {}
            Next::Finalise(answer) => return finalise(universe, &answer),
            Next::Stop => break,
        }
    }
    std::mem::forget(universe);
}

fn finalise(universe: Universe, answer: &Answer<()>) {
    drop(universe);
    let _ = answer.send(Ok(()));
}

enum Next {
    Go,
    Finalise(Answer<()>),
    Stop,
}

struct Thread {
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    timeout: Duration,
    /// What an all-reduce sends, while its buffer receives; kept between buckets.
    scratch: Vec<u8>,
    sum: &'static SystemOperation,
    max: &'static SystemOperation,
}

impl Thread {
    fn run(&mut self, job: Job) -> Next {
        let label = job.label;
        match job.work {
            Work::AllReduce { buffer, answer } => reply(&answer, self.all_reduce(buffer, label)),
            Work::Broadcast { buffer, root, answer } => reply(&answer, self.broadcast(buffer, root, label)),
            Work::AllGather { bytes, answer } => reply(&answer, self.all_gather(bytes, label)),
            Work::Barrier { answer } => reply(&answer, self.finish(self.world.immediate_barrier(), label)),
            Work::Any { flag, answer } => reply(&answer, self.any(flag, label)),
            Work::Pair { ranks, elements, answer } => reply(&answer, self.pair(ranks, elements, label)),
            Work::Shutdown { answer } => match self.finish(self.world.immediate_barrier(), label) {
                Ok(()) => Next::Finalise(answer),
                failed => reply(&answer, failed),
            },
        }
    }

    fn all_reduce(&mut self, buffer: DeviceBuffer, label: Label) -> Result<Span, Error> {
        let started = Moment::now();
        match buffer.kind() {
            ElementType::F32 => self.sum::<f32>(buffer, label)?,
            ElementType::F64 => self.sum::<f64>(buffer, label)?,
            ElementType::Bf16 => return Err(self.no_bf16(label)),
        }
        Ok(Span { started, finished: Moment::now() })
    }

    fn sum<T: Equivalence + Copy + 'static>(&mut self, mut buffer: DeviceBuffer, label: Label) -> Result<(), Error> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let receive = self.elements::<T>(&mut buffer, label)?;
        let bytes = std::mem::size_of_val(receive);
        scratch.resize(scratch.len().max(bytes + align_of::<T>()), 0);
        let offset = scratch.as_ptr().align_offset(align_of::<T>());
        // SAFETY: aligned by the offset, inside `scratch` by the resize above, any bytes are a valid
        // float. 'static is honest because `scratch` outlives the request: it is either moved back
        // after completion or, after a missed deadline, leaked.
        let send: &'static mut [T] =
            unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().add(offset).cast(), receive.len()) };
        send.copy_from_slice(receive);
        let request = self.world.immediate_all_reduce_into(StaticScope, &*send, receive, self.sum);
        match self.finish(request, label) {
            Ok(()) => {
                self.scratch = scratch;
                Ok(())
            }
            Err(e) => {
                std::mem::forget((scratch, buffer));
                Err(e)
            }
        }
    }

    fn broadcast(&mut self, buffer: DeviceBuffer, root: usize, label: Label) -> Result<(), Error> {
        match buffer.kind() {
            ElementType::F32 => self.copy_from::<f32>(buffer, root, label),
            ElementType::F64 => self.copy_from::<f64>(buffer, root, label),
            ElementType::Bf16 => Err(self.no_bf16(label)),
        }
    }

    fn no_bf16(&self, label: Label) -> Error {
        Error::Unfit { rank: self.rank, label, problem: "MPI knows no bfloat16".into() }
    }

    fn copy_from<T: Equivalence + 'static>(
        &self,
        mut buffer: DeviceBuffer,
        root: usize,
        label: Label,
    ) -> Result<(), Error> {
        let elements = self.elements::<T>(&mut buffer, label)?;
        let request = self.world.process_at_rank(root as i32).immediate_broadcast_into(StaticScope, elements);
        self.finish(request, label).inspect_err(|_| std::mem::forget(buffer))
    }

    /// The buffer as a slice. 'static, as in `sum`: on a missed deadline the caller leaks the buffer.
    fn elements<T>(&self, buffer: &mut DeviceBuffer, label: Label) -> Result<&'static mut [T], Error> {
        if buffer.device() != tch::Device::Cpu || i32::try_from(buffer.elements()).is_err() {
            let problem = format!(
                "MPI takes buffers of at most 2^31 − 1 elements on the CPU; this one has {} on {:?}",
                buffer.elements(),
                buffer.device()
            );
            return Err(Error::Unfit { rank: self.rank, label, problem });
        }
        // SAFETY: DeviceBuffer vouches for pointer, length and type; its contract gives the
        // elements to this operation alone until the answer is sent.
        Ok(unsafe { std::slice::from_raw_parts_mut(buffer.pointer().cast(), buffer.elements()) })
    }

    fn all_gather(&self, bytes: Vec<u8>, label: Label) -> Result<Vec<Vec<u8>>, Error> {
        let (mine, send) = Lent::new(vec![bytes.len() as i32]);
        let (counts, receive) = Lent::new(vec![0i32; self.size]);
        self.finish(self.world.immediate_all_gather_into(StaticScope, &*send, receive), label)?;
        // SAFETY: the request is complete.
        let counts = unsafe {
            mine.take();
            counts.take()
        };
        self.gather_bytes(bytes, &counts, label)
    }

    fn gather_bytes(&self, mut bytes: Vec<u8>, counts: &[i32], label: Label) -> Result<Vec<Vec<u8>>, Error> {
        let starts: Vec<i32> = counts.iter().scan(0, |sum, n| Some(std::mem::replace(sum, *sum + n))).collect();
        let total: i32 = counts.iter().sum();
        // An empty slice of bytes lies at address 1, which is Open MPI's MPI_IN_PLACE: so never empty.
        let length = bytes.len();
        bytes.push(0);
        let (mine, send) = Lent::new(bytes);
        let (all, receive) = Lent::new(vec![0u8; total as usize + 1]);
        let receive = &mut receive[..total as usize];
        let (parts, partition) = Lent::new(vec![PartitionMut::new(receive, counts.to_vec(), starts.clone())]);
        let request = self.world.immediate_all_gather_varcount_into(StaticScope, &send[..length], &mut partition[0]);
        self.finish(request, label)?;
        // SAFETY: the request is complete; the partition, which borrows `all`, goes first.
        let all = unsafe {
            parts.take();
            mine.take();
            all.take()
        };
        let slice = |(start, n): (&i32, &i32)| all[*start as usize..(*start + *n) as usize].to_vec();
        Ok(starts.iter().zip(counts).map(slice).collect())
    }

    fn any(&self, flag: bool, label: Label) -> Result<bool, Error> {
        let (mine, send) = Lent::new(vec![u8::from(flag)]);
        let (all, receive) = Lent::new(vec![0u8]);
        let request = self.world.immediate_all_reduce_into(StaticScope, &*send, receive, self.max);
        self.finish(request, label)?;
        // SAFETY: the request is complete.
        let answer = unsafe {
            mine.take();
            all.take()
        };
        Ok(answer[0] != 0)
    }

    /// What two ranks take to add up numbers among themselves, while the others wait. `None` on those.
    fn pair(&self, ranks: (usize, usize), elements: usize, label: Label) -> Result<Option<PairSpeed>, Error> {
        let member = self.rank == ranks.0 || self.rank == ranks.1;
        let color = if member { Color::with_value(0) } else { Color::undefined() };
        // Every rank splits, in the same order. Nobody can give that up: who asked does, and leaves.
        let Some(both) = self.world.split_by_color(color) else { return Ok(None) };
        match self.measure(&both, ranks, elements, label) {
            Ok(speed) => Ok(Some(speed)),
            Err(e) => {
                std::mem::forget(both);
                Err(e)
            }
        }
    }

    fn measure(
        &self,
        both: &SimpleCommunicator,
        ranks: (usize, usize),
        elements: usize,
        label: Label,
    ) -> Result<PairSpeed, Error> {
        // The first one opens the connection.
        let mut correct = self.add_up(both, ranks, elements, label)?.right;
        let mut speed = PairSpeed { seconds: f64::INFINITY, latency_seconds: f64::INFINITY, correct };
        for _ in 0..PAIR_REPETITIONS {
            let large = self.add_up(both, ranks, elements, label)?;
            let small = self.add_up(both, ranks, 1, label)?;
            correct &= large.right && small.right;
            speed.seconds = speed.seconds.min(large.on_both.as_secs_f64());
            speed.latency_seconds = speed.latency_seconds.min(small.here.as_secs_f64());
        }
        Ok(PairSpeed { correct, ..speed })
    }

    /// Adds up whole numbers, which float32 does exactly; says whether it did.
    fn add_up(
        &self,
        both: &SimpleCommunicator,
        ranks: (usize, usize),
        elements: usize,
        label: Label,
    ) -> Result<Sum, Error> {
        let value = |rank: usize, i: usize| ((rank + 1) * (i % 251 + 1)) as f32;
        let (mine, send) = Lent::new((0..elements).map(|i| value(self.rank, i)).collect());
        let (all, receive) = Lent::new(vec![0f32; elements]);
        self.finish(both.immediate_barrier(), label)?;
        let began = Instant::now();
        self.finish(both.immediate_all_reduce_into(StaticScope, &*send, receive, self.sum), label)?;
        let here = began.elapsed();
        // What was sent may still lie in this host's buffers: the barrier comes behind it.
        self.finish(both.immediate_barrier(), label)?;
        let on_both = began.elapsed();
        // SAFETY: the request is complete.
        let sums = unsafe {
            mine.take();
            all.take()
        };
        let right = sums.iter().enumerate().all(|(i, sum)| *sum == value(ranks.0, i) + value(ranks.1, i));
        Ok(Sum { here, on_both, right })
    }

    /// Polls until the request is complete or the deadline has passed. In the second case the
    /// request is forgotten: dropping it would panic, waiting could take for ever.
    fn finish<R: ?Sized>(&self, mut request: Request<'static, R, StaticScope>, label: Label) -> Result<(), Error> {
        let start = Instant::now();
        let mut pause = Duration::from_micros(10);
        loop {
            request = match request.test() {
                Ok(_) => return Ok(()),
                Err(request) => request,
            };
            if start.elapsed() > self.timeout {
                std::mem::forget(request);
                return Err(Error::Timeout { rank: self.rank, label, seconds: self.timeout.as_secs_f64() });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_micros(200));
        }
    }
}

/// Memory lent to a request: leaked unless [`Lent::take`] gets it back, because after a missed
/// deadline MPI may still write to it.
struct Lent<T>(*mut [T]);

impl<T> Lent<T> {
    fn new(values: Vec<T>) -> (Lent<T>, &'static mut [T]) {
        let memory = Box::leak(values.into_boxed_slice());
        (Lent(&raw mut *memory), memory)
    }

    /// # Safety
    /// The reference that `new` gave out, and every request that it went into, must be gone.
    unsafe fn take(self) -> Box<[T]> {
        // SAFETY: leaked by `new`, taken back once, nobody refers to it any more.
        unsafe { Box::from_raw(self.0) }
    }
}

fn reply<T>(answer: &Answer<T>, result: Result<T, Error>) -> Next {
    let next = if result.is_ok() { Next::Go } else { Next::Stop };
    // Nobody waits any more: the worker is on its way out.
    let _ = answer.send(result);
    next
}
