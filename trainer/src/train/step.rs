//! One optimizer step.

use super::session::Session;
use super::stragglers::Change;
use crate::Error;
use crate::data::Batch;
use crate::ddp::StepTimes;
use crate::evaluate::le_f64;
use crate::loss::ClassTargets;
use crate::network::{Input, Output};
use crate::whereabouts::enter;
use crate::{loss, optim};
use collectives::{Label, Moment};
use data_shards::augment::mixing_share;
use protocol::config::{Norm, Precision};
use protocol::message::Phase;
use serde_json::{Map, json};
use std::time::{Duration, Instant};
use tch::Tensor;
use torch_ext::Autocast;

/// What a step did.
pub(super) struct StepReport {
    pub(super) loss: f64,
    lr: f64,
    gradient_norm: f64,
    seconds: f64,
    data_seconds: f64,
    times: StepTimes,
    /// Factor of the loss in half precision, and whether this step was skipped for the gradient's overflow.
    scaled: Option<(f64, bool)>,
    /// Seconds that each rank needed for a micro-batch of its own.
    own_seconds: Vec<f64>,
    /// Whether any rank was asked to stop.
    pub(super) stop: bool,
}

/// What this rank did in a step, before the ranks meet.
struct Mine {
    losses: Vec<Tensor>,
    data: Duration,
    /// The part of it that came after the backward pass.
    ahead: Duration,
    started: Moment,
    /// How long it waited for other ranks before it had its own gradients.
    waited: Duration,
}

/// What all ranks did in a step.
struct Met {
    loss: f64,
    stop: bool,
    /// Whether the gradient is finite on all ranks.
    finite: bool,
    own_seconds: Vec<f64>,
}

/// Numbers that a rank sends before its losses.
const HEAD: usize = 3;

impl Session {
    /// Forward and backward over this worker's micro-batches, the sum over all ranks, one update. `None` where a rank was
    /// asked to stop before the ranks' sums began: then all of them are as they were before the step.
    pub(super) fn train_step(&mut self) -> Result<Option<StepReport>, Error> {
        let started = Instant::now();
        let per_epoch = self.plan.steps_per_epoch();
        let lr = optim::learning_rate(&self.config.optim, self.step, self.max_steps, per_epoch);
        self.network.set_training(true);
        let mine = self.forward_backward()?;
        self.network.set_training(false);
        let Some(mine) = mine else { return Ok(None) };
        let gradient_norm = self.clip()?;
        let Met { loss, stop, finite, own_seconds } = self.meet(&mine, gradient_norm)?;
        let scaled = self.loss_scale.map(|scale| (scale.scale, !finite));
        let diverged = |what, value| Err(Error::Diverged { step: self.step + 1, what, value });
        match self.loss_scale.map(|scale| scale.after(finite)) {
            // An overflow that a smaller scale may help; a loss without one is as it is.
            Some(Some(next)) if !finite || loss.is_finite() => self.loss_scale = Some(next),
            _ if !loss.is_finite() => return diverged("loss", loss),
            _ if !finite => return diverged("gradient norm", gradient_norm),
            _ => {}
        }
        enter(Phase::Update);
        self.step += 1;
        if finite {
            // The optimizer does not count steps that were skipped.
            let skipped = self.loss_scale.map_or(0, |scale| scale.skipped);
            self.reducer.flats.update(lr, self.step - skipped);
        }
        self.reducer.settle(self.step)?;
        self.last_loss = loss;
        Ok(Some(StepReport {
            loss,
            lr,
            gradient_norm,
            seconds: started.elapsed().as_secs_f64(),
            data_seconds: mine.data.as_secs_f64(),
            times: self.reducer.times(),
            scaled,
            own_seconds,
            stop,
        }))
    }

    fn forward_backward(&mut self) -> Result<Option<Mine>, Error> {
        let (started, waited) = (self.job.collective.mark(), collectives::waits().took);
        self.reducer.flats.zero_gradients();
        let count = self.plan.micro_batches();
        let before = if count > 1 { self.statistics() } else { Vec::new() };
        let (mut losses, mut data) = (Vec::with_capacity(count), Duration::ZERO);
        for i in 0..count {
            enter(Phase::Data);
            let waiting = Instant::now();
            let job = &self.job;
            let batch = self.stream.next_batch(&|| job.asked_to_stop())?;
            data += waiting.elapsed();
            let Some(batch) = self.unless_stopped(batch, i + 1 == count)? else {
                before.iter().for_each(|(buffer, value)| buffer.shallow_clone().copy_(value));
                return Ok(None);
            };
            enter(Phase::Forward);
            let shaped = self.within_memory(&batch, |session| session.shaped(&batch, i))?;
            drop(batch);
            // Read when the device has nothing to do meanwhile.
            losses.push(self.within_memory(&shaped, |session| session.pass(&shaped, i + 1 == count))?);
        }
        let waited = collectives::waits().took.saturating_sub(waited);
        // Weighted by samples: the sum over all micro-batches of all ranks is divided by the global batch.
        let factor = self.batches.micro as f64 / (self.weight() * self.batches.global as f64);
        self.reducer.finish(factor)?;
        let ahead = self.look_ahead();
        Ok(Some(Mine { losses, data: data + ahead, ahead, started, waited }))
    }

