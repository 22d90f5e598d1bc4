//! NCCL, on a stream of its own beside the one that computes.
//!
//! ```text
//! compute  ── backward ──●ready──────── backward ────────────┬─ optimizer
//!                        │                                   │ waits for `finished`
//! transport   waits for └─●started── all-reduce ──●finished──┘
//! ```
//!
//! Nothing here makes the host wait for a device but [`Collective::settle`] and [`Collective::broadcast`]. A thread watches
//! what is in flight: an error of NCCL, of the driver, or a missed deadline is noted first, and then ends the communicator,
//! which lets go of the device. So whoever finds the device idle and no failure noted has right results.
//!
//! All else (bytes, flags, barriers) goes to a backend on the CPU, `control`, which also carries NCCL's unique id.

mod driver;
mod library;
mod watch;

pub(crate) use driver::Event;

use crate::waiting::during;
use crate::{Collective, Error, Label, Moment, Pending, Span};
use driver::{Device, Model, Stream};
use library::{Communicator, State, UniqueId};
use std::sync::Arc;
use std::time::{Duration, Instant};
use torch_ext::DeviceBuffer;
use watch::{Failure, Held, Operation, Shared};

/// Where the numbers are computed that are to be summed, and used afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compute {
    /// By libtorch on this GPU, on whichever of its streams is current.
    Torch(usize),
    /// On this stream of the driver's (`CUstream`, as an address), which outlives the backend.
    Stream(usize),
    /// By the host, on memory that the device shares: only the tests' stand-in for the driver has such devices.
    Host,
}

/// A GPU as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its model.
    pub name: String,
    /// What identifies it in the world.
    pub uuid: [u8; 16],
    /// Bytes of its memory.
    pub memory: usize,
    /// Its compute capability: (9, 0).
    pub capability: (u32, u32),
    /// Where it is on the PCI bus (`0000:3b:00.0`), as far as the driver says it.
    pub pci: Option<String>,
    /// Whether it is the tests' stand-in, whose memory is the host's.
    pub stand_in: bool,
}

/// The driver and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// The highest version of CUDA that it can serve: 13000 is 13.0.
    pub cuda: usize,
    /// The GPUs that this process may use, in the order of their numbers.
    pub gpus: Vec<Gpu>,
}

/// Asks the driver, which takes no memory of any GPU; an error says in words why there is none to ask.
pub fn gpus() -> Result<Driver, String> {
    let ask = || -> Result<Driver, driver::Problem> {
        driver::load()?;
        let gpu = |number| {
            let model = Model::of(number)?;
            Ok(Gpu {
                name: model.name()?,
                uuid: model.uuid()?,
                memory: model.memory()?,
                capability: model.capability()?,
                pci: model.pci(),
                stand_in: model.is_stand_in(),
            })
        };
        Ok(Driver { cuda: driver::version()?, gpus: (0..driver::count()?).map(gpu).collect::<Result<_, _>>()? })
    };
    ask().map_err(|e| e.to_string())
}

/// NCCL's version (`2.28.3`); an error says in words why there is none.
pub fn nccl_version() -> Result<String, String> {
    library::load().map(library::name).map_err(|e| e.to_string())
}

/// The backend over NCCL, for buffers in the memory of a GPU; one rank a GPU.
pub struct Nccl {
    shared: Arc<Shared>,
    control: Arc<dyn Collective>,
    library: String,
    watcher: Option<std::thread::JoinHandle<()>>,
}

/// What a rank tells the others before they connect.
struct Introduction {
    host: String,
    uuid: [u8; 16],
}

