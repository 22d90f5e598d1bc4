//! This worker: its place in the job, its device, its peers, and the signals that reach it.

use crate::{Error, affinity, device};
use collectives::{Alone, Collective, Compute, Label, Mpi, Nccl};
use protocol::Exit;
use protocol::config::{Backend, Comm, Compress, Device as DeviceName};
use protocol::env::Place;
use protocol::message::Message;
use protocol::side_channel::{self, SideChannel};
use signal_hook::consts::{SIGTERM, SIGUSR1};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tch::Device;

/// What a worker is and has.
#[derive(Clone)]
pub struct Job {
    /// Rank, world size and the like.
    pub place: Place,
    /// Where it computes.
    pub device: Device,
    /// The other ranks.
    pub collective: Arc<dyn Collective>,
    /// The launcher, if there is one.
    pub side_channel: Arc<SideChannel>,
    /// The host of each rank.
    pub hosts: Arc<[String]>,
    /// Number of the stage that it is in, from 0; 0 without a pipeline.
    pub stage: usize,
    stop: StopFlag,
}

/// Whether this process was asked to stop (SIGTERM or SIGUSR1).
#[derive(Clone, Debug)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// From here on the first such signal is noted, not obeyed; the second ends the process at once. Under a launcher, which
    /// forwards requests as SIGUSR1, only a second SIGTERM does: its word may come on top of somebody else's.
    pub fn install() -> Result<StopFlag, Error> {
        let flag = Arc::new(AtomicBool::new(false));
        let launched = std::env::var_os(protocol::env::JCS_LAUNCHER).is_some();
        let terminated = if launched { Arc::default() } else { flag.clone() };
        // In this order: the first signal sets the flag that arms the shutdown for the second.
        let arm = |signal| {
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, terminated.clone())
                .and_then(|_| signal_hook::flag::register(signal, terminated.clone()))
        };
        for signal in [SIGTERM, SIGUSR1] {
            let armed = if launched && signal == SIGUSR1 { Ok(()) } else { arm(signal).map(drop) };
            let installed = armed.and_then(|()| signal_hook::flag::register(signal, flag.clone()));
            installed.map_err(|e| Error::Usage(format!("cannot handle signal {signal}: {e}")))?;
        }
        Ok(StopFlag(flag))
    }

    /// A flag that no signal sets: signals keep their usual effect.
    pub fn never() -> StopFlag {
        StopFlag(Arc::default())
    }
}

/// Workers that know of each other, and have no device yet.
pub struct Meeting {
    place: Place,
    side_channel: Arc<SideChannel>,
    stop: StopFlag,
    /// None where there is one worker.
    mpi: Option<Arc<Mpi>>,
    hosts: Arc<[String]>,
}

impl Meeting {
    /// Finds the other workers; none of them may let the others wait longer than `timeout`.
    pub fn join(
        place: Place,
        side_channel: Arc<SideChannel>,
        stop: StopFlag,
        timeout: Duration,
    ) -> Result<Meeting, Error> {
        let mpi = match place.world_size {
            1 => refuse_lonely_world().map(|()| None)?,
            _ => Some(Arc::new(connect_mpi(&place, timeout)?)),
        };
        let own = side_channel::host_name();
        let hosts = match &mpi {
            Some(mpi) => mpi.all_gather(own.into_bytes(), Label::new(0, "names of the hosts"))?,
            None => vec![own.into_bytes()],
        };
        let hosts = hosts.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        Ok(Meeting { place, side_channel, stop, mpi, hosts })
    }

    /// The job on CPUs, by MPI where there are several workers: nothing about it can fail.
    pub fn on_cpus(&self) -> Job {
        let collective: Arc<dyn Collective> = match &self.mpi {
            Some(mpi) => mpi.clone(),
            None => Arc::new(Alone),
        };
        self.with(Device::Cpu, collective)
    }

    /// The job on the devices that are asked for, and over what is asked for.
    pub fn job(&self, device: DeviceName, comm: &Comm) -> Result<Job, Error> {
        let (device, collective) = match &self.mpi {
            None => (device::choose(device, comm.backend, &self.place)?, Arc::new(Alone) as Arc<dyn Collective>),
            Some(mpi) => connect(&self.place, mpi.clone(), device, comm)?,
        };
        Ok(self.with(device, collective))
    }

    fn with(&self, device: Device, collective: Arc<dyn Collective>) -> Job {
        let (place, side_channel) = (self.place, self.side_channel.clone());
        Job { place, device, collective, side_channel, hosts: self.hosts.clone(), stage: 0, stop: self.stop.clone() }
    }
}

impl Job {
    /// Joins the job: finds device and peers.
    pub fn join(
        place: Place,
        side_channel: Arc<SideChannel>,
        stop: StopFlag,
        device: DeviceName,
        comm: &Comm,
    ) -> Result<Job, Error> {
        Meeting::join(place, side_channel, stop, Duration::from_secs_f64(comm.timeout_s))?.job(device, comm)
    }

