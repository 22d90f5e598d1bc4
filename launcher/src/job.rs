//! A job from its first start to its end: restarts, and what is said and written at the end. How one
//! start goes is for [`crate::supervise`], whether another follows for [`crate::restart`].

use crate::Ready;
use crate::agent::hold::Holds;
use crate::attempt::{Event, Outcome};
use crate::board::Board;
use crate::cause::Cause;
use crate::cli::Cli;
use crate::logs::Logs;
use crate::muster::{Muster, Team};
use crate::nodes::K8S;
use crate::plan::PlanError;
use crate::pods;
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
use std::time::{Duration, Instant};

/// Between two times that hosts are asked whether they are back.
const LOOK: Duration = Duration::from_secs(2);

/// Runs the job, first on `team`. `signals` where somebody listens to them already, `agents` where there are any.
pub fn run(cli: &Cli, ready: Ready, team: Team, signals: Option<Receiver<Arrived>>, agents: Option<&Holds>) -> Exit {
    let folder = cli.log_dir.clone().or_else(|| ready.config.as_ref().map(|c| c.run.dir.join("logs")));
    let most_workers = ready.muster.request.most_workers;
    let logs = match folder.map_or_else(|| Ok(Logs::none()), |f| Logs::open(&f, most_workers)) {
        Ok(logs) => Arc::new(logs),
        Err(error) => {
            report::complain(&format!("{error}; exit code {}", Exit::Usage.code()));
            return Exit::Usage;
        }
    };
    let run = ready.config.as_ref().map(|config| config.run.dir.clone());
    let board = Board::new(run.as_deref(), cli.nodes.as_deref() == Some(K8S));
    let seen = Seen { logs: &logs, board: &board };
    let last = match watched(cli, ready, team, &seen, signals, agents) {
        Ok(last) => last,
        Err(error) => Final { exit: Exit::WorkerFailed, text: format!("cannot start the workers: {error}") },
    };
    logs.note(&last.line());
    board.end(&last.text, last.exit.code(), !run.as_deref().is_some_and(report::belongs_to_another));
    report::complain(&last.line());
    last.exit
}

/// Where it is told how the job stands.
struct Seen<'a> {
    logs: &'a Arc<Logs>,
    board: &'a Board,
}

