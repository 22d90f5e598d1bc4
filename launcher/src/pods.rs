//! Agents in place of ssh, from the command line: who is one, how they come to be held, and how they hear of the end.

use crate::Ready;
use crate::agent::hold::Holds;
use crate::agent::key::Key;
use crate::agent::{self, serve};
use crate::attempt::Event;
use crate::cli::{AGENT_PORT, Cli, Reach};
use crate::machine::Machine;
use crate::nodes::{self, K8S, k8s};
use crate::options::SSH_VARIABLE;
use crate::plan::PlanError;
use crate::report::complain;
use crate::signals::{self, Arrived};
use crossbeam_channel::Receiver;
use protocol::Exit;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// How long the agents may take to be there: a cluster may have to start machines and fetch an image for them.
const WITHIN: Duration = Duration::from_secs(600);
/// How much longer those are waited for that the job can do without.
const OTHERS: Duration = Duration::from_secs(15);
/// Between two lines about those that are not there.
const REMINDER: Duration = Duration::from_secs(60);
/// Between two looks at who is there.
const LOOK: Duration = Duration::from_millis(200);

/// `jcs-launch agent`: until the job ends, with its exit code.
pub fn agent(key: &Path, port: u16) -> ExitCode {
    let say = |text: &str| complain(&format!("agent: {text}"));
    let refuse = |text: &str| {
        say(&format!("{text}; exit code {}", Exit::Usage.code()));
        Exit::Usage.into()
    };
    let key = match Key::read(key) {
        Ok(key) => key,
        Err(error) => return refuse(&error.to_string()),
    };
    let listener = match serve::listen(port) {
        Ok(listener) => listener,
        Err(error) => return refuse(&format!("cannot listen on port {port}: {error}")),
    };
    // Another host cannot have the name of a pod.
    let own = k8s::Variables::of_process().index.map(|_| Machine::look().host);
    let served = signals::listen().and_then(|(_, signals)| {
        say(&format!("waiting for the launcher on port {port}"));
        serve::serve(listener, key, own, &signals, say)
    });
    match served {
        Ok(code) => ExitCode::from(code),
        Err(error) => refuse(&error.to_string()),
    }
}

/// The program in ssh's place.
pub fn reach(args: &Reach) -> ExitCode {
    let say = |text: &str| complain(&format!("reach: {text}"));
    match Key::read(&args.key) {
        Ok(key) => agent::reach::run(&args.host, args.port, &key, &args.command.join(" "), say).into(),
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(u8::MAX)
        }
    }
}

/// All pods of a Job are started alike: all but the first are agents.
pub fn as_agent(cli: &Cli) -> Option<ExitCode> {
    if cli.nodes.as_deref() != Some(K8S) || cli.dry_run {
        return None;
    }
    let pods = k8s::pods(&k8s::Variables::of_process(), &Machine::look().host).ok().filter(|pods| pods.index > 0)?;
    let Some(key) = &cli.agent else {
        complain(&format!(
            "pod {} needs --agent FILE (JCS_AGENT), the key of the agents; exit code {}",
            pods.index,
            Exit::Usage.code()
        ));
        return Some(Exit::Usage.into());
    };
    match port() {
        Ok(port) => Some(agent(key, port)),
        Err(error) => {
            complain(&format!("{error}; exit code {}", Exit::Usage.code()));
            Some(Exit::Usage.into())
        }
    }
}

fn port() -> Result<u16, PlanError> {
    match std::env::var(AGENT_PORT) {
        Ok(text) => text.parse().map_err(|_| PlanError::AgentOptions(format!("{AGENT_PORT}={text}: expected a port"))),
        Err(_) => Ok(agent::PORT),
    }
}

/// The agents, held, and the signals from now on.
pub type Held = (Holds, Receiver<Arrived>);

