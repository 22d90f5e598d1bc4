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
use collectives::Label;
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
    /// Seconds that each rank needed for a micro-batch of its own.
    own_seconds: Vec<f64>,
    /// Whether any rank was asked to stop.
    pub(super) stop: bool,
}

/// What this rank did in a step, before the ranks meet.
struct Mine {
    losses: Vec<f64>,
    data: Duration,
    /// For each micro-batch, until it had its own gradients, and without its waits for other ranks.
    own: Duration,
    times: StepTimes,
}

/// What all ranks did in a step.
struct Met {
    loss: f64,
    stop: bool,
    own_seconds: Vec<f64>,
}

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
        let Met { loss, stop, own_seconds } = self.meet(&mine)?;
        if !loss.is_finite() {
            return Err(Error::Diverged { step: self.step + 1, what: "loss", value: loss });
        }
        let gradient_norm = self.clip();
        if !gradient_norm.is_finite() {
            return Err(Error::Diverged { step: self.step + 1, what: "gradient norm", value: gradient_norm });
        }
        enter(Phase::Update);
        self.step += 1;
        self.reducer.flats.update(lr, self.step);
        self.reducer.settle(self.step)?;
        self.last_loss = loss;
        Ok(Some(StepReport {
            loss,
            lr,
            gradient_norm,
            seconds: started.elapsed().as_secs_f64(),
            data_seconds: mine.data.as_secs_f64(),
            times: mine.times,
            own_seconds,
            stop,
        }))
    }

    fn forward_backward(&mut self) -> Result<Option<Mine>, Error> {
        let (started, waited) = (Instant::now(), collectives::waits().took);
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
            let loss = self.loss(self.mixed(batch, i))?;
            losses.push(loss.double_value(&[]));
            enter(Phase::Backward);
            // Weighted by samples: the sum over all micro-batches of all ranks is divided by the global batch.
            let samples = self.batches.micro as f64;
            let passed = self.reducer.backward(&(loss * samples), self.step, i + 1 == count);
            // Where a norm's sum failed, that is the cause of what the pass says.
            self.sums.as_ref().map_or(Ok(()), |sums| sums.check())?;
            passed?;
        }
        let own =
            started.elapsed().saturating_sub(collectives::waits().took.saturating_sub(waited)) / count.max(1) as u32;
        let times = self.reducer.finish(self.batches.global)?;
        Ok(Some(Mine { losses, data, own, times }))
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

    /// Pairs of the micro-batch mixed, where the configuration asks for it: the first sample with the last, and so on. The
    /// share is a function of seed, step and micro-batch, whichever worker takes it.
    fn mixed(&self, batch: Batch, micro_batch: usize) -> Batch {
        if self.config.mix.alpha == 0.0 {
            return batch;
        }
        let number = (self.plan.first_micro_batch() + micro_batch) as u64;
        let share = mixing_share(self.config.mix.alpha, self.config.run.seed, self.step, number);
        let mix = |t: &Tensor| t * share + t.flip([0]) * (1.0 - share);
        Batch {
            input: batch.input.map(mix),
            masks: mix(&batch.masks),
            // Half a mask is none.
            has_mask: &batch.has_mask * batch.has_mask.flip([0]),
            classes: mix(&batch.classes),
            indices: batch.indices,
        }
    }

    fn loss(&self, batch: Batch) -> Result<Tensor, Error> {
        let input = match (self.config.train.channels_last, batch.input) {
            (true, Input::Images(images)) => Input::Images(torch_ext::channels_last(&images)?),
            (_, input) => input,
        };
        let _autocast = match self.config.train.precision {
            Precision::Bf16 => Some(Autocast::bf16(self.job.device)?),
            Precision::Fp32 => None,
        };
        if let Some(sums) = &self.sums {
            sums.set_step(self.step);
        }
        let output = self.network.forward(&input);
        self.sums.as_ref().map_or(Ok(()), |sums| sums.check())?;
        Ok(match output {
            Output::Maps(logits) => loss::segmentation(&logits, &batch.masks, &self.config.loss),
            Output::Classes { logits, activation } => {
                let targets = ClassTargets { classes: batch.classes, masks: batch.masks, has_mask: batch.has_mask };
                loss::classification(&logits, &activation, &targets, self.balance, &self.config.loss)
            }
        })
    }

    /// The mean loss over the global batch, whether any rank was asked to stop, and how long each took. Losses are added in
    /// the order of the micro-batches, so that the number of workers does not matter.
    fn meet(&self, mine: &Mine) -> Result<Met, Error> {
        let head = [f64::from(u8::from(self.job.asked_to_stop())), mine.own.as_secs_f64()];
        let bytes = head.iter().chain(&mine.losses).flat_map(|x| x.to_le_bytes()).collect();
        let all = self.job.collective.all_gather(bytes, Label::new(self.step, "gather losses"))?;
        let numbers: Vec<Vec<f64>> = all.iter().map(|rank| rank.chunks_exact(8).map(le_f64).collect()).collect();
        let head = |i: usize| numbers.iter().map(move |rank| rank.get(i).copied().unwrap_or_default());
        let losses: f64 = numbers.iter().flat_map(|rank| rank.iter().skip(2)).sum();
        Ok(Met {
            loss: losses / self.batches.micro_batches() as f64,
            stop: head(0).any(|stop| stop != 0.0),
            own_seconds: head(1).collect(),
        })
    }

    /// Scales the gradient down where it is longer than `train.clip_grad_norm`, and returns its
    /// length before that (`torch.nn.utils.clip_grad_norm_`).
    fn clip(&mut self) -> f64 {
        let norm = self.reducer.flats.gradient_norm();
        if let Some(limit) = self.config.train.clip_grad_norm
            && norm > limit
        {
            self.reducer.flats.scale_gradients(limit / (norm + 1e-6));
        }
        norm
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
        let fields = fields.as_object().cloned().unwrap_or_else(Map::new);
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