fn watched(
    cli: &Cli,
    ready: Ready,
    team: Team,
    seen: &Seen,
    signals: Option<Receiver<Arrived>>,
    agents: Option<&Holds>,
) -> io::Result<Final> {
    let signals = signals.map_or_else(|| signals::listen().map(|(_, signals)| signals), Ok)?;
    let terminal = Arc::new(Terminal::start(ready.plan.shown.clone())?);
    let mut job = Job {
        cli,
        muster: ready.muster,
        team,
        logs: Arc::clone(seen.logs),
        terminal: Arc::clone(&terminal),
        board: seen.board,
        signals,
        agents,
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
    board: &'a Board,
    signals: Receiver<Arrived>,
    agents: Option<&'a Holds>,
    restarts: u32,
    in_a_row: u32,
    /// The newest of all attempts: its stage, and its step in that.
    checkpoint: Option<(usize, Step)>,
    bug: Bug,
}

/// How a wait between two starts ends.
enum Pause {
    /// Nothing happened.
    Over,
    /// Hosts have left.
    WithoutSome,
    /// So does the job.
    Stopped(Outcome),
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
            if self.goes_on_without(&ended) {
                match self.part_with(&ended.leaving) {
                    None => continue,
                    Some(end) => return Ok(end),
                }
            }
            let Outcome::Failed(cause) = &ended.outcome else {
                return Ok((report::good_end(&ended.outcome, self.step(), self.restarts), None));
            };
            let root_cause = RootCause::new(cause, ended.host.clone());
            let stage = self.checkpoint.map_or(0, |(stage, _)| stage);
            let decision = match self.bug.on_failure(stage, cause.step) {
                true => Decision::GiveUp { exit: cause.exit, reason: Bug::REASON.into() },
                false => after_failure(cause.exit, self.in_a_row, self.cli.restarts(), self.is_asked_to_end(&ended)),
            };
            if !ended.leaving.is_empty() && self.are_enough_without(&ended.leaving) {
                self.agents.iter().for_each(|agents| pods::part_with(agents, &ended.leaving));
            }
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

    /// The hosts of the next start. Where too few can take part they are waited for, which is no restart; if that does not help, the job
    /// ends as the failure deserves that led here.
    fn reassemble(&mut self, exit: Exit, failure: &RootCause) -> Option<End> {
        let (began, mut told) = (Instant::now(), String::new());
        let within = Duration::from_secs(u64::from(self.cli.rejoin_timeout));
        loop {
            let again = self.muster.again(&self.team.plan);
            match self.pause(Duration::ZERO) {
                Pause::Over => {}
                // They were asked, and may be among those that were chosen.
                Pause::WithoutSome => continue,
                Pause::Stopped(stopped) => return Some((report::good_end(&stopped, self.step(), self.restarts), None)),
            }
            let unfit = match again {
                Ok(team) => {
                    self.go_on_with(team);
                    return None;
                }
                Err(unfit) => unfit,
            };
            let waited = began.elapsed();
            if told != unfit.to_string() {
                told = unfit.to_string();
                if let PlanError::Unfit(Unfit { table, .. }) = &unfit {
                    table.iter().for_each(|line| self.say(line));
                }
                self.say(&format!(
                    "{unfit}; waiting for {} s more at the most (--rejoin-timeout)",
                    within.saturating_sub(waited).as_secs()
                ));
            }
            if waited >= within {
                let mut cause = failure.clone();
                cause.cause = format!("{}; then {unfit}, for {} s (--rejoin-timeout)", cause.cause, waited.as_secs());
                return self.go_on(Decision::GiveUp { exit, reason: "too few hosts can take part".into() }, cause);
            }
            if let Pause::Stopped(stopped) = self.pause(LOOK.min(within - waited)) {
                return Some((report::good_end(&stopped, self.step(), self.restarts), None));
            }
        }
    }

    /// Whether a start ended for hosts that leave, and enough others are there.
    fn goes_on_without(&self, ended: &Ended) -> bool {
        let is_for_them = !ended.leaving.is_empty() && matches!(ended.outcome, Outcome::Preempted { .. });
        is_for_them && self.are_enough_without(&ended.leaving)
    }

    fn is_asked_to_end(&self, ended: &Ended) -> bool {
        ended.stopping || !self.are_enough_without(&ended.leaving)
    }

    fn are_enough_without(&self, leaving: &[String]) -> bool {
        let mut stay = self.team.choice.clone();
        stay.hosts.retain(|node| !leaving.contains(&node.name));
        self.muster.roster.is_enough(&stay)
    }

    /// The next start is without these; whatever comes in their place may join a later one.
    fn part_with(&mut self, leaving: &[String]) -> Option<End> {
        let text = format!("{} has left", leaving.join(", "));
        let from = self.step().map_or_else(String::new, |step| format!(", from the checkpoint of step {step}"));
        self.say(&format!("{text}; the job goes on without it{from}"));
        self.agents.iter().for_each(|agents| pods::part_with(agents, leaving));
        self.restarts += 1;
        let cause = Cause { rank: None, step: self.step(), exit: Exit::WorkerFailed, text };
        self.reassemble(cause.exit, &RootCause::new(&cause, None))
    }

    /// Waits; a signal ends the wait and the job. Hosts leave meanwhile, as long as there are enough.
    fn pause(&self, delay: Duration) -> Pause {
        let (until, mut left) = (Instant::now() + delay, Vec::new());
        loop {
            match self.signals.recv_deadline(until) {
                Ok(Arrived { event: Event::MustEnd(signal), .. }) => return Pause::Stopped(Outcome::Signalled(signal)),
                Ok(Arrived { event: Event::Leaving(host), .. }) => {
                    left.push(host);
                    if !self.are_enough_without(&left) {
                        return Pause::Stopped(Outcome::Preempted { confirmed: false });
                    }
                    self.say(&format!("{} has left", left[left.len() - 1]));
                    self.agents.iter().for_each(|agents| pods::part_with(agents, &left[left.len() - 1..]));
                }
                Ok(_) => return Pause::Stopped(Outcome::Preempted { confirmed: false }),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) if left.is_empty() => {
                    return Pause::Over;
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Pause::WithoutSome,
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
            board: self.board,
            agents: self.agents,
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
                if let Pause::Stopped(stopped) = self.pause(delay) {
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