/// Where there are agents: puts the way through them in ssh's place, holds those of all other hosts that may take part, and waits until as
/// many are there as the job needs, and a little for the others.
pub fn hold(cli: &Cli, ready: &Ready) -> Result<Option<Held>, PlanError> {
    let Some(file) = &cli.agent else { return Ok(None) };
    let key = Key::read(file)?;
    let port = port()?;
    let here = Machine::look().host;
    let of_slurm = std::env::var("SLURMD_NODENAME").ok();
    let is_other = |host: &String| !nodes::is_name_of(host, &here) && of_slurm.as_ref() != Some(host);
    let shares = &ready.muster.shares;
    let others: Vec<String> = shares.iter().map(|share| share.host.clone()).filter(is_other).collect();
    if others.is_empty() || ready.plan.reach != nodes::Reach::Ssh {
        return Ok(None);
    }
    in_place_of_ssh(file, port)?;
    let failed = |error: std::io::Error| PlanError::Agents(format!("cannot reach the agents: {error}"));
    let (asked, signals) = signals::listen().map_err(failed)?;
    let holds = Holds::take(&others, port, &key, &asked).map_err(failed)?;
    complain(&format!(
        "waiting for the agents of {} other hosts, for {} s at the most",
        others.len(),
        WITHIN.as_secs()
    ));
    // Whether the job can do with fewer is told by the preflight.
    let least = if cli.no_preflight { shares.len() } else { ready.muster.roster.least() };
    match gather(&holds, least.saturating_sub(shares.len() - others.len()), &signals) {
        Ok(()) => Ok(Some((holds, signals))),
        Err(error) => {
            say_who_is_deaf(&holds.farewell(code(error.exit())));
            Err(error)
        }
    }
}

/// Waits for the agents: for `least` of them, and a little for the others.
fn gather(holds: &Holds, least: usize, signals: &Receiver<Arrived>) -> Result<(), PlanError> {
    let (began, mut enough, mut told) = (Instant::now(), None, Instant::now());
    loop {
        let missing = holds.missing();
        if told.elapsed() > REMINDER && !missing.is_empty() {
            told = Instant::now();
            let names: Vec<&str> = missing.iter().map(|host| host.host.as_str()).collect();
            complain(&format!("{} s: still waiting for {}", began.elapsed().as_secs(), names.join(", ")));
        }
        let Some(first) = missing.first() else { return Ok(()) };
        let is_enough = holds.len() - missing.len() >= least;
        enough = if is_enough { enough.or(Some(Instant::now())) } else { None };
        let is_hopeless = missing.iter().all(|host| host.is_hopeless);
        if is_enough && (is_hopeless || enough.is_some_and(|since| since.elapsed() > OTHERS)) {
            return Ok(());
        }
        if is_hopeless || began.elapsed() > WITHIN {
            let (missing, all) = (missing.len(), holds.len());
            let text =
                format!("{missing} of {all} agents are not there, first that of {}: {}", first.host, first.problem);
            return Err(PlanError::Agents(text));
        }
        match signals.recv_timeout(LOOK) {
            Ok(Arrived { event: Event::MustEnd(signal), .. }) => {
                return Err(PlanError::Stopped(Exit::Signal(u8::try_from(signal).unwrap_or(u8::MAX))));
            }
            Ok(Arrived { event: Event::Leaving(host), .. }) if least < holds.len() => {
                complain(&format!("{host} has left before the job began"));
                part_with(holds, &[host]);
            }
            Ok(_) => return Err(PlanError::Stopped(Exit::Preempted)),
            Err(_) => {}
        }
    }
}

/// mpirun and the preflight take the program in ssh's place from a variable, which has to be there from the start.
fn in_place_of_ssh(key: &Path, port: u16) -> Result<(), PlanError> {
    let failed = |error: std::io::Error| PlanError::Agents(format!("cannot start again with the agents: {error}"));
    // A Secret's file is a link that leads elsewhere after each change.
    let (own, key) = (std::env::current_exe().map_err(failed)?, std::path::absolute(key).map_err(failed)?);
    let words = format!("{} reach --key {} --port {port}", own.display(), key.display());
    // For PRRTE a colon is between two programs to choose from.
    if words.split_whitespace().count() != 6 || words.contains(':') {
        return Err(PlanError::AgentOptions(format!(
            "a path with blanks or colons cannot be passed to mpirun: {words}"
        )));
    }
    if std::env::var(SSH_VARIABLE).is_ok_and(|set| set == words) {
        return Ok(());
    }
    Err(failed(Command::new(own).args(std::env::args_os().skip(1)).env(SSH_VARIABLE, words).exec()))
}

/// These hosts leave, and the job goes on.
pub fn part_with(holds: &Holds, hosts: &[String]) {
    say_who_is_deaf(&holds.part_with(hosts, code(Exit::Preempted)));
}

fn code(exit: Exit) -> u8 {
    u8::try_from(exit.code()).unwrap_or(u8::MAX)
}

/// The job is over.
pub fn farewell(holds: Option<&Holds>, exit: Exit) {
    say_who_is_deaf(&holds.map(|holds| holds.farewell(code(exit))).unwrap_or_default());
}

fn say_who_is_deaf(deaf: &[String]) {
    if !deaf.is_empty() {
        complain(&format!("these agents may not have heard that the job is over: {}", deaf.join(", ")));
    }
}
