//! Runs a script of /bin/sh on a host, by whatever means the job reaches it: here, over ssh, or through Slurm's srun. Knows
//! nothing of what the scripts are for, prints nothing, and always ends by its deadline.

use crate::addresses;
use crate::machine::Machine;
use crate::nodes::{Reach, is_name_of};
use crate::options::SSH_VARIABLE;
use crossbeam_channel::{Receiver, bounded, unbounded};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Hosts that are asked at once.
const AT_ONCE: usize = 128;
/// How long the resolver may take to say whether a name is this machine's.
const RESOLVING: Duration = Duration::from_secs(3);
/// More output than this is not read.
const LONGEST: u64 = 1 << 20;
/// How long the rest of the output may take after the end: a shared connection of ssh (ControlMaster) keeps it open.
const REST: Duration = Duration::from_millis(300);
/// How long srun may take to end its task on the host, once it is asked to.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often an end is looked for: at first, and at the longest.
const POLL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(8));

/// No output, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The program that reaches hosts does not start.
    #[error("{program} does not start: {problem}")]
    NotStarted {
        /// ssh, srun or /bin/sh.
        program: String,
        /// Why.
        problem: String,
    },
    /// The host was not reached, or the script failed.
    #[error("not reached {way}: {problem}")]
    NotReached {
        /// `over ssh`, `through srun`.
        way: &'static str,
        /// The last words of the program that reaches hosts, else its exit code.
        problem: String,
    },
    /// The deadline has passed.
    #[error("no answer {way} within {:.0} s", within.as_secs_f64())]
    Late {
        /// `over ssh`, `through srun`.
        way: &'static str,
        /// The time that it had.
        within: Duration,
        /// What the script had printed.
        said: String,
    },
}

/// How long a host may take: one that is away says nothing, one that is slow has said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until anything comes.
    pub first: Duration,
    /// Until all has come; not less.
    pub whole: Duration,
}

impl Patience {
    /// What is left of it.
    pub fn after(self, time: Duration) -> Patience {
        Patience { first: self.first.saturating_sub(time), whole: self.whole.saturating_sub(time) }
    }
}

impl From<Duration> for Patience {
    fn from(within: Duration) -> Patience {
        Patience { first: within, whole: within }
    }
}

/// Runs `script` on `host` and returns what it prints on standard output, at most a mebibyte. The script comes on standard
/// input: nothing of it stands on a command line. By [`Reach::Here`] it runs on this machine, whatever `host` says; by another way
/// it does so only through that: see [`way_to`].
pub fn run(reach: Reach, host: &str, script: &str, patience: impl Into<Patience>) -> Result<String, RemoteError> {
    let patience = patience.into();
    let words = agent(reach, host, patience.first);
    let (program, arguments) = words.split_first().ok_or_else(|| not_started("", "no such program"))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if reach == Reach::Here {
        // So that what the script started can be ended with it.
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|e| not_started(program, &e.to_string()))?;
    let (out, err) = (drain(child.stdout.take()), drain(child.stderr.take()));
    feed(child.stdin.take(), script);
    let within = || if out.is_empty() { patience.first } else { patience.whole };
    let status = wait(&mut child, within).map_err(|e| not_started(program, &e.to_string()))?;
    let way = way(reach);
    match status {
        Some(status) if status.success() => Ok(said(&out)),
        Some(status) => Err(RemoteError::NotReached { way, problem: last_words(&said(&err), status) }),
        None => {
            let within = within();
            end(&mut child, reach);
            Err(RemoteError::Late { way, within, said: said(&out) })
        }
    }
}

/// Runs a script on each of the hosts, many at a time; all answers are there after `within`, in the order of the hosts.
/// The script may depend on the host.
pub fn run_all(
    hosts: &[(Reach, &str)],
    script: impl Fn(&str) -> String + Sync,
    within: Duration,
) -> Vec<Result<String, RemoteError>> {
    let until = Instant::now() + within;
    in_parallel(hosts, |(reach, host)| {
        run(*reach, host, &script(host), until.saturating_duration_since(Instant::now()))
    })
}