impl Nccl {
    /// Connects the ranks of `control`, each with the GPU of number `device` among those that its process may use. Each
    /// operation may take `timeout` once it is its turn.
    pub fn start(
        control: Arc<dyn Collective>,
        device: usize,
        compute: Compute,
        timeout: Duration,
    ) -> Result<Nccl, Error> {
        let failed = |problem: String| Error::Start { backend: "NCCL", problem };
        let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let opened = open(device, compute);
        // Whatever happened here, the others hear of it: none waits for a rank that has given up.
        let mine = opened.as_ref().map(|(.., uuid)| Introduction { host: host.clone(), uuid: *uuid });
        meet(&*control, &mine.map_err(|problem| format!("{host}: {problem}")))?;
        let (version, device, _) = opened.map_err(failed)?;
        let communicator = connect(&*control, &device, connecting(timeout))?;
        let shared = Shared::new(control.rank(), timeout, compute, device, communicator);
        let shared = Arc::new(shared.map_err(|e| failed(e.to_string()))?);
        let watcher = watch::start(shared.clone()).map_err(|e| failed(format!("no thread ({e})")))?;
        Ok(Nccl { shared, control, library: library::name(version), watcher: Some(watcher) })
    }

    fn submit(
        &self,
        buffers: Vec<DeviceBuffer>,
        labels: &[Label],
        launch: impl Fn(&Communicator, &[DeviceBuffer], &Stream) -> Result<(), library::Problem>,
    ) -> Result<Arc<Operation>, Error> {
        let label = labels.first().copied().unwrap_or(NOTHING);
        self.shared.check(label)?;
        if let Some(problem) = buffers.iter().find_map(|buffer| self.unfit(buffer)) {
            return Err(Error::Unfit { rank: self.rank(), label, problem });
        }
        // Kept until a launch that failed half-way is aborted.
        let buffers = Arc::new(Held(buffers));
        let launched = self.launch(&buffers, labels, launch);
        launched.map_err(|failure| self.shared.fail(failure, label))
    }

    fn unfit(&self, buffer: &DeviceBuffer) -> Option<String> {
        let fits = match (self.shared.compute, buffer.device()) {
            (Compute::Torch(device), tch::Device::Cuda(its)) => device == its,
            (Compute::Stream(_) | Compute::Host, tch::Device::Cpu) => true,
            _ => false,
        };
        (!fits).then(|| format!("the buffer is on {:?}, the backend on {:?}", buffer.device(), self.shared.compute))
    }

    fn launch(
        &self,
        buffers: &Arc<Held>,
        labels: &[Label],
        launch: impl Fn(&Communicator, &[DeviceBuffer], &Stream) -> Result<(), library::Problem>,
    ) -> Result<Arc<Operation>, Failure> {
        let shared = &self.shared;
        shared.device.enter()?;
        let ready = shared.current()?.mark()?;
        shared.transport.wait(&ready)?;
        let started = shared.transport.record()?;
        {
            let communicator = shared.communicator();
            let Some(communicator) = &*communicator else { return Err(Failure::Gone) };
            launch(communicator, &buffers.0, &shared.transport)?;
            // The first launch connects the ranks. What is recorded before it is done would not be behind it.
            let label = labels.first().copied().unwrap_or(NOTHING);
            during(label, || shared.until_ready(communicator))?;
        }
        let operation = Operation::new(labels, buffers.clone(), started, shared.transport.record()?);
        shared.watch(operation.clone());
        Ok(operation)
    }

    /// The time of a launch is told once, by the first of its buffers.
    fn pending(&self, operation: &Arc<Operation>, label: Label, first: bool) -> Pending {
        let (shared, operation) = (self.shared.clone(), operation.clone());
        Pending::until(label, move || {
            shared.check(label)?;
            shared.hand_over(&operation).map_err(|failure| shared.fail(failure, label))?;
            if shared.compute == Compute::Host {
                during(label, || shared.until_host_may_go_on(label))?;
            }
            let moment = |event: &Arc<Event>| Moment::on_device(event.clone());
            let started = if first { &operation.started } else { &operation.finished };
            Ok(Span { started: moment(started), finished: moment(&operation.finished) })
        })
    }
}

