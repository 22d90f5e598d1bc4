//! MPI, on a thread of its own.
//!
//! The thread initialises MPI, makes every MPI call, in the order of submission, and finalises.
//! Operations are non-blocking ones that the thread polls with short sleeps in between, because a
//! thread that spins for its peers takes a core from the backward pass that it should hide behind.

mod thread;

use crate::waiting::during;
use crate::{Collective, Error, Label, PairSpeed, Pending};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use thread::{Job, Work};
use torch_ext::DeviceBuffer;

/// The backend over MPI, for buffers in the memory of the CPU.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    world_size: usize,
    library: String,
    timeout: Duration,
    jobs: Mutex<Sender<Job>>,
}

/// Slack beyond the thread's own deadline, after which the thread itself counts as stuck.
const SLACK: Duration = Duration::from_secs(2);

/// Name and version of the MPI library (`Open MPI v5.0.11`), also where MPI was not started.
pub fn mpi_version() -> String {
    let text = mpi::environment::library_version().unwrap_or_default();
    text.split(',').next().unwrap_or_default().trim().to_owned()
}

impl Mpi {
    /// Initialises MPI. Each operation may take `timeout` once it is its turn.
    pub fn start(timeout: Duration) -> Result<Mpi, Error> {
        let (jobs, queue) = channel();
        let (ready, started) = channel();
        let failed = |problem: String| Error::Start { backend: "MPI", problem };
        std::thread::Builder::new()
            .name("mpi".into())
            .spawn(move || thread::run(queue, ready, timeout))
            .map_err(|e| failed(format!("no thread ({e})")))?;
        let init = Label::new(0, "MPI_Init");
        let world = during(init, || started.recv_timeout(timeout + SLACK)).map_err(|e| {
            if e == RecvTimeoutError::Timeout {
                return failed(format!(
                    "MPI_Init did not return within {} s; another rank hangs at its start",
                    timeout.as_secs_f64()
                ));
            }
            failed("MPI_Init failed; start the workers with jcs-launch, or unset WORLD_SIZE to run alone".into())
        })?;
        Ok(Mpi { rank: world.rank, world_size: world.size, library: world.library, timeout, jobs: Mutex::new(jobs) })
    }

    /// How fast the two `ranks` add up `elements` float32 numbers among themselves. Every rank calls it for the same pairs in
    /// the same order; those that are not of the pair wait, and get `None`. Meant for the time before training: it takes
    /// memory and a communicator of its own.
    pub fn measure_pair(
        &self,
        ranks: (usize, usize),
        elements: usize,
        label: Label,
    ) -> Result<Option<PairSpeed>, Error> {
        self.ask(label, |answer| Work::Pair { ranks, elements, answer })
    }

    fn submit(&self, work: Work, label: Label) {
        let jobs = self.jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A thread that is gone dropped the answer's sender: the waiter sees that.
        let _ = jobs.send(Job { work, label });
    }

    fn ask<T>(&self, label: Label, work: impl FnOnce(Sender<Result<T, Error>>) -> Work) -> Result<T, Error> {
        let (answer, result): (_, Receiver<Result<T, Error>>) = channel();
        self.submit(work(answer), label);
        during(label, || match result.recv_timeout(self.timeout + SLACK) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => Err(Error::Broken { rank: self.rank, label }),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::Timeout { rank: self.rank, label, seconds: self.timeout.as_secs_f64() })
            }
        })
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn name(&self) -> String {
        format!("mpi ({})", self.library)
    }

    fn all_reduce(&self, buffer: DeviceBuffer, label: Label) -> Pending {
        let (pending, answer) = Pending::new(self.rank, label, self.timeout);
        self.submit(Work::AllReduce { buffer, answer }, label);
        pending
    }

    fn broadcast(&self, buffer: DeviceBuffer, root: usize, label: Label) -> Result<(), Error> {
        self.ask(label, |answer| Work::Broadcast { buffer, root, answer })
    }

    fn all_gather(&self, bytes: Vec<u8>, label: Label) -> Result<Vec<Vec<u8>>, Error> {
        self.ask(label, |answer| Work::AllGather { bytes, answer })
    }

    fn barrier(&self, label: Label) -> Result<(), Error> {
        self.ask(label, |answer| Work::Barrier { answer })
    }

    fn any(&self, flag: bool, label: Label) -> Result<bool, Error> {
        self.ask(label, |answer| Work::Any { flag, answer })
    }

    fn shutdown(&self, label: Label) -> Result<(), Error> {
        self.ask(label, |answer| Work::Shutdown { answer })
    }
}
