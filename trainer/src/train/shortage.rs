//! A micro-batch that there is no memory for: which smaller one there is memory for, found by trying.

use super::session::Session;
use crate::Error;
use crate::data::Batch;
use crate::memory::{attempt, essence};
use crate::whereabouts::enter;
use protocol::config::{Config, GlobalBatch};
use protocol::message::Phase;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Session {
    /// What `work` makes of the micro-batch; where memory is short for it, an error that says which one would fit.
    pub(super) fn within_memory<T>(
        &mut self,
        batch: &Batch,
        work: impl FnOnce(&mut Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match attempt(|| work(self)) {
            Ok(done) => done,
            Err(problem) => Err(self.explain(batch, &problem)),
        }
    }

    /// Training cannot go on after this.
    fn explain(&mut self, batch: &Batch, problem: &str) -> Error {
        let (step, micro_batch) = (self.step + 1, self.batches.micro);
        let problem = essence(problem).to_owned();
        tracing::error!(
            "step {step}: out of memory in a micro-batch of {micro_batch} ({problem}); trying smaller ones"
        );
        let fitting = match self.leave_the_others() {
            Ok(()) => self.largest_that_fits(batch),
            Err(error) => {
                tracing::warn!("cannot try smaller micro-batches: {error}");
                return Error::OutOfMemory {
                    step,
                    micro_batch,
                    problem,
                    remedy: "use a smaller train.micro_batch".into(),
                };
            }
        };
        let remedy = remedy(fitting, self.batches.global, &self.config, self.saved.is_some());
        Error::OutOfMemory { step, micro_batch, problem, remedy }
    }

    /// Passes send nothing from here on.
    fn leave_the_others(&mut self) -> Result<(), Error> {
        if let Some(sums) = &self.sums {
            sums.go_alone();
        }
        Ok(self.reducer.abandon()?)
    }

    /// By halves, of those that divide the global batch.
    fn largest_that_fits(&mut self, batch: &Batch) -> Option<usize> {
        let (workers, global) = (self.job.place.world_size, self.batches.global);
        let mut next = self.config.micro_batch_up_to(self.batches.micro / 2, workers, global);
        while let Some(samples) = next.filter(|samples| !self.fits(batch, *samples)) {
            next = self.config.micro_batch_up_to(samples / 2, workers, global);
        }
        next
    }

    /// Whether there is memory for forward and backward passes over so many samples. Two of each, as the first leaves memory in
    /// pieces.
    fn fits(&self, batch: &Batch, samples: usize) -> bool {
        // What the larger one has left behind may be in pieces.
        let _ = torch_ext::release_memory();
        let part = batch.first(samples);
        let both = || -> Result<(), Error> {
            enter(Phase::Forward);
            let loss = self.loss(&part)?;
            enter(Phase::Backward);
            Ok(loss.f_backward()?)
        };
        // A panic leaves gradients off where they were off. What fails in whatever way is not recommended.
        let passes = catch_unwind(AssertUnwindSafe(|| tch::with_grad(|| both().and_then(|()| both()))));
        matches!(passes, Ok(Ok(())))
    }
}

/// What to do, as text.
fn remedy(fitting: Option<usize>, global: usize, config: &Config, has_checkpoint: bool) -> String {
    let Some(samples) = fitting else {
        return "no smaller micro-batch fits either: a smaller data.size, or train.precision=bf16".into();
    };
    let mut settings = format!("train.micro_batch={samples}");
    if matches!(config.train.global_batch, GlobalBatch::Auto(_)) {
        settings += &format!(" train.global_batch={global}");
    }
    if has_checkpoint && !config.run.allow_changes {
        settings += " run.allow_changes=true";
    }
    format!("{settings} fits, it was tried, and leaves the samples of each step as they are")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_keeps_the_global_batch() {
        let mut config = Config::default();
        let text = |config: &Config, saved| remedy(Some(4), 16, config, saved);
        assert!(text(&config, false).starts_with("train.micro_batch=4 train.global_batch=16 fits"));
        assert!(
            text(&config, true).starts_with("train.micro_batch=4 train.global_batch=16 run.allow_changes=true fits")
        );
        config.train.global_batch = GlobalBatch::Samples(16);
        assert!(text(&config, false).starts_with("train.micro_batch=4 fits"));
        assert!(remedy(None, 16, &config, false).contains("data.size"));
    }
}
