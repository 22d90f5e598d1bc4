//! Shards from a server that is well, ill, or gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data_shards::remote::{Blame, Error, Fault, Location, Remote};

use super::child::{Task, end};
use super::server::{Seen, Server, Trick};
use super::{Shard, files, open, settings, sleep, until};

const MIB: usize = 1 << 20;

/// That no byte was fetched twice.
fn each_byte_once(requests: &[Seen], size: usize) {
    let mut end = 0;
    for request in requests.iter().filter(|request| request.status < 300) {
        // What the server has sent may have been lost on the way, but never more than arrived is believed.
        assert!(request.from.unwrap_or(0) <= end, "{requests:?}");
        assert!(end == 0 || request.from.unwrap_or(0) > 0, "from the start again: {requests:?}");
        end = request.from.unwrap_or(0) + request.sent as u64;
    }
    assert_eq!(end, size as u64, "{requests:?}");
}

#[test]
fn processes_and_threads_fetch_each_shard_once() {
    let shards = Shard::several(6, MIB + 77);
    let server = Server::new(shards.iter().map(Shard::file));
    server.manners(|manners| manners.pause = Duration::from_millis(1));
    let cache = tempfile::tempdir().unwrap();
    let url = server.url();
    let task = Task { url: &url, cache: cache.path(), limit: None, threads: 8, hold: 0, shards: &shards };
    let children = [task.start(), task.start(), task.start()];
    for child in children {
        let said = end(child);
        assert!(said.contains("DONE") && !said.contains("ERROR"), "{said}");
    }
    for shard in &shards {
        assert_eq!(server.requests(&shard.name).len(), 1, "{}", shard.name);
    }
    let left = files(cache.path());
    assert!(
        left.len() == 6 && left.iter().all(|(name, size)| !name.starts_with('.') && *size == MIB as u64 + 77),
        "{left:?}"
    );
}

#[test]
fn shards_are_fetched_ahead() {
    let shards = Shard::several(3, MIB);
    let server = Server::new(shards.iter().map(Shard::file));
    let cache = tempfile::tempdir().unwrap();
    let remote = open(&server.url(), cache.path());
    shards.iter().for_each(|shard| remote.prefetch(&shard.name, MIB as u64, &shard.sha256));
    until("all three are there", || {
        files(cache.path()).iter().filter(|(name, _)| name.starts_with("train")).count() == 3
    });
    shards.iter().for_each(|shard| shard.arrives(&remote));
    assert!(shards.iter().all(|shard| server.requests(&shard.name).len() == 1));
    assert_eq!(remote.used_bytes().unwrap(), 3 * MIB as u64);
}

#[test]
fn a_cut_connection_goes_on_where_it_ended() {
    let shard = Shard::new("train-000000.tar", 2 * MIB);
    for etags in [true, false] {
        let server = Server::new([shard.file()]);
        server.manners(|manners| manners.etags = etags);
        server.trick([Trick::Cut(300_000), Trick::Status(503), Trick::Cut(5), Trick::Status(429), Trick::Cut(MIB)]);
        let cache = tempfile::tempdir().unwrap();
        shard.arrives(&open(&server.url(), cache.path()));
        let requests = server.requests(&shard.name);
        assert_eq!(requests.len(), 6, "{requests:?}");
        each_byte_once(&requests, 2 * MIB);
        assert!(requests[1..].iter().all(|request| request.if_match.is_some() == etags), "{requests:?}");
    }
}

#[test]
fn a_server_that_comes_back_is_asked_for_the_rest() {
    let shard = Shard::new("train-000000.tar", 4 * MIB);
    let mut server = Server::new([shard.file()]);
    server.manners(|manners| manners.pause = Duration::from_millis(2));
    let cache = tempfile::tempdir().unwrap();
    let remote = open(&server.url(), cache.path());
    let (port, state) = (server.port, Arc::clone(&server.state));
    let reader = std::thread::spawn({
        let (shard, remote) = (shard.clone(), remote.clone());
        move || shard.arrives(&remote)
    });
    until("some of it is there", || files(cache.path()).iter().any(|(_, size)| *size > MIB as u64 / 2));
    server.kill();
    sleep(300);
    let server = Server::start(state, port);
    reader.join().unwrap();
    let requests = server.requests(&shard.name);
    assert!(requests.len() == 2 && requests[1].from > Some(MIB as u64 / 2), "{requests:?}");
}

