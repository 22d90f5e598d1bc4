//! One start of the job: mpirun, the side channel and the output brought together, until the state
//! machine of [`crate::attempt`] says that it is over; then everything is ended. What an event means is
//! decided there, never here.

use crate::agent::hold::Holds;
use crate::attempt::{Attempt, Event, Next, Outcome};
use crate::board::Board;
use crate::cause::{Death, signal_name};
use crate::channel::Channel;
use crate::events::{self, Happened, Sender};
use crate::logs::Logs;
use crate::machine::Machine;
use crate::output::{self, Sink};
use crate::plan::{Plan, Start};
use crate::pods;
use crate::processes;
use crate::remote;
use crate::report::RootCause;
use crate::signals::Arrived;
use crate::stacks;
use crate::terminal::Terminal;
use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use protocol::message::Message;
use protocol::{Exit, Rank, Step, env};
use std::io;
use std::net::IpAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a start of a job is given.
pub struct Context<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Where to listen for the workers.
    pub addresses: &'a [IpAddr],
    /// Log files.
    pub logs: Arc<Logs>,
    /// Terminal.
    pub terminal: Arc<Terminal>,
    /// For those who look from outside.
    pub board: &'a Board,
    /// Agents, where there are any.
    pub agents: Option<&'a Holds>,
    /// Signals to the launcher.
    pub signals: &'a Receiver<Arrived>,
    /// How long the workers may take to end when asked.
    pub grace: Duration,
    /// This machine.
    pub machine: &'a Machine,
    /// How long they may make no progress, at most.
    pub hang_timeout: Duration,
}

/// A start that is over.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The newest checkpoint that it wrote: its stage, and its step in that.
    pub checkpoint: Option<(usize, Step)>,
    /// Where the first worker that failed ran, if one did.
    pub host: Option<String>,
    /// Whether somebody wants the whole job to end.
    pub stopping: bool,
    /// The hosts for whose sake alone it ended.
    pub leaving: Vec<String>,
    /// How long it ran.
    pub lasted: Duration,
}

/// How long mpirun may take to end its workers and itself; it needs half a second.
const MPIRUN_STOPS: Duration = Duration::from_secs(2);
/// How long killed processes may take to be gone.
const KILLED_ENDS: Duration = Duration::from_secs(4);
/// Waits are short, so that a sleep of the launcher itself is told from one.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A wait that took so much longer than it should was a sleep.
const SLEPT: Duration = Duration::from_secs(2);
/// After a sleep, how long the threads that read may take to hand on what they find.
const CATCHING_UP: Duration = Duration::from_secs(2);
/// How long the rest of the output may take.
const REST_OF_OUTPUT: Duration = Duration::from_secs(2);

/// Starts the job once and watches over it to its end. Afterwards none of its processes is left.
pub fn run(context: &Context, restart: u32) -> io::Result<Ended> {
    let began = Instant::now();
    let (sender, events) = events::queue(began);
    let token = processes::new_token()?;
    let channel = Channel::open(&token, context.plan.world_size(), context.addresses, sender.clone())?;
    let start = Start { launcher: channel.addresses(), restart };
    context.logs.note(&format!("listening on {}", start.launcher));
    let mpirun = spawn(context, &start, &token)?;
    let pid = Pid::from_raw(mpirun.id() as i32);
    context.logs.note(&format!("started mpirun, process {pid}, restart {restart}"));
    let mut watch = Watch {
        context,
        attempt: Attempt::new(context.plan.world_size(), context.grace, context.hang_timeout),
        events,
        began,
        pid,
        mpirun_ended: None,
        output_ended: false,
        checkpoint: None,
    };
    let outcome = match attach(mpirun, context, &sender) {
        Ok(()) => watch.watch(),
        Err(e) => Err(e),
    };
    let outcome = outcome.map(|outcome| watch.look_at_hang(outcome));
    watch.end_everything(&channel, &token);
    let outcome = outcome?;
    let rank = if let Outcome::Failed(cause) = &outcome { cause.rank } else { None };
    let host = rank.and_then(|rank| watch.host(rank));
    Ok(Ended {
        outcome,
        checkpoint: watch.checkpoint,
        host,
        stopping: watch.attempt.is_stopping(),
        leaving: watch.attempt.leaving().to_vec(),
        lasted: began.elapsed(),
    })
}

