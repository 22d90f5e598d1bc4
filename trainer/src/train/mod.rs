//! Training: from a configuration to a trained network, on any number of workers.

mod changes;
mod copies;
mod lock;
mod resume;
mod save;
mod session;
mod shortage;
mod step;
mod stragglers;
mod together;
mod uploader;
mod writer;

pub(crate) use resume::versions;

use crate::data::{self, Split};
use crate::job::Job;
use crate::network::Description;
use crate::whereabouts::enter;
use crate::{Error, device, files};
use protocol::Exit;
use protocol::config::{Config, Stage};
use protocol::message::Phase;
use serde_json::Map;
use session::Session;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Optimizer steps that this process has finished; for the report of a failure.
static STEPS_DONE: AtomicU64 = AtomicU64::new(0);

/// Optimizer steps that training in this process has finished (of the whole run, with those before a resumption).
pub fn steps_done() -> u64 {
    STEPS_DONE.load(Ordering::Relaxed)
}

/// Trains as `config` says, going on from the newest checkpoint where there is one. The caller then leaves the job.
pub fn train(config: Config, job: &Job) -> Result<Exit, Error> {
    enter(Phase::Start);
    device::refuse_half_on_cpu(&config, job.device)?;
    let mut session = Session::open(config, job.clone())?;
    if session.is_finished() {
        session.say_finished()?;
        // That of an earlier start may have failed.
        session.finish_uploads()?;
        return session.uploaded().map(|()| Exit::Done);
    }
    STEPS_DONE.store(session.step, Ordering::Relaxed);
    // A failure must be told at once, not after what threads wait for that load data.
    let exit = go(&mut session);
    if exit.is_err() {
        session.abandon();
    }
    exit
}

fn go(session: &mut Session) -> Result<Exit, Error> {
    session.announce()?;
    loop {
        if session.evaluation_is_due() {
            enter(Phase::Evaluation);
            if !session.evaluate()? {
                return session.preempt();
            }
        }
        enter(Phase::Checkpoint);
        session.save_if_due()?;
        if session.is_finished() {
            enter(Phase::End);
            return session.end("finished", Exit::Done);
        }
        let Some(report) = session.train_step()? else { return session.preempt() };
        STEPS_DONE.store(session.step, Ordering::Relaxed);
        session.log_step(&report)?;
        if report.stop {
            return session.preempt();
        }
    }
}

/// Trains the stages of a pipeline one after the other; those that are finished say so. `run` is the pipeline's
/// run directory.
pub fn pipeline(stages: Vec<Stage>, run: &Path, job: &Job) -> Result<Exit, Error> {
    for stage in &stages {
        device::refuse_half_on_cpu(&stage.config, job.device).map_err(|e| e.in_stage(&stage.name))?;
        check_data(stage)?;
    }
    // From before the first stage to after the last, so that two pipelines do not mix.
    let claim = job.is_chief().then(|| session::take(run)).transpose()?;
    let mut summaries = Map::new();
    for (i, Stage { name, config, .. }) in stages.into_iter().enumerate() {
        if job.is_chief() {
            tracing::info!("stage {}: {name}", i + 1);
        }
        let summary = config.run.dir.join(SUMMARY);
        STEPS_DONE.store(0, Ordering::Relaxed);
        let exit = train(config, &job.in_stage(i)).map_err(|e| e.in_stage(&name))?;
        if job.is_chief() {
            let text = std::fs::read(&summary).unwrap_or_default();
            summaries.insert(name, serde_json::from_slice(&text).unwrap_or_default());
            let status = if exit == Exit::Done { "finished" } else { "preempted" };
            let all = serde_json::json!({ "status": status, "stages": &summaries });
            claim.as_ref().map_or(Ok(()), |claim| claim.check())?;
            let file = run.join(SUMMARY);
            let text = serde_json::to_vec_pretty(&all).unwrap_or_default();
            files::replace(&file, &text).map_err(|source| Error::Write { file, source })?;
        }
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

/// Sees that a stage has its data, before a stage ahead of it trains for days.
fn check_data(stage: &Stage) -> Result<(), Error> {
    let description = Description::of(&stage.config);
    for split in [Split::Train, Split::Eval] {
        data::open(split, &stage.config, &description).map_err(|e| e.in_stage(&stage.name))?;
    }
    Ok(())
}

/// How a run ended, in its directory.
const SUMMARY: &str = "summary.json";