#[test]
fn a_dead_server_is_named_within_bounds() {
    let shard = Shard::new("train-000000.tar", MIB);
    let server = Server::new([shard.file()]);
    let (url, cache) = (server.url(), tempfile::tempdir().unwrap());
    drop(server);
    let remote = open(&url, cache.path());
    let begin = Instant::now();
    // All of them wait for one and the same download, and learn of its end together.
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let (shard, remote) = (shard.clone(), remote.clone());
            std::thread::spawn(move || shard.fails(&remote))
        })
        .collect();
    for error in waiting.into_iter().map(|thread| thread.join().unwrap()) {
        assert_eq!(error.blame(), Blame::Input);
        assert!(matches!(&error, Error::Remote { fault: Fault::Unreachable { attempts: 5, .. }, .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("{url}/train-000000.tar: not reachable: 5 attempts")), "{text}");
        assert!(text.contains("refused"), "{text}");
    }
    // Pauses of at most 0.1 + 0.2 + 0.4 + 0.8 seconds; one after the other they would take ten times as long.
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    let small = remote.small("index.json").unwrap_err().to_string();
    assert!(small.contains("index.json: not reachable: 5 attempts"), "{small}");
}

#[test]
fn who_waits_for_a_download_that_fails_does_not_try_again() {
    let shard = Shard::new("train-000000.tar", MIB);
    let server = Server::new([shard.file()]);
    let cache = tempfile::tempdir().unwrap();
    for round in 1..=5 {
        *server.state.stubborn.lock().unwrap() = Some(Trick::Status(503));
        let remote = open(&server.url(), cache.path());
        let waiting: Vec<_> = (0..16)
            .map(|_| {
                let (shard, remote) = (shard.clone(), remote.clone());
                std::thread::spawn(move || shard.fails(&remote))
            })
            .collect();
        waiting.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap().blame(), Blame::Input));
        assert_eq!(server.requests(&shard.name).len(), round * 5, "the attempts of one");
    }
}

#[test]
fn a_silent_server_is_given_up_and_stop_does_not_wait() {
    let shard = Shard::new("train-000000.tar", MIB);
    let server = Server::new([shard.file()]);
    *server.state.stubborn.lock().unwrap() = Some(Trick::Silent(20_000));
    let cache = tempfile::tempdir().unwrap();
    let mut quick = settings(cache.path(), None);
    (quick.patience.attempts, quick.patience.silence) = (2, Duration::from_millis(400));
    let location = Location::parse(&server.url()).unwrap();
    let text = shard.fails(&Remote::open(&location, quick).unwrap()).to_string();
    assert!(text.contains("2 attempts") && text.contains("nothing arrived for 0.4 s"), "{text}");
    let remote = open(&server.url(), cache.path());
    let waiting = std::thread::spawn({
        let (shard, remote) = (shard.clone(), remote.clone());
        move || shard.fails(&remote)
    });
    sleep(300);
    let begin = Instant::now();
    remote.stop();
    let error = waiting.join().unwrap();
    assert!(matches!(error, Error::Stopped { .. }) && error.blame() == Blame::Machine, "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn answers_that_stay_what_they_are_end_it_at_once() {
    let shard = Shard::new("train-000000.tar", 1000);
    let server = Server::new([]);
    let cache = tempfile::tempdir().unwrap();
    let remote = open(&server.url(), cache.path());
    for (status, expected) in [
        (404, "there is no such file"),
        (403, "access denied: HTTP status 403; give user and password"),
        (401, "access denied: HTTP status 401"),
        (400, "does not serve it: HTTP status 400"),
        (301, "HTTP status 301, a redirect"),
    ] {
        server.trick([Trick::Status(status)]);
        let error = shard.fails(&remote);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.blame(), Blame::Input);
    }
    assert_eq!(server.requests(&shard.name).len(), 5);
}

#[test]
fn a_server_that_has_its_files_a_little_later() {
    let shards = Shard::several(3, 100_000);
    let server = Server::new(shards.iter().map(Shard::file));
    let cache = tempfile::tempdir().unwrap();
    let remote = open(&server.url(), cache.path());
    server.trick([Trick::Cut(1000), Trick::Status(404), Trick::Status(404), Trick::Status(404)]);
    shards[0].arrives(&remote);
    server.trick([Trick::Status(404), Trick::Status(404)]);
    shards[1].arrives(&remote);
    server.trick([404; 3].map(Trick::Status));
    let error = shards[2].fails(&remote);
    assert!(matches!(error, Error::Remote { fault: Fault::Missing, .. }), "{error}");
    assert_eq!([0, 1, 2].map(|at| server.requests(&shards[at].name).len()), [5, 3, 3]);
}