/// mpirun leads a process group of its own, so that Ctrl-C at the terminal reaches the launcher alone.
fn spawn(context: &Context, start: &Start, token: &str) -> io::Result<Child> {
    let line = context.plan.command_line(start);
    let (program, arguments) = line.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).envs(context.plan.mpirun_env.iter().cloned()).env(env::JCS_TOKEN, token);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.spawn()
}

/// Threads that turn mpirun's output and end into events.
fn attach(mut mpirun: Child, context: &Context, sender: &Sender) -> io::Result<()> {
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    let (out, err) = (mpirun.stdout.take(), mpirun.stderr.take());
    let ended = sender.clone();
    thread("mpirun").spawn(move || {
        let status = mpirun.wait();
        ended.send(Happened::Event(Event::MpirunEnded(death(status))));
    })?;
    let sink = Sink {
        logs: Arc::clone(&context.logs),
        terminal: Arc::clone(&context.terminal),
        events: sender.clone(),
        world_size: context.plan.world_size(),
    };
    let (both, ended) = (sink.clone(), sender.clone());
    let other = thread("stdout").spawn(move || out.into_iter().for_each(|out| output::pump(out, &both)))?;
    thread("stderr").spawn(move || {
        err.into_iter().for_each(|err| output::pump(err, &sink));
        let _ = other.join();
        ended.send(Happened::Event(Event::OutputEnded));
    })?;
    Ok(())
}

fn death(status: io::Result<ExitStatus>) -> Death {
    match status {
        Ok(status) => status.signal().map_or_else(|| Death::Code(status.code().unwrap_or(1)), Death::Signal),
        Err(_) => Death::Code(1),
    }
}

struct Watch<'a> {
    context: &'a Context<'a>,
    attempt: Attempt,
    events: Receiver<(Duration, Happened)>,
    began: Instant,
    pid: Pid,
    mpirun_ended: Option<Death>,
    output_ended: bool,
    checkpoint: Option<(usize, Step)>,
}

