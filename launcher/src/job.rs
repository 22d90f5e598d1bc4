//! A job from its first start to its end: restarts, and what is said and written at the end. How one
//! start goes is for [`crate::supervise`], whether another follows for [`crate::restart`].

use crate::attempt::{Event, Outcome};
use crate::cli::Cli;
use crate::logs::Logs;
use crate::plan::Plan;
use crate::report::{self, Final, RootCause};
use crate::restart::{Decision, after_failure};
use crate::signals::{self, Arrived};
use crate::supervise::{self, Context, Ended};
use crate::terminal::Terminal;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use protocol::config::Config;
use protocol::{Exit, Step};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Runs the job.
pub fn run(cli: &Cli, plan: &Plan, config: Option<&Config>) -> Exit {
    let folder = cli.log_dir.clone().or_else(|| config.map(|c| c.run.dir.join("logs")));
    let logs = match folder.map_or_else(|| Ok(Logs::none()), |f| Logs::open(&f, plan.world_size())) {
        Ok(logs) => Arc::new(logs),
        Err(error) => {
            report::complain(&format!("{error}; exit code {}", Exit::Usage.code()));
            return Exit::Usage;
        }
    };
    let last = match watched(cli, plan, config, &logs) {
        Ok(last) => last,
        Err(error) => Final { exit: Exit::WorkerFailed, text: format!("cannot start the workers: {error}") },
    };
    logs.note(&last.line());
    report::complain(&last.line());
    last.exit
}

fn watched(cli: &Cli, plan: &Plan, config: Option<&Config>, logs: &Arc<Logs>) -> io::Result<Final> {
    let signals = signals::listen()?;
    let terminal = Arc::new(Terminal::start(plan.shown.clone())?);
    let grace = Duration::from_secs(u64::from(cli.grace_period));
    let context = Context { plan, logs: Arc::clone(logs), terminal: Arc::clone(&terminal), signals: &signals, grace };
    let mut job = Job { context, max_restarts: cli.max_restarts, restarts: 0, in_a_row: 0, checkpoint: None };
    job.announce();
    let ended = job.run();
    if let (Ok((_, root_cause)), Some(config)) = (&ended, config)
        && let Err(error) = report::merge_summary(&config.run.dir, job.restarts, root_cause.as_ref())
    {
        terminal.say(&error.to_string());
    }
    terminal.finish();
    ended.map(|(last, _)| last)
}

struct Job<'a> {
    context: Context<'a>,
    max_restarts: u32,
    restarts: u32,
    in_a_row: u32,
    /// The newest of all attempts: its stage, and its step in that.
    checkpoint: Option<(usize, Step)>,
}

impl Job<'_> {
    fn announce(&self) {
        self.say(&self.context.plan.headline());
        if let Some(folder) = self.context.logs.folder() {
            self.say(&format!("logs in {}", folder.display()));
        }
    }

    /// To the terminal and to launcher.log.
    fn say(&self, text: &str) {
        self.context.logs.note(text);
        self.context.terminal.say(text);
        if let Some(complaint) = self.context.logs.complaint() {
            self.context.terminal.say(&complaint);
        }
    }

    fn run(&mut self) -> io::Result<(Final, Option<RootCause>)> {
        loop {
            let ended = supervise::run(&self.context, self.restarts)?;
            self.count(&ended);
            let Outcome::Failed(cause) = &ended.outcome else {
                return Ok((report::good_end(&ended.outcome, self.step(), self.restarts), None));
            };
            let mut root_cause = RootCause::new(cause, ended.host.clone());
            match after_failure(cause.exit, self.in_a_row, self.max_restarts, ended.stopping) {
                Decision::GiveUp { exit, reason } => {
                    self.context.logs.note(&reason);
                    if self.restarts > 0 {
                        self.say(&reason);
                    }
                    root_cause.exit_code = exit.code();
                    return Ok((Final { exit, text: root_cause.to_string() }, Some(root_cause)));
                }
                Decision::Restart { delay } => {
                    self.say(&self.restarting(&root_cause, delay));
                    if let Some(stopped) = pause(self.context.signals, delay) {
                        return Ok((report::good_end(&stopped, self.step(), self.restarts), None));
                    }
                    self.restarts += 1;
                    self.in_a_row += 1;
                }
            }
        }
    }

    /// Only a checkpoint newer than all before is progress: a job that fails again and again right after
    /// repeating the same one must not restart for ever.
    fn count(&mut self, ended: &Ended) {
        if ended.checkpoint > self.checkpoint {
            self.checkpoint = ended.checkpoint;
            self.in_a_row = 0;
        }
    }

    fn step(&self) -> Option<Step> {
        self.checkpoint.map(|(_, step)| step)
    }

    fn restarting(&self, cause: &RootCause, delay: Duration) -> String {
        let from = self.step().map_or_else(String::new, |step| format!(", from the checkpoint of step {step}"));
        let number = self.in_a_row + 1;
        format!("{cause}; restart {number} of {} in {} s{from}", self.max_restarts, delay.as_secs())
    }
}

/// Waits; a signal ends the wait and the job.
fn pause(signals: &Receiver<Arrived>, delay: Duration) -> Option<Outcome> {
    match signals.recv_timeout(delay) {
        Ok(Arrived { event: Event::MustEnd(signal), .. }) => Some(Outcome::Signalled(signal)),
        Ok(_) => Some(Outcome::Preempted { confirmed: false }),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
    }
}
