//! What a host is asked before a job starts, and how its answer reads. Pure: what the answer means is for
//! [`mod@super::judge`].

use std::fmt::Write as _;
use std::time::Duration;

/// Marks the lines of an answer; a login shell may print others.
const MARK: &str = "jcs-launch:";

/// What a worker needs to find on its host. Paths may be relative to the working directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The worker, which must also start (its libraries are there) and be the same everywhere.
    pub worker: String,
    /// Other programs.
    pub programs: Vec<String>,
    /// The working directory.
    pub folder: String,
    /// Files to read, with the same content everywhere: the configuration and those of its stages.
    pub files: Vec<String>,
    /// Files or folders to see: the key of the configuration, and the path.
    pub data: Vec<(String, String)>,
    /// Where the run writes.
    pub run_dir: Option<String>,
    /// Whether the workers want GPUs, and who wants that.
    pub gpus: Gpus,
}

/// Whether the workers compute on GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gpus {
    /// Never: they are not asked for.
    #[default]
    None,
    /// Where there are any, else on the processor.
    Perhaps,
    /// The user said so.
    Required,
}

/// What a host said. Sizes in KiB; what it could not find out is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// What it calls itself.
    pub name: Option<String>,
    /// Its clock at the beginning and at the end, in seconds since 1970.
    pub clock: Option<(f64, f64)>,
    /// The working directory is not there; then nothing else was looked for.
    pub no_folder: bool,
    /// Programs that are not there, by number in [`Expected::programs`].
    pub no_programs: Vec<usize>,
    /// How the worker is.
    pub worker: Worker,
    /// Checksums of [`Expected::files`], in their order; `None` for one that cannot be read.
    pub files: Vec<Option<String>>,
    /// Data that is not there, by number in [`Expected::data`].
    pub no_data: Vec<usize>,
    /// The run directory.
    pub run_dir: Option<RunDir>,
    /// Room in `/dev/shm`.
    pub shm: Option<u64>,
    /// Where mpirun keeps its session, and the room there.
    pub tmp: Option<(String, u64)>,
    /// Why nothing can be written there.
    pub tmp_closed: Option<String>,
    /// Its GPUs.
    pub gpus: Option<usize>,
    /// The version of NVIDIA's driver.
    pub driver: Option<String>,
    /// Which of its GPUs a worker cannot use, and why: the driver or the GPU is too old for libtorch.
    pub gpus_unfit: Vec<(usize, String)>,
    /// Why the worker did not say which it can use.
    pub gpus_untold: Option<String>,
    /// Whether it came to the end of the script.
    pub whole: bool,
}

/// How the worker is on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Worker {
    /// It was not tried.
    #[default]
    Untried,
    /// It is not there, or cannot be executed.
    Missing,
    /// It does not start: its last words.
    Broken(String),
    /// What it says of its version, and its checksum.
    Runs {
        /// Name and version.
        version: String,
        /// Its checksum.
        sum: Option<String>,
    },
}

/// The run directory of a host, or the nearest folder above it that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunDir {
    /// The folder that is there.
    pub folder: String,
    /// Why nothing can be written there.
    pub closed: Option<String>,
    /// Room there.
    pub free: Option<u64>,
    /// Whether the launcher's file is seen there: the folder is the same one as the launcher's.
    pub shared: bool,
}

