//! A folder with `jcs-launch`, and the fake worker beside it as `jcs`; and what the tests ask of a run.
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct House {
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Ran {
    pub(crate) fn last_line(&self) -> &str {
        self.err.lines().last().unwrap_or("")
    }
}

/// `None`, said by name, where there is no mpirun; in CI that is a failure.
pub(crate) fn house(test: &str) -> Option<House> {
    if !mpirun_exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs mpirun: run make setup");
        eprintln!("skipped {test}: no mpirun, run make setup");
        return None;
    }
    // Links, because a copy is open for writing for a moment, and a process that another test forks just
    // then keeps it so ("text file busy").
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::hard_link(env!("CARGO_BIN_EXE_jcs-launch"), bin.join("jcs-launch")).unwrap();
    fs::hard_link(fake_worker(), bin.join("jcs")).unwrap();
    fs::write(
        dir.path().join("job.toml"),
        "run.device = \"cpu\"\ndata.train = \"train.txt\"\ndata.eval = \"eval.txt\"\ntrain.epochs = 1\n",
    )
    .unwrap();
    for list in ["train.txt", "eval.txt"] {
        fs::write(dir.path().join(list), "").unwrap();
    }
    Some(House { dir })
}

/// Cargo builds examples before integration tests, next to the binaries.
fn fake_worker() -> PathBuf {
    let worker = Path::new(env!("CARGO_BIN_EXE_jcs-launch")).with_file_name("examples").join("fake-worker");
    assert!(worker.is_file(), "{} is built by `cargo test`", worker.display());
    worker
}

fn mpirun_exists() -> bool {
    let beside = std::env::var_os("MPICC").map(|m| PathBuf::from(m).with_file_name("mpirun"));
    beside.is_some_and(|m| m.is_file()) || Command::new("mpirun").arg("--version").output().is_ok()
}

impl House {
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("runs/job")
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.run_dir().join("logs").join(name)).unwrap_or_default()
    }

    pub(crate) fn summary(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.run_dir().join("summary.json")).unwrap()).unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str], scripts: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.dir.path().join("bin/jcs-launch"));
        command.current_dir(self.dir.path()).args(arguments).envs(scripts.iter().copied());
        command.env_remove("OMP_NUM_THREADS").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn(&self, arguments: &[&str], scripts: &[(&str, &str)]) -> Running {
        let child = self.command(arguments, scripts).spawn().unwrap();
        Running { child, began: Instant::now() }
    }

    /// Two workers; `arguments` before the configuration.
    pub(crate) fn train(&self, arguments: &[&str], scripts: &[(&str, &str)]) -> Ran {
        self.spawn(&[&["--nproc-per-node", "2"], arguments, &["job.toml"]].concat(), scripts).wait()
    }

    pub(crate) fn spawn_train(&self, arguments: &[&str], scripts: &[(&str, &str)]) -> Running {
        self.spawn(&[&["--nproc-per-node", "2"], arguments, &["job.toml"]].concat(), scripts)
    }

    /// Processes whose command line names this house.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let name = self.dir.path().to_string_lossy().into_owned();
        let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let line = |pid: i32| (pid, fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default());
        pids.map(line).filter(|(_, line)| line.contains(&name)).map(|(p, l)| (p, l.replace('\0', " "))).collect()
    }

    pub(crate) fn workers(&self) -> Vec<i32> {
        let own = self.dir.path().join("bin/jcs");
        let is = |pid: i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == own);
        self.processes().into_iter().map(|(pid, _)| pid).filter(|&pid| is(pid)).collect()
    }

    pub(crate) fn mpirun(&self) -> i32 {
        let is = |line: &str| line.contains("-np 1") && line.contains("--host");
        self.processes().into_iter().find(|(_, line)| is(line)).map(|(pid, _)| pid).unwrap()
    }

    /// Waits until launcher.log has `text` this many times.
    pub(crate) fn await_log(&self, text: &str, times: usize) {
        let ok = eventually(Duration::from_secs(20), || self.log("launcher.log").matches(text).count() >= times);
        assert!(ok, "launcher.log has no {text:?}:\n{}", self.log("launcher.log"));
    }

    pub(crate) fn assert_nothing_left(&self, within: Duration) {
        assert!(eventually(within, || self.processes().is_empty()), "left: {:?}", self.processes());
    }
}

pub(crate) struct Running {
    pub(crate) child: Child,
    began: Instant,
}

impl Running {
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.child.id() as i32, signal);
    }

    pub(crate) fn wait(mut self) -> Ran {
        let (mut out, mut err) = (self.child.stdout.take().unwrap(), self.child.stderr.take().unwrap());
        let out = std::thread::spawn(move || read(&mut out));
        let err = read(&mut err);
        let status = self.child.wait().unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ran { code, out: out.join().unwrap(), err, took: self.began.elapsed() }
    }
}

fn read(from: &mut impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

pub(crate) fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

pub(crate) fn eventually(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > within {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
