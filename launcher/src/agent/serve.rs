//! The agent: waits for the launcher on a port, runs for it what ssh would have run, and ends with the job.

use super::children::Children;
use super::key::Key;
use super::message::{FromAgent, ToAgent};
use super::secure::{self, Receiver, Sender};
use super::{ALIVE, HANDSHAKE, LOST};
use crate::attempt;
use crate::cause::Death;
use crate::nodes::is_name_of;
use crate::signals::Arrived;
use crossbeam_channel as channel;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Connections that have not shown yet that they have the key. One more, and the oldest is closed: those that have it need
/// milliseconds.
const UNKNOWN: usize = 64;
/// Commands at a time.
const COMMANDS: usize = 256;
/// How long what is ended may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// Parts of input, of up to 64 KiB, that a command may leave unread.
const UNREAD: usize = 256;
/// How long a command's output may pause after its end: a daemon that it left may keep it open.
const REST: Duration = Duration::from_millis(300);
/// A second request to stop so soon is the same one.
const SAME: Duration = Duration::from_secs(2);
/// Of a process that was asked to stop, and did.
const STOPPED: u8 = 143;

/// What happens to the agent.
enum Event {
    /// A launcher holds it: the number of its connection, and the way to it.
    Held(u64, Arc<Mutex<Sender>>),
    /// That one is lost.
    Lost(u64),
    /// The job is over.
    Farewell(u8),
}

/// What the connections share.
struct Agent {
    key: Key,
    children: Children,
    events: channel::Sender<Event>,
    unknown: Mutex<VecDeque<(u64, TcpStream)>>,
    /// Threads for them, those included that are about to end.
    strangers: AtomicUsize,
    /// The connection of the launcher that holds it.
    holder: Mutex<Option<u64>>,
    /// What this host is called, where nobody else can be meant by that: that of a pod. A name may still lead to an address that belongs to
    /// another by now, whose job has the same key.
    own: Option<String>,
    /// The job is over: nothing more is begun.
    ending: AtomicBool,
    commands: AtomicUsize,
    next: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Listens on `port` of every address.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
}

/// Serves until the job ends, and returns its exit code. `own`: only whoever means this host is served.
pub fn serve(
    listener: TcpListener,
    key: Key,
    own: Option<String>,
    signals: &channel::Receiver<Arrived>,
    say: impl Fn(&str),
) -> io::Result<u8> {
    let (events, happened) = channel::unbounded();
    let agent = Arc::new(Agent {
        key,
        children: Children::adopt()?,
        events,
        unknown: Mutex::default(),
        strangers: AtomicUsize::new(0),
        holder: Mutex::default(),
        own,
        ending: AtomicBool::new(false),
        commands: AtomicUsize::new(0),
        next: AtomicU64::new(1),
    });
    let accepting = agent.clone();
    std::thread::Builder::new().name("accept".into()).spawn(move || accepting.accept(&listener))?;
    let code = agent.wait(signals, &happened, say);
    agent.children.end(PATIENCE);
    Ok(code)
}

impl Agent {
    fn wait(
        &self,
        signals: &channel::Receiver<Arrived>,
        happened: &channel::Receiver<Event>,
        say: impl Fn(&str),
    ) -> u8 {
        let mut held: Option<(u64, Arc<Mutex<Sender>>)> = None;
        let mut asked: Option<Instant> = None;
        let tick = channel::tick(ALIVE);
        loop {
            channel::select! {
                recv(signals) -> arrived => {
                    let Ok(arrived) = arrived else { return STOPPED };
                    let attempt::Event::AskedToStop = arrived.event else {
                        say(&format!("ended by signal {}", arrived.signal));
                        return u8::try_from(128 + arrived.signal).unwrap_or(STOPPED);
                    };
                    match (&held, asked) {
                        (None, _) => {
                            say("asked to stop, and no launcher is here");
                            return STOPPED;
                        }
                        (Some(_), Some(first)) if first.elapsed() > SAME => {
                            say("asked to stop again: everything ends");
                            return STOPPED;
                        }
                        (Some(_), Some(_)) => {}
                        (Some((_, launcher)), None) => {
                            say("asked to stop: the launcher is told, and the job ends with a checkpoint");
                            asked = Some(Instant::now());
                            let _ = lock(launcher).send(&FromAgent::Stop.encode());
                        }
                    }
                }
                recv(happened) -> event => match event {
                    // Its workers are writing their checkpoint; the launcher of another job must not end them.
                    Ok(Event::Held(_, launcher)) if held.is_some() && asked.is_some() => {
                        refuse(&launcher, "this agent was asked to stop, and its job is ending");
                        lock(&launcher).close();
                    }
                    Ok(Event::Held(id, launcher)) => {
                        if let Some((_, before)) = held.take() {
                            say("another launcher takes over");
                            refuse(&before, "another launcher has taken over");
                            lock(&before).close();
                            self.children.end(PATIENCE);
                        } else {
                            say("a launcher is here");
                        }
                        let _ = lock(&launcher).send(&FromAgent::Heard.encode());
                        if asked.is_some() {
                            let _ = lock(&launcher).send(&FromAgent::Stop.encode());
                        }
                        held = Some((id, launcher));
                    }
                    Ok(Event::Lost(id)) if held.as_ref().is_some_and(|(holder, _)| *holder == id) => {
                        held = None;
                        say("the launcher is lost: what it has started is ended");
                        self.children.end(PATIENCE);
                        if asked.is_some() {
                            return STOPPED;
                        }
                    }
                    Ok(Event::Lost(_)) => {}
                    Ok(Event::Farewell(code)) => {
                        say(&format!("the job is over, exit code {code}"));
                        return code;
                    }
                    Err(_) => return STOPPED,
                },
                recv(tick) -> _ => {
                    self.children.bury();
                    if let Some((_, launcher)) = &held {
                        let _ = lock(launcher).send(&FromAgent::Alive.encode());
                    }
                }
            }
        }
    }