/// Set by scripts/gpu-check: ranks may share a GPU, where NCCL is told that each is on a host of its own (`NCCL_HOSTID`), without
/// which it would refuse. For tests on a machine with one GPU.
const SHARED_GPU: [&str; 2] = ["JCS_TEST_SHARED_GPU", "NCCL_HOSTID"];
/// Of a launch without buffers.
const NOTHING: Label = Label::new(0, "nothing");
/// The ranks come to the connecting at the same time, however long their operations may take later; and it takes seconds, however
/// short these are.
const CONNECT: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];

/// How long the ranks may take to connect, where an operation may take `timeout`.
fn connecting(timeout: Duration) -> Duration {
    timeout.clamp(CONNECT[0], CONNECT[1])
}

/// Loads the libraries and opens the device.
fn open(number: usize, compute: Compute) -> Result<(usize, Arc<Device>, [u8; 16]), String> {
    driver::load().map_err(|e| e.to_string())?;
    let version = library::load().map_err(|e| e.to_string())?;
    let model = Model::of(number).map_err(|e| e.to_string())?;
    if compute == Compute::Host && !model.is_stand_in() {
        return Err(
            "the workers compute on the CPU, and NCCL moves the memory of GPUs: run.device=cuda, or comm.backend=mpi"
                .into(),
        );
    }
    let uuid = model.uuid().map_err(|e| e.to_string())?;
    Ok((version, Device::open(model).map_err(|e| e.to_string())?, uuid))
}

