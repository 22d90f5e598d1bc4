//! A job from its first start to its end: restarts, and what is said and written at the end. How one
//! start goes is for [`crate::supervise`], whether another follows for [`crate::restart`].

use crate::Ready;
use crate::attempt::{Event, Outcome};
use crate::cause::Cause;
use crate::cli::Cli;
use crate::logs::Logs;
use crate::muster::{Muster, Team};
use crate::plan::PlanError;
use crate::probe::Unfit;
use crate::report::{self, Final, RootCause};
use crate::restart::{Bug, Decision, after_failure};
use crate::signals::{self, Arrived};
use crate::supervise::{self, Context, Ended};
use crate::terminal::Terminal;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use protocol::{Exit, Step};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Runs the job, first on `team`.
pub fn run(cli: &Cli, ready: Ready, team: Team) -> Exit {
    let folder = cli.log_dir.clone().or_else(|| ready.config.as_ref().map(|c| c.run.dir.join("logs")));
    let most_workers = ready.muster.request.most_workers;
    let logs = match folder.map_or_else(|| Ok(Logs::none()), |f| Logs::open(&f, most_workers)) {
        Ok(logs) => Arc::new(logs),
        Err(error) => {
            report::complain(&format!("{error}; exit code {}", Exit::Usage.code()));
            return Exit::Usage;
        }
    };
    let last = match watched(cli, ready, team, &logs) {
        Ok(last) => last,
        Err(error) => Final { exit: Exit::WorkerFailed, text: format!("cannot start the workers: {error}") },
    };
    logs.note(&last.line());
    report::complain(&last.line());
    last.exit
}

fn watched(cli: &Cli, ready: Ready, team: Team, logs: &Arc<Logs>) -> io::Result<Final> {
    let signals = signals::listen()?;
    let terminal = Arc::new(Terminal::start(ready.plan.shown.clone())?);
    let mut job = Job {
        cli,
        muster: ready.muster,
        team,
        logs: Arc::clone(logs),
        terminal: Arc::clone(&terminal),
        signals,
        restarts: 0,
        in_a_row: 0,
        checkpoint: None,
        bug: Bug::default(),
    };
    job.announce();
    let ended = job.run();
    if let (Ok((_, root_cause)), Some(config)) = (&ended, &ready.config)
        && !report::belongs_to_another(&config.run.dir)
        && let Err(error) = report::merge_summary(&config.run.dir, job.restarts, root_cause.as_ref())
    {
        terminal.say(&error.to_string());
    }
    terminal.finish();
    ended.map(|(last, _)| last)
}

struct Job<'a> {
    cli: &'a Cli,
    muster: Muster,
    team: Team,
    logs: Arc<Logs>,
    terminal: Arc<Terminal>,
    signals: Receiver<Arrived>,
    restarts: u32,
    in_a_row: u32,
    /// The newest of all attempts: its stage, and its step in that.
    checkpoint: Option<(usize, Step)>,
    bug: Bug,
}

/// How a job, or the wait between two starts, ends.
type End = (Final, Option<RootCause>);