/// How a host of a job is reached: [`Reach::Here`] where it is this machine, by its name, by Slurm's name for it, or by its
/// addresses. May ask the resolver.
pub fn way_to(host: &str, reach: Reach, machine: &Machine) -> Reach {
    let slurms = || std::env::var("SLURMD_NODENAME").is_ok_and(|name| name == host);
    if is_name_of(host, &machine.host) || reach == Reach::Slurm && slurms() {
        return Reach::Here;
    }
    let (sender, answer) = bounded(1);
    let (host, machine) = (host.to_owned(), machine.clone());
    // The resolver has a patience of its own, which nothing shortens.
    std::thread::spawn(move || sender.send(addresses::is_here(&host, &machine)));
    if answer.recv_timeout(RESOLVING).unwrap_or(false) { Reach::Here } else { reach }
}

/// Applies `work` to all items, many at a time, and returns the results in the order of the items.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (left, done) = (Mutex::new(items.iter().enumerate()), Mutex::new(Vec::with_capacity(items.len())));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..items.len().min(AT_ONCE) {
            scope.spawn(|| {
                while let Some((i, item)) = next() {
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((i, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The command that feeds its standard input to a shell on `host`.
fn agent(reach: Reach, host: &str, within: Duration) -> Vec<String> {
    match reach {
        Reach::Here => words("/bin/sh -s"),
        Reach::Slurm => slurm_agent(host, within),
        Reach::Ssh => [ssh_agent(within), vec![host.into(), "/bin/sh -s".into()]].concat(),
    }
}

/// The user's replacement for ssh, or ssh, which gives up on connecting in time to say why.
fn ssh_agent(within: Duration) -> Vec<String> {
    let given = std::env::var(SSH_VARIABLE).ok().filter(|agent| !agent.trim().is_empty());
    let own = || format!("ssh -x -T -o BatchMode=yes -o ConnectTimeout={}", (within.as_secs() * 2 / 3).max(1));
    words(&given.unwrap_or_else(own))
}

/// A step beside whatever runs in the allocation, on what that has: no processors, memory or GPUs of its own.
fn slurm_agent(host: &str, within: Duration) -> Vec<String> {
    let seconds = (within.as_secs() * 2 / 3).max(1);
    let mut all = words("srun --quiet --overlap --mpi=none --cpu-bind=none --mem=0 --nodes=1 --ntasks=1");
    all.extend([format!("--nodelist={host}"), format!("--immediate={seconds}")]);
    all.extend(words("/bin/sh -s"));
    all
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

fn way(reach: Reach) -> &'static str {
    match reach {
        Reach::Here => "from /bin/sh",
        Reach::Ssh => "over ssh",
        Reach::Slurm => "through srun",
    }
}

fn not_started(program: &str, problem: &str) -> RemoteError {
    RemoteError::NotStarted { program: program.into(), problem: problem.into() }
}

/// In a thread, because nobody may read; the pipe breaks at the latest when the reader is killed.
fn feed(input: Option<impl Write + Send + 'static>, script: &str) {
    let text = script.to_owned();
    std::thread::spawn(move || input.map(|mut input| input.write_all(text.as_bytes())));
}

/// Passes the output on as it comes, so that what came before a deadline is known.
fn drain(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = unbounded();
    std::thread::spawn(move || {
        let Some(mut stream) = stream.map(|stream| stream.take(LONGEST)) else { return };
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut part) {
            let _ = sender.send(part[..n].to_vec());
        }
        // What is more than enough must not stop who writes it.
        let _ = io::copy(&mut stream.into_inner(), &mut io::sink());
    });
    receiver
}

fn said(from: &Receiver<Vec<u8>>) -> String {
    let until = Instant::now() + REST;
    let mut all = Vec::new();
    while let Ok(part) = from.recv_deadline(until) {
        all.extend(part);
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn last_words(text: &str, status: ExitStatus) -> String {
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map_or_else(|| status.to_string(), String::from)
}

/// `None` where the time that it may take, which is asked again and again, is over first.
fn wait(child: &mut Child, within: impl Fn() -> Duration) -> io::Result<Option<ExitStatus>> {
    let (began, mut pause) = (Instant::now(), POLL.0);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = within().saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(POLL.1);
    }
}

/// Ends what was started, on the other host too: srun takes its task with it only when it is asked to end.
fn end(child: &mut Child, reach: Reach) {
    let pid = Pid::from_raw(child.id().cast_signed());
    if reach == Reach::Here {
        let _ = killpg(pid, Signal::SIGKILL);
    } else {
        let _ = kill(pid, Signal::SIGTERM);
        let _ = wait(child, || FAREWELL);
    }
    let _ = child.kill();
    // Something that not even SIGKILL ends, as on a file system whose server is gone, is left to itself.
    let _ = wait(child, || FAREWELL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(script: &str, within: f64) -> Result<String, RemoteError> {
        run(Reach::Here, "x", script, Duration::from_secs_f64(within))
    }

    #[test]
    fn a_script_prints_and_its_failure_speaks() {
        assert_eq!(here("echo a; echo \"b c\" >&2; echo d", 5.0).unwrap(), "a\nd\n");
        assert_eq!(
            here("echo first >&2; echo last words >&2; exit 3", 5.0).unwrap_err().to_string(),
            "not reached from /bin/sh: last words"
        );
        assert!(here("exit 3", 5.0).unwrap_err().to_string().ends_with("exit status: 3"));
    }

    #[test]
    fn a_deadline_ends_all_that_the_script_started_and_keeps_what_it_said() {
        let began = Instant::now();
        let error = here("echo begun; sleep 98765", 0.3).unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let RemoteError::Late { said, .. } = error else { panic!("{error}") };
        assert_eq!(said, "begun\n");
        let lines = std::fs::read_dir("/proc").unwrap().flatten();
        let left = lines.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok()).any(|l| l == b"sleep\x0098765\0");
        assert!(!left, "sleep is left");
    }

    #[test]
    fn whoever_has_said_something_is_slow_and_not_away() {
        let patience = Patience { first: Duration::from_secs(2), whole: Duration::from_secs(60) };
        assert_eq!(run(Reach::Here, "x", "echo a; sleep 2.5; echo b", patience).unwrap(), "a\nb\n");
        let error = run(Reach::Here, "x", "sleep 98766; echo a", patience).unwrap_err();
        assert_eq!(error, RemoteError::Late { way: "from /bin/sh", within: patience.first, said: String::new() });
        let patience = Patience { whole: Duration::from_millis(2500), ..patience };
        let error = run(Reach::Here, "x", "echo a; sleep 98767", patience).unwrap_err();
        assert_eq!(error, RemoteError::Late { way: "from /bin/sh", within: patience.whole, said: "a\n".into() });
    }

    #[test]
    fn output_without_end_is_cut() {
        let text = here("yes | head -c 3000000", 20.0).unwrap();
        assert_eq!(text.len() as u64, LONGEST);
    }

    #[test]
    fn all_hosts_are_asked_at_once_and_answer_in_order() {
        let hosts: Vec<String> = (0..20).map(|i| format!("h{i}")).collect();
        let hosts: Vec<(Reach, &str)> = hosts.iter().map(|host| (Reach::Here, host.as_str())).collect();
        let began = Instant::now();
        let all = run_all(&hosts, |host| format!("sleep 0.3; echo {host}"), Duration::from_secs(10));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let expected: Vec<String> = hosts.iter().map(|(_, host)| format!("{host}\n")).collect();
        assert_eq!(all.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn this_machine_needs_no_way() {
        let machine = Machine::look();
        assert_eq!(way_to(&machine.host, Reach::Ssh, &machine), Reach::Here);
        assert_eq!(way_to("127.0.0.1", Reach::Ssh, &machine), Reach::Here);
        assert_eq!(way_to("192.0.2.77", Reach::Slurm, &machine), Reach::Slurm);
    }

    #[test]
    fn ssh_gives_up_on_connecting_before_the_deadline() {
        if std::env::var_os(SSH_VARIABLE).is_none() {
            assert!(agent(Reach::Ssh, "h", Duration::from_secs(6)).join(" ").contains("ConnectTimeout=4 h /bin/sh -s"));
        }
        let slurm = agent(Reach::Slurm, "n1", Duration::from_secs(15)).join(" ");
        assert!(slurm.ends_with("--nodelist=n1 --immediate=10 /bin/sh -s"), "{slurm}");
    }
}
