//! The agent as a process, and a launcher that is this test: what it runs, what it ends, whom it answers.

use jcs_launch::agent::key::Key;
use jcs_launch::agent::message::{FromAgent, ToAgent};
use jcs_launch::agent::secure::{self, Broken, Receiver, Sender};
use jcs_launch::cause::Death;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const DIGITS: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

struct Agent {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key_file(folder: &Path, digits: &str) -> PathBuf {
    let file = folder.join("key");
    std::fs::write(&file, digits).unwrap();
    file
}

impl Agent {
    fn start() -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_jcs-launch"))
            .args(["agent", "--key"])
            .arg(key_file(folder.path(), DIGITS))
            .args(["--port", &port.to_string()])
            .stderr(std::fs::File::create(folder.path().join("said")).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Agent { child, port, folder };
        until("the agent listens", || agent.said().contains("waiting for the launcher"));
        agent
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap()
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    fn talk(&self, first: &ToAgent) -> (Sender, Receiver) {
        let key = Key::read(&self.folder.path().join("key")).unwrap();
        let (mut sender, receiver) = secure::initiate(self.connect(), &key).unwrap();
        sender.send(&first.encode()).unwrap();
        (sender, receiver)
    }

    /// A launcher that holds it.
    fn hold(&self) -> (Sender, Receiver) {
        let (sender, mut receiver) = self.talk(&ToAgent::Hold("localhost".into()));
        assert_eq!(next(&mut receiver), FromAgent::Heard);
        (sender, receiver)
    }

    fn run(&self, command: &str) -> (Sender, Receiver) {
        self.talk(&ToAgent::Run { host: "localhost".into(), command: command.into() })
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        until("the agent ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

#[track_caller]
fn until(what: &str, is_so: impl FnMut() -> bool) {
    let (began, mut is_so) = (Instant::now(), is_so);
    while !is_so() {
        assert!(began.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn next(receiver: &mut Receiver) -> FromAgent {
    loop {
        match FromAgent::decode(&receiver.receive(Some(SOON)).unwrap()).unwrap() {
            FromAgent::Alive => {}
            message => return message,
        }
    }
}

/// What a command says, and how it ends.
fn outcome(receiver: &mut Receiver) -> (String, String, Death) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match next(receiver) {
            FromAgent::Output(bytes) => out.extend(bytes),
            FromAgent::Errors(bytes) => err.extend(bytes),
            FromAgent::Ended(death) => {
                return (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), death);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Whether `sleep SECONDS` runs anywhere.
fn sleeps(seconds: &str) -> bool {
    let wanted = format!("sleep\0{seconds}\0");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok()).any(|line| line == wanted.as_bytes())
}

#[test]
fn commands_run_as_over_ssh() {
    let mut agent = Agent::start();
    let (mut launcher, mut heard) = agent.hold();
    let (mut sender, mut receiver) = agent.run("echo out; echo err >&2; cat; exit 3");
    sender.send(&ToAgent::Input(b"in\n".to_vec()).encode()).unwrap();
    sender.send(&ToAgent::InputEnds.encode()).unwrap();
    assert_eq!(outcome(&mut receiver), ("out\nin\n".into(), "err\n".into(), Death::Code(3)));
    // More than goes in a frame, all of it before the end.
    let (_sender, mut receiver) = agent.run("yes | head -c 3000000");
    assert_eq!(outcome(&mut receiver).0.len(), 3_000_000);
    let (mut sender, mut receiver) = agent.run("sleep 87611");
    until("sleep runs", || sleeps("87611"));
    sender.send(&ToAgent::Signal(2).encode()).unwrap();
    assert_eq!(outcome(&mut receiver).2, Death::Signal(2));
    launcher.send(&ToAgent::Farewell(7).encode()).unwrap();
    assert_eq!(next(&mut heard), FromAgent::Heard);
    assert_eq!(agent.end().code(), Some(7));
}

#[test]
fn what_was_started_ends_with_its_connection_and_daemons_with_the_launcher() {
    let agent = Agent::start();
    let (launcher, _heard) = agent.hold();
    let (sender, _receiver) = agent.run("sleep 87621");
    until("sleep runs", || sleeps("87621"));
    sender.close();
    until("sleep is ended", || !sleeps("87621"));
    let (_sender, mut receiver) = agent.run("setsid sleep 87622 </dev/null >/dev/null 2>&1 & trap '' TERM; exit 0");
    assert_eq!(outcome(&mut receiver).2, Death::Code(0));
    until("the daemon runs", || sleeps("87622"));
    launcher.close();
    until("the daemon is ended", || !sleeps("87622"));
    until("it is said", || agent.said().contains("the launcher is lost"));
    // The next one is welcome.
    agent.hold();
}

#[test]
fn a_host_that_is_to_go_tells_the_launcher() {
    let mut agent = Agent::start();
    let (mut launcher, mut heard) = agent.hold();
    kill(agent.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(next(&mut heard), FromAgent::Stop);
    launcher.send(&ToAgent::Farewell(143).encode()).unwrap();
    assert_eq!(agent.end().code(), Some(143));
    let mut idle = Agent::start();
    kill(idle.pid(), Signal::SIGTERM).unwrap();
    assert_eq!(idle.end().code(), Some(143));
}

#[test]
fn without_the_key_nothing_is_said_and_the_job_is_unharmed() {
    let agent = Agent::start();
    // With what else is open still below the 1,024 files that a process usually may have.
    let silent: Vec<TcpStream> = (0..1000).map(|_| agent.connect()).collect();
    let mut garbage = agent.connect();
    garbage.write_all(&[0xff; 4096]).unwrap();
    let mut said = Vec::new();
    let _ = garbage.read_to_end(&mut said);
    assert_eq!(said, [0u8; 0]);
    let other = tempfile::tempdir().unwrap();
    let key = Key::read(&key_file(other.path(), &"ab".repeat(32))).unwrap();
    assert!(matches!(secure::initiate(agent.connect(), &key), Err(Broken::Foreign)));
    let (_launcher, _heard) = agent.hold();
    let (_sender, mut receiver) = agent.run("echo unharmed");
    assert_eq!(outcome(&mut receiver).0, "unharmed\n");
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim().parse::<u32>().unwrap();
    assert!(threads < 150, "{threads} threads for {} connections", silent.len());
    let line = std::fs::read(format!("/proc/{}/cmdline", agent.pid())).unwrap();
    for place in [line, agent.said().into_bytes()] {
        assert!(!String::from_utf8_lossy(&place).contains(&DIGITS[..8]));
    }
}

#[test]
fn commands_are_for_who_holds_the_agent() {
    let agent = Agent::start();
    let (_sender, mut receiver) = agent.run("echo no");
    assert!(matches!(next(&mut receiver), FromAgent::Refused(why) if why.contains("no launcher holds")));
    // A newer launcher takes over, what the older one has started is ended, and it hears of it.
    let (_older, mut heard) = agent.hold();
    let (_sender, _receiver) = agent.run("sleep 87631");
    until("sleep runs", || sleeps("87631"));
    let (_newer, _heard) = agent.hold();
    assert!(!sleeps("87631"));
    assert!(matches!(next(&mut heard), FromAgent::Refused(why) if why.contains("another launcher")));
}