impl Expected {
    /// The script for `/bin/sh`, which reads it from its standard input: nothing of it is on a command line. `nonce` is a
    /// file that the launcher has put into the run directory or above it. `compare`: with what takes time and serves to
    /// compare hosts with each other: checksums, the worker's version, the clock. All of it is made to end `within` this time.
    pub fn script(&self, nonce: Option<&str>, compare: bool, within: Duration) -> String {
        let mut text = format!("seconds={}\n", (within.as_secs() * 2 / 3).max(1));
        text.push_str(&HEAD.replace("MARK", MARK));
        text.push_str(if compare { "clock\n" } else { "limit=\n" });
        text.push_str("say at the working directory\n");
        let folder = quoted(&self.folder);
        let _ = writeln!(text, "if ! cd {folder} 2>/dev/null; then say no-folder; clock; say end; exit 0; fi");
        self.ask_for_worker(&mut text, compare);
        for (i, program) in self.programs.iter().enumerate() {
            let _ = writeln!(text, "[ -x {} ] || say no-program {i}", quoted(program));
        }
        text.push_str("say at the configuration and the data\n");
        for (i, file) in self.files.iter().enumerate().filter(|_| compare) {
            let _ = writeln!(text, "say file {i} \"$(sum {})\"", quoted(file));
        }
        for (i, (_, path)) in self.data.iter().enumerate() {
            let _ = writeln!(text, "[ -r {} ] || say no-data {i}", quoted(path));
        }
        if let Some(run_dir) = &self.run_dir {
            let _ = writeln!(text, "run_dir {} {}", quoted(run_dir), quoted(nonce.unwrap_or_default()));
        }
        text.push_str("room shm /dev/shm\ntemporary\n");
        if self.gpus != Gpus::None {
            let _ = writeln!(text, "gpus {}", quoted(&self.worker));
        }
        text.push_str(if compare { "wait\nclock\nsay end\n" } else { "say end\n" });
        text
    }

    fn ask_for_worker(&self, text: &mut String, compare: bool) {
        let worker = quoted(&self.worker);
        let _ = writeln!(text, "if [ ! -x {worker} ]; then say worker missing");
        if compare {
            // Side by side: both take as long as the program is big.
            let _ = writeln!(text, "else say worker sum \"$(sum {worker})\" &");
            let _ = writeln!(text, "  say at the start of {worker}");
            let _ = writeln!(text, "  what=$($limit {worker} --version 2>&1 </dev/null)");
            text.push_str(VERSION);
        }
        text.push_str("fi\n");
    }
}

