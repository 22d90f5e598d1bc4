//! A training session: everything that lives from the first step to the last.

use super::lock::RunLock;
use super::resume::{self, Start};
use crate::data::{self, BatchStream, Plan};
use crate::ddp::{self, Flats, Limits, Reducer};
use crate::job::Job;
use crate::metrics::Metrics;
use crate::monitor::{Monitor, ProgressReport};
use crate::network::{Description, Network};
use crate::optim::{Adam, AdamSettings};
use crate::{Error, checkpoint, evaluate, files, weights};
use data_shards::Dataset;
use protocol::Exit;
use protocol::config::{Batches, Config, GlobalBatch, Metric};
use protocol::message::Progress;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// The state of a training run on this worker.
pub(super) struct Session {
    pub(super) config: Config,
    pub(super) job: Job,
    pub(super) description: Description,
    pub(super) network: Network,
    pub(super) train_set: Arc<Dataset>,
    pub(super) eval_set: Option<Arc<Dataset>>,
    pub(super) batches: Batches,
    pub(super) plan: Plan,
    pub(super) stream: BatchStream,
    pub(super) reducer: Reducer,
    pub(super) adam: Adam,
    pub(super) monitor: Monitor,
    pub(super) progress: ProgressReport,
    /// Optimizer steps done.
    pub(super) step: u64,
    pub(super) max_steps: u64,
    /// Step of the newest checkpoint.
    pub(super) saved: Option<u64>,
    /// Step of the newest complete evaluation.
    pub(super) evaluated: Option<u64>,
    /// Holds the run directory for this process (rank 0).
    _lock: Option<RunLock>,
    pub(super) best: Option<checkpoint::Best>,
    pub(super) last_eval: Option<(u64, Metrics)>,
    pub(super) last_loss: f64,
}

impl Session {
    /// Checks everything that can be checked before the first step, and goes to where training begins.
    pub(super) fn open(config: Config, job: Job) -> Result<Session, Error> {
        let description = Description::of(&config);
        let train_set = Arc::new(data::open(&config.data.train, &config, &description)?);
        let eval_set = open_eval(&config, &description)?;
        let lock = prepare_run_directory(&config, &job)?;
        let start = resume::find(&config, &job, &train_set, eval_set.as_deref())?;
        let fixed = start.state.as_ref().map(|s| s.global_batch);
        let batches = config.plan_batches(job.place.world_size, fixed)?;
        let plan = Plan::new(train_set.len(), &config, batches, &job.place)?;
        let max_steps = config.train.max_steps.unwrap_or(config.train.epochs * plan.steps_per_epoch());
        let mut network = Network::random(&description, job.device, config.run.seed);
        if let (None, Some(init)) = (&start.state, &config.model.init) {
            weights::load_into(&network.store, &weights::read(&checkpoint::resolve_weights(init)?)?)?;
        }
        for name in network.freeze_unused(&config.loss)? {
            tracing::warn!("parameter '{name}' is frozen: the configured loss does not depend on it");
        }
        ddp::same_everywhere(&*job.collective, "its parameters", &ddp::describe_parameters(&network.store))?;
        let reducer = build_reducer(&config, &job, &network, &start)?;
        let step = start.state.as_ref().map_or(0, |s| s.step);
        let stream = BatchStream::new(train_set.clone(), &plan, &config, job.device, step, max_steps.max(step));
        let monitor = match job.is_chief() {
            true => Monitor::open(&config.run.dir, step, config.monitor.tensorboard)?,
            false => Monitor::silent(),
        };
        let progress = ProgressReport::new(job.side_channel.clone(), job.is_chief());
        let mut session = Session {
            description,
            train_set,
            eval_set,
            batches,
            plan,
            stream,
            reducer,
            adam: Adam::new(AdamSettings::from(&config.optim)),
            monitor,
            progress,
            step,
            max_steps,
            saved: start.state.as_ref().map(|s| s.step),
            evaluated: start.state.as_ref().and_then(|s| s.evaluated),
            _lock: lock,
            best: start.state.as_ref().and_then(|s| s.best),
            last_eval: None,
            last_loss: f64::NAN,
            network,
            config,
            job,
        };
        session.restore(&start)?;
        Ok(session)
    }

    /// Loads tensors of the checkpoint on rank 0 and gives all ranks the same ones.
    fn restore(&mut self, start: &Start) -> Result<(), Error> {
        if let Some(folder) = &start.folder {
            resume::load_tensors(folder, &self.network.store, &mut self.reducer.flats)?;
        }
        ddp::broadcast_weights(&*self.job.collective, &self.network.store, &self.reducer.flats)?;
        if start.state.is_some() {
            self.reducer.flats.broadcast_moments(&*self.job.collective)?;
        }
        Ok(())
    }

    /// Whether all steps are taken, evaluated and saved.
    pub(super) fn is_finished(&self) -> bool {
        self.all_steps_taken() && !self.evaluation_is_due() && self.saved == Some(self.step)
    }

