//! A real Slurm on two hosts without sshd: the example script of docs/slurm trains on both, is stopped before its time limit,
//! goes back to the queue and goes on where it was. Slow, because Slurm thinks in minutes: `make soak` runs it.

use end_to_end::hosts::{Hosts, exists};
use end_to_end::skip::{cannot_run, skip};
use end_to_end::{Bench, binary, repository, text};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is needed, and the Debian package that has it.
const TOOLS: [(&str, &str); 3] =
    [("/usr/sbin/slurmctld", "slurmctld"), ("/usr/sbin/slurmd", "slurmd"), ("sbatch", "slurm-client")];

/// The version that the configuration below is for: Debian 12's.
const KNOWN: &str = "22.05";

/// No key is shared, because nobody else is on this network; a requeued job need not wait for its old credential to expire.
const CONFIG: &str = "
ClusterName=jcs
SlurmctldHost=host1
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=5
ReturnToService=2
KillWait=30
StateSaveLocation=/run/slurm
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
NodeName=host1 NodeAddr=10.77.0.1 CPUs=2 State=UNKNOWN
NodeName=host2 NodeAddr=10.77.0.2 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=host1,host2 Default=YES MaxTime=INFINITE State=UP
";

/// Another version than the known one, where Slurm is installed at all.
fn known_version() -> Result<(), String> {
    let Ok(out) = Command::new(TOOLS[1].0).arg("-V").output() else { return Ok(()) };
    let version = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if version.contains(&format!(" {KNOWN}.")) { Ok(()) } else { Err(version) }
}

/// Two hosts under one slurmctld. Whatever way the test ends, the hosts take Slurm with them.
struct Cluster {
    hosts: Hosts,
    daemons: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.daemons.iter_mut().for_each(|daemon| drop(daemon.kill()));
    }
}