/// The shell functions. Nothing in them depends on the job. Each line of an answer is one `echo`, so that lines of commands in
/// the background are never torn. Programs that may hang, on a file system whose server is gone, end before the launcher's
/// deadline, where the host has `timeout`. `room` takes the eleventh word that `df` prints, seven of them titles: KiB to be
/// had. `closed` leaves in `why` why nothing can be written into a folder.
const HEAD: &str = r#"LC_ALL=C
export LC_ALL
set -f
limit=
command -v timeout >/dev/null && limit="timeout $seconds"
say() { echo "MARK $*"; }
clock() { say clock "$(date +%s.%N)"; }
sum() {
  [ -r "$1" ] || return 0
  if s=$($limit sha256sum <"$1" 2>/dev/null); then echo "sha256:${s%% *}"
  else echo "cksum:$($limit cksum <"$1" | tr ' ' -)"; fi
}
room() {
  key=$1 place=$2
  set -- $($limit df -Pk "$place" 2>/dev/null)
  say "$key" "${11}" "$place"
}
closed() {
  [ -d "$1" ] || { why='is no directory'; return; }
  probe=$1/.jcs-probe-$name-$$
  why=$( { : >"$probe"; } 2>&1 ) && why=
  why=${why##*: }
  rm -f "$probe" 2>/dev/null
}
run_dir() {
  say at the run directory
  d=$1
  while [ ! -e "$d" ]; do case $d in */*) d=${d%/*}; d=${d:-/};; *) d=.;; esac; done
  say run-folder "$d"
  closed "$d"
  [ -z "$why" ] || say run-closed "$why"
  room run-free "$d"
  [ -z "$2" ] || [ ! -e "$2" ] || say run-shared
}
temporary() {
  t=${TMPDIR:-${TEMP:-${TMP:-/tmp}}}
  room tmp "$t"
  closed "$t"
  [ -z "$why" ] || say tmp-closed "$why"
}
gpus() {
  say at the GPUs
  worker=$1
  set +f
  set -- /proc/driver/nvidia/gpus/*
  [ -e "$1" ] || set -- /dev/nvidia[0-9]*
  set -f
  [ -e "$1" ] || shift
  say gpus "$#"
  { read -r what </proc/driver/nvidia/version; } 2>/dev/null && say driver "$what"
  [ -n "$limit" ] && [ $# != 0 ] || return 0
  what=$($limit "$worker" gpus 2>/dev/null </dev/null)
  [ $? != 124 ] || say gpus-untold "no end of $worker gpus within $seconds s"
  echo "$what" | while read -r number verdict why; do
    [ "$verdict" != unfit ] || say gpu-unfit "$number" "$why"
  done
}
name=$(uname -n)
say host "$name"
"#;

/// What came of asking the worker for its version; `timeout` ends with 124.
const VERSION: &str = r#"  case $? in
    0) say worker version "$what" ;;
    124) say worker broken "no end within $seconds s" ;;
    *) say worker broken "$(echo "$what" | tail -n 1)" ;;
  esac
"#;

/// A word for the shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Answer {
    /// From what the script printed.
    pub fn read(text: &str) -> Answer {
        let mut answer = Answer::default();
        for line in text.lines().filter_map(|line| line.strip_prefix(MARK)).map(str::trim) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            answer.take(word, rest.trim());
        }
        answer
    }

    fn take(&mut self, word: &str, rest: &str) {
        match word {
            "host" => self.name = Some(rest.to_owned()),
            // A date without nanoseconds prints the letter.
            "clock" => self.tick(rest.trim_end_matches(".N").parse().ok()),
            "no-folder" => self.no_folder = true,
            "no-program" => self.no_programs.extend(rest.parse::<usize>()),
            "worker" => self.take_worker(rest),
            "file" => self.files.push(rest.split_once(' ').map(|(_, sum)| sum.to_owned())),
            "no-data" => self.no_data.extend(rest.parse::<usize>()),
            "run-folder" => self.run_dir.get_or_insert_default().folder = rest.to_owned(),
            "run-closed" => self.run_dir.get_or_insert_default().closed = Some(rest.to_owned()),
            "run-free" => self.run_dir.get_or_insert_default().free = number(rest),
            "run-shared" => self.run_dir.get_or_insert_default().shared = true,
            "shm" => self.shm = number(rest),
            "tmp" => {
                self.tmp = rest.split_once(' ').and_then(|(free, t)| Some((t.to_owned(), free.parse().ok()?)));
            }
            "tmp-closed" => self.tmp_closed = Some(rest.to_owned()),
            "gpus" => self.gpus = rest.parse().ok(),
            "driver" => self.driver = rest.split_whitespace().find(|word| is_version(word)).map(String::from),
            "gpu-unfit" => self
                .gpus_unfit
                .extend(rest.split_once(' ').and_then(|(number, why)| Some((number.parse().ok()?, why.to_owned())))),
            "gpus-untold" => self.gpus_untold = Some(rest.to_owned()),
            "end" => self.whole = true,
            _ => {}
        }
    }

    fn tick(&mut self, now: Option<f64>) {
        self.clock = match (self.clock, now) {
            (Some((first, _)), Some(now)) => Some((first, now)),
            (clock, now) => clock.or(now.map(|now| (now, now))),
        };
    }

    /// The checksum may come before the version or after it.
    fn take_worker(&mut self, rest: &str) {
        let (word, what) = rest.split_once(' ').unwrap_or((rest, ""));
        let known = std::mem::take(&mut self.worker);
        self.worker = match (word, known) {
            ("missing", _) => Worker::Missing,
            ("broken", _) => Worker::Broken(what.to_owned()),
            ("version", Worker::Runs { sum, .. }) => Worker::Runs { version: what.to_owned(), sum },
            ("version", _) => Worker::Runs { version: what.to_owned(), sum: None },
            ("sum", Worker::Runs { version, .. }) => Worker::Runs { version, sum: Some(what.to_owned()) },
            ("sum", Worker::Untried) => Worker::Runs { version: String::new(), sum: Some(what.to_owned()) },
            (_, known) => known,
        };
    }

    /// What the host was doing when its answer broke off.
    pub fn last_station(text: &str) -> Option<&str> {
        text.lines().rev().find_map(|line| line.strip_prefix(MARK)?.trim().strip_prefix("at "))
    }
}

/// The first word, where it is a number: sizes come before their places.
fn number(rest: &str) -> Option<u64> {
    rest.split_whitespace().next()?.parse().ok()
}

/// `580.65.06`, and not `x86_64`.
fn is_version(word: &str) -> bool {
    word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