    pub(super) fn all_steps_taken(&self) -> bool {
        self.step >= self.max_steps
    }

    /// Says that there is nothing to do.
    pub(super) fn leave_finished(&self) -> Result<Exit, Error> {
        if self.job.is_chief() {
            tracing::info!(
                "{} is finished: step {} of {}; raise train.epochs to go on, or choose another run.dir",
                self.config.run.dir.display(),
                self.step,
                self.max_steps
            );
        }
        self.job.leave(Exit::Done, self.step)
    }

    /// Says what is about to run.
    pub(super) fn announce(&mut self) -> Result<(), Error> {
        if !self.job.is_chief() {
            return Ok(());
        }
        self.write_resolved_config()?;
        let parameters: usize = self.reducer.flats.parameters().iter().map(ddp::Parameter::elements).sum();
        tracing::info!(
            "{} training samples, {} steps of {} samples ({} an epoch); {:.1} M parameters in {} buckets; {:?}, {}",
            self.train_set.len(),
            self.max_steps,
            self.batches.global,
            self.plan.steps_per_epoch(),
            parameters as f64 / 1e6,
            self.reducer.flats.layout().buckets.len(),
            self.job.device,
            self.job.collective.name(),
        );
        let dropped = self.train_set.len() % self.batches.global;
        if dropped > 0 {
            tracing::info!("the last {dropped} samples of each epoch's order do not fill a batch and are left out");
        }
        if self.step > 0 {
            tracing::info!("going on after step {} from {}", self.step, checkpoint::folder_name(self.step));
        }
        let event = if self.step > 0 { "resume" } else { "start" };
        self.monitor.event(
            self.step,
            event,
            json!({ "world_size": self.job.place.world_size, "global_batch": self.batches.global,
                    "collectives": self.job.collective.name() }),
        )
    }

    fn write_resolved_config(&self) -> Result<(), Error> {
        let file = self.config.run.dir.join("config.resolved.toml");
        let v = resume::versions(&self.job);
        let mut resolved = self.config.clone();
        resolved.train.global_batch = GlobalBatch::Samples(self.batches.global);
        resolved.train.max_steps = Some(self.max_steps);
        make_absolute(&mut resolved);
        let body =
            toml::to_string(&resolved).map_err(|e| Error::Usage(format!("cannot write the configuration: {e}")))?;
        let text = format!(
            "# jcs {} (commit {}), libtorch {}, {}, {} workers\n{body}",
            v.jcs, v.commit, v.libtorch, v.collectives, self.job.place.world_size
        );
        files::replace(&file, text.as_bytes()).map_err(|source| Error::Write { file, source })
    }

    /// Whether this step's evaluation is still to be done: at the end of an epoch where the
    /// configuration asks for it, and at the end. Also true after a resumption at such a step.
    pub(super) fn evaluation_is_due(&self) -> bool {
        let per_epoch = self.plan.steps_per_epoch();
        let every = self.config.eval.every_epochs;
        let by_epoch = every > 0 && self.step > 0 && self.step.is_multiple_of(every * per_epoch);
        self.eval_set.is_some() && self.evaluated != Some(self.step) && (by_epoch || self.all_steps_taken())
    }

    /// Evaluates. False where a rank was asked to stop before it was done.
    pub(super) fn evaluate(&mut self) -> Result<bool, Error> {
        let Some(dataset) = self.eval_set.clone() else { return Ok(true) };
        let progress = &mut self.progress;
        let metrics = evaluate::evaluate(
            &self.network,
            &dataset,
            self.config.eval.threshold,
            self.config.data.workers,
            &self.job,
            self.step,
            &mut |p| progress.show(p),
        )?;
        let Some(metrics) = metrics else { return Ok(false) };
        self.last_eval = Some((self.step, metrics));
        self.evaluated = Some(self.step);
        let mut fields = to_map(&metrics);
        fields.insert("epoch".into(), json!(self.step / self.plan.steps_per_epoch()));
        if self.job.is_chief() {
            tracing::info!(
                "step {}: Dice {:.4} (mean {:.4}), IoU {:.4}, MAE {:.4}",
                self.step,
                metrics.dice,
                metrics.dice_mean,
                metrics.iou,
                metrics.mae
            );
        }
        self.monitor.write("eval", self.step, fields)?;
        Ok(true)
    }

    /// Saves and ends because a rank was asked to stop.
    pub(super) fn preempt(&mut self) -> Result<Exit, Error> {
        self.save_if_new()?;
        self.end("preempted", Exit::Preempted)
    }