    /// Forward and backward over a micro-batch, the `last` one of this step or not. Returns its loss.
    fn pass(&mut self, batch: &Batch, last: bool) -> Result<Tensor, Error> {
        let loss = self.loss(batch)?;
        enter(Phase::Backward);
        let value = loss.detach();
        let passed = self.reducer.backward(&(loss * self.weight()), self.step, last);
        // Where a norm's sum failed, that is the cause of what the pass says.
        self.sums.as_ref().map_or(Ok(()), |sums| sums.check())?;
        passed?;
        Ok(value)
    }

    /// The factor of a micro-batch's mean loss in the backward pass: its samples, or the scale of half precision.
    fn weight(&self) -> f64 {
        self.loss_scale.map_or(self.batches.micro as f64, |scale| scale.scale)
    }

    /// Gets the next step's first micro-batch while a GPU computes what it was asked for. Returns how long that took.
    fn look_ahead(&mut self) -> Duration {
        if !self.stream.is_for_gpu() {
            return Duration::ZERO;
        }
        let (began, job) = (Instant::now(), &self.job);
        enter(Phase::Data);
        self.stream.prepare(&|| job.asked_to_stop());
        enter(Phase::Backward);
        began.elapsed()
    }

    /// The batch, unless a rank was asked to stop. The ranks agree on it before each pass in which they need each other, so
    /// that none waits in a sum that another has given up: the last pass, and with synchronised norms every one.
    fn unless_stopped(&self, batch: Option<Batch>, last: bool) -> Result<Option<Batch>, Error> {
        if batch.is_some() && !last && self.sums.is_none() {
            return Ok(batch);
        }
        let stop = batch.is_none() || self.job.asked_to_stop();
        let stop = self.job.collective.any(stop, Label::new(self.step, "agree to go on"))?;
        Ok(batch.filter(|_| !stop))
    }

    /// What passes of this step may change before it is given up, and its present value.
    fn statistics(&self) -> Vec<(Tensor, Tensor)> {
        let buffers = self.network.store.entries().iter().filter(|entry| !entry.trainable);
        let learned = buffers.filter(|_| self.config.model.norm() != Norm::Frozen);
        learned.map(|entry| entry.tensor.detach()).map(|buffer| (buffer.shallow_clone(), buffer.copy())).collect()
    }

    /// The micro-batch as the network takes it: mixed, and in channels-last order, where the configuration asks for that.
    fn shaped(&self, batch: &Batch, micro_batch: usize) -> Result<Batch, Error> {
        let share = self.mixing_share(micro_batch);
        let mix = |t: &Tensor| share.map_or_else(|| t.shallow_clone(), |share| t * share + t.flip([0]) * (1.0 - share));
        let input = match (self.config.train.channels_last, batch.input.map(mix)) {
            (true, Input::Images(images)) => Input::Images(torch_ext::channels_last(&images)?),
            (_, input) => input,
        };
        Ok(Batch {
            input,
            masks: mix(&batch.masks),
            // Half a mask is none.
            has_mask: share
                .map_or_else(|| batch.has_mask.shallow_clone(), |_| &batch.has_mask * batch.has_mask.flip([0])),
            classes: mix(&batch.classes),
            indices: batch.indices.clone(),
        })
    }

    /// Share of each sample in its pair, where pairs of the micro-batch are mixed: the first sample with the last, and so
    /// on. A function of seed, step and micro-batch, whichever worker takes it.
    fn mixing_share(&self, micro_batch: usize) -> Option<f64> {
        let number = (self.plan.first_micro_batch() + micro_batch) as u64;
        let alpha = self.config.mix.alpha;
        (alpha != 0.0).then(|| mixing_share(alpha, self.config.run.seed, self.step, number))
    }

    /// The loss of a micro-batch that is [`Self::shaped`].
    pub(super) fn loss(&self, batch: &Batch) -> Result<Tensor, Error> {
        let _autocast = match self.config.train.precision {
            Precision::Bf16 => Some(Autocast::bf16(self.job.device)?),
            Precision::Fp16 => Some(Autocast::fp16(self.job.device)?),
            Precision::Fp32 => None,
        };
        if let Some(sums) = &self.sums {
            sums.set_step(self.step);
        }
        let output = self.network.forward(&batch.input);
        self.sums.as_ref().map_or(Ok(()), |sums| sums.check())?;
        Ok(match output {
            Output::Maps(logits) => loss::segmentation(&logits, &batch.masks, &self.config.loss),
            Output::Classes { logits, activation } => {
                let [classes, masks, has_mask] =
                    [&batch.classes, &batch.masks, &batch.has_mask].map(Tensor::shallow_clone);
                let targets = ClassTargets { classes, masks, has_mask };
                loss::classification(&logits, &activation, &targets, self.balance, &self.config.loss)
            }
        })
    }

