//! Sums gradients over the ranks, while the backward pass still runs.

use super::Error;
use super::flats::{Flats, describe};
use super::layout::{Layout, Limits};
use crate::model::Store;
use crate::optim::Optimizer;
use collectives::{Collective, Label, Moment, Pending, Span};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tch::{Kind, Tensor};
use torch_ext::DeviceBuffer;

const PHASE: &str = "gradient all-reduce";

/// What a backward pass and its communication took.
#[derive(Clone, Copy, Debug, Default)]
pub struct StepTimes {
    /// The backward pass that communicated (the last of the step).
    pub backward: Duration,
    /// Sum over the buckets of the time in which their all-reduce was at work.
    pub communication: Duration,
    /// From the end of the backward pass to the end of the last all-reduce: what overlap did not hide.
    pub exposed: Duration,
    /// Start of the first all-reduce, as a share of the backward pass.
    pub first_start: f64,
}

/// The reducer. One backward pass at a time: [`Self::backward`] for each micro-batch, then [`Self::finish`].
pub struct Reducer {
    collective: Arc<dyn Collective>,
    /// The flat buffers.
    pub flats: Flats,
    limits: Limits,
    overlap: bool,
    compress: bool,
    pass: Arc<Mutex<Pass>>,
    /// When the last backward pass began and ended.
    backward_span: (Moment, Moment),
    /// When the sums of the last step were at work.
    sums: Vec<Span>,
}

/// How gradients are gathered and sent.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The buckets of the checkpoint that the run goes on from.
    pub layout: Option<Layout>,
    /// Sizes of new ones.
    pub limits: Limits,
    /// Whether buckets leave while the backward pass still runs.
    pub overlap: bool,
    /// Whether they travel, and are summed, as bfloat16.
    pub compress: bool,
}

/// A bucket that is to leave.
struct Parcel {
    gradient: Tensor,
    /// What travels in its place, where it is compressed.
    compressed: Option<Tensor>,
}

impl Parcel {
    /// The memory that travels.
    fn pack(&self) -> Result<DeviceBuffer, torch_ext::Unfit> {
        let Some(compressed) = &self.compressed else { return DeviceBuffer::new(&self.gradient) };
        tch::no_grad(|| compressed.shallow_clone().copy_(&self.gradient));
        DeviceBuffer::new(compressed)
    }

    fn unpack(&self) {
        if let Some(compressed) = &self.compressed {
            tch::no_grad(|| self.gradient.shallow_clone().copy_(compressed));
        }
    }
}

/// What the gradient hooks of a backward pass share.
struct Pass {
    collective: Arc<dyn Collective>,
    step: u64,
    /// Whether full buckets leave from the hooks.
    sending: bool,
    /// Bucket of each parameter.
    bucket_of: Vec<usize>,
    /// Gradients that each bucket still waits for.
    missing: Vec<usize>,
    parcels: Vec<Parcel>,
    /// Next bucket to leave: always in the order of their index.
    next: usize,
    in_flight: Vec<Pending>,
    /// Parameters in the order in which their gradients became ready.
    order: Vec<usize>,
    seen: Vec<bool>,
}

impl Pass {
    fn on_gradient(&mut self, p: usize) -> Result<(), torch_ext::Unfit> {
        if std::mem::replace(&mut self.seen[p], true) {
            return Ok(());
        }
        self.order.push(p);
        self.missing[self.bucket_of[p]] -= 1;
        if self.sending { self.send_full_buckets() } else { Ok(()) }
    }

    /// Those that are full by now leave together.
    fn send_full_buckets(&mut self) -> Result<(), torch_ext::Unfit> {
        let mut full = Vec::new();
        while self.next < self.missing.len() && self.missing[self.next] == 0 {
            full.push((self.parcels[self.next].pack()?, Label::bucket(self.step, self.next, PHASE)));
            self.next += 1;
        }
        if !full.is_empty() {
            self.in_flight.extend(self.collective.all_reduce_together(full));
        }
        Ok(())
    }
}

impl Reducer {
    /// Moves the trainable tensors of `store` into buckets, and watches their gradients.
    pub fn new(
        collective: Arc<dyn Collective>,
        store: &Store,
        optimizer: Optimizer,
        settings: Settings,
    ) -> Result<Reducer, Error> {
        let Settings { layout, limits, overlap, compress } = settings;
        let layout = layout.unwrap_or_else(|| Layout::guess(&describe(store), limits));
        let flats = Flats::new(store, layout, optimizer)?;
        let pass = Arc::new(Mutex::new(Pass {
            collective: collective.clone(),
            step: 0,
            sending: false,
            bucket_of: Vec::new(),
            missing: Vec::new(),
            parcels: Vec::new(),
            next: 0,
            in_flight: Vec::new(),
            order: Vec::new(),
            seen: Vec::new(),
        }));
        for p in 0..flats.parameters().len() {
            let pass = pass.clone();
            torch_ext::set_grad_hook(flats.leaf(p), move || lock(&pass).on_gradient(p).map_err(|e| e.to_string()))?;
        }
        let backward_span = (Moment::now(), Moment::now());
        Ok(Reducer { collective, flats, limits, overlap, compress, pass, backward_span, sums: Vec::new() })
    }