    fn accept(self: &Arc<Agent>, listener: &TcpListener) {
        loop {
            // A lack of files or threads passes.
            let Ok((stream, _)) = listener.accept() else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let Ok(copy) = stream.try_clone() else { continue };
            {
                let mut unknown = lock(&self.unknown);
                if unknown.len() >= UNKNOWN
                    && let Some((_, oldest)) = unknown.pop_front()
                {
                    let _ = oldest.shutdown(Shutdown::Both);
                }
                unknown.push_back((id, copy));
            }
            let agent = self.clone();
            // Those that were hung up on are about to end.
            while self.strangers.load(Ordering::Relaxed) >= 2 * UNKNOWN {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.strangers.fetch_add(1, Ordering::Relaxed);
            let started =
                std::thread::Builder::new().name("connection".into()).spawn(move || agent.connection(id, stream));
            if started.is_err() {
                self.is_known(id);
            }
        }
    }

    fn is_known(&self, id: u64) {
        lock(&self.unknown).retain(|(other, _)| *other != id);
        self.strangers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whoever cannot show the key is told nothing.
    fn connection(self: Arc<Agent>, id: u64, stream: TcpStream) {
        let known = secure::respond(stream, &self.key).and_then(|(sender, mut receiver)| {
            let first = receiver.receive(Some(HANDSHAKE))?;
            Ok((sender, receiver, first))
        });
        self.is_known(id);
        let Ok((sender, receiver, first)) = known else { return };
        let sender = Arc::new(Mutex::new(sender));
        let is_astray = |host: &str| self.own.as_ref().is_some_and(|own| !is_name_of(host, own));
        match ToAgent::decode(&first) {
            _ if self.ending.load(Ordering::Relaxed) => refuse(&sender, "the job of this agent is over"),
            Some(ToAgent::Hold(host) | ToAgent::Run { host, .. }) if is_astray(&host) => {
                refuse(&sender, &format!("this host is not {host}"));
            }
            Some(ToAgent::Hold(_)) => self.hold(id, &sender, receiver),
            Some(ToAgent::Run { command, .. }) => self.command(&command, &sender, receiver),
            _ => refuse(&sender, "it was asked for something that this agent does not know: another version?"),
        }
        lock(&sender).close();
    }

    fn hold(&self, id: u64, sender: &Arc<Mutex<Sender>>, mut receiver: Receiver) {
        *lock(&self.holder) = Some(id);
        let _ = self.events.send(Event::Held(id, sender.clone()));
        while let Ok(frame) = receiver.receive(Some(LOST)) {
            if let Some(ToAgent::Farewell(code)) = ToAgent::decode(&frame) {
                self.ending.store(true, Ordering::Relaxed);
                *lock(&self.holder) = None;
                let _ = lock(sender).send(&FromAgent::Heard.encode());
                let _ = self.events.send(Event::Farewell(code));
                return;
            }
        }
        let mut holder = lock(&self.holder);
        if *holder == Some(id) {
            *holder = None;
        }
        drop(holder);
        let _ = self.events.send(Event::Lost(id));
    }

    fn command(&self, command: &str, sender: &Arc<Mutex<Sender>>, receiver: Receiver) {
        if lock(&self.holder).is_none() {
            return refuse(sender, "no launcher holds this agent");
        }
        if self.commands.fetch_add(1, Ordering::Relaxed) < COMMANDS {
            if let Err(e) = self.run(command, sender, receiver) {
                refuse(sender, &format!("/bin/sh does not start: {e}"));
            }
        } else {
            refuse(sender, &format!("{COMMANDS} commands run here already"));
        }
        self.commands.fetch_sub(1, Ordering::Relaxed);
    }

    /// Runs the command to its end, or until the connection breaks.
    fn run(&self, command: &str, sender: &Arc<Mutex<Sender>>, receiver: Receiver) -> io::Result<()> {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = self.children.start(&mut shell)?;
        let pid = child.id();
        let (done, outputs) = channel::bounded::<()>(0);
        let moved = Arc::new(AtomicU64::new(0));
        pump(child.stdout.take(), sender, FromAgent::Output, (moved.clone(), done.clone()));
        pump(child.stderr.take(), sender, FromAgent::Errors, (moved.clone(), done));
        let input = feed(child.stdin.take());
        let group = Pid::from_raw(pid.cast_signed());
        let (ended, end) = channel::bounded::<()>(1);
        let listening =
            std::thread::Builder::new().name("input".into()).spawn(move || obey(receiver, input, group, &end));
        let status = child.wait();
        self.children.left(pid);
        drop(ended);
        // All of the output goes before the end; nobody sends on this channel, so it is over when both pumps are. What still flows is not
        // cut off, and a daemon that only keeps the pipe open is not waited for.
        while outputs.recv_timeout(REST) == Err(channel::RecvTimeoutError::Timeout)
            && moved.swap(0, Ordering::Relaxed) > 0
        {}
        let _ = lock(sender).send(&FromAgent::Ended(death(status?)).encode());
        lock(sender).close();
        let _ = listening.map(std::thread::JoinHandle::join);
        Ok(())
    }
}

fn refuse(sender: &Mutex<Sender>, why: &str) {
    let _ = lock(sender).send(&FromAgent::Refused(why.into()).encode());
}

fn death(status: ExitStatus) -> Death {
    match (status.code(), status.signal()) {
        (Some(code), _) => Death::Code(code),
        (None, signal) => Death::Signal(signal.unwrap_or_default()),
    }
}

/// Passes on what a command says, counts it, and lets go of the channel at its end.
fn pump(
    stream: Option<impl Read + Send + 'static>,
    sender: &Arc<Mutex<Sender>>,
    as_message: fn(Vec<u8>) -> FromAgent,
    (moved, done): (Arc<AtomicU64>, channel::Sender<()>),
) {
    let sender = sender.clone();
    std::thread::spawn(move || {
        let mut part = vec![0; 16 << 10];
        if let Some(mut stream) = stream {
            while let Ok(n @ 1..) = stream.read(&mut part) {
                if lock(&sender).send(&as_message(part[..n].to_vec()).encode()).is_err() {
                    break;
                }
                moved.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(done);
    });
}

/// Writes to a command's standard input what is sent here, as fast as it is read; the end of the channel is its end.
fn feed(stream: Option<impl Write + Send + 'static>) -> channel::Sender<Vec<u8>> {
    let (sender, parts) = channel::bounded::<Vec<u8>>(UNREAD);
    std::thread::spawn(move || {
        if let Some(mut stream) = stream {
            // A command that does not read its input is no error.
            let _ = parts.iter().try_for_each(|part| stream.write_all(&part));
        }
    });
    sender
}

/// Hands the command what comes for it. Where the connection breaks before its end, it is ended.
fn obey(mut receiver: Receiver, input: channel::Sender<Vec<u8>>, group: Pid, ended: &channel::Receiver<()>) {
    let is_over = || matches!(ended.try_recv(), Err(channel::TryRecvError::Disconnected));
    let mut input = Some(input);
    loop {
        let message = receiver.receive(None).map(|frame| ToAgent::decode(&frame));
        match message {
            Ok(Some(ToAgent::Input(bytes))) => {
                let sent = input.as_ref().map(|input| input.try_send(bytes));
                if matches!(sent, Some(Err(channel::TrySendError::Full(_)))) {
                    break;
                }
            }
            Ok(Some(ToAgent::InputEnds)) => input = None,
            Ok(Some(ToAgent::Signal(signal))) if !is_over() => {
                if let Ok(signal) = Signal::try_from(signal) {
                    let _ = killpg(group, signal);
                }
            }
            Ok(Some(ToAgent::Alive | ToAgent::Signal(_))) => {}
            Ok(_) | Err(_) => break,
        }
    }
    drop(input);
    if is_over() {
        return;
    }
    let _ = killpg(group, Signal::SIGTERM);
    if ended.recv_timeout(PATIENCE) == Err(channel::RecvTimeoutError::Timeout) {
        let _ = killpg(group, Signal::SIGKILL);
    }
}