impl Watch<'_> {
    fn watch(&mut self) -> io::Result<Outcome> {
        loop {
            match self.attempt.next(self.began.elapsed()) {
                Next::Over(outcome) => return Ok(outcome),
                Next::AskWorkers => self.ask_workers(),
                Next::Wait(until) => self.wait(until),
            }
        }
    }

    fn ask_workers(&mut self) {
        self.attempt.asked();
        self.context.logs.note("forwarding SIGUSR1 to the workers");
        let why = match self.attempt.leaving() {
            [] => "asked to stop".to_owned(),
            hosts => format!("{} is about to go", hosts.join(", ")),
        };
        let grace = self.context.grace.as_secs();
        self.context.terminal.say(&format!("{why}: the workers have {grace} s to write a checkpoint and end"));
        let _ = kill(self.pid, Signal::SIGUSR1);
    }

    fn wait(&mut self, until: Option<Duration>) {
        let left = until.map_or(LONGEST_WAIT, |until| until.saturating_sub(self.began.elapsed())).min(LONGEST_WAIT);
        let began = Instant::now();
        select! {
            recv(self.events) -> happened => if let Ok((at, what)) = happened { self.take(at, what) },
            recv(self.context.signals) -> arrived => if let Ok(arrived) = arrived { self.signal(&arrived) },
            default(left) => {}
        }
        self.notice_sleep(began, left);
    }

    /// A launcher that was stopped (Ctrl-Z, say) has not heard what lies in its sockets; it is heard before anyone is judged.
    fn notice_sleep(&mut self, began: Instant, at_most: Duration) {
        if began.elapsed() > at_most + SLEPT {
            self.wait_for(CATCHING_UP, |_| false);
            self.attempt.slept(self.began.elapsed());
        }
    }

    fn signal(&mut self, arrived: &Arrived) {
        if let Event::Leaving(host) = &arrived.event
            && !self.context.plan.nodes.iter().any(|share| share.host == *host)
        {
            // It stands by, and nothing has to end for it.
            self.context.logs.note(&format!("{host}, which has no part in this start, leaves"));
            return self.context.agents.iter().for_each(|agents| pods::part_with(agents, std::slice::from_ref(host)));
        }
        self.context.logs.note(&match &arrived.event {
            Event::Leaving(host) => format!("{host} is about to go"),
            _ => format!("received {}", signal_name(arrived.signal).unwrap_or("a signal")),
        });
        self.attempt.on(self.began.elapsed(), arrived.event.clone());
    }

    fn take(&mut self, at: Duration, what: Happened) {
        let event = match what {
            Happened::Note(text) => return self.context.logs.note(&text),
            Happened::Event(event) => event,
        };
        self.note(&event);
        match &event {
            Event::Said(rank, Message::Progress(progress)) if *rank == Rank(0) => {
                self.context.terminal.progress(progress.clone());
                self.context.board.progress(progress);
            }
            Event::Said(_, Message::Checkpoint { stage, step }) => self.checkpoint = Some((*stage, *step)),
            Event::MpirunEnded(death) => self.mpirun_ended = Some(*death),
            Event::OutputEnded => self.output_ended = true,
            _ => {}
        }
        self.attempt.on(at, event);
    }

    fn note(&self, event: &Event) {
        let text = match event {
            Event::Hello { rank, host, pid } => format!("rank {rank} is process {pid} on {host}"),
            Event::Said(_, Message::Progress(_) | Message::Beat(_)) | Event::OutputEnded => return,
            Event::Said(rank, message) => format!("rank {rank} says {message:?}"),
            Event::Closed(rank) => format!("rank {rank} closed its connection"),
            Event::Named(named) => format!("mpirun says that rank {} ended first: {:?}", named.rank, named.death),
            Event::MpirunEnded(death) => format!("mpirun ended: {death:?}"),
            Event::AskedToStop | Event::Leaving(_) | Event::MustEnd(_) => return,
        };
        self.context.logs.note(&text);
    }

    /// Before a worker that hangs is killed: what its process does, for the log, and whether somebody stopped it.
    fn look_at_hang(&self, outcome: Outcome) -> Outcome {
        let Outcome::Failed(mut cause) = outcome else { return outcome };
        let worker = cause.rank.filter(|_| cause.exit == Exit::Hang);
        let named = RootCause::new(&cause, worker.and_then(|rank| self.host(rank))).to_string();
        if cause.exit == Exit::Hang {
            self.context.logs.note(&named);
            self.context.terminal.say(&named);
        }
        // By the name by which the plan reaches it, which may not be its own.
        let process =
            worker.and_then(|rank| Some((&self.context.plan.workers.get(rank.0)?.host, self.attempt.pid(rank)?)));
        if let Some((host, pid)) = process {
            let way = remote::way_to(host, self.context.plan.reach, self.context.machine);
            match stacks::look(way, host, pid) {
                Ok(text) => {
                    text.lines().for_each(|line| self.context.logs.note(&format!("process {pid} on {host}: {line}")));
                    cause.text += &stacks::summary(&text);
                }
                Err(why) => self.context.logs.note(&format!("process {pid} on {host} cannot be looked at: {why}")),
            }
        }
        Outcome::Failed(cause)
    }

    fn host(&self, rank: Rank) -> Option<String> {
        let planned = || self.context.plan.workers.get(rank.0).map(|w| w.host.as_str());
        self.attempt.host(rank).or_else(planned).map(String::from)
    }

    /// The cut leash ends the workers, SIGTERM lets mpirun clean up behind itself, and whatever is left
    /// is killed. All of it takes less than 10 seconds.
    fn end_everything(&mut self, channel: &Channel, token: &str) {
        channel.cut();
        if self.mpirun_ended.is_none() {
            let _ = kill(self.pid, Signal::SIGTERM);
            self.wait_for(MPIRUN_STOPS, |watch| watch.mpirun_ended.is_some());
        }
        if self.mpirun_ended.is_none() {
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
        let left = processes::kill_carriers(token, KILLED_ENDS);
        if !left.is_empty() {
            let text = format!("processes that cannot be killed are left: {left:?}");
            self.context.logs.note(&text);
            self.context.terminal.say(&text);
        }
        self.wait_for(REST_OF_OUTPUT, |watch| watch.mpirun_ended.is_some() && watch.output_ended);
        if !matches!(self.mpirun_ended, Some(Death::Code(_))) {
            remove_session(&std::env::temp_dir(), self.pid);
        }
    }

    fn wait_for(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !done(self) {
            match self.events.recv_deadline(deadline) {
                Ok((at, what)) => self.take(at, what),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// mpirun's own temporary folder, which it leaves behind when it is killed.
fn remove_session(temporary: &Path, mpirun: Pid) {
    let _ = std::fs::remove_dir_all(temporary.join(format!("ompi.{mpirun}")));
}
