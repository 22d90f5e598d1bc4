//! A training session: everything that lives from the first step to the last.

use super::copies::{self, Keepers};
use super::lock::Claim;
use super::resume::{self, Start};
use super::stragglers::Stragglers;
use super::uploader::Uploader;
use super::writer::{Target, Writer};
use crate::data::{self, BatchStream, Plan, Split};
use crate::ddp::{self, Flats, Limits, Reducer, SharedSum};
use crate::job::Job;
use crate::metrics::Evaluation;
use crate::model::Group;
use crate::monitor::{GpuMeter, Monitor, ProgressReport};
use crate::network::{Description, Network};
use crate::optim::{LossScale, Optimizer};
use crate::whereabouts::enter;
use crate::{Error, checkpoint, device, evaluate, files, initial};
use collectives::Label;
use data_shards::Dataset;
use data_shards::remote::{self, Location, Patience};
use protocol::config::{self, Batches, Compress, Config, GlobalBatch, Metric, Norm, Precision};
use protocol::message::{Phase, Progress};
use protocol::{Exit, env};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Tensor};

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
    /// Of rank 0's GPU.
    pub(super) meter: Option<GpuMeter>,
    /// Optimizer steps done.
    pub(super) step: u64,
    /// Those done before this start.
    pub(super) began_at: u64,
    pub(super) max_steps: u64,
    /// Step of the newest checkpoint.
    pub(super) saved: Option<u64>,
    /// Step of the newest complete evaluation.
    pub(super) evaluated: Option<u64>,
    /// The ranks that keep checkpoints.
    pub(super) keepers: Keepers,
    /// Holds the run directory for this process, where it keeps checkpoints.
    claim: Option<Arc<Claim>>,
    /// Writes checkpoints, where this process keeps them.
    pub(super) writer: Option<Writer>,
    /// Uploads checkpoints, where they are uploaded and this is rank 0.
    pub(super) uploader: Option<Arc<Uploader>>,
    /// Step and problem of the last upload, where it failed.
    pub(super) not_uploaded: Option<(u64, checkpoint::Error)>,
    /// The number of this start.
    pub(super) generation: u64,
    pub(super) best: Option<checkpoint::Best>,
    pub(super) last_eval: Option<(u64, Evaluation)>,
    pub(super) last_loss: f64,
    pub(super) stragglers: Stragglers,
    /// In half precision.
    pub(super) loss_scale: Option<LossScale>,
}