impl Cluster {
    /// `None`, said by name, where the machine has no Slurm or no namespaces.
    fn new(test: &str, bench: &Bench) -> Option<Cluster> {
        if let Err(version) = known_version() {
            // Its configuration may need what this one does not have; nothing can be installed against that.
            cannot_run(test, &format!("tried with Slurm {KNOWN} only, this is {version}"));
            return None;
        }
        if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| !exists(tool)) {
            skip(test, &format!("no {tool} (package {package})"));
            return None;
        }
        let hosts = Hosts::bare(test, 2, bench)?;
        let mut cluster = Cluster { hosts, daemons: Vec::new() };
        std::fs::write(cluster.config(), CONFIG).unwrap();
        cluster.daemon(1, "/usr/sbin/slurmctld");
        cluster.daemon(1, "/usr/sbin/slurmd");
        cluster.daemon(2, "/usr/sbin/slurmd");
        cluster.wait_for("nodes that idle", Duration::from_secs(60), || {
            cluster.ask(&["sinfo", "-h", "-o", "%D %t"]) == "2 idle"
        });
        Some(cluster)
    }

    fn config(&self) -> PathBuf {
        self.hosts.shared().join("slurm.conf")
    }

    fn daemon(&mut self, i: usize, program: &str) {
        self.await_host(i);
        let log = self.hosts.shared().join(format!("{}-{i}.log", program.trim_start_matches("/usr/sbin/")));
        let log = std::fs::File::create(log).unwrap();
        let mut command = self.hosts.command(i, program);
        command.args(["-D", "-v", "-f"]).arg(self.config()).stdout(Stdio::null()).stderr(log);
        self.daemons.push(command.spawn().unwrap());
    }

    /// Its first process makes the name and the mounts.
    fn await_host(&self, i: usize) {
        let ready = || self.hosts.run(i, "sh", &["-c", "hostname; mount | grep ' /run '"]);
        let named = || String::from_utf8_lossy(&ready().stdout).starts_with(&format!("host{i}\ntmpfs"));
        self.wait_for("a host", Duration::from_secs(10), named);
    }

    /// A command of Slurm on host 1, and what it prints.
    fn ask(&self, words: &[&str]) -> String {
        let mut command = self.hosts.command(1, words[0]);
        let out = command.args(&words[1..]).env("SLURM_CONF", self.config()).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Submits an example script for two nodes and returns the job's number.
    fn submit(&self, bench: &Bench, script: &str, options: &[&str], arguments: &[&str]) -> String {
        let mut command = self.hosts.command(1, "sbatch");
        command.args(["--parsable", "--output=job.out", "--chdir"]).arg(bench.path()).args(options);
        command.arg(repository().join("docs/slurm").join(script)).args(arguments);
        command.env("SLURM_CONF", self.config()).env("JCS_LAUNCH", binary("jcs-launch")).env("OMP_NUM_THREADS", "1");
        let programs = binary("jcs-launch").parent().unwrap().to_owned();
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{}:{path}", bench.path().display(), programs.display()));
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn state(&self, job: &str) -> String {
        let all = self.ask(&["scontrol", "show", "job", job]);
        all.split_whitespace().find_map(|word| word.strip_prefix("JobState=")).unwrap_or_default().to_owned()
    }

    fn wait_for(&self, what: &str, within: Duration, condition: impl Fn() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < within, "{what} never came:\n{}", self.story());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The ends of all logs.
    fn story(&self) -> String {
        let logs = std::fs::read_dir(self.hosts.shared())
            .unwrap()
            .flatten()
            .filter(|e| e.path().extension().is_some_and(|x| x == "log"));
        let tail = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(15).collect();
            format!("{}:\n{}\n", path.display(), lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        logs.map(|e| tail(e.path())).collect()
    }

    /// Waits for a job to end and returns what it printed.
    fn finish(&self, bench: &Bench, job: &str) -> String {
        let printed = || std::fs::read_to_string(bench.path().join("job.out")).unwrap_or_default();
        let over = || ["COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL"].contains(&self.state(job).as_str());
        let began = Instant::now();
        while !over() {
            let late = began.elapsed() > Duration::from_secs(300);
            assert!(!late, "job {} is {}:\n{}\n{}", job, self.state(job), printed(), self.story());
            std::thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(self.state(job), "COMPLETED", "{}\n{}", printed(), self.story());
        printed()
    }
}

#[test]
#[ignore = "minutes; make soak runs it"]
fn the_example_script_trains_on_both_nodes_bit_for_bit() {
    let bench = Bench::new();
    let name = "the_example_script_trains_on_both_nodes_bit_for_bit";
    let Some(cluster) = Cluster::new(name, &bench) else { return };
    bench.train(2, "one", &[]);
    let job = cluster.submit(&bench, "train.sbatch", &[], &["small.toml", "run.dir=two"]);
    let said = cluster.finish(&bench, &job);
    assert!(said.contains("jcs-launch: 2 nodes × 1 worker: jcs train"), "{said}");
    assert!(bench.weights("one", 8) == bench.weights("two", 8), "weights differ");
    let log = std::fs::read_to_string(bench.path().join("two/logs/launcher.log")).unwrap();
    for (rank, host) in [(0, "host1"), (1, "host2")] {
        let line = log.lines().find(|line| line.contains(&format!("rank {rank} is process"))).unwrap_or_default();
        assert!(line.ends_with(host), "{log}");
    }
    assert!(log.contains("the run directory is shared by all hosts: host1, host2"), "{log}");
}

/// Debian has no Apptainer: a script in its place runs on the node itself what it is given.
#[test]
#[ignore = "minutes; make soak runs it"]
fn the_example_script_for_containers_trains_through_agents_bit_for_bit() {
    let bench = Bench::new();
    let name = "the_example_script_for_containers_trains_through_agents_bit_for_bit";
    let Some(cluster) = Cluster::new(name, &bench) else { return };
    let stand_in = bench.path().join("apptainer");
    let text = "#!/bin/bash\nwhile [ \"$1\" != image.sif ]; do shift; done\nshift\nexec \"$@\"\n";
    std::fs::write(&stand_in, text).unwrap();
    std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755)).unwrap();
    bench.train(2, "one", &[]);
    let job = cluster.submit(&bench, "container.sbatch", &[], &["image.sif", "small.toml", "run.dir=two"]);
    let said = cluster.finish(&bench, &job);
    assert!(said.contains("waiting for the agents of 1 other hosts"), "{said}");
    assert!(bench.weights("one", 8) == bench.weights("two", 8), "weights differ");
    let keys = std::fs::read_dir(bench.path()).unwrap().flatten();
    assert!(!keys.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("jcs-agent")));
}

