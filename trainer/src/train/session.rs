//! A training session: everything that lives from the first step to the last.

use super::lock::RunLock;
use super::resume::{self, Start};
use crate::data::{self, BatchStream, Plan, Split};
use crate::ddp::{self, Flats, Limits, Reducer, SharedSum};
use crate::job::Job;
use crate::metrics::Evaluation;
use crate::model::Group;
use crate::monitor::{Monitor, ProgressReport};
use crate::network::{Description, Network};
use crate::optim::Optimizer;
use crate::{Error, checkpoint, evaluate, files, initial};
use data_shards::Dataset;
use protocol::Exit;
use protocol::config::{self, Batches, Config, GlobalBatch, Metric, Norm};
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
    /// Sums inside passes, for synchronised norms.
    pub(super) sums: Option<Arc<SharedSum>>,
    /// Weight of each class in the loss.
    pub(super) balance: [f64; 2],
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
    pub(super) last_eval: Option<(u64, Evaluation)>,
    pub(super) last_loss: f64,
}

impl Session {
    /// Checks everything that can be checked before the first step, and goes to where training begins.
    pub(super) fn open(mut config: Config, job: Job) -> Result<Session, Error> {
        let description = Description::of(&config);
        let train_set = data::open_for_training(&config, &description)?.map(Arc::new);
        let train_set = train_set.ok_or_else(|| Error::Usage("data.train is not given".into()))?;
        let eval_set = data::open(Split::Eval, &config, &description)?.map(Arc::new);
        // From here on the configuration is written into files and logs.
        data::hide_credentials(&mut config.data);
        for remark in [Some(&train_set), eval_set.as_ref()].into_iter().flatten().filter_map(|set| set.remark()) {
            if job.is_chief() {
                tracing::warn!("{remark}");
            }
        }
        let lock = prepare_run_directory(&config, &job)?;
        let start = resume::find(&config, &job, &train_set, eval_set.as_deref())?;
        let fixed = start.state.as_ref().map(|s| s.global_batch);
        let batches = config.plan_batches(job.place.world_size, fixed)?;
        let plan = Plan::new(train_set.len(), &config, batches, &job.place)?;
        let max_steps = config.train.max_steps.unwrap_or(config.train.epochs * plan.steps_per_epoch());
        let sums = shared_sums(&config, &job);
        let group = sums.clone().map(|sums| sums as Arc<dyn Group>);
        let mut network = Network::random(&description, job.device, config.run.seed, group);
        if start.state.is_none() && job.is_chief() {
            // The others get the same by the broadcast.
            initial::load(&config.model, &network.store)?;
        }
        say_frozen(&network.freeze_unused(&description, &config.loss)?, &description);
        ddp::same_everywhere(&*job.collective, "its samples", &data::describe(&train_set, eval_set.as_deref()))?;
        ddp::same_everywhere(&*job.collective, "its parameters", &ddp::describe_parameters(&network.store))?;
        let reducer = build_reducer(&config, &job, &network, &start)?;
        let step = start.state.as_ref().map_or(0, |s| s.step);
        let stream = BatchStream::new(train_set.clone(), &plan, &config, job.device, step, max_steps.max(step));
        let monitor = match job.is_chief() {
            true => Monitor::open(&config.run.dir, step, config.monitor.tensorboard)?,
            false => Monitor::silent(),
        };
        let balance = if config.loss.balance { data::class_balance(&train_set) } else { [1.0; 2] };
        let progress = ProgressReport::new(job.side_channel.clone(), job.is_chief());
        let mut session = Session {
            description,
            train_set,
            eval_set,
            batches,
            plan,
            stream,
            reducer,
            sums,
            balance,
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
            self.reducer.flats.broadcast_state(&*self.job.collective)?;
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
    pub(super) fn say_finished(&self) {
        if self.job.is_chief() {
            tracing::info!(
                "{} is finished: step {} of {}; raise train.epochs to go on, or choose another run.dir",
                self.config.run.dir.display(),
                self.step,
                self.max_steps
            );
        }
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
        if self.config.model.norm() == Norm::Batch {
            // Each rank's norms saw batches of their own.
            ddp::broadcast_weights(&*self.job.collective, &self.network.store, &self.reducer.flats)?;
        }
        let settings = evaluate::Settings::of(&self.config, self.step);
        let evaluation = evaluate::evaluate(&self.network, &dataset, &settings, &self.job, &mut |p| progress.show(p))?;
        let Some(evaluation) = evaluation else { return Ok(false) };
        self.evaluated = Some(self.step);
        let mut fields = to_map(&evaluation);
        fields.insert("epoch".into(), json!(self.step / self.plan.steps_per_epoch()));
        if self.job.is_chief() {
            tracing::info!("step {}: {}", self.step, evaluation.in_words());
            evaluation.notes().iter().for_each(|note| tracing::warn!("{note}"));
        }
        self.last_eval = Some((self.step, evaluation));
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
        let (step, evaluation) = self.last_eval.as_ref().filter(|(step, _)| *step == self.step)?;
        let (step, metric) = (*step, self.config.metric());
        let value = evaluation.value(metric)?;
        let better = |a: f64, b: f64| if metric == Metric::Mae { a < b } else { a > b };
        let improves = self.best.is_none_or(|best| best.metric != metric || better(value, best.value));
        (improves && value.is_finite()).then_some(checkpoint::Best { step, metric, value })
    }

    /// The last words.
    pub(super) fn end(&mut self, status: &str, exit: Exit) -> Result<Exit, Error> {
        self.progress.clear();
        if self.job.is_chief() {
            self.write_summary(status)?;
            self.monitor.event(self.step, status, json!({}))?;
        }
        Ok(exit)
    }

    fn write_summary(&self, status: &str) -> Result<(), Error> {
        let summary = json!({
            "status": status,
            "step": self.step,
            "max_steps": self.max_steps,
            "epoch": self.step / self.plan.steps_per_epoch(),
            "world_size": self.job.place.world_size,
            "loss": finite(self.last_loss),
            "eval": self.last_eval.as_ref().map(|(_, e)| e),
            "best": self.best,
            "checkpoint": self.saved.map(checkpoint::folder_name),
        });
        let file = self.config.run.dir.join(super::SUMMARY);
        let text = serde_json::to_vec_pretty(&summary).unwrap_or_default();
        files::replace(&file, &text).map_err(|source| Error::Write { file, source })?;
        if let (Some((_, e)), true) = (&self.last_eval, status == "finished") {
            let dir = self.config.run.dir.display();
            tracing::info!("finished after step {}: {}; everything is in {dir}", self.step, e.in_words());
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

fn to_map(metrics: &Evaluation) -> Map<String, Value> {
    match serde_json::to_value(metrics) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Paths that mean the same from any folder.
fn make_absolute(config: &mut Config) {
    let (data, model) = (&mut config.data, &mut config.model);
    let paths = [Some(&mut config.run.dir), Some(&mut data.train), Some(&mut data.eval), data.cache_dir.as_mut()];
    let weights = [&mut model.init, &mut model.init_vgg, &mut model.init_res2net, &mut model.init_cls];
    let optional = [&mut data.root, &mut data.labels].into_iter().chain(weights).map(Option::as_mut);
    for path in paths.into_iter().chain(optional).flatten().filter(|p| !p.as_os_str().is_empty() && !config::is_url(p))
    {
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
    let optimizer = Optimizer::new(&config.optim);
    let names: Vec<&str> = network.store.trainable().map(|e| e.name.as_str()).collect();
    if let Some(group) = optimizer.idle_group(&names) {
        return Err(Error::Usage(format!(
            "optim.groups: no parameter that learns has a name that begins with '{group}.'"
        )));
    }
    let settings = ddp::Settings { layout, limits, overlap: config.comm.overlap };
    Ok(Reducer::new(job.collective.clone(), &network.store, optimizer, settings)?)
}

/// What synchronised norms sum over.
fn shared_sums(config: &Config, job: &Job) -> Option<Arc<SharedSum>> {
    let needed = config.model.norm() == Norm::Sync && job.place.world_size > 1;
    needed.then(|| Arc::new(SharedSum::new(job.collective.clone())))
}

/// Parameters that take no part are frozen on every rank; those before features are no news.
fn say_frozen(names: &[String], description: &Description) {
    let before_features = |name: &str| {
        ["vgg16.conv1_1.", "vgg16.conv1_2.", "res2net.conv1.", "res2net.bn1.", "conv1.", "bn1."]
            .iter()
            .any(|stem| name.starts_with(stem))
    };
    let (expected, others): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| description.from_features && before_features(name));
    if !expected.is_empty() {
        tracing::info!("data.input = features: the first stages take no part ({} parameters)", expected.len());
    }
    for name in others {
        tracing::warn!("parameter '{name}' is frozen: the configured loss does not depend on it");
    }
}
