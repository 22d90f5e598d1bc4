//! Sums over the ranks in the middle of forward and backward passes: the statistics of synchronised norms.

use super::Error;
use crate::model::Group;
use collectives::{Collective, Label};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tch::Tensor;
use torch_ext::DeviceBuffer;

/// All ranks, for norms. After a failure it fails at once until [`Self::check`] was asked.
pub struct SharedSum {
    collective: Arc<dyn Collective>,
    step: AtomicU64,
    alone: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl SharedSum {
    /// Sums over the ranks of `collective`.
    pub fn new(collective: Arc<dyn Collective>) -> SharedSum {
        SharedSum { collective, step: AtomicU64::new(0), alone: AtomicBool::new(false), failure: Mutex::new(None) }
    }

    /// The step that errors name from now on.
    pub fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// From here on sums are this rank's own numbers: for passes that the others have no part in.
    pub fn go_alone(&self) {
        self.alone.store(true, Ordering::Relaxed);
    }

    /// The failure of a sum since the last call. Norms cannot report it themselves.
    pub fn check(&self) -> Result<(), Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    fn try_sum(&self, tensor: &Tensor) -> Result<(), Error> {
        if self.alone.load(Ordering::Relaxed) {
            return Ok(());
        }
        let label = Label::new(self.step.load(Ordering::Relaxed), "norm statistics");
        self.collective.all_reduce(DeviceBuffer::new(tensor)?, label).wait()?;
        Ok(())
    }
}

impl Group for SharedSum {
    fn rank(&self) -> usize {
        self.collective.rank()
    }

    fn world_size(&self) -> usize {
        self.collective.world_size()
    }

    fn sum(&self, tensor: &Tensor) -> Result<(), String> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = &*failure {
            return Err(earlier.to_string());
        }
        self.try_sum(tensor).map_err(|e| failure.insert(e).to_string())
    }
}

impl std::fmt::Debug for SharedSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedSum over {}", self.collective.name())
    }
}
