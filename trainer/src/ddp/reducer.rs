//! Sums gradients over the ranks, while the backward pass still runs.

use super::Error;
use super::flats::{Flats, describe};
use super::layout::{Layout, Limits};
use crate::model::Store;
use crate::optim::Optimizer;
use collectives::{Collective, Label, Pending, Span};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tch::Tensor;
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
    pass: Arc<Mutex<Pass>>,
    backward_span: (Instant, Instant),
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
    /// The buckets' memory, taken when they leave.
    buffers: Vec<Option<DeviceBuffer>>,
    /// Next bucket to leave: always in the order of their index.
    next: usize,
    in_flight: Vec<Pending>,
    /// Parameters in the order in which their gradients became ready.
    order: Vec<usize>,
    seen: Vec<bool>,
}

impl Pass {
    fn on_gradient(&mut self, p: usize) {
        if std::mem::replace(&mut self.seen[p], true) {
            return;
        }
        self.order.push(p);
        self.missing[self.bucket_of[p]] -= 1;
        if self.sending {
            self.send_full_buckets();
        }
    }

    fn send_full_buckets(&mut self) {
        while self.next < self.missing.len() && self.missing[self.next] == 0 {
            if let Some(buffer) = self.buffers[self.next].take() {
                let label = Label::bucket(self.step, self.next, PHASE);
                self.in_flight.push(self.collective.all_reduce(buffer, label));
            }
            self.next += 1;
        }
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
        let Settings { layout, limits, overlap } = settings;
        let layout = layout.unwrap_or_else(|| Layout::guess(&describe(store), limits));
        let flats = Flats::new(store, layout, optimizer)?;
        let pass = Arc::new(Mutex::new(Pass {
            collective: collective.clone(),
            step: 0,
            sending: false,
            bucket_of: Vec::new(),
            missing: Vec::new(),
            buffers: Vec::new(),
            next: 0,
            in_flight: Vec::new(),
            order: Vec::new(),
            seen: Vec::new(),
        }));
        for p in 0..flats.parameters().len() {
            let pass = pass.clone();
            torch_ext::set_grad_hook(flats.leaf(p), move || {
                lock(&pass).on_gradient(p);
                Ok(())
            })?;
        }
        let now = Instant::now();
        Ok(Reducer { collective, flats, limits, overlap, pass, backward_span: (now, now) })
    }

    /// Runs the backward pass of `loss`, which adds to the gradients. The `last` one of a step sends
    /// the buckets; the others communicate nothing.
    pub fn backward(&mut self, loss: &Tensor, step: u64, last: bool) -> Result<(), Error> {
        self.prepare(step, last)?;
        let started = Instant::now();
        loss.f_backward().map_err(|e| Error::Backward(e.to_string()))?;
        self.backward_span = (started, Instant::now());
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
        pass.buffers.clear();
        for gradient in self.flats.gradients() {
            pass.buffers.push(Some(DeviceBuffer::new(gradient)?));
        }
        Ok(())
    }

    fn check_all_seen(&self) -> Result<(), Error> {
        let pass = lock(&self.pass);
        let mut unseen = pass.seen.iter().enumerate().filter(|(_, seen)| !**seen).map(|(p, _)| p);
        match unseen.next() {
            None => Ok(()),
            Some(p) => Err(Error::NoGradient { name: self.flats.parameters()[p].name.clone(), more: unseen.count() }),
        }
    }

    /// Waits for the sums of all buckets, and divides them by `samples`, those of all
    /// ranks in this step: the average weighted by samples.
    pub fn finish(&mut self, samples: usize) -> Result<StepTimes, Error> {
        let pending = {
            let mut pass = lock(&self.pass);
            pass.send_full_buckets();
            std::mem::take(&mut pass.in_flight)
        };
        let spans = pending.into_iter().map(Pending::wait).collect::<Result<Vec<Span>, _>>()?;
        let times = self.measure(&spans);
        self.flats.scale_gradients(1.0 / samples as f64);
        Ok(times)
    }

    fn measure(&self, spans: &[Span]) -> StepTimes {
        let (started, ended) = self.backward_span;
        let backward = ended - started;
        let first = spans.first().map_or(ended, |s| s.started);
        StepTimes {
            backward,
            communication: spans.iter().map(Span::duration).sum(),
            exposed: spans.last().map_or(Duration::ZERO, |s| s.finished.saturating_duration_since(ended)),
            first_start: first.saturating_duration_since(started).as_secs_f64() / backward.as_secs_f64().max(1e-9),
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
