//! What the ranks of a job do together: [`Collective`], and its backends [`Alone`], [`Mpi`] and [`Nccl`].
//!
//! The only crate that touches a communication library. It knows buffers, not tensors with a
//! meaning; it decides nothing about training.
//!
//! Invariants: every rank submits the same operations in the same order, and a backend runs them in
//! that order. Every wait ends, with a result or with an error that names rank, step, bucket and
//! phase. After an error nothing more may be asked of the backend: leave by [`leave_now`].

#![expect(unsafe_code, reason = "lends tensors' memory to MPI and NCCL")]

mod alone;
mod error;
mod leave;
mod moment;
mod mpi;
mod nccl;
mod pair;
mod pending;
mod waiting;

pub use alone::Alone;
pub use error::{Error, Label};
pub use leave::leave_now;
pub use moment::{Moment, Span};
pub use mpi::{Mpi, mpi_version};
pub use nccl::{Compute, Driver, Gpu, Nccl, gpus, nccl_version};
pub use pair::PairSpeed;
pub use pending::Pending;
pub use waiting::{Waits, waits};

use torch_ext::DeviceBuffer;

/// Operations that all ranks take part in.
///
/// Object safe; a handle is used from one thread at a time, which may be any (gradient hooks submit
/// from the thread of the backward pass).
pub trait Collective: Send + Sync {
    /// This worker's rank.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world_size(&self) -> usize;

    /// Name for logs, with the library's version.
    fn name(&self) -> String;

    /// Starts to replace `buffer` by its sum over all ranks. The buffer's elements belong to the
    /// operation until [`Pending::wait`] has returned.
    fn all_reduce(&self, buffer: DeviceBuffer, label: Label) -> Pending;

    /// The same for several buffers that are ready at the same time, which may then travel together.
    fn all_reduce_together(&self, buffers: Vec<(DeviceBuffer, Label)>) -> Vec<Pending> {
        buffers.into_iter().map(|(buffer, label)| self.all_reduce(buffer, label)).collect()
    }

    /// Replaces `buffer` by that of rank `root`.
    fn broadcast(&self, buffer: DeviceBuffer, root: usize, label: Label) -> Result<(), Error>;

    /// The `bytes` of all ranks, in rank order; their lengths may differ.
    fn all_gather(&self, bytes: Vec<u8>, label: Label) -> Result<Vec<Vec<u8>>, Error>;

    /// Returns when every rank has called it.
    fn barrier(&self, label: Label) -> Result<(), Error>;

    /// Whether `flag` is set on any rank: the same answer on all of them.
    fn any(&self, flag: bool, label: Label) -> Result<bool, Error>;

    /// Where the work is now that this thread has asked for.
    fn mark(&self) -> Moment {
        Moment::now()
    }

    /// Returns when all that was submitted has ended. On a device, whose errors come late, results count from here on only.
    fn settle(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Says good-bye to the other ranks. Only after work that ended well.
    fn shutdown(&self, label: Label) -> Result<(), Error>;
}
