//! The last thing before a job on several hosts: one worker on each adds up numbers with the others, started as the job's own
//! are. Runs mpirun to its end, by a deadline; what came of it is for [`super::pairs`].

use super::pairs::{self, Connections, Said};
use crate::plan::Plan;
use crate::processes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use protocol::env;
use protocol::pairs::Report;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take in all. The workers give each other up before that.
const WITHIN: Duration = Duration::from_secs(12);
/// What each pair of hosts may add to that, where there are many.
const OF_PAIR: Duration = Duration::from_millis(250);
/// How long mpirun may take to end its workers and itself.
const STOPS: Duration = Duration::from_secs(2);
/// How long what is left of its output is waited for.
const REST: Duration = Duration::from_millis(500);
/// More lines than these are not kept.
const LINES: usize = 1000;

/// Hosts that do not work together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// mpirun does not start.
    #[error("cannot start mpirun: {problem}")]
    NotStarted {
        /// Why.
        problem: String,
    },
    /// The network or a library changes numbers.
    #[error("{a} and {b} add up wrongly: look at their network, and that both have the same Open MPI")]
    WrongSum {
        /// A host.
        a: String,
        /// The other.
        b: String,
    },
    /// It ended early, or had to be stopped.
    #[error(
        "the hosts do not work together: {who}{}: {words}",
        after.map_or_else(String::new, |seconds| format!(" (stopped after {seconds} s)"))
    )]
    Failed {
        /// Which hosts did not report.
        who: String,
        /// When it was stopped, in seconds.
        after: Option<u64>,
        /// What mpirun or a worker said about it.
        words: String,
    },
}

/// Measures the connections between the plan's hosts. Afterwards nothing that it started is left here; on other hosts the
/// workers end with mpirun's daemons.
pub fn run(plan: &Plan) -> Result<Connections, ExchangeError> {
    let hosts: Vec<String> = plan.nodes.iter().map(|node| node.host.clone()).collect();
    let failed = |e: io::Error| ExchangeError::NotStarted { problem: e.to_string() };
    let token = processes::new_token().map_err(failed)?;
    let pairs = u32::try_from(protocol::pairs::pairs_of(hosts.len()).len()).unwrap_or(u32::MAX);
    let said = collect(plan, &token, WITHIN + OF_PAIR * pairs);
    processes::kill_carriers(&token, STOPS);
    pairs::judge(&hosts, &said.map_err(failed)?)
}

fn collect(plan: &Plan, token: &str, within: Duration) -> io::Result<Said> {
    let mut mpirun = spawn(plan, token)?;
    let until = Instant::now() + within;
    let (sender, lines) = unbounded();
    read(mpirun.stdout.take(), sender.clone());
    read(mpirun.stderr.take(), sender);
    let mut said = Said::default();
    // The output ends when mpirun and all who hold it have ended.
    let late = take(&mut said, &lines, until);
    if late {
        said.stopped_after = Some(within.as_secs());
        let _ = kill(Pid::from_raw(mpirun.id().cast_signed()), Signal::SIGTERM);
    }
    said.ended_well = end(&mut mpirun)? && !late;
    take(&mut said, &lines, Instant::now() + REST);
    Ok(said)
}

/// In a process group of its own, as the job's is: Ctrl-C at the terminal reaches the launcher alone.
fn spawn(plan: &Plan, token: &str) -> io::Result<Child> {
    let line = command_line(plan);
    let (program, arguments) = line.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).envs(plan.mpirun_env.iter().cloned()).env(env::JCS_TOKEN, token);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.spawn()
}

/// mpirun as the job's, with one worker a host. Pure.
fn command_line(plan: &Plan) -> Vec<String> {
    let worker = plan.workers.first().and_then(|worker| worker.command.first()).cloned().unwrap_or_default();
    let hosts = plan.nodes.len();
    let mut line = plan.mpirun.clone();
    for (rank, node) in plan.nodes.iter().enumerate() {
        if rank > 0 {
            line.push(":".into());
        }
        line.extend(["--host", &format!("{}:1", node.host), "-np", "1", "/usr/bin/env"].map(String::from));
        let place = [
            (env::RANK, rank),
            (env::WORLD_SIZE, hosts),
            (env::LOCAL_RANK, 0),
            (env::LOCAL_WORLD_SIZE, 1),
            (env::NODE_RANK, rank),
            (env::OMP_NUM_THREADS, 1),
        ];
        line.extend(place.iter().map(|(name, value)| format!("{name}={value}")));
        line.extend([worker.clone(), "preflight".into()]);
    }
    line
}

fn read(stream: Option<impl Read + Send + 'static>, sender: Sender<String>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    });
}

/// Takes lines to their end; `true` where the time is up first.
fn take(said: &mut Said, lines: &Receiver<String>, until: Instant) -> bool {
    loop {
        match lines.recv_deadline(until) {
            Ok(line) => match Report::read(&line) {
                Some(report) => said.reports.push(report),
                None if said.others.len() < LINES => said.others.push(line),
                None => {}
            },
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Whether mpirun ended well, by itself; one that does not end is killed.
fn end(mpirun: &mut Child) -> io::Result<bool> {
    let until = Instant::now() + STOPS;
    while Instant::now() < until {
        if let Some(status) = mpirun.try_wait()? {
            return Ok(status.success());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = killpg(Pid::from_raw(mpirun.id().cast_signed()), Signal::SIGKILL);
    mpirun.wait().map(|_| false)
}