    /// Runs the backward pass of `loss`, which adds to the gradients. The `last` one of a step sends
    /// the buckets; the others communicate nothing.
    pub fn backward(&mut self, loss: &Tensor, step: u64, last: bool) -> Result<(), Error> {
        self.prepare(step, last)?;
        let started = self.collective.mark();
        loss.f_backward().map_err(|e| Error::Backward(e.to_string()))?;
        self.backward_span = (started, self.collective.mark());
        self.check_all_seen()
    }

    fn prepare(&mut self, step: u64, last: bool) -> Result<(), Error> {
        let layout = self.flats.layout();
        let parameters = self.flats.parameters().len();
        let mut pass = lock(&self.pass);
        pass.step = step;
        pass.sending = last && self.overlap;
        pass.bucket_of = vec![0; parameters];
        for (b, members) in layout.buckets.iter().enumerate() {
            members.iter().for_each(|&p| pass.bucket_of[p] = b);
        }
        pass.missing = layout.buckets.iter().map(Vec::len).collect();
        pass.next = 0;
        pass.in_flight.clear();
        pass.order.clear();
        pass.seen = vec![false; parameters];
        let same = |(parcel, gradient): (&Parcel, &Tensor)| parcel.gradient.data_ptr() == gradient.data_ptr();
        if pass.parcels.len() != layout.buckets.len() || !pass.parcels.iter().zip(self.flats.gradients()).all(same) {
            pass.parcels = self.flats.gradients().map(|gradient| self.parcel(gradient)).collect();
        }
        Ok(())
    }

    fn parcel(&self, gradient: &Tensor) -> Parcel {
        let compressed = self.compress.then(|| gradient.empty_like().to_kind(Kind::BFloat16));
        Parcel { gradient: gradient.shallow_clone(), compressed }
    }

    fn check_all_seen(&self) -> Result<(), Error> {
        let pass = lock(&self.pass);
        let mut unseen = pass.seen.iter().enumerate().filter(|(_, seen)| !**seen).map(|(p, _)| p);
        match unseen.next() {
            None => Ok(()),
            Some(p) => Err(Error::NoGradient { name: self.flats.parameters()[p].name.clone(), more: unseen.count() }),
        }
    }

    /// Waits for the sums of all buckets, and multiplies them by `factor`: one over the samples of all ranks in this step
    /// is the average weighted by samples. On a device, what is computed from here on waits, and the host does not.
    pub fn finish(&mut self, factor: f64) -> Result<(), Error> {
        let mut pass = lock(&self.pass);
        pass.send_full_buckets()?;
        let pending = std::mem::take(&mut pass.in_flight);
        self.sums = pending.into_iter().map(Pending::wait).collect::<Result<_, _>>()?;
        pass.parcels.iter().for_each(Parcel::unpack);
        drop(pass);
        self.flats.scale_gradients(factor);
        Ok(())
    }

    /// Lets go of the other ranks, for passes that are only tried after one has failed: from here on they add to gradients
    /// and send nothing. Gradients in buckets that may still travel are replaced, as nobody may touch those. Training
    /// cannot go on.
    pub fn abandon(&mut self) -> Result<(), Error> {
        let pass = lock(&self.pass);
        let travelling = if pass.in_flight.is_empty() { 0 } else { pass.next };
        for p in 0..self.flats.parameters().len() {
            torch_ext::clear_grad_hook(self.flats.leaf(p))?;
            // Before the first pass no bucket has members.
            if pass.bucket_of.get(p).is_some_and(|bucket| *bucket < travelling) {
                torch_ext::clear_grad(self.flats.leaf(p))?;
            }
        }
        Ok(())
    }

    /// When the last backward pass began and ended.
    pub fn backward_span(&self) -> &(Moment, Moment) {
        &self.backward_span
    }

    /// What the last step took. On a device it is known once the device has done it ([`Collective::settle`], and a value
    /// that was computed afterwards).
    pub fn times(&self) -> StepTimes {
        let (started, ended) = &self.backward_span;
        let backward = started.until(ended);
        let first = self.sums.first().map_or(ended, |sum| &sum.started);
        StepTimes {
            backward,
            communication: self.sums.iter().map(Span::duration).sum(),
            exposed: self.sums.last().map_or(Duration::ZERO, |sum| ended.until(&sum.finished)),
            first_start: started.until(first).as_secs_f64() / backward.as_secs_f64().max(1e-9),
        }
    }

    /// After the update of the first step: buckets along the order in which rank 0 saw the gradients.
    /// Does nothing once the order is settled.
    pub fn settle(&mut self, step: u64) -> Result<(), Error> {
        if self.flats.layout().settled {
            return Ok(());
        }
        let order = lock(&self.pass).order.clone();
        let bytes = order.iter().flat_map(|p| (*p as u64).to_le_bytes()).collect();
        let all = self.collective.all_gather(bytes, Label::new(step, "bucket order"))?;
        let order: Vec<usize> =
            all[0].chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()) as usize).collect();
        self.flats.rearrange(Layout::along(self.flats.parameters(), &order, self.limits))
    }
}

/// A hook that panicked poisons the lock; its error has ended the backward pass already.
fn lock(pass: &Mutex<Pass>) -> MutexGuard<'_, Pass> {
    pass.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