    /// The value of `checkpoint.metric` at this step, and whether it is the best so far.
    pub(super) fn improvement(&self) -> Option<checkpoint::Best> {
        let (step, metrics) = self.last_eval.filter(|(step, _)| *step == self.step)?;
        let metric = self.config.checkpoint.metric;
        let (value, better): (f64, fn(f64, f64) -> bool) = match metric {
            Metric::Dice => (metrics.dice, |a, b| a > b),
            Metric::Iou => (metrics.iou, |a, b| a > b),
            Metric::Mae => (metrics.mae, |a, b| a < b),
        };
        let improves = self.best.is_none_or(|best| best.metric != metric || better(value, best.value));
        (improves && value.is_finite()).then_some(checkpoint::Best { step, metric, value })
    }

    /// The last words: summary, and a farewell to the other ranks.
    pub(super) fn end(&mut self, status: &str, exit: Exit) -> Result<Exit, Error> {
        self.progress.clear();
        if self.job.is_chief() {
            self.write_summary(status)?;
            self.monitor.event(self.step, status, json!({}))?;
        }
        self.job.leave(exit, self.step)
    }

    fn write_summary(&self, status: &str) -> Result<(), Error> {
        let summary = json!({
            "status": status,
            "step": self.step,
            "max_steps": self.max_steps,
            "epoch": self.step / self.plan.steps_per_epoch(),
            "world_size": self.job.place.world_size,
            "loss": finite(self.last_loss),
            "eval": self.last_eval.map(|(_, m)| m),
            "best": self.best,
            "checkpoint": self.saved.map(checkpoint::folder_name),
        });
        let file = self.config.run.dir.join("summary.json");
        let text = serde_json::to_vec_pretty(&summary).unwrap_or_default();
        files::replace(&file, &text).map_err(|source| Error::Write { file, source })?;
        if let (Some((_, m)), true) = (self.last_eval, status == "finished") {
            tracing::info!(
                "finished after step {}: Dice {:.4}; everything is in {}",
                self.step,
                m.dice,
                self.config.run.dir.display()
            );
        } else {
            tracing::info!("{status} after step {}; everything is in {}", self.step, self.config.run.dir.display());
        }
        Ok(())
    }

    /// Shows where training is.
    pub(super) fn show_progress(&mut self, samples_per_second: f64) {
        let per_epoch = self.plan.steps_per_epoch();
        self.progress.show(Progress {
            phase: "train".into(),
            done: self.step,
            total: self.max_steps,
            samples_per_second,
            note: format!(
                "epoch {}/{}  loss {:.4}",
                (self.step.max(1) - 1) / per_epoch + 1,
                self.max_steps.div_ceil(per_epoch),
                self.last_loss
            ),
        });
    }

    pub(super) fn checkpoints(&self) -> PathBuf {
        self.config.run.dir.join("checkpoints")
    }

    pub(super) fn flats(&self) -> &Flats {
        &self.reducer.flats
    }
}

/// A number for JSON, which has no NaN.
fn finite(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

fn to_map(metrics: &Metrics) -> Map<String, Value> {
    match serde_json::to_value(metrics) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn open_eval(config: &Config, description: &Description) -> Result<Option<Arc<Dataset>>, Error> {
    if config.data.eval.as_os_str().is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(data::open(&config.data.eval, config, description)?)))
}

/// Paths that mean the same from any folder.
fn make_absolute(config: &mut Config) {
    let paths = [&mut config.run.dir, &mut config.data.train, &mut config.data.eval];
    let optional = [config.data.root.as_mut(), config.model.init.as_mut()];
    for path in paths.into_iter().chain(optional.into_iter().flatten()).filter(|p| !p.as_os_str().is_empty()) {
        if let Ok(absolute) = std::path::absolute(&*path) {
            *path = absolute;
        }
    }
}

/// Creates the run directory on rank 0, sees that it can be written, and takes it for this process.
fn prepare_run_directory(config: &Config, job: &Job) -> Result<Option<RunLock>, Error> {
    if !job.is_chief() {
        return Ok(None);
    }
    let dir = &config.run.dir;
    let checkpoints = dir.join("checkpoints");
    let probe = checkpoints.join(".tmp-probe");
    let writable = std::fs::create_dir_all(&checkpoints)
        .and_then(|()| std::fs::write(&probe, b"probe"))
        .and_then(|()| std::fs::remove_file(&probe));
    writable.map_err(|source| Error::RunDirectory { dir: dir.clone(), source })?;
    let lock = RunLock::take(dir)?;
    checkpoint::remove_temporary(&checkpoints);
    Ok(Some(lock))
}

fn build_reducer(config: &Config, job: &Job, network: &Network, start: &Start) -> Result<Reducer, Error> {
    let mb = |x: f64| (x * (1 << 20) as f64) as usize;
    let limits = Limits { first: mb(config.comm.first_bucket_mb), rest: mb(config.comm.bucket_mb) };
    let layout = start.state.as_ref().map(|s| resume::layout(&s.buckets, &network.store)).transpose()?;
    Ok(Reducer::new(job.collective.clone(), &network.store, layout, limits, config.comm.overlap)?)
}