#[test]
fn a_changed_byte_is_fetched_again_once() {
    let shard = Shard::new("train-000000.tar", MIB);
    for (trick, problem) in
        [(Trick::Flip, "its SHA-256 is "), (Trick::Short, "it has 1048575 bytes, its index says 1048576")]
    {
        let server = Server::new([shard.file()]);
        let cache = tempfile::tempdir().unwrap();
        let remote = open(&server.url(), cache.path());
        *server.state.stubborn.lock().unwrap() = Some(trick);
        let error = shard.fails(&remote);
        let text = error.to_string();
        assert!(text.contains("/set/train-000000.tar: ") && text.contains(problem), "{text}");
        assert!(trick != Trick::Flip || text.contains(&format!("expected {}", shard.sha256)), "{text}");
        assert_eq!((server.requests(&shard.name).len(), error.blame()), (2, Blame::Input));
        assert!(files(cache.path()).iter().all(|(name, _)| name.starts_with('.')), "it must not be under its name");
        *server.state.stubborn.lock().unwrap() = None;
        server.trick([trick]);
        let cache = tempfile::tempdir().unwrap();
        shard.arrives(&open(&server.url(), cache.path()));
        assert_eq!(server.requests(&shard.name).len(), 4);
    }
}

#[test]
fn two_versions_of_a_file_are_not_mixed() {
    let old = Shard::new("train-000000.tar", MIB);
    let new = Shard::of(&old.name, old.bytes.iter().rev().copied().collect());
    // A server that obeys If-Match, one that only tells its ETag, and one that tells nothing.
    for (conditions, etags) in [(true, true), (false, true), (false, false)] {
        let mut server = Server::new([old.file()]);
        server.manners(|manners| {
            (manners.conditions, manners.etags, manners.pause) = (conditions, etags, Duration::from_millis(3));
        });
        let cache = tempfile::tempdir().unwrap();
        let remote = open(&server.url(), cache.path());
        let (port, state) = (server.port, Arc::clone(&server.state));
        let reader = std::thread::spawn({
            let new = new.clone();
            move || new.arrives(&remote)
        });
        until("half of it is there", || files(cache.path()).iter().any(|(_, size)| *size > MIB as u64 / 2));
        server.kill();
        state.files.lock().unwrap().extend([new.file()]);
        let server = Server::start(state, port);
        reader.join().unwrap();
        let requests = server.requests(&old.name);
        assert!(requests.len() == 3 && requests[1].from.is_some() && requests[2].from.is_none(), "{requests:?}");
        assert_eq!(requests[1].status, if conditions { 412 } else { 206 });
        // Whoever compares ETags does not fetch the rest of what it cannot use.
        assert!(!etags || requests[1].sent < MIB / 4, "{requests:?}");
    }
}

#[test]
fn a_server_without_ranges_starts_over() {
    let shard = Shard::new("train-000000.tar", MIB);
    let server = Server::new([shard.file()]);
    server.manners(|manners| manners.ranges = false);
    server.trick([Trick::Cut(MIB / 2)]);
    let cache = tempfile::tempdir().unwrap();
    shard.arrives(&open(&server.url(), cache.path()));
    let requests = server.requests(&shard.name);
    assert!(requests.len() == 3 && requests[1].from.is_some() && requests[2].from.is_none(), "{requests:?}");
}

#[test]
fn after_a_kill_the_next_process_goes_on() {
    let shard = Shard::new("train-000000.tar", 4 * MIB);
    let server = Server::new([shard.file()]);
    server.manners(|manners| manners.pause = Duration::from_millis(3));
    let cache = tempfile::tempdir().unwrap();
    let (url, shards) = (server.url(), [shard.clone()]);
    let task = Task { url: &url, cache: cache.path(), limit: None, threads: 3, hold: 0, shards: &shards };
    let mut first = task.start();
    let second = task.start();
    // Whichever fetches is killed: the first, in the end, if the second was quicker.
    until("some of it is there", || files(cache.path()).iter().any(|(_, size)| *size > MIB as u64));
    first.kill().unwrap();
    first.wait().unwrap();
    let said = end(second);
    assert!(said.contains("DONE") && !said.contains("ERROR"), "{said}");
    let requests = server.requests(&shard.name);
    assert!(requests.len() <= 2 && requests[1..].iter().all(|request| request.from > Some(MIB as u64)), "{requests:?}");
}

