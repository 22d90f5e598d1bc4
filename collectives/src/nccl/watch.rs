//! What is in flight, and the thread that watches it.

use super::Compute;
use super::driver::{self, Device, Event, Stream};
use super::library::{self, Communicator, State};
use crate::waiting::during;
use crate::{Error, Label};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};
use torch_ext::DeviceBuffer;

/// Memory that stays allocated until the device is done with it.
#[derive(Debug)]
pub(super) struct Held(pub(super) Vec<DeviceBuffer>);

// SAFETY: the buffers are handles whose reference counts are atomic; a shared `Held` only holds them.
unsafe impl Sync for Held {}

/// A launch: one or more buffers that travel together.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) labels: Vec<Label>,
    #[expect(dead_code, reason = "held, not used")]
    buffers: Arc<Held>,
    pub(super) started: Arc<Event>,
    pub(super) finished: Arc<Event>,
    /// The stream that waits for it already: one wait is enough for all buffers.
    awaited_by: Mutex<Option<usize>>,
}

impl Operation {
    pub(super) fn new(labels: &[Label], buffers: Arc<Held>, started: Event, finished: Event) -> Arc<Operation> {
        let (labels, awaited_by) = (labels.to_vec(), Mutex::default());
        Arc::new(Operation { labels, buffers, started: Arc::new(started), finished: Arc::new(finished), awaited_by })
    }

    fn label(&self) -> Label {
        self.labels.first().copied().unwrap_or(Label::new(0, "nothing"))
    }
}

/// Why the backend is of no use any more.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The other ranks did not take part in this time.
    Late(Duration),
    /// An error of NCCL or the driver.
    Broken(String),
    /// It was closed, or has failed before.
    Gone,
}

impl From<driver::Problem> for Failure {
    fn from(problem: driver::Problem) -> Failure {
        Failure::Broken(problem.to_string())
    }
}

impl From<library::Problem> for Failure {
    fn from(problem: library::Problem) -> Failure {
        Failure::Broken(problem.to_string())
    }
}

#[derive(Debug, Default)]
struct Flight {
    /// In the order of the transport stream, so that the first one ends first.
    operations: VecDeque<Arc<Operation>>,
    /// The first failure and what it struck.
    failure: Option<(Failure, Label)>,
    closed: bool,
}

/// What the backend's threads share.
#[derive(Debug)]
pub(super) struct Shared {
    rank: usize,
    timeout: Duration,
    pub(super) compute: Compute,
    pub(super) device: Arc<Device>,
    pub(super) transport: Stream,
    /// The stream that stands for the host's own work, with [`Compute::Host`].
    pub(super) host: Option<Stream>,
    communicator: Mutex<Option<Communicator>>,
    /// Whether the first launch is done.
    connected: AtomicBool,
    flight: Mutex<Flight>,
    changed: Condvar,
}