/// Tells the others which GPU this rank has, or why it has none, and sees to it that all have one of their own.
fn meet(control: &dyn Collective, mine: &Result<Introduction, String>) -> Result<(), Error> {
    let failed = |problem: String| Error::Start { backend: "NCCL", problem };
    let bytes = match mine {
        Ok(Introduction { host, uuid }) => [&[1], &uuid[..], host.as_bytes()].concat(),
        Err(problem) => [&[0], problem.as_bytes()].concat(),
    };
    let all = control.all_gather(bytes, Label::new(0, "GPUs of the ranks"))?;
    let mut seen: Vec<(&[u8], usize)> = Vec::new();
    for (rank, bytes) in all.iter().enumerate() {
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (uuid, host) = match bytes.split_first() {
            Some((1, rest)) if rest.len() >= 16 => rest.split_at(16),
            Some((_, problem)) => return Err(failed(format!("rank {rank} on {}", words(problem)))),
            None => return Err(failed(format!("rank {rank} said nothing of its GPU"))),
        };
        let other = seen.iter().find(|(its, _)| *its == uuid);
        if let Some((_, other)) = other.filter(|_| SHARED_GPU.iter().any(|name| std::env::var_os(name).is_none())) {
            return Err(failed(format!(
                "ranks {other} and {rank} have the same GPU on {} (UUID {}): start at most one worker a GPU \
                 (--nproc-per-node), and look at CUDA_VISIBLE_DEVICES",
                words(host),
                hexadecimal(uuid)
            )));
        }
        seen.push((uuid, rank));
    }
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Connects the ranks: rank 0's unique id reaches all, and each waits until NCCL is ready, or the deadline.
fn connect(control: &dyn Collective, device: &Arc<Device>, timeout: Duration) -> Result<Communicator, Error> {
    let failed = |problem: String| Error::Start { backend: "NCCL", problem };
    // What a later start may not meet again.
    let label = Label::new(0, "ncclCommInitRank");
    let broken = |problem: String| Error::Failed { rank: control.rank(), label, problem };
    let id = if control.rank() == 0 { Some(UniqueId::new()) } else { None };
    let bytes = id.as_ref().map_or(Vec::new(), |id| id.as_ref().map_or(Vec::new(), UniqueId::bytes));
    let all = control.all_gather(bytes, Label::new(0, "NCCL's unique id"))?;
    if let Some(Err(problem)) = id {
        return Err(failed(problem.to_string()));
    }
    let id = all.first().and_then(|bytes| UniqueId::from_bytes(bytes));
    let id = id.ok_or_else(|| failed("rank 0 made no unique id".into()))?;
    device.enter().map_err(|e| failed(e.to_string()))?;
    let communicator =
        Communicator::begin(id, control.rank(), control.world_size()).map_err(|e| broken(e.to_string()))?;
    let began = Instant::now();
    let ready = during(label, || {
        loop {
            match communicator.state() {
                Ok(State::Ready) => return Ok(()),
                Ok(State::InProgress) if began.elapsed() <= timeout => std::thread::sleep(Duration::from_millis(1)),
                Ok(State::InProgress) => {
                    let seconds = timeout.as_secs_f64();
                    return Err(Error::Timeout { rank: control.rank(), label, seconds });
                }
                Err(problem) => return Err(broken(problem.to_string())),
            }
        }
    });
    match ready {
        Ok(()) => Ok(communicator),
        Err(e) => {
            watch::end_at_once(device, communicator);
            Err(e)
        }
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.control.rank()
    }

    fn world_size(&self) -> usize {
        self.control.world_size()
    }

    fn name(&self) -> String {
        format!("nccl ({}), control by {}", self.library, self.control.name())
    }

    fn all_reduce(&self, buffer: DeviceBuffer, label: Label) -> Pending {
        let mut all = self.all_reduce_together(vec![(buffer, label)]);
        all.pop()
            .unwrap_or_else(|| Pending::until(label, || Ok(Span { started: Moment::now(), finished: Moment::now() })))
    }

    fn all_reduce_together(&self, buffers: Vec<(DeviceBuffer, Label)>) -> Vec<Pending> {
        let (buffers, labels): (Vec<DeviceBuffer>, Vec<Label>) = buffers.into_iter().unzip();
        match self.submit(buffers, &labels, |comm, buffers, stream| comm.all_reduce(buffers, stream)) {
            Ok(operation) => {
                labels.iter().enumerate().map(|(i, label)| self.pending(&operation, *label, i == 0)).collect()
            }
            Err(first) => {
                let rank = self.rank();
                let rest = labels.iter().skip(1).map(|&label| Error::Broken { rank, label });
                let errors: Vec<Error> = std::iter::once(first).chain(rest).collect();
                labels.iter().zip(errors).map(|(label, e)| Pending::until(*label, move || Err(e))).collect()
            }
        }
    }

    fn broadcast(&self, buffer: DeviceBuffer, root: usize, label: Label) -> Result<(), Error> {
        let operation =
            self.submit(vec![buffer], &[label], |comm, buffers, stream| comm.broadcast(buffers, root, stream))?;
        self.pending(&operation, label, true).wait()?;
        self.settle()
    }

    fn all_gather(&self, bytes: Vec<u8>, label: Label) -> Result<Vec<Vec<u8>>, Error> {
        self.shared.check(label)?;
        self.control.all_gather(bytes, label)
    }

    fn barrier(&self, label: Label) -> Result<(), Error> {
        self.shared.check(label)?;
        self.control.barrier(label)
    }

    fn any(&self, flag: bool, label: Label) -> Result<bool, Error> {
        self.shared.check(label)?;
        self.control.any(flag, label)
    }

    fn mark(&self) -> Moment {
        let event = self.shared.current().and_then(|stream| Ok(stream.record()?));
        event.map_or_else(|_| Moment::now(), |event| Moment::on_device(Arc::new(event)))
    }

    fn settle(&self) -> Result<(), Error> {
        self.shared.settle()
    }

    fn shutdown(&self, label: Label) -> Result<(), Error> {
        self.settle()?;
        self.shared.end_in_peace().map_err(|failure| self.shared.fail(failure, label))?;
        self.control.shutdown(label)
    }
}

impl std::fmt::Debug for Nccl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Nccl({} of {})", self.rank(), self.world_size())
    }
}

impl Drop for Nccl {
    /// After [`Collective::shutdown`] there is nothing left to end; otherwise what is in flight ends without a result.
    fn drop(&mut self) {
        self.shared.close();
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}
