//! Help for the end-to-end tests: real binaries, real data, real signals. Nothing here knows the
//! product's code; it knows its contract.

#![expect(clippy::print_stderr, reason = "a skipped test says why")]

pub mod hosts;
pub mod moto;
pub mod numbers;
pub mod pods;
pub mod shared;
pub mod skip;
pub mod stand_in;

pub use skip::skip;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A binary of the workspace, built if it was not; `JCS_TEST_PROGRAMS=built` says that they all are.
pub fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.ancestors().nth(2).unwrap().to_owned();
        if std::env::var("JCS_TEST_PROGRAMS").as_deref() == Ok("built") {
            return folder;
        }
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(repository());
        // Some build scripts look at these, and would have everything above them built anew.
        let of_this_test = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in names.filter(|name| of_this_test(name)) {
            build.env_remove(name);
        }
        let status = build.status().unwrap();
        assert!(status.success(), "the binaries do not build");
        folder
    });
    folder.join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            std::fs::copy(&source, &target).unwrap();
        }
    }
}

/// A place with a small phantom data set and a configuration for a small network.
pub struct Bench {
    /// The folder, removed at the end.
    pub dir: TempDir,
}

/// Settings of the small network that the tests train.
const CONFIG: &str = "
[run]
device = 'cpu'
[data]
train = 'phantom/train.txt'
eval = 'phantom/eval.txt'
size = 64
workers = 1
[data.augment]
crop = 0.1
flip_vertical = 0.5
brightness = 0.1
[model]
width = 0.125
[train]
max_steps = 8
[optim]
lr = 1e-3
warmup_steps = 2
[eval]
every_epochs = 0
[checkpoint]
every_epochs = 0
keep_last = 100
[comm]
bucket_mb = 0.25
first_bucket_mb = 0.05
timeout_s = 60
";

impl Bench {
    /// With a data set of its own and `small.toml`.
    pub fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        copy(&shared::phantom(), &bench.path().join("phantom"));
        std::fs::write(bench.path().join("small.toml"), CONFIG).unwrap();
        bench
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command in this folder, one OpenMP thread a worker.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(binary(program));
        command.args(args).current_dir(self.path()).env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    /// `jcs-launch` of the small network with `workers` workers into run directory `run`; must succeed.
    pub fn train(&self, workers: usize, run: &str, settings: &[&str]) {
        let out = self.try_train(workers, run, settings);
        assert!(out.status.success(), "{}", text(&out));
    }

    /// As [`Self::train`], whatever comes of it.
    pub fn try_train(&self, workers: usize, run: &str, settings: &[&str]) -> Output {
        self.train_command(workers, run, settings).output().unwrap()
    }

    /// Starts training and does not wait.
    pub fn start_training(&self, workers: usize, run: &str, settings: &[&str]) -> Child {
        self.train_command(workers, run, settings).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn train_command(&self, workers: usize, run: &str, settings: &[&str]) -> Command {
        let mut command =
            self.command("jcs-launch", &["--nproc-per-node", &workers.to_string(), "--max-restarts", "0"]);
        command.arg("small.toml").arg(format!("run.dir={run}")).args(settings);
        command
    }

    /// The weights of a run's checkpoint at `step`, as the file's bytes.
    pub fn weights(&self, run: &str, step: u64) -> Vec<u8> {
        let file = self.path().join(run).join(format!("checkpoints/step-{step:08}/model.safetensors"));
        std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    }

    /// The moments of a run's checkpoint at `step`.
    pub fn moments(&self, run: &str, step: u64) -> Vec<u8> {
        std::fs::read(self.path().join(run).join(format!("checkpoints/step-{step:08}/optimizer.safetensors"))).unwrap()
    }

    /// Lines of `metrics.jsonl` of this kind.
    pub fn metrics(&self, run: &str, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path().join(run).join("metrics.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        lines.filter(|v| v["kind"] == kind).collect()
    }

    /// Waits until a run has logged step `step`.
    pub fn wait_for_step(&self, run: &str, step: usize) {
        let start = Instant::now();
        while self.metrics(run, "train").len() < step {
            assert!(start.elapsed() < Duration::from_secs(120), "step {step} of {run} never came");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a run takes no more steps, for a second and a half; how many it has taken.
    pub fn wait_for_standstill(&self, run: &str) -> usize {
        let steps = || self.metrics(run, "train").len();
        let (start, mut since, mut seen) = (Instant::now(), Instant::now(), steps());
        while since.elapsed() < Duration::from_millis(1500) {
            assert!(start.elapsed() < Duration::from_secs(120), "{run} never stands still");
            std::thread::sleep(Duration::from_millis(50));
            if steps() != seen {
                (since, seen) = (Instant::now(), steps());
            }
        }
        seen
    }

    /// Waits until a worker of a run, or its launcher, has said `text` in a log.
    pub fn wait_for_log(&self, run: &str, text: &str) {
        let (start, logs) = (Instant::now(), self.path().join(run).join("logs"));
        let said = || {
            let files = std::fs::read_dir(&logs).into_iter().flatten().flatten();
            files.into_iter().any(|file| std::fs::read_to_string(file.path()).is_ok_and(|log| log.contains(text)))
        };
        while !said() {
            assert!(start.elapsed() < Duration::from_secs(120), "nobody in {run} ever said {text:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process ids of the workers of this bench, with their rank.
    pub fn workers(&self) -> Vec<(usize, Pid)> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
            let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.path());
            let is_jcs = std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.ends_with("jcs"));
            if here && is_jcs {
                let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
                let rank = environ.split(|b| *b == 0).find_map(|v| v.strip_prefix(b"RANK="));
                let rank = rank.and_then(|r| std::str::from_utf8(r).ok()?.parse().ok()).unwrap_or(0);
                found.push((rank, Pid::from_raw(pid)));
            }
        }
        found.sort();
        found
    }

    /// Processes whose working directory is this bench, whatever they are.
    pub fn processes(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let here = entries.filter(|e| std::fs::read_link(e.path().join("cwd")).is_ok_and(|cwd| cwd == self.path()));
        here.filter_map(|e| std::fs::read_to_string(e.path().join("cmdline")).ok().map(|c| c.replace('\0', " ")))
            .collect()
    }

    /// Asserts that no process of this bench is left 10 seconds from now.
    pub fn assert_nothing_left(&self) {
        let start = Instant::now();
        while !self.processes().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "left after 10 s: {:?}", self.processes());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends a signal.
pub fn signal(pid: Pid, signal: Signal) {
    kill(pid, signal).unwrap();
}

/// Both outputs of a command, for messages.
pub fn text(out: &Output) -> String {
    format!("{:?}\n{}\n{}", out.status, String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Last line on standard error.
pub fn last_line(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).trim_end().lines().last().unwrap_or_default().to_owned()
}

/// All float32 values of a safetensors file.
pub fn values(bytes: &[u8]) -> Vec<f32> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let mut names = file.names();
    names.sort();
    let data = names.into_iter().flat_map(|n| file.tensor(n).unwrap().data().to_vec()).collect::<Vec<u8>>();
    data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// A line for the reader of the test's output.
pub fn say(line: &str) {
    eprintln!("{line}");
}
