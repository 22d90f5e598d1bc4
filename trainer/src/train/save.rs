//! When a checkpoint is written, and what goes into it.

use super::resume;
use super::session::Session;
use super::together;
use super::uploader::Outcome;
use super::writer::{Snapshot, Written};
use crate::checkpoint::{self, State};
use crate::{Error, weights};
use collectives::Label;
use protocol::config::Norm;
use protocol::message::Phase;
use serde_json::{Map, json};
use std::time::Instant;
use tch::Tensor;

impl Session {
    /// Saves where the configuration asks for it, after an improvement, and at the end.
    pub(super) fn save_if_due(&mut self) -> Result<(), Error> {
        self.look_at_writer()?;
        self.look_at_uploads()?;
        let c = &self.config.checkpoint;
        let per_epoch = self.plan.steps_per_epoch();
        let by_step = c.every_steps > 0 && self.step.is_multiple_of(c.every_steps);
        let by_epoch = c.every_epochs > 0
            && self.step.is_multiple_of(per_epoch)
            && (self.step / per_epoch).is_multiple_of(c.every_epochs);
        // None is saved where training began with one that a node lacks.
        let wanted =
            by_step || by_epoch || self.all_steps_taken() || self.saved.is_none() && self.step == self.began_at;
        let improved = c.keep_best && self.improvement().is_some();
        if self.step > 0 && (improved || wanted && self.saved != Some(self.step)) { self.save() } else { Ok(()) }
    }

    /// Saves unless this step is saved already.
    pub(super) fn save_if_new(&mut self) -> Result<(), Error> {
        if self.saved == Some(self.step) { Ok(()) } else { self.save() }
    }

    /// The ranks that keep checkpoints write, behind the next steps; the others hold the same tensors and go on.
    fn save(&mut self) -> Result<(), Error> {
        let improved = self.improvement();
        self.best = improved.or(self.best);
        self.saved = Some(self.step);
        if self.writer.is_none() && !self.keepers.are_several() {
            return Ok(());
        }
        let began = Instant::now();
        let (state, generator) = self.rank_0s_part()?;
        let Some(writer) = &mut self.writer else { return Ok(()) };
        // One in flight: a second one would only make both slower.
        let earlier = writer.wait()?;
        let mut values = writer.spare();
        self.log_checkpoint(earlier)?;
        values.take(&weights::of(&self.network.store), &self.optimizer_tensors(generator))?;
        let keep_best = self.config.checkpoint.keep_best;
        let snapshot = Snapshot {
            step: self.step,
            values,
            metadata: self.description.to_metadata(),
            state,
            best: improved.is_some() && keep_best,
            spared: self.best.filter(|_| keep_best).map(|best| best.step),
            stall: began.elapsed(),
        };
        self.writer.as_mut().map_or(Ok(()), |writer| writer.start(snapshot))?;
        if self.config.checkpoint.r#async { Ok(()) } else { self.finish_writing() }
    }

    /// Says what has become of the checkpoint in flight, if it is known by now.
    pub(super) fn look_at_writer(&mut self) -> Result<(), Error> {
        let written = self.writer.as_mut().map_or(Ok(None), |writer| writer.poll())?;
        self.log_checkpoint(written)
    }

    /// Waits until no checkpoint is in flight.
    pub(super) fn finish_writing(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let mut written = self.writer.as_mut().map_or(Ok(None), |writer| writer.wait())?;
        written.iter_mut().for_each(|written| written.stall += began.elapsed());
        self.log_checkpoint(written)
    }

    /// Says what has become of uploads, as far as it is known by now.
    fn look_at_uploads(&mut self) -> Result<(), Error> {
        let outcomes = self.uploader.as_ref().map(|uploader| uploader.outcomes()).unwrap_or_default();
        for outcome in outcomes {
            let (step, event, details) = match outcome {
                Outcome::Uploaded { step, bytes, took } => {
                    self.not_uploaded = None;
                    if bytes == 0 {
                        // The store had it.
                        continue;
                    }
                    (step, "uploaded", json!({ "bytes": bytes, "seconds": took.as_secs_f64() }))
                }
                Outcome::Failed { step, problem } => {
                    let (name, text) = (checkpoint::folder_name(step), problem.to_string());
                    tracing::warn!("{name} could not be uploaded: {text}; the next checkpoint will be tried");
                    self.not_uploaded = Some((step, problem));
                    (step, "upload_failed", json!({ "problem": text }))
                }
                Outcome::Over(e) => return Err(e),
            };
            let mut details = details;
            details["name"] = json!(checkpoint::folder_name(step));
            self.monitor.event(step, event, details)?;
        }
        Ok(())
    }