#[test]
fn what_a_killed_process_left_is_used_by_a_later_one() {
    let shard = Shard::new("train-000000.tar", 4 * MIB);
    let server = Server::new([shard.file()]);
    server.manners(|manners| manners.pause = Duration::from_millis(3));
    let cache = tempfile::tempdir().unwrap();
    let (url, shards) = (server.url(), [shard.clone()]);
    let task = Task { url: &url, cache: cache.path(), limit: None, threads: 1, hold: 0, shards: &shards };
    let mut child = task.start();
    until("some of it is there", || files(cache.path()).iter().any(|(_, size)| *size > MIB as u64));
    child.kill().unwrap();
    child.wait().unwrap();
    shard.arrives(&open(&url, cache.path()));
    let requests = server.requests(&shard.name);
    assert!(
        requests.len() == 2 && requests[1].from > Some(MIB as u64) && requests[1].if_match.is_some(),
        "{requests:?}"
    );
}

#[test]
fn small_files_are_asked_for_again_but_fetched_once() {
    let server = Server::new([("index.json".to_owned(), b"{}".to_vec())]);
    let cache = tempfile::tempdir().unwrap();
    let statuses = || server.requests("index.json").iter().map(|request| request.status).collect::<Vec<_>>();
    assert_eq!(open(&server.url(), cache.path()).small("index.json").unwrap(), b"{}");
    let remote = open(&server.url(), cache.path());
    assert_eq!(remote.small("index.json").unwrap(), b"{}");
    assert_eq!(statuses(), [200, 304]);
    server.state.files.lock().unwrap().insert("index.json".to_owned(), b"{\"a\":1}".to_vec());
    assert_eq!(remote.small("index.json").unwrap(), b"{\"a\":1}");
    // A damaged copy is none.
    let kept = std::fs::read_dir(cache.path().join("shards-1")).unwrap().flatten().find(|entry| entry.path().is_dir());
    let kept = std::fs::read_dir(kept.unwrap().path()).unwrap().flatten().next().unwrap().path();
    let mut bytes = std::fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() = b'!';
    std::fs::write(&kept, bytes).unwrap();
    server.trick([Trick::Cut(3), Trick::Status(500)]);
    assert_eq!(remote.small("index.json").unwrap(), b"{\"a\":1}");
    assert_eq!(statuses(), [200, 304, 200, 200, 500, 200]);
    let missing = remote.small("samples.csv").unwrap_err().to_string();
    assert!(missing.contains("/set/samples.csv: there is no such file"), "{missing}");
}

#[test]
fn listings_that_make_no_sense() {
    let server = Server::new([]);
    let cache = tempfile::tempdir().unwrap();
    let remote = open(&server.url(), cache.path());
    let good = "0".repeat(64);
    for (name, sha256, expected) in [
        ("../../etc/passwd", &*good, "is no name of a file"),
        (".lock", &good, "is no name of a file"),
        ("a\nb", &good, "`a\\nb` is no name"),
        ("a.tar", "00", "/set/a.tar: `00` is no SHA-256"),
        ("a.tar", &"/".repeat(64), "is no SHA-256"),
        ("a.tar", &"é".repeat(32), "is no SHA-256"),
    ] {
        let error = remote.shard(name, 1, sha256).unwrap_err();
        assert!(error.to_string().contains(expected) && error.blame() == Blame::Input, "{error}");
    }
    assert!(server.state.seen.lock().unwrap().is_empty());
    // A shard of no bytes needs no request; one that claims more than a disk has is refused before the first byte.
    Shard::of("empty.tar", Vec::new()).arrives(&remote);
    let huge = remote.shard("huge.tar", u64::MAX, &good).unwrap_err();
    assert!(matches!(huge, Error::Full { .. }), "{huge}");
    assert!(server.state.seen.lock().unwrap().is_empty());
    assert!(Remote::open(&Location::parse("some/dir").unwrap(), settings(cache.path(), None)).is_err());
}