impl Job<'_> {
    fn announce(&self) {
        self.say(&self.team.plan.headline());
        self.say_findings();
        if let Some(folder) = self.logs.folder() {
            self.say(&format!("logs in {}", folder.display()));
        }
    }

    /// What was found out about the hosts, and who is left out for it.
    fn say_findings(&self) {
        self.team.warnings.iter().for_each(|line| self.say(line));
        self.team.notes.iter().for_each(|line| self.logs.note(line));
        for (host, reason) in &self.team.choice.left_out {
            self.say(&format!("{host} is left out: {reason}"));
        }
    }

    /// To the terminal and to launcher.log.
    fn say(&self, text: &str) {
        self.logs.note(text);
        self.terminal.say(text);
        if let Some(complaint) = self.logs.complaint() {
            self.terminal.say(&complaint);
        }
    }

    fn run(&mut self) -> io::Result<End> {
        loop {
            let ended = self.start()?;
            self.count(&ended);
            let Outcome::Failed(cause) = &ended.outcome else {
                return Ok((report::good_end(&ended.outcome, self.step(), self.restarts), None));
            };
            let root_cause = RootCause::new(cause, ended.host.clone());
            let stage = self.checkpoint.map_or(0, |(stage, _)| stage);
            let decision = match self.bug.on_failure(stage, cause.step) {
                true => Decision::GiveUp { exit: cause.exit, reason: Bug::REASON.into() },
                false => after_failure(cause.exit, self.in_a_row, self.cli.restarts(), ended.stopping),
            };
            let culprit = self.culprit(cause);
            self.muster.roster.on_failure(&self.team.choice, culprit.as_deref(), ended.lasted);
            if let Some(end) = self.go_on(decision, root_cause.clone()) {
                return Ok(end);
            }
            if let Some(end) = self.reassemble(cause.exit, &root_cause) {
                return Ok(end);
            }
        }
    }

    /// The hosts of the next start. Where too few can take part they are asked again, as restarts are left; if that does not
    /// help, the job ends as the failure deserves that led here.
    fn reassemble(&mut self, exit: Exit, failure: &RootCause) -> Option<End> {
        loop {
            let again = self.muster.again(&self.team.plan);
            if let Some(stopped) = pause(&self.signals, Duration::ZERO) {
                return Some((report::good_end(&stopped, self.step(), self.restarts), None));
            }
            let unfit = match again {
                Ok(team) => {
                    self.go_on_with(team);
                    return None;
                }
                Err(unfit) => unfit,
            };
            if let PlanError::Unfit(Unfit { table, .. }) = &unfit {
                table.iter().for_each(|line| self.say(line));
            }
            let mut cause = failure.clone();
            cause.cause = format!("{}; then {unfit}", cause.cause);
            let decision = after_failure(exit, self.in_a_row, self.cli.restarts(), false);
            if let Some(end) = self.go_on(decision, cause) {
                return Some(end);
            }
        }
    }

    fn go_on_with(&mut self, team: Team) {
        let before = std::mem::replace(&mut self.team, team);
        if before.choice.hosts != self.team.choice.hosts {
            self.say(&format!("going on with {}", self.team.plan.on_whom()));
            self.say_findings();
        }
    }

    fn start(&self) -> io::Result<Ended> {
        let context = Context {
            plan: &self.team.plan,
            addresses: &self.team.addresses,
            logs: Arc::clone(&self.logs),
            terminal: Arc::clone(&self.terminal),
            signals: &self.signals,
            machine: &self.muster.machine,
            grace: Duration::from_secs(u64::from(self.cli.grace_period)),
            hang_timeout: Duration::from_secs(u64::from(self.cli.hang_timeout)),
        };
        supervise::run(&context, self.restarts)
    }

    /// The host, as the roster calls it, on which a start failed first.
    fn culprit(&self, cause: &Cause) -> Option<String> {
        let worker = self.team.plan.workers.get(cause.rank?.0)?;
        Some(self.team.choice.hosts.get(worker.node_rank)?.name.clone())
    }

    /// Waits for the next start, or says how the job ends.
    fn go_on(&mut self, decision: Decision, mut root_cause: RootCause) -> Option<End> {
        match decision {
            Decision::GiveUp { exit, reason } => {
                self.logs.note(&reason);
                if self.restarts > 0 {
                    self.say(&reason);
                }
                root_cause.exit_code = exit.code();
                Some((Final { exit, text: root_cause.to_string() }, Some(root_cause)))
            }
            Decision::Restart { delay } => {
                self.say(&self.restarting(&root_cause, delay));
                if let Some(stopped) = pause(&self.signals, delay) {
                    return Some((report::good_end(&stopped, self.step(), self.restarts), None));
                }
                self.restarts += 1;
                self.in_a_row += 1;
                None
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
        format!("{cause}; restart {number} of {} in {} s{from}", self.cli.restarts(), delay.as_secs())
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
