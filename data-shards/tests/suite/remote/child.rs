//! A worker in a process of its own.
//!
//! It is this test binary again, started with one test, which does what a variable of the environment says.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "the parent reads it")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use data_shards::remote::{Location, Remote};

use super::{Shard, settings};

const TASK: &str = "JCS_TEST_REMOTE_TASK";

/// What a worker does: each thread takes all shards, beginning at another one, holds each a while and compares its bytes.
pub(super) struct Task<'a> {
    pub(super) url: &'a str,
    pub(super) cache: &'a Path,
    pub(super) limit: Option<u64>,
    pub(super) threads: usize,
    pub(super) hold: u64,
    pub(super) shards: &'a [Shard],
}

impl Task<'_> {
    /// A command that works on it. Its log, in full, goes to standard error; its answer to standard output.
    pub(super) fn command(&self) -> Command {
        let shards: Vec<_> = self.shards.iter().map(|s| serde_json::json!([s.name, s.bytes.len(), s.sha256])).collect();
        let task = serde_json::json!({
            "url": self.url, "cache": self.cache, "limit": self.limit, "threads": self.threads, "hold": self.hold,
            "shards": shards,
        });
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["remote::child::work", "--exact", "--nocapture", "--test-threads=1"]).env(TASK, task.to_string());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn start(&self) -> Child {
        self.command().spawn().unwrap()
    }
}

/// Its standard output, after it has ended well.
pub(super) fn end(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn work() {
    let Ok(task) = std::env::var(TASK) else { return };
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(std::io::stderr)
        .init();
    let task: serde_json::Value = serde_json::from_str(&task).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let location = Location::parse(&text(&task["url"])).unwrap();
    let cache = settings(Path::new(&text(&task["cache"])), task["limit"].as_u64());
    let remote = match Remote::open(&location, cache) {
        Ok(remote) => remote,
        Err(error) => return println!("ERROR {error}"),
    };
    let shards: Arc<Vec<_>> = Arc::new(
        task["shards"].as_array().unwrap().iter().map(|s| (text(&s[0]), s[1].as_u64().unwrap(), text(&s[2]))).collect(),
    );
    let hold = task["hold"].as_u64().unwrap();
    let threads: Vec<_> = (0..task["threads"].as_u64().unwrap() as usize)
        .map(|thread| {
            let (remote, shards) = (remote.clone(), Arc::clone(&shards));
            std::thread::spawn(move || {
                for at in 0..shards.len() {
                    let (name, bytes, sha256) = &shards[(at + thread) % shards.len()];
                    match remote.shard(name, *bytes, sha256) {
                        Ok(held) => super::compare(&held, sha256, hold),
                        Err(error) => println!("ERROR {:?} {error}", error.blame()),
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("DONE");
    eprintln!("{remote:?}");
}