#[test]
#[ignore = "minutes; make soak runs it"]
fn the_example_script_stops_before_its_limit_and_goes_on_where_it_was() {
    let bench = Bench::new();
    let name = "the_example_script_stops_before_its_limit_and_goes_on_where_it_was";
    let Some(cluster) = Cluster::new(name, &bench) else { return };
    let steps = 2400;
    let settings = ["small.toml", "run.dir=run", &format!("train.max_steps={steps}"), "checkpoint.keep_last=2"];
    // Slurm's limits are whole minutes, and its signal comes up to a minute early.
    let job = cluster.submit(&bench, "train.sbatch", &["--time=2"], &settings);
    let stopped =
        || std::fs::read_to_string(bench.path().join("job.out")).unwrap_or_default().contains("goes back to the queue");
    cluster.wait_for("the signal before the limit", Duration::from_secs(150), stopped);
    let at = bench.metrics("run", "train").len();
    assert!(0 < at && at < steps, "stopped after step {at}");
    let said = cluster.finish(&bench, &job);
    // The second start may meet its limit, too.
    let after = |text: &'static str| {
        let steps = said.lines().filter_map(move |line| line.split_once(text)?.1.split([' ', ';']).next());
        steps.map(String::from).collect::<Vec<_>>()
    };
    let stops = after("preempted after the checkpoint of step ");
    assert!(!stops.is_empty() && stops == after("going on after step "), "{said}");
    let seen: Vec<u64> = bench.metrics("run", "train").iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(seen, (1..=steps as u64).collect::<Vec<_>>(), "every step once");
}

/// The example script with a launcher of one's own, and a scontrol that only writes down what it is asked.
fn script(folder: &Path, launcher: &str) -> Command {
    for (name, text) in [("launcher", launcher), ("scontrol", "echo \"$@\" >asked")] {
        let file = folder.join(name);
        std::fs::write(&file, format!("#!/bin/bash\n{text}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut path = folder.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut command = Command::new("bash");
    command.arg(repository().join("docs/slurm/train.sbatch")).args(["a.toml", "k=v w"]).current_dir(folder);
    command.env("PATH", path).env("JCS_LAUNCH", "launcher").env("SLURM_JOB_ID", "77").stdout(Stdio::piped());
    command
}

#[test]
fn the_example_script_ends_as_the_launcher_ends() {
    let folder = tempfile::tempdir().unwrap();
    for code in [0, 4, 127] {
        let out = script(folder.path(), &format!("echo \"$1,$2\"; exit {code}")).output().unwrap();
        assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(code), b"a.toml,k=v w\n".as_slice()));
        assert!(!folder.path().join("asked").exists());
    }
}

#[test]
fn the_example_script_forwards_its_signals_and_requeues_after_a_checkpoint() {
    for code in [143, 0] {
        let folder = tempfile::tempdir().unwrap();
        let launcher = format!(
            "trap 'echo got >>got; n=1' USR1; touch up; until [ -n \"$n\" ]; do sleep 0.1; done; sleep 0.5; exit {code}"
        );
        let child = script(folder.path(), &launcher).spawn().unwrap();
        let began = Instant::now();
        while !folder.path().join("up").exists() {
            assert!(began.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(20));
        }
        end_to_end::signal(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGUSR1);
        let out = child.wait_with_output().unwrap();
        assert_eq!(std::fs::read_to_string(folder.path().join("got")).unwrap(), "got\n");
        let asked = std::fs::read_to_string(folder.path().join("asked")).ok();
        let requeued = (code == 143).then(|| "requeue 77\n".to_owned());
        assert_eq!((out.status.code(), asked), (Some(0), requeued), "{}", text(&out));
    }
}
