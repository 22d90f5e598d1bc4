//! A server that speaks S3.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::child::{Task, end};
use super::{Shard, files, sleep, until};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const TOKEN: &str = "t0ken-of-a-session";

/// Makes a bucket and puts the files of a folder into it.
const UPLOAD: &str = r#"
import sys, os, time, boto3
endpoint, folder = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
for attempt in range(300):
    try:
        s3.create_bucket(Bucket="bucket")
        break
    except Exception:
        time.sleep(0.1)
for name in os.listdir(folder):
    s3.put_object(Bucket="bucket", Key="data sets/ct/" + name, Body=open(os.path.join(folder, name), "rb").read())
"#;

pub(super) fn python(test: &str) -> Option<String> {
    end_to_end::skip::python(test, "moto.server, boto3, cryptography")
}

struct Moto {
    process: Child,
    endpoint: String,
}

impl Moto {
    /// Starts it with the files of `folder`.
    fn start(python: &str, port: u16, folder: &Path) -> Moto {
        let process = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let endpoint = format!("http://127.0.0.1:{port}");
        let uploaded = Command::new(python).args(["-c", UPLOAD, &endpoint]).arg(folder).output().unwrap();
        assert!(uploaded.status.success(), "{}", String::from_utf8_lossy(&uploaded.stderr));
        Moto { process, endpoint }
    }

    /// Kills it; its log.
    fn kill(mut self) -> String {
        self.process.kill().unwrap();
        let mut log = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn folder(shards: &[Shard]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    shards.iter().for_each(|shard| std::fs::write(folder.path().join(&shard.name), &shard.bytes).unwrap());
    folder
}

/// With the environment that S3's programs know.
fn command(task: &Task<'_>, endpoint: &str) -> Command {
    let mut command = task.command();
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs([("AWS_ENDPOINT_URL", endpoint), ("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", KEY)]);
    command.envs([("AWS_SECRET_ACCESS_KEY", SECRET), ("AWS_SESSION_TOKEN", TOKEN)]);
    command
}

const URL: &str = "s3://bucket/data%20sets/ct/";

#[test]
fn s3_shards_are_fetched_once() {
    let Some(python) = python("s3_shards_are_fetched_once") else { return };
    let shards = Shard::several(4, 700_000);
    let moto = Moto::start(&python, free_port(), folder(&shards).path());
    let cache = tempfile::tempdir().unwrap();
    let task = Task { url: URL, cache: cache.path(), limit: None, threads: 4, hold: 0, shards: &shards };
    let children = [0, 1].map(|_| command(&task, &moto.endpoint).spawn().unwrap());
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains("DONE") && !text.contains("ERROR"), "{text}");
        assert!([KEY, SECRET, TOKEN, "Signature="].iter().all(|secret| !text.contains(secret)), "{text}");
    }
    let absent = [Shard::new("absent.tar", 5)];
    let task = Task { shards: &absent, ..task };
    let said = end(command(&task, &moto.endpoint).spawn().unwrap());
    assert!(said.contains("ERROR Input s3://bucket/data sets/ct/absent.tar (at http://127.0.0.1"), "{said}");
    assert!(said.contains("there is no such file"), "{said}");
    let log = moto.kill();
    for shard in &shards {
        assert_eq!(
            log.matches(&format!("/{} HTTP", shard.name)).count(),
            2,
            "one PUT and one GET of {}: {log}",
            shard.name
        );
    }
}

#[test]
fn s3_goes_on_after_its_server_was_killed() {
    let Some(python) = python("s3_goes_on_after_its_server_was_killed") else { return };
    let shards = [Shard::new("train-000000.tar", 96 << 20)];
    let (port, files_) = (free_port(), folder(&shards));
    let moto = Moto::start(&python, port, files_.path());
    let cache = tempfile::tempdir().unwrap();
    let task = Task { url: URL, cache: cache.path(), limit: None, threads: 2, hold: 0, shards: &shards };
    let mut child = command(&task, &moto.endpoint);
    let mut child = child.stderr(Stdio::null()).spawn().unwrap();
    until("some of it is there", || files(cache.path()).iter().any(|(_, size)| *size > 1 << 20));
    moto.kill();
    let there = files(cache.path());
    assert!(there.iter().all(|(name, size)| name.starts_with('.') && *size < 96 << 20), "killed too late: {there:?}");
    assert!(child.try_wait().unwrap().is_none());
    // The server comes back with an empty memory, as a new one would.
    sleep(100);
    child.kill().unwrap();
    child.wait().unwrap();
    let moto = Moto::start(&python, port, files_.path());
    let said = end(command(&task, &moto.endpoint).spawn().unwrap());
    assert!(said.contains("DONE") && !said.contains("ERROR"), "{said}");
    let log = moto.kill();
    let gets: Vec<_> = log.lines().filter(|line| line.contains("GET /bucket/data")).collect();
    assert!(gets.len() == 1 && gets[0].contains(" 206 "), "{gets:?}");
}

#[test]
fn s3_left_dead_is_named() {
    let shards = Shard::several(1, 1000);
    let cache = tempfile::tempdir().unwrap();
    let task = Task { url: URL, cache: cache.path(), limit: None, threads: 3, hold: 0, shards: &shards };
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let output = command(&task, &endpoint).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let expected =
        format!("ERROR Input s3://bucket/data sets/ct/train-000000.tar (at {endpoint}): not reachable: 5 attempts");
    assert_eq!(text.matches(&expected).count(), 3, "{text}");
    assert!([KEY, SECRET, TOKEN, "Signature="].iter().all(|secret| !text.contains(secret)), "{text}");
    let mut lacking = command(&task, &endpoint);
    lacking.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY").env_remove("AWS_SESSION_TOKEN");
    lacking.env("AWS_METADATA_ENDPOINT", &endpoint);
    let said = end(lacking.spawn().unwrap());
    assert!(said.contains("there are no credentials in the environment: set AWS_ACCESS_KEY_ID"), "{said}");
    let mut half = command(&task, &endpoint);
    let said = end(half.env_remove("AWS_SECRET_ACCESS_KEY").spawn().unwrap());
    assert!(said.contains("ERROR s3://bucket/data sets/ct: cannot prepare a connection"), "{said}");
    let mut strict = command(&task, &endpoint);
    let said = end(strict.env("AWS_ALLOW_HTTP", "false").spawn().unwrap());
    assert!(said.contains("ERROR"), "{said}");
}
