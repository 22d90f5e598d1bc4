//! Pods, one on each host of [`Hosts`], from the rendered Job of `k8s/`: the container's command, environment and mounts, a host
//! name as an Indexed Job gives it, a user without a name, a read-only root. What schedules and replaces pods is the test.

use crate::hosts::Hosts;
use crate::{Bench, binary, repository};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const POD: &str = include_str!("pod.sh");
/// Where a host makes a container's root.
const ROOT: &str = "/mnt";
/// As OpenShift assigns them.
const USER: &str = "1000730000";

/// A rendered Job, and where its pods run.
pub struct Pods<'a> {
    hosts: &'a Hosts,
    bench: &'a Bench,
    overlay: &'a str,
    /// Added to the arguments of every pod.
    pub settings: Vec<String>,
    /// In place of the manifest's, or beside it.
    pub env: Vec<(String, String)>,
}

/// A pod that runs.
pub struct Pod {
    child: Child,
    /// Its number.
    pub index: usize,
    said: PathBuf,
    /// How much those before it have said there.
    before: usize,
    /// The file of its last words.
    pub termination: PathBuf,
}

impl<'a> Pods<'a> {
    /// Of an overlay, `base` or a name in `k8s/overlays`. Volumes are folders of the bench: `runs` and `shards`.
    pub fn new(hosts: &'a Hosts, bench: &'a Bench, overlay: &'a str) -> Pods<'a> {
        for volume in ["runs", "shards"] {
            let folder = bench.path().join(volume);
            fs::create_dir_all(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o2775)).unwrap();
        }
        fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(bench.path().join("key"), "c7".repeat(32)).unwrap();
        Pods { hosts, bench, overlay, settings: Vec::new(), env: Vec::new() }
    }

