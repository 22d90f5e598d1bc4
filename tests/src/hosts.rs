//! Hosts that are real to the network, on one machine: namespaces joined by a bridge, each with its own address, host name,
//! processes, /tmp, /dev/shm and (but for bare ones) sshd. Whatever way the test ends, they are gone: the kernel kills the first process of each
//! when the test's thread ends, and with it all others and the network.

use crate::{Bench, binary, repository, skip};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const HOST: &str = include_str!("host.sh");
const HUB: &str = "set -e; ip link set lo up; ip link add br0 type bridge; ip link set br0 up; exec sleep infinity";
const SSHD: &str = "/usr/sbin/sshd";
/// What is needed, and the Debian package that has it.
const TOOLS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    (SSHD, "openssh-server"),
];

/// Some hosts and the bridge between them.
pub struct Hosts {
    folder: TempDir,
    hub: Space,
    hosts: Vec<Space>,
}

/// Which addresses the hosts' names lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 10.77.0.N
    V4,
    /// fd77::N, and there is no other.
    V6,
}

/// A set of namespaces: the process that keeps it, and the first one in it.
struct Space {
    keeper: Child,
    first: Pid,
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

impl Hosts {
    /// Makes `count` hosts, `host1`, `host2` and so on, which share the bench's folder and the programs. `None`, said by
    /// name, where the machine does not let it; where only a tool is missing, that is a failure in CI.
    pub fn new(test: &str, count: usize, family: Family, bench: &Bench) -> Option<Hosts> {
        let hosts = Hosts::open(test, count, family, "ssh", bench)?;
        hosts.await_ssh();
        Some(hosts)
    }

    /// As [`Self::new`], with IPv4 and without any sshd: nothing but the first process runs there.
    pub fn bare(test: &str, count: usize, bench: &Bench) -> Option<Hosts> {
        Hosts::open(test, count, Family::V4, "bare", bench)
    }

    fn open(test: &str, count: usize, family: Family, kind: &str, bench: &Bench) -> Option<Hosts> {
        if let Err(why) = namespaces() {
            crate::skip::cannot_run(test, &format!("no namespaces on this machine: {why}"));
            return None;
        }
        if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| !exists(tool)) {
            skip(test, &format!("no {tool} (package {package})"));
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path(), count, family);
        let hub = Space::open(&["-c", HUB].map(OsStr::new));
        let mut hosts = Hosts { folder, hub, hosts: Vec::new() };
        for i in 1..=count {
            hosts.add(i, family, kind, bench);
        }
        hosts.await_first();
        Some(hosts)
    }