impl Session {
    /// Checks everything that can be checked before the first step, and goes to where training begins.
    pub(super) fn open(mut config: Config, job: Job) -> Result<Session, Error> {
        let description = Description::of(&config);
        let train_set = data::open_for_training(&config, &description)?.map(Arc::new);
        let train_set = train_set.ok_or_else(|| Error::Usage("data.train is not given".into()))?;
        let eval_set = data::open(Split::Eval, &config, &description)?.map(Arc::new);
        let store = open_store(&config, &job)?.map(Arc::new);
        // From here on the configuration is written into files and logs.
        data::hide_credentials(&mut config);
        for remark in [Some(&train_set), eval_set.as_ref()].into_iter().flatten().filter_map(|set| set.remark()) {
            if job.is_chief() {
                tracing::warn!("{remark}");
            }
        }
        let keepers = copies::find(&config.run.dir, &job)?;
        let mut claim = keepers.has(job.place.rank.0).then(|| take_run_directory(&config)).transpose()?;
        let start = resume::find(&config, &job, &train_set, eval_set.as_deref(), claim.as_ref(), store.as_deref())?;
        claim.as_mut().map_or(Ok(()), |claim| claim.raise_to(start.generation))?;
        if let (Some(claim), Some(state)) = (&claim, &start.state) {
            claim.check()?;
            let best = state.best.filter(|_| config.checkpoint.keep_best).map(|best| best.step);
            checkpoint::repoint(&config.run.dir.join("checkpoints"), state.step, best)?;
        }
        let claim = claim.map(Arc::new);
        let fixed = start.state.as_ref().map(|s| s.global_batch).or(for_most_workers(&config)?);
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
        let stream = BatchStream::new(train_set.clone(), &plan, &config, job.device, step, max_steps.max(step))?;
        let monitor = match job.is_chief() {
            true => Monitor::open(&config.run.dir, step, config.monitor.tensorboard)?,
            false => Monitor::silent(),
        };
        let balance = if config.loss.balance { data::class_balance(&train_set) } else { [1.0; 2] };
        let progress = ProgressReport::new(job.side_channel.clone(), job.is_chief());
        let checkpoints = config.run.dir.join("checkpoints");
        let uploader = store.zip(claim.clone()).map(|(store, claim)| {
            Uploader::start(store, checkpoints, config.checkpoint.keep_last, claim).map(Arc::new)
        });
        let uploader = uploader.transpose()?;
        if let (Some(uploader), Some(unsent)) = (&uploader, start.unsent) {
            let best = start.state.as_ref().and_then(|state| state.best);
            uploader.offer(unsent, best.filter(|_| config.checkpoint.keep_best).map(|best| best.step));
        }
        let target = |claim: &Arc<Claim>| Target {
            folder: config.run.dir.join("checkpoints"),
            keep_last: config.checkpoint.keep_last,
            claim: claim.clone(),
            uploader: uploader.clone(),
            launcher: job.is_chief().then(|| (job.side_channel.clone(), job.stage)),
        };
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
            meter: meter(&job),
            step,
            began_at: step,
            max_steps,
            // One that a node lacks is written once more.
            saved: start.state.as_ref().filter(|_| start.everywhere).map(|s| s.step),
            evaluated: start.state.as_ref().and_then(|s| s.evaluated),
            writer: claim.as_ref().map(|claim| Writer::new(target(claim))),
            uploader,
            not_uploaded: None,
            keepers,
            claim,
            generation: start.generation,
            best: start.state.as_ref().and_then(|s| s.best),
            last_eval: None,
            last_loss: f64::NAN,
            stragglers: Stragglers::default(),
            loss_scale: (config.train.precision == Precision::Fp16)
                .then(|| start.state.as_ref().and_then(|s| s.loss_scale).unwrap_or_default()),
            network,
            config,
            job,
        };
        session.restore(&start)?;
        Ok(session)
    }

    /// Loads tensors of the checkpoint on the rank that has it and gives all ranks the same ones.
    fn restore(&mut self, start: &Start) -> Result<(), Error> {
        let mut generator = Vec::new();
        if let Some(folder) = &start.folder {
            generator = resume::load_tensors(folder, &self.network.store, &mut self.reducer.flats)?;
        }
        let (collective, source) = (&*self.job.collective, start.source);
        ddp::broadcast_weights(collective, source, &self.network.store, &self.reducer.flats)?;
        if start.state.is_some() {
            self.reducer.flats.broadcast_state(collective, source)?;
            let all = collective.all_gather(generator, Label::new(self.step, "generator's state"))?;
            if let (true, Some(state)) = (self.job.is_chief(), all.get(source)) {
                torch_ext::set_generator_state(&Tensor::from_slice(state))?;
            }
        }
        Ok(())
    }

    /// An error where another start has the run. To be asked before anything in it is replaced.
    fn check_claim(&self) -> Result<(), Error> {
        self.claim.as_ref().map_or(Ok(()), |claim| claim.check())
    }

    /// Whether all steps are taken, evaluated and saved.
    pub(super) fn is_finished(&self) -> bool {
        self.all_steps_taken() && !self.evaluation_is_due() && self.saved == Some(self.step)
    }

    pub(super) fn all_steps_taken(&self) -> bool {
        self.step >= self.max_steps
    }

    /// Says that there is nothing to do.
    pub(super) fn say_finished(&self) -> Result<(), Error> {
        if self.job.is_chief() {
            if !self.summary_says_finished() {
                // The start that took the last step ended before it could.
                self.check_claim()?;
                self.write_summary("finished")?;
            }
            tracing::info!(
                "{} is finished: step {} of {}; raise train.epochs to go on, or choose another run.dir",
                self.config.run.dir.display(),
                self.step,
                self.max_steps
            );
        }
        Ok(())
    }

    fn summary_says_finished(&self) -> bool {
        let text = std::fs::read(self.config.run.dir.join(super::SUMMARY)).unwrap_or_default();
        let summary: Value = serde_json::from_slice(&text).unwrap_or_default();
        summary["status"] == "finished" && summary["step"] == self.step
    }

    /// Says what is about to run.
    pub(super) fn announce(&mut self) -> Result<(), Error> {
        if !self.job.is_chief() {
            return Ok(());
        }
        self.check_claim()?;
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
        tracing::info!("generation {} of {}", self.generation, self.config.run.dir.display());
        if self.step > 0 {
            tracing::info!("going on after step {} from {}", self.step, checkpoint::folder_name(self.step));
        }
        let event = if self.step > 0 { "resume" } else { "start" };
        self.monitor.event(
            self.step,
            event,
            json!({ "generation": self.generation, "world_size": self.job.place.world_size,
                    "global_batch": self.batches.global, "collectives": self.job.collective.name() }),
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
        if self.config.model.norm() == Norm::Batch {
            // Each rank's norms saw batches of their own.
            self.share_buffers()?;
        }
        let settings = evaluate::Settings::of(&self.config, self.step);
        let progress = &mut self.progress;
        let evaluation = evaluate::evaluate(&self.network, &dataset, &settings, &self.job, &mut |p| progress.show(p))?;
        let Some(evaluation) = evaluation else { return Ok(false) };
        self.check_claim()?;
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

    /// Gives every rank what rank 0's norms have seen.
    pub(super) fn share_buffers(&self) -> Result<(), Error> {
        Ok(ddp::broadcast_weights(&*self.job.collective, 0, &self.network.store, &self.reducer.flats)?)
    }

    /// Saves and ends because a rank was asked to stop.
    pub(super) fn preempt(&mut self) -> Result<Exit, Error> {
        enter(Phase::Checkpoint);
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

    /// Lets go of all that loads data. Nothing more may be done.
    pub(super) fn abandon(&mut self) {
        self.stream.abandon();
        if let Some(set) = &self.eval_set {
            set.stop();
        }
    }

    /// The last words.
    pub(super) fn end(&mut self, status: &str, exit: Exit) -> Result<Exit, Error> {
        self.progress.clear();
        self.finish_writing()?;
        if self.job.is_chief() {
            self.check_claim()?;
            self.write_summary(status)?;
            self.monitor.event(self.step, status, json!({}))?;
        }
        if exit != Exit::Preempted {
            self.finish_uploads()?;
            self.uploaded()?;
        } else if self.config.checkpoint.upload.is_some() {
            // The checkpoint is safe. An upload may take longer than the launcher waits, which is no loss: the next start does it.
            self.job.confirm(exit);
            self.finish_uploads()?;
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
            "eval": self.last_eval.as_ref().map(|(_, e)| json!(e)).or_else(|| self.logged_evaluation()),
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

    /// The metrics of the newest evaluation, of an earlier start.
    fn logged_evaluation(&self) -> Option<Value> {
        let text = std::fs::read_to_string(self.config.run.dir.join("metrics.jsonl")).ok()?;
        let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut line =
            lines.into_iter().find(|line| line["kind"] == "eval" && line["step"] == json!(self.evaluated))?;
        let fields = line.as_object_mut()?;
        for key in ["kind", "step", "epoch"] {
            fields.shift_remove(key);
        }
        Some(line)
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

    pub(super) fn flats(&self) -> &Flats {
        &self.reducer.flats
    }
}

/// The global batch of a new run whose hosts may become more (`--nodes MIN:MAX`).
fn for_most_workers(config: &Config) -> Result<Option<usize>, Error> {
    let most: usize = env::number(env::JCS_MOST_WORKERS, 0).map_err(|e| Error::Usage(e.to_string()))?;
    Ok((most > 0).then_some(most * config.train.micro_batch))
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

/// The object store that gets copies of the checkpoints; rank 0's matter.
fn open_store(config: &Config, job: &Job) -> Result<Option<remote::Store>, Error> {
    let Some(url) = config.checkpoint.upload.as_ref().filter(|_| job.is_chief()) else { return Ok(None) };
    let opened = Location::parse(url).and_then(|location| remote::Store::open(&location, Patience::default()));
    opened.map(Some).map_err(|e| Error::Usage(format!("checkpoint.upload: {e}")))
}

/// Takes a run directory for this process.
pub(super) fn take(run: &Path) -> Result<Claim, Error> {
    let restarts: usize = env::number(env::JCS_RESTART, 0).map_err(|e| Error::Usage(e.to_string()))?;
    // A pod that comes in another's place has a launcher of its own, and the old one's lock may live on.
    let in_a_pod = std::env::var(env::JCS_NODES).is_ok_and(|nodes| nodes == env::K8S);
    Claim::take(run, restarts > 0 || in_a_pod)
}

/// Takes the run directory for this process, and removes what an earlier one left half done.
fn take_run_directory(config: &Config) -> Result<Claim, Error> {
    let claim = take(&config.run.dir)?;
    checkpoint::clean(&config.run.dir.join("checkpoints"));
    Ok(claim)
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
    let compress = config.comm.compress == Compress::Bf16 && job.place.world_size > 1;
    let settings = ddp::Settings { layout, limits, overlap: config.comm.overlap, compress };
    Ok(Reducer::new(job.collective.clone(), &network.store, optimizer, settings)?)
}

/// What rank 0's GPU is asked by.
fn meter(job: &Job) -> Option<GpuMeter> {
    match job.device {
        Device::Cuda(number) if job.is_chief() => GpuMeter::open(device::describe(number)?.uuid),
        _ => None,
    }
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