    /// What the manifests say of a pod.
    pub fn manifest(&self, index: usize) -> Value {
        let python = repository().join(".deps/k8s/bin/python");
        let script = repository().join("tests/python/k8s.py");
        let out =
            Command::new(python).arg(script).args(["command", self.overlay, &index.to_string()]).output().unwrap();
        assert!(out.status.success(), "{}", crate::text(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Gives the hosts the names that the Service would give the pods, those of `count`.
    pub fn resolve(&self, count: usize) {
        let manifest = self.manifest(0);
        let host = manifest["host"].as_str().unwrap().strip_suffix("-0").unwrap().to_owned();
        let service = manifest["service"].as_str().unwrap();
        let mut file = fs::File::options().append(true).open(self.hosts.shared().join("hosts")).unwrap();
        for index in 0..count {
            writeln!(file, "10.77.0.{} {host}-{index}.{service} {host}-{index}", index + 1).unwrap();
        }
    }

    /// What pod 0 says of its command line, on this host and without a container, when it is only to plan.
    pub fn dry_run(&self, host: usize) -> Output {
        let manifest = self.manifest(0);
        assert!(self.hosts.run(host, "hostname", &[manifest["host"].as_str().unwrap()]).status.success());
        let volumes = self.volumes(&manifest);
        let config = volumes.iter().find_map(|volume| volume.strip_suffix(":/etc/jcs/config:ro")).unwrap();
        let mut command = self.hosts.command(host, "env");
        command.arg("-i").args(self.variables(&manifest)).arg(binary("jcs-launch")).arg("--dry-run");
        let arguments = words(&manifest["args"]).into_iter();
        command.args(arguments.map(|argument| argument.replace("/etc/jcs/config", config))).output().unwrap()
    }

    /// Starts the pod of this number, on the host one higher.
    pub fn start(&self, index: usize) -> Pod {
        let manifest = self.manifest(index);
        let name = manifest["host"].as_str().unwrap().to_owned();
        assert!(self.hosts.run(index + 1, "hostname", &[&name]).status.success());
        let folder = self.bench.path();
        let (said, termination) = (folder.join(format!("{name}.log")), folder.join(format!("{name}.end")));
        fs::write(&termination, "").unwrap();
        fs::set_permissions(&termination, fs::Permissions::from_mode(0o666)).unwrap();
        let log = fs::File::options().create(true).append(true).open(&said).unwrap();
        let before = log.metadata().unwrap().len() as usize;
        let script = folder.join("pod.sh");
        fs::write(&script, POD).unwrap();
        let mut command = self.hosts.command(index + 1, "unshare");
        command.args(["--mount", "/bin/sh"]).arg(&script).args([ROOT, USER]).arg(self.hosts.shared().join("hosts"));
        command
            .args(self.volumes(&manifest))
            .arg(format!("{}:/dev/termination-log:rw", termination.display()))
            .arg("--");
        command.args([binary("jcs").parent().unwrap(), &repository().join(".deps")]).arg("--");
        command.args(self.variables(&manifest)).args(words(&manifest["command"])).args(words(&manifest["args"]));
        let child =
            command.args(&self.settings).stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null()).spawn();
        Pod { child: child.unwrap(), index, said, before, termination }
    }

    fn volumes(&self, manifest: &Value) -> Vec<String> {
        let folder = self.bench.path();
        let mounts = manifest["mounts"].as_array().unwrap().iter();
        let of = |mount: &Value| {
            let (path, volume) = (mount["path"].as_str().unwrap(), &mount["volume"]);
            let mode = if mount["read_only"] == true { "ro" } else { "rw" };
            let from = if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
                folder.join(claim.strip_prefix("jcs-").unwrap())
            } else if let Some(map) = volume["configMap"]["name"].as_str() {
                let place = folder.join("config");
                fs::create_dir_all(&place).unwrap();
                for (file, text) in manifest["config_maps"][map].as_object().unwrap() {
                    fs::write(place.join(file), text.as_str().unwrap()).unwrap();
                }
                place
            } else if !volume["secret"].is_null() {
                let place = folder.join("agent");
                fs::create_dir_all(&place).unwrap();
                fs::copy(folder.join("key"), place.join("key")).unwrap();
                place
            } else {
                // An emptyDir is the pod's own.
                let place = folder.join(format!("{}{}", manifest["host"].as_str().unwrap(), path.replace('/', "-")));
                let _ = fs::remove_dir_all(&place);
                fs::create_dir_all(&place).unwrap();
                fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
                place
            };
            format!("{}:{path}:{mode}", from.display())
        };
        mounts.map(of).collect()
    }

    fn variables(&self, manifest: &Value) -> Vec<String> {
        let own = manifest["env"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
        let path = format!("{}:/usr/bin:/bin", binary("jcs").parent().unwrap().display());
        let host = manifest["host"].as_str().unwrap().to_owned();
        let image = [("PATH", path), ("HOME", "/tmp".into()), ("HOSTNAME", host), ("OMP_NUM_THREADS", "1".into())];
        let image = image.map(|(name, value): (&str, String)| (name.to_owned(), value));
        // Where the tests' Open MPI is another one than .deps has.
        let mpicc = std::env::var("MPICC").ok().map(|mpicc| ("MPICC".to_owned(), mpicc));
        let all = image.into_iter().chain(mpicc).chain(own).chain(self.env.clone());
        all.map(|(name, value)| format!("{name}={value}")).collect()
    }
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

impl Pod {
    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()[self.before..].to_owned()
    }

    /// The first process of its container.
    pub fn first(&self) -> Pid {
        self.await_process("jcs-launch")
    }

    /// Its worker.
    pub fn worker(&self) -> Pid {
        self.await_process("jcs")
    }

    fn await_process(&self, program: &str) -> Pid {
        let began = Instant::now();
        loop {
            if let Some(pid) = self.find(program) {
                return pid;
            }
            let late = began.elapsed() > Duration::from_secs(20);
            assert!(!late, "pod {} does not start {program}: {}", self.index, self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn find(&self, program: &str) -> Option<Pid> {
        // As it is seen from here: below the root of its mounts, to which it has changed.
        let program = Path::new(ROOT).join(binary(program).strip_prefix("/").unwrap());
        let below = |pid: u32| {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let children = tasks.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
            children.collect::<String>().split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
        };
        let mut found = vec![self.child.id()];
        let mut at = 0;
        while at < found.len() {
            if fs::read_link(format!("/proc/{}/exe", found[at])).is_ok_and(|exe| exe == program) {
                return Some(Pid::from_raw(found[at] as i32));
            }
            found.extend(below(found[at]));
            at += 1;
        }
        None
    }

    /// As the kubelet does before it kills.
    pub fn ask(&self) {
        crate::signal(self.first(), Signal::SIGTERM);
    }

    /// Kills the container at once.
    pub fn kill(&mut self) {
        crate::hosts::kill(self.first());
        let _ = self.child.wait();
    }

    /// How it ends.
    #[track_caller]
    pub fn end(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < within, "pod {} does not end: {}", self.index, self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // The one that is waited for has a child, which would live on.
        if let Some(pid) = self.find("jcs-launch") {
            crate::hosts::kill(pid);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program of the bench's to fill a volume, and lets the pods' group write there.
pub fn fill(bench: &Bench, arguments: &[&str]) -> Output {
    let out = bench.run("data-shards", arguments);
    assert!(out.status.success(), "{}", crate::text(&out));
    out
}

/// Whether the tools that render are there.
pub fn tools(test: &str) -> bool {
    let there = Path::new(&repository().join(".deps/k8s/bin/python")).exists();
    if !there {
        crate::skip(test, "no kubectl and schemas: run setup/k8s.sh");
    }
    there
}
