//! When a checkpoint is written, and what goes into it.

use super::resume;
use super::session::Session;
use crate::checkpoint::{self, Contents, State};
use crate::{Error, weights};
use protocol::Step;
use protocol::message::Message;
use serde_json::{Map, json};
use std::collections::HashMap;
use std::time::Instant;
use tch::Tensor;

impl Session {
    /// Saves where the configuration asks for it, after an improvement, and at the end.
    pub(super) fn save_if_due(&mut self) -> Result<(), Error> {
        let c = &self.config.checkpoint;
        let per_epoch = self.plan.steps_per_epoch();
        let by_step = c.every_steps > 0 && self.step.is_multiple_of(c.every_steps);
        let by_epoch = c.every_epochs > 0
            && self.step.is_multiple_of(per_epoch)
            && (self.step / per_epoch).is_multiple_of(c.every_epochs);
        let wanted = by_step || by_epoch || self.all_steps_taken();
        let improved = c.keep_best && self.improvement().is_some();
        if self.step > 0 && (improved || wanted && self.saved != Some(self.step)) { self.save() } else { Ok(()) }
    }

    /// Saves unless this step is saved already.
    pub(super) fn save_if_new(&mut self) -> Result<(), Error> {
        if self.saved == Some(self.step) { Ok(()) } else { self.save() }
    }

    /// Rank 0 writes; the others hold the same tensors and go on.
    fn save(&mut self) -> Result<(), Error> {
        let improved = self.improvement();
        self.best = improved.or(self.best);
        self.saved = Some(self.step);
        if !self.job.is_chief() {
            return Ok(());
        }
        let started = Instant::now();
        let folder = self.checkpoints();
        checkpoint::write(&folder, &self.contents()?)?;
        if improved.is_some() && self.config.checkpoint.keep_best {
            checkpoint::set_best(&folder, self.step)?;
        }
        let keep = self.config.checkpoint.keep_best.then_some(self.best).flatten().map(|b| b.step);
        checkpoint::remove_old(&folder, self.config.checkpoint.keep_last, keep);
        self.job.side_channel.send(&Message::Checkpoint { stage: self.job.stage, step: Step(self.step) });
        let fields = Map::from_iter([
            ("name".to_owned(), json!(checkpoint::folder_name(self.step))),
            ("seconds".to_owned(), json!(started.elapsed().as_secs_f64())),
            ("best".to_owned(), json!(improved.is_some())),
        ]);
        self.monitor.write("checkpoint", self.step, fields)
    }

    fn contents(&self) -> Result<Contents, Error> {
        let model = weights::to_bytes(&weights::of(&self.network.store), self.description.to_metadata())?;
        let optimizer = weights::to_bytes(&self.optimizer_tensors()?, HashMap::new())?;
        let state = serde_json::to_vec_pretty(&self.state())
            .map_err(|e| Error::Usage(format!("cannot write the state: {e}")))?;
        Ok(Contents { step: self.step, model, optimizer, state })
    }

    /// The optimizer's state by parameter name, so that they do not depend on the buckets, and the generator's state.
    fn optimizer_tensors(&self) -> Result<Vec<(String, Tensor)>, Error> {
        let mut tensors = Vec::new();
        for (p, parameter) in self.flats().parameters().iter().enumerate() {
            let names = self.flats().slots().iter().map(|slot| format!("{slot}.{}", parameter.name));
            tensors.extend(names.zip(self.flats().state_of(p)));
        }
        tensors.push((resume::GENERATOR.into(), torch_ext::generator_state()?));
        Ok(tensors)
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
            data: resume::data_state(&self.train_set),
            eval_data: self.eval_set.as_deref().map(resume::data_state),
            evaluated: self.evaluated,
            buckets: resume::buckets(self.flats()),
            best: self.best,
            config: serde_json::to_value(&self.config).unwrap_or_default(),
            versions: resume::versions(&self.job),
        }
    }
}