    fn add(&mut self, i: usize, family: Family, kind: &str, bench: &Bench) {
        let name = format!("host{i}");
        let (programs, repository) = (binary("jcs").parent().unwrap().to_owned(), repository());
        // It may be a link to another checkout's.
        let libraries = repository.join(".deps").canonicalize().unwrap_or_else(|_| repository.clone());
        let shared = [bench.path(), &programs, &repository, &libraries];
        let shared = shared.iter().filter(|path| path.starts_with("/tmp")).map(|path| path.as_os_str());
        let arguments = ["-c", HOST, "host.sh", &name, kind].map(OsStr::new).into_iter();
        let arguments: Vec<&OsStr> = arguments.chain([self.folder.path().as_os_str()]).chain(shared).collect();
        let host = Space::open(&arguments);
        let (port, first) = (format!("p{i}"), host.first.to_string());
        self.hub.ip(&["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &first]);
        self.hub.ip(&["link", "set", &port, "master", "br0", "up"]);
        host.ip(&["link", "set", "eth0", "up"]);
        match family {
            Family::V4 => host.ip(&["addr", "add", &format!("10.77.0.{i}/24"), "dev", "eth0"]),
            Family::V6 => host.ip(&["addr", "add", &format!("fd77::{i}/64"), "dev", "eth0", "nodad"]),
        }
        self.hosts.push(host);
    }

    /// Until each has its name and its mounts.
    fn await_first(&self) {
        let start = Instant::now();
        for i in 1..=self.hosts.len() {
            while !self.folder.path().join(format!("ready-host{i}")).exists() {
                assert!(start.elapsed() < Duration::from_secs(10), "host{i} does not come to be");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn await_ssh(&self) {
        let start = Instant::now();
        for i in 1..=self.hosts.len() {
            while !self.run(1, "ssh", &[&format!("host{i}"), "true"]).status.success() {
                assert!(start.elapsed() < Duration::from_secs(20), "no ssh to host{i}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// A program on host `i` (from 1).
    pub fn command(&self, i: usize, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.hosts[i - 1].enter(&["--mount", "--uts", "--ipc", "--net", "--pid"]);
        command.arg(program).env_remove("TMPDIR").stdin(Stdio::null());
        command
    }

    /// Runs a program on host `i` to its end.
    pub fn run(&self, i: usize, program: &str, arguments: &[&str]) -> Output {
        self.command(i, program).args(arguments).output().unwrap()
    }

    /// `jcs-launch` on host 1, in the bench's folder, one OpenMP thread a worker.
    pub fn launch(&self, bench: &Bench, arguments: &[&str]) -> Command {
        let mut command = self.command(1, "env");
        command.arg("-C").arg(bench.path()).arg(binary("jcs-launch")).args(arguments);
        command.env("OMP_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// An interface on host `i` that every host has with this same address, as container engines make one.
    pub fn add_host_bridge(&self, i: usize, name: &str, address: &str) {
        let host = &self.hosts[i - 1];
        host.ip(&["link", "add", name, "type", "bridge"]);
        host.ip(&["link", "add", "inside", "type", "veth", "peer", "name", "outside"]);
        host.ip(&["link", "set", "inside", "master", name, "up"]);
        host.ip(&["link", "set", "outside", "up"]);
        host.ip(&["addr", "add", address, "dev", name]);
        host.ip(&["link", "set", name, "up"]);
    }

    /// Slows down what comes to host `i` over the network to so much (`100mbit`); `false` where there is no `tc`.
    pub fn slow_down(&self, i: usize, rate: &str) -> bool {
        let shape =
            ["qdisc", "add", "dev", &format!("p{i}"), "root", "tbf", "rate", rate, "burst", "64kb", "latency", "200ms"];
        exists("tc") && self.hub.enter(&["--net"]).arg("tc").args(shape).status().is_ok_and(|status| status.success())
    }

    /// Takes host `i` off the network.
    pub fn cut_off(&self, i: usize) {
        self.hub.ip(&["link", "set", &format!("p{i}"), "down"]);
    }

    /// Puts host `i` on the network again.
    pub fn reconnect(&self, i: usize) {
        self.hub.ip(&["link", "set", &format!("p{i}"), "up"]);
    }

    /// The processes on host `i` besides its own sshd: pid as seen from here, and command line.
    pub fn processes(&self, i: usize) -> Vec<(Pid, String)> {
        let host = &self.hosts[i - 1];
        let space = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = space(host.first);
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
        let inside = pids.filter(|pid| *pid != host.first && space(*pid) == own);
        let line = |pid: Pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = |pid| String::from_utf8_lossy(&line(pid)).replace('\0', " ").trim().to_owned();
        // Zombies have no command line; a bare host's first process waits for one that sleeps.
        inside.map(|pid| (pid, text(pid))).filter(|(_, line)| !line.is_empty() && line != "sleep infinity").collect()
    }

    /// The workers on host `i`.
    pub fn workers(&self, i: usize) -> Vec<Pid> {
        let jcs = binary("jcs");
        let is_jcs = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == jcs);
        self.processes(i).into_iter().map(|(pid, _)| pid).filter(|pid| is_jcs(*pid)).collect()
    }

    /// A folder that all hosts and this machine see.
    pub fn shared(&self) -> &Path {
        self.folder.path()
    }

    /// Asserts that every host has nothing but its sshd 10 seconds from now.
    pub fn assert_nothing_left(&self) {
        let start = Instant::now();
        let left = || (1..=self.hosts.len()).flat_map(|i| self.processes(i)).collect::<Vec<_>>();
        while !left().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "left after 10 s: {:#?}", left());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The launcher itself, of a command of [`Self::launch`].
    pub fn launcher(&self) -> Pid {
        self.find_launcher().expect("jcs-launch runs on host1")
    }

    /// As [`Self::launcher`], if it runs.
    pub fn find_launcher(&self) -> Option<Pid> {
        let launcher = binary("jcs-launch");
        let is = |pid: Pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == launcher);
        self.processes(1).into_iter().map(|(pid, _)| pid).find(|pid| is(*pid))
    }
}

impl Space {
    /// New namespaces in which /bin/sh runs with these arguments.
    fn open(arguments: &[&OsStr]) -> Space {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--ipc", "--pid"]);
        command.args(["--fork", "--kill-child=KILL", "/bin/sh"]).args(arguments);
        let keeper = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let first = first_child(&keeper);
        Space { keeper, first }
    }

    fn enter(&self, spaces: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string()]).args(spaces).arg("--");
        command
    }

    fn ip(&self, arguments: &[&str]) {
        let start = Instant::now();
        loop {
            let out = self.enter(&["--net"]).arg("ip").args(arguments).output().unwrap();
            if out.status.success() {
                return;
            }
            // The first process may not have made the bridge yet.
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(start.elapsed() < Duration::from_secs(5), "ip {arguments:?}: {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn first_child(keeper: &Child) -> Pid {
    let start = Instant::now();
    loop {
        let id = keeper.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        if let Some(pid) = children.split_whitespace().next().and_then(|pid| pid.parse().ok()) {
            return Pid::from_raw(pid);
        }
        assert!(start.elapsed() < Duration::from_secs(5), "unshare started nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether this process may make namespaces, and bridges in them.
fn namespaces() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("this user is not root".into());
    }
    let script = "mount -t tmpfs tmpfs /mnt && ip link add br0 type bridge";
    let spaces = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "/bin/sh", "-c", script];
    let out = Command::new("unshare").args(spaces).output().map_err(|e| format!("unshare: {e}"))?;
    if out.status.success() || !exists("ip") {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&out.stderr).trim().to_owned())
}

/// Whether a program is there, by its path or on PATH.
pub fn exists(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(tool).is_absolute() && Path::new(tool).is_file()
        || std::env::split_paths(&path).any(|folder: PathBuf| folder.join(tool).is_file())
}

/// One key for everything: the hosts' own and the user's.
fn write_files(folder: &Path, count: usize, family: Family) {
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let out = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path("key")]).output().unwrap();
    assert!(out.status.success(), "{}", crate::text(&out));
    let key = std::fs::read_to_string(path("key.pub")).unwrap();
    let key: Vec<&str> = key.split_whitespace().take(2).collect();
    let (mut names, mut known) = ("127.0.0.1 localhost\n::1 localhost\n".to_owned(), String::new());
    for i in 1..=count {
        let address = if family == Family::V4 { format!("10.77.0.{i}") } else { format!("fd77::{i}") };
        names += &format!("{address} host{i}\n");
        known += &format!("host{i},{address} {}\n", key.join(" "));
    }
    let client = format!(
        "Host *\n  IdentityFile {}\n  UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n  BatchMode yes\n",
        path("key"),
        path("known_hosts")
    );
    let server = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n",
        path("key"),
        path("key.pub")
    );
    let files = [("hosts", names), ("known_hosts", known), ("ssh_config", client), ("sshd_config", server)];
    files.into_iter().for_each(|(name, text)| std::fs::write(path(name), text).unwrap());
}

/// Sends SIGKILL, if the process is still there.
pub fn kill(pid: Pid) {
    match nix::sys::signal::kill(pid, Signal::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("SIGKILL to {pid}: {error}"),
    }
}