    /// Waits, with all ranks, until no upload is on its way.
    pub(super) fn finish_uploads(&mut self) -> Result<(), Error> {
        if self.config.checkpoint.upload.is_none() {
            return Ok(());
        }
        let uploader = self.uploader.clone();
        let is_done = |most| uploader.as_ref().is_none_or(|uploader| uploader.wait(most));
        together::wait(&self.job, (self.step, Phase::End), "the upload of the last checkpoint", is_done)?;
        self.look_at_uploads()
    }

    /// An error where the newest checkpoint could not be uploaded.
    pub(super) fn uploaded(&mut self) -> Result<(), Error> {
        self.not_uploaded.take().map_or(Ok(()), |(step, problem)| {
            let (checkpoint, source) = (checkpoint::folder_name(step), Box::new(problem));
            Err(checkpoint::Error::NotUploaded { checkpoint, source }.into())
        })
    }

    fn log_checkpoint(&mut self, written: Option<Written>) -> Result<(), Error> {
        let Some(written) = written else { return Ok(()) };
        let fields = Map::from_iter([
            ("name".to_owned(), json!(checkpoint::folder_name(written.step))),
            ("bytes".to_owned(), json!(written.bytes)),
            ("seconds".to_owned(), json!(written.took.as_secs_f64())),
            ("stall_seconds".to_owned(), json!(written.stall.as_secs_f64())),
            ("best".to_owned(), json!(written.best)),
        ]);
        self.monitor.write("checkpoint", written.step, fields)
    }

    /// `state.json` and the generator's state, which differ between ranks: rank 0's on all of them, so that all copies of a
    /// checkpoint are alike. So are then the buffers of its norms.
    fn rank_0s_part(&self) -> Result<(Vec<u8>, Tensor), Error> {
        let state = serde_json::to_vec_pretty(&self.state())
            .map_err(|e| Error::Usage(format!("cannot write the state: {e}")))?;
        let generator = torch_ext::generator_state()?;
        if !self.keepers.are_several() {
            return Ok((state, generator));
        }
        if self.config.model.norm() == Norm::Batch {
            self.share_buffers()?;
        }
        let failed = |source| weights::Error::Tensor { name: resume::GENERATOR.into(), source };
        let mine = [state, weights::bytes_of(&generator).map_err(failed)?];
        let mut shared = Vec::new();
        for bytes in mine {
            let bytes = if self.job.is_chief() { bytes } else { Vec::new() };
            let all = self.job.collective.all_gather(bytes, Label::new(self.step, "gather state"))?;
            shared.push(all.into_iter().next().unwrap_or_default());
        }
        let generator = Tensor::from_slice(&shared.pop().unwrap_or_default());
        Ok((shared.pop().unwrap_or_default(), generator))
    }

    /// The optimizer's state by parameter name, so that they do not depend on the buckets, and the generator's state.
    fn optimizer_tensors(&self, generator: Tensor) -> Vec<(String, Tensor)> {
        let mut tensors = Vec::new();
        for (p, parameter) in self.flats().parameters().iter().enumerate() {
            let names = self.flats().slots().iter().map(|slot| format!("{slot}.{}", parameter.name));
            tensors.extend(names.zip(self.flats().state_of(p)));
        }
        tensors.push((resume::GENERATOR.into(), generator));
        tensors
    }

    fn state(&self) -> State {
        State {
            step: self.step,
            epoch: self.step / self.plan.steps_per_epoch(),
            samples: self.step * self.batches.global as u64,
            seed: self.config.run.seed,
            max_steps: self.max_steps,
            global_batch: self.batches.global,
            micro_batch: self.batches.micro,
            world_size: self.job.place.world_size,
            generation: self.generation,
            data: resume::data_state(&self.train_set),
            eval_data: self.eval_set.as_deref().map(resume::data_state),
            evaluated: self.evaluated,
            buckets: resume::buckets(self.flats()),
            best: self.best,
            loss_scale: self.loss_scale,
            config: serde_json::to_value(&self.config).unwrap_or_default(),
            versions: resume::versions(&self.job),
        }
    }
}