    /// The same in a stage of a pipeline, numbered from 0.
    pub fn in_stage(&self, stage: usize) -> Job {
        Job { stage, ..self.clone() }
    }

    /// Whether this worker was asked to stop.
    pub fn asked_to_stop(&self) -> bool {
        self.stop.0.load(Ordering::Relaxed)
    }

    /// Ends well: tells the launcher how, and says good-bye to the other ranks. In this order, because
    /// mpirun kills the others as soon as one exits with a code other than 0.
    pub fn leave(&self, exit: Exit, step: u64) -> Result<Exit, Error> {
        self.side_channel.send(&Message::Finished { exit });
        self.collective.shutdown(Label::new(step, "farewell"))?;
        Ok(exit)
    }

    /// Tells the launcher how this will end, where that is certain and only time is left to wait for: it then kills nothing
    /// that matters. Rank 0's word is what counts.
    pub fn confirm(&self, exit: Exit) {
        if self.is_chief() {
            self.side_channel.send(&Message::Finished { exit });
        }
    }

    /// Whether this is rank 0, which writes files and speaks to people.
    pub fn is_chief(&self) -> bool {
        self.place.rank.0 == 0
    }
}

/// The device, and what carries the gradients of several workers: MPI in any case, and NCCL beside it where they compute on
/// GPUs.
fn connect(
    place: &Place,
    mpi: Arc<Mpi>,
    device: DeviceName,
    comm: &Comm,
) -> Result<(Device, Arc<dyn Collective>), Error> {
    let device = device::choose_together(device, comm.backend, place, &*mpi)?;
    if let Device::Cuda(number) = device {
        affinity::bind_beside_gpu(device::describe(number).as_ref(), place, &*mpi)?;
    }
    let compute = match (device, comm.backend) {
        (Device::Cuda(number), _) => Compute::Torch(number),
        (_, Backend::Nccl) => Compute::Host,
        _ if comm.compress == Compress::Bf16 => {
            return Err(Error::Usage(
                "comm.compress = bf16 works with NCCL only, and the gradients travel by MPI: comm.compress=none".into(),
            ));
        }
        _ => return Ok((device, mpi)),
    };
    let nccl = Nccl::start(mpi, place.local_rank, compute, Duration::from_secs_f64(comm.timeout_s))?;
    Ok((device, Arc::new(nccl)))
}

fn connect_mpi(place: &Place, timeout: Duration) -> Result<Mpi, Error> {
    let mpi = Mpi::start(timeout)?;
    if (mpi.world_size(), mpi.rank()) != (place.world_size, place.rank.0) {
        return Err(Error::Usage(format!(
            "rank {} of {} by the environment, but rank {} of {} in MPI's world: start the workers with jcs-launch, \
             or with an mpirun of the Open MPI that jcs was built with",
            place.rank,
            place.world_size,
            mpi.rank(),
            mpi.world_size()
        )));
    }
    refuse_other_host(place)?;
    Ok(mpi)
}

/// mpirun may put workers elsewhere than the launcher planned; then two of them would share a GPU.
fn refuse_other_host(place: &Place) -> Result<(), Error> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<usize>().ok());
    let planned = std::env::var_os(protocol::env::LOCAL_WORLD_SIZE).is_some();
    let (rank, size) = (number("OMPI_COMM_WORLD_LOCAL_RANK"), number("OMPI_COMM_WORLD_LOCAL_SIZE"));
    match (rank, size) {
        (Some(rank), Some(size)) if planned && (rank, size) != (place.local_rank, place.local_world_size) => {
            Err(Error::Usage(format!(
                "rank {} on {} is worker {rank} of {size} there, but was planned as worker {} of {} of a host: mpirun put it \
                 elsewhere than jcs-launch --dry-run shows",
                place.rank,
                side_channel::host_name(),
                place.local_rank,
                place.local_world_size
            )))
        }
        _ => Ok(()),
    }
}

/// A scheduler that started several tasks without our environment would train the same thing
/// several times over one run directory.
fn refuse_lonely_world() -> Result<(), Error> {
    for (name, whose) in [("OMPI_COMM_WORLD_SIZE", "mpirun"), ("SLURM_STEP_NUM_TASKS", "srun")] {
        let tasks = std::env::var(name).ok().and_then(|v| v.parse::<usize>().ok()).unwrap_or(1);
        let launched = std::env::var_os(protocol::env::WORLD_SIZE).is_some();
        if tasks > 1 && !launched {
            return Err(Error::Usage(format!(
                "{whose} started {tasks} tasks ({name}), but this worker's world is 1: start the job with jcs-launch"
            )));
        }
    }
    Ok(())
}