const SHORTEST: Duration = Duration::from_micros(20);
const LONGEST: Duration = Duration::from_micros(500);
/// How long an abort is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl Shared {
    pub(super) fn new(
        rank: usize,
        timeout: Duration,
        compute: Compute,
        device: Arc<Device>,
        communicator: Communicator,
    ) -> Result<Shared, driver::Problem> {
        let transport = Stream::new(&device)?;
        let host = if compute == Compute::Host { Some(Stream::new(&device)?) } else { None };
        let (flight, changed) = (Mutex::default(), Condvar::new());
        let communicator = Mutex::new(Some(communicator));
        let connected = AtomicBool::new(false);
        Ok(Shared { rank, timeout, compute, device, transport, host, communicator, connected, flight, changed })
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn communicator(&self) -> MutexGuard<'_, Option<Communicator>> {
        self.communicator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream that computes.
    pub(super) fn current(&self) -> Result<Stream, Failure> {
        let handle = match (self.compute, &self.host) {
            (Compute::Torch(device), _) => {
                torch_ext::current_stream(device).map_err(|e| Failure::Broken(e.to_string()))?.handle
            }
            (Compute::Stream(handle), _) => handle,
            (Compute::Host, host) => host.as_ref().map_or(0, Stream::handle),
        };
        Ok(Stream::of(&self.device, handle))
    }

    /// Waits until what was launched is on its stream. The first launch of a communicator connects the ranks, which may take longer.
    pub(super) fn until_ready(&self, communicator: &Communicator) -> Result<(), Failure> {
        let first = !self.connected.load(Ordering::Relaxed);
        let within = if first { super::connecting(self.timeout) } else { self.timeout };
        let (began, mut pause) = (Instant::now(), SHORTEST);
        while communicator.state()? == State::InProgress {
            if began.elapsed() > within {
                return Err(Failure::Late(within));
            }
            if self.flight().failure.is_some() {
                return Err(Failure::Gone);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
        self.connected.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Takes over the watch of an operation.
    pub(super) fn watch(&self, operation: Arc<Operation>) {
        self.flight().operations.push_back(operation);
        self.changed.notify_all();
    }

    /// What computes from now on waits for the operation.
    pub(super) fn hand_over(&self, operation: &Operation) -> Result<(), Failure> {
        let stream = self.current()?;
        let mut awaited_by = operation.awaited_by.lock().unwrap_or_else(PoisonError::into_inner);
        if *awaited_by != Some(stream.handle()) {
            stream.wait(&operation.finished)?;
            *awaited_by = Some(stream.handle());
        }
        Ok(())
    }

    /// With [`Compute::Host`]: waits until the stream that stands for the host's work has come to its end.
    pub(super) fn until_host_may_go_on(&self, label: Label) -> Result<(), Error> {
        let Some(host) = &self.host else { return Ok(()) };
        let mut pause = SHORTEST;
        loop {
            self.check(label)?;
            match host.is_done() {
                // An abort lets the stream go on, too, but only after its cause was noted.
                Ok(true) => return self.check(label),
                Ok(false) => std::thread::sleep(pause),
                Err(problem) => return Err(self.fail(problem.into(), label)),
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Waits until nothing is in flight.
    pub(super) fn settle(&self) -> Result<(), Error> {
        let first = self.flight().operations.front().map(|operation| operation.label());
        let label = first.unwrap_or(Label::new(0, "end of the collectives"));
        // Also where nothing is left, so that all ranks count the same waits.
        during(label, || {
            let mut flight = self.flight();
            while !flight.operations.is_empty() && flight.failure.is_none() {
                flight = self.changed.wait(flight).unwrap_or_else(PoisonError::into_inner);
            }
            drop(flight);
            self.check(label)
        })
    }

    /// An error where the backend has failed before, or was closed.
    pub(super) fn check(&self, label: Label) -> Result<(), Error> {
        let flight = self.flight();
        match &flight.failure {
            Some((failure, struck)) => Err(self.error(failure, *struck)),
            None if flight.closed => Err(self.error(&Failure::Gone, label)),
            None => Ok(()),
        }
    }

    /// Notes the failure, if it is the first, and then ends the communicator, so that the device goes on. The error is the
    /// first one.
    pub(super) fn fail(&self, failure: Failure, label: Label) -> Error {
        let first = {
            let mut flight = self.flight();
            let (failure, struck) = flight.failure.get_or_insert((failure, label));
            self.error(failure, *struck)
        };
        self.changed.notify_all();
        if let Some(communicator) = self.communicator().take() {
            end_at_once(&self.device, communicator);
        }
        first
    }

    /// Ends the communicator together with the other ranks. Nothing may be in flight.
    pub(super) fn end_in_peace(&self) -> Result<(), Failure> {
        self.device.enter()?;
        let mut communicator = self.communicator();
        if let Some(communicator) = &*communicator {
            communicator.finalize()?;
            self.until_ready(communicator)?;
        }
        communicator.take().map_or(Ok(()), Communicator::destroy)?;
        Ok(())
    }

    /// Ends everything here, at once; nothing more can be asked.
    pub(super) fn close(&self) {
        self.flight().closed = true;
        self.changed.notify_all();
        if let Some(communicator) = self.communicator().take() {
            end_at_once(&self.device, communicator);
        }
    }

    fn error(&self, failure: &Failure, label: Label) -> Error {
        let rank = self.rank;
        match failure {
            Failure::Late(within) => Error::Timeout { rank, label, seconds: within.as_secs_f64() },
            Failure::Broken(problem) => Error::Failed { rank, label, problem: problem.clone() },
            Failure::Gone => Error::Broken { rank, label },
        }
    }
}

/// Aborts it on a thread of its own: where NCCL's abort does not come back, whoever has an error to tell still tells it.
pub(super) fn end_at_once(device: &Arc<Device>, communicator: Communicator) {
    let (done, ended) = mpsc::channel();
    let device = device.clone();
    let abort = move || {
        // NCCL goes back to the device that it has found, and would else open the first one.
        let _ = device.enter();
        communicator.abort();
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("nccl-abort".into()).spawn(abort).is_ok() {
        let _ = ended.recv_timeout(PATIENCE);
    }
}

/// Starts the thread that watches; it ends when the backend is closed or has failed.
pub(super) fn start(shared: Arc<Shared>) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("nccl".into()).spawn(move || {
        while let Some(operation) = shared.next_operation() {
            match shared.until_finished(&operation) {
                Ok(()) => shared.on_finished(),
                Err(failure) => {
                    shared.fail(failure, operation.label());
                    return;
                }
            }
        }
    })
}

impl Shared {
    /// The oldest operation in flight; waits for one. `None` when there will be none.
    fn next_operation(&self) -> Option<Arc<Operation>> {
        let mut flight = self.flight();
        loop {
            if flight.closed || flight.failure.is_some() {
                return None;
            }
            if let Some(operation) = flight.operations.front() {
                return Some(operation.clone());
            }
            flight = self.changed.wait(flight).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn on_finished(&self) {
        self.flight().operations.pop_front();
        self.changed.notify_all();
    }

    /// Polls until the operation has ended. Its time counts from when the device came to it: what it waits for before that
    /// is this rank's own work.
    fn until_finished(&self, operation: &Operation) -> Result<(), Failure> {
        let (mut began, mut pause) = (None, SHORTEST);
        while !operation.finished.is_done()? {
            if began.is_none() && operation.started.is_done()? {
                began = Some(Instant::now());
            }
            if began.is_some_and(|began| began.elapsed() > self.timeout) {
                return Err(Failure::Late(self.timeout));
            }
            self.look_for_errors()?;
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
        Ok(())
    }

    /// NCCL's asynchronous errors. Somebody who launches holds the communicator meanwhile, and sees them, too.
    fn look_for_errors(&self) -> Result<(), Failure> {
        let flight = self.flight();
        if flight.closed || flight.failure.is_some() {
            return Err(Failure::Gone);
        }
        drop(flight);
        if let Ok(communicator) = self.communicator.try_lock()
            && let Some(communicator) = &*communicator
        {
            communicator.state()?;
        }
        Ok(())
    }
}