    /// The mean loss over the global batch, whether any rank was asked to stop, and how long each took for a micro-batch
    /// until it had its own gradients, without its waits for other ranks. Losses are added in
    /// the order of the micro-batches, so that the number of workers does not matter.
    fn meet(&self, mine: &Mine, gradient_norm: f64) -> Result<Met, Error> {
        let flag = |set: bool| f64::from(u8::from(set));
        let until = mine.started.until(&self.reducer.backward_span().1);
        let own = (until.saturating_sub(mine.waited) + mine.ahead) / mine.losses.len().max(1) as u32;
        let head: [f64; HEAD] = [flag(self.job.asked_to_stop()), own.as_secs_f64(), flag(gradient_norm.is_finite())];
        let losses: Vec<f64> = mine.losses.iter().map(|loss| loss.double_value(&[])).collect();
        let bytes = head.iter().chain(&losses).flat_map(|x| x.to_le_bytes()).collect();
        let all = self.job.collective.all_gather(bytes, Label::new(self.step, "gather losses"))?;
        let numbers: Vec<Vec<f64>> = all.iter().map(|rank| rank.chunks_exact(8).map(le_f64).collect()).collect();
        let head = |i: usize| numbers.iter().map(move |rank| rank.get(i).copied().unwrap_or_default());
        let losses: f64 = numbers.iter().flat_map(|rank| rank.iter().skip(HEAD)).sum();
        Ok(Met {
            loss: losses / self.batches.micro_batches() as f64,
            stop: head(0).any(|stop| stop != 0.0),
            own_seconds: head(1).collect(),
            finite: head(2).all(|finite| finite != 0.0),
        })
    }

    /// Scales the gradient down where it is longer than `train.clip_grad_norm`, and returns its
    /// length before that (`torch.nn.utils.clip_grad_norm_`).
    fn clip(&mut self) -> Result<f64, Error> {
        // Where sums come late, so do their errors.
        self.job.collective.settle()?;
        let norm = self.reducer.flats.gradient_norm();
        if let Some(limit) = self.config.train.clip_grad_norm
            && norm > limit
        {
            self.reducer.flats.scale_gradients(limit / (norm + 1e-6));
        }
        Ok(norm)
    }

    /// Writes the step's line and shows the progress.
    pub(super) fn log_step(&mut self, r: &StepReport) -> Result<(), Error> {
        enter(Phase::Report);
        let rate = self.batches.global as f64 / r.seconds;
        self.show_progress(rate);
        let fields = json!({
            "epoch": (self.step - 1) / self.plan.steps_per_epoch(),
            "samples": self.step * self.batches.global as u64,
            "loss": r.loss,
            "lr": r.lr,
            "step_seconds": r.seconds,
            "samples_per_second": rate,
            "data_seconds": r.data_seconds,
            "backward_seconds": r.times.backward.as_secs_f64(),
            "comm_seconds": r.times.communication.as_secs_f64(),
            "comm_exposed_seconds": r.times.exposed.as_secs_f64(),
            "comm_first_start": r.times.first_start,
            "grad_norm": r.gradient_norm,
        });
        let mut fields = fields.as_object().cloned().unwrap_or_else(Map::new);
        if let Some((scale, skipped)) = r.scaled {
            fields.insert("loss_scale".into(), json!(scale));
            fields.insert("skipped".into(), json!(skipped));
        }
        if let Some(usage) = self.meter.as_mut().and_then(|meter| meter.read(Instant::now())) {
            fields.insert("gpu_memory_bytes".into(), json!(usage.memory));
            fields.insert("gpu_utilization".into(), json!(usage.utilization));
        }
        self.monitor.write("train", self.step, fields)?;
        self.name_stragglers(&r.own_seconds)
    }

    fn name_stragglers(&mut self, own_seconds: &[f64]) -> Result<(), Error> {
        if !self.job.is_chief() {
            return Ok(());
        }
        for Change { rank, seconds, others, slow } in self.stragglers.on_step(own_seconds.to_vec()) {
            let host = self.job.hosts.get(rank).map_or("?", String::as_str);
            let pace = format!("{seconds:.3} s for a micro-batch, {others:.3} s is usual");
            match slow {
                true => tracing::warn!("rank {rank} on {host} is slower than the others: {pace}"),
                false => tracing::info!("rank {rank} on {host} has caught up with the others: {pace}"),
            }
            let event = if slow { "straggler" } else { "caught_up" };
            let details = json!({ "rank": rank, "host": host, "seconds": seconds, "others_seconds": others });
            self.monitor.event(self.step, event, details)?;
        }
        Ok(())
    }
}
