//! Checkpoints that are written behind the next steps, on a thread of their own, one at a time.
//!
//! Must not: touch libtorch, whose tensors change meanwhile, nor the files that the main thread writes. What becomes of a
//! checkpoint, errors included, is told when the main thread asks, and by then it is on disk or nothing of it is.

use super::lock::Claim;
use super::uploader::Uploader;
use crate::checkpoint::{self, MODEL, OPTIMIZER, STATE};
use crate::weights::{self, Copied};
use crate::{Error, weights::serialize};
use protocol::Step;
use protocol::message::Message;
use protocol::side_channel::SideChannel;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tch::Tensor;

/// What a checkpoint says, taken between two steps.
pub(super) struct Snapshot {
    pub(super) step: u64,
    pub(super) values: Values,
    /// Metadata of `model.safetensors`.
    pub(super) metadata: HashMap<String, String>,
    /// `state.json`
    pub(super) state: Vec<u8>,
    /// Whether this is the best one.
    pub(super) best: bool,
    /// The best one's step, which retention spares.
    pub(super) spared: Option<u64>,
    /// What training has lost by it so far.
    pub(super) stall: Duration,
}

/// Tensors of a checkpoint. Their memory goes from one to the next.
#[derive(Default)]
pub(super) struct Values {
    model: Vec<Copied>,
    optimizer: Vec<Copied>,
}

impl Values {
    /// Takes the present values of these tensors.
    pub(super) fn take(
        &mut self,
        model: &[(String, Tensor)],
        optimizer: &[(String, Tensor)],
    ) -> Result<(), weights::Error> {
        renew(&mut self.model, model)?;
        renew(&mut self.optimizer, optimizer)
    }
}

/// A run's tensors are the same at every checkpoint, in the same order.
fn renew(copied: &mut Vec<Copied>, tensors: &[(String, Tensor)]) -> Result<(), weights::Error> {
    if copied.len() == tensors.len() {
        return copied.iter_mut().zip(tensors).try_for_each(|(copied, (_, tensor))| copied.renew(tensor));
    }
    *copied = tensors.iter().map(|(name, tensor)| Copied::of(name, tensor)).collect::<Result<_, _>>()?;
    Ok(())
}

/// A checkpoint that lies on disk.
pub(super) struct Written {
    pub(super) step: u64,
    pub(super) best: bool,
    /// Bytes of its files.
    pub(super) bytes: u64,
    /// How long writing took, beside training or not.
    pub(super) took: Duration,
    /// What training lost by it.
    pub(super) stall: Duration,
    values: Values,
}

/// Where checkpoints go, and who hears of them.
#[derive(Clone)]
pub(super) struct Target {
    /// The run's checkpoints.
    pub(super) folder: PathBuf,
    pub(super) keep_last: usize,
    /// Whether the run is still ours.
    pub(super) claim: Arc<Claim>,
    /// Takes complete checkpoints to an object store (rank 0, where there is one).
    pub(super) uploader: Option<Arc<Uploader>>,
    /// The launcher, and the number of the stage that it is told (rank 0).
    pub(super) launcher: Option<(Arc<SideChannel>, usize)>,
}

/// The writer of this process.
pub(super) struct Writer {
    target: Target,
    in_flight: Option<JoinHandle<Result<Written, Error>>>,
    spare: Values,
}

impl Writer {
    pub(super) fn new(target: Target) -> Writer {
        Writer { target, in_flight: None, spare: Values::default() }
    }

    /// Memory for the next snapshot.
    pub(super) fn spare(&mut self) -> Values {
        std::mem::take(&mut self.spare)
    }

    /// Starts to write. None may be in flight.
    pub(super) fn start(&mut self, snapshot: Snapshot) -> Result<(), Error> {
        let (target, folder) = (self.target.clone(), self.target.folder.clone());
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || target.write(snapshot));
        let failed = |source| Error::Checkpoint(checkpoint::Error::Write { path: folder, source });
        self.in_flight = Some(thread.map_err(failed)?);
        Ok(())
    }

    /// What became of the one in flight; nothing while it is still being written.
    pub(super) fn poll(&mut self) -> Result<Option<Written>, Error> {
        if self.in_flight.as_ref().is_some_and(JoinHandle::is_finished) { self.wait() } else { Ok(None) }
    }

    /// What becomes of the one in flight, if there is one.
    pub(super) fn wait(&mut self) -> Result<Option<Written>, Error> {
        let Some(thread) = self.in_flight.take() else { return Ok(None) };
        let ended = thread.join().unwrap_or_else(|_| Err(Error::Panic("the checkpoint's writer panicked".into())));
        let mut written = ended?;
        self.spare = std::mem::take(&mut written.values);
        Ok(Some(written))
    }
}

impl Target {
    fn write(&self, snapshot: Snapshot) -> Result<Written, Error> {
        let began = Instant::now();
        let Snapshot { step, values, metadata, mut state, best, spared, stall } = snapshot;
        let files = [MODEL, OPTIMIZER, STATE].into_iter().map(|name| {
            let bytes = match name {
                MODEL => serialize(&values.model, metadata.clone()),
                OPTIMIZER => serialize(&values.optimizer, HashMap::new()),
                _ => Ok(std::mem::take(&mut state)),
            };
            (name, bytes.map_err(Error::from))
        });
        let bytes = checkpoint::write(&self.folder, step, files, || self.claim.check())?;
        if best {
            self.claim.check()?;
            checkpoint::set_best(&self.folder, step)?;
        }
        // In this order: what the uploader takes from now on is this one, or later.
        self.uploader.iter().for_each(|uploader| uploader.offer(step, spared));
        let on_its_way = self.uploader.as_ref().and_then(|uploader| uploader.on_its_way());
        let spared: Vec<u64> = spared.into_iter().chain(on_its_way).collect();
        self.claim.check()?;
        checkpoint::remove_old(&self.folder, step, self.keep_last, &spared);
        if let Some((side_channel, stage)) = &self.launcher {
            side_channel.send(&Message::Checkpoint { stage: *stage, step: Step(step) });
        }
        Ok(Written { step, best, bytes, took: began.elapsed(), stall, values })
    }
}
