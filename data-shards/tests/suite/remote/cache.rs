//! The limit of the cache, its files, and the disk that it is on.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use data_shards::remote::{Blame, Error, Location, Remote};

use super::child::{Task, end};
use super::server::Server;
use super::{Shard, files, open, settings, sleep};

const KIB: usize = 1 << 10;

fn limited(server: &Server, cache: &Path, limit: u64) -> Remote {
    Remote::open(&Location::parse(&server.url()).unwrap(), settings(cache, Some(limit))).unwrap()
}

fn names(cache: &Path) -> Vec<String> {
    let mut names: Vec<_> = files(cache).into_iter().map(|(name, _)| name[..12].to_owned()).collect();
    names.sort();
    names
}

/// As if a file of the cache had been used so many seconds ago.
fn last_used(path: &Path, seconds: u64) {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_times(fs::FileTimes::new().set_accessed(time)).unwrap();
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let shards = Shard::several(4, 100 * KIB);
    let server = Server::new(shards.iter().map(Shard::file));
    let cache = tempfile::tempdir().unwrap();
    let remote = limited(&server, cache.path(), 320 * KIB as u64);
    for at in [0, 1, 2] {
        shards[at].arrives(&remote);
        let path = shards[at].get(&remote).unwrap().path().to_owned();
        last_used(&path, 100 - at as u64);
    }
    // In use again, without a read, which would have the file system note it: the oldest is now the second one.
    drop(shards[0].get(&remote).unwrap());
    shards[3].arrives(&remote);
    assert_eq!(names(cache.path()), ["train-000000", "train-000002", "train-000003"]);
    // What is held stays, even if it is the oldest.
    let held = shards[2].get(&remote).unwrap();
    last_used(held.path(), 100);
    last_used(shards[3].get(&remote).unwrap().path(), 50);
    [0, 3].iter().for_each(|at| drop(shards[*at].get(&remote).unwrap()));
    shards[1].arrives(&remote);
    assert_eq!(names(cache.path()), ["train-000001", "train-000002", "train-000003"]);
    assert!(held.path().exists());
    assert_eq!(server.requests(&shards[0].name).len(), 1);
}

#[test]
fn the_limit_holds_while_processes_read() {
    let shards = Shard::several(12, 200 * KIB);
    let server = Server::new(shards.iter().map(Shard::file));
    let cache = tempfile::tempdir().unwrap();
    let (url, limit) = (server.url(), 5 * 200 * KIB as u64);
    // Four readers hold a shard each, so that one can be given up at any time.
    let task = Task { url: &url, cache: cache.path(), limit: Some(limit), threads: 2, hold: 15, shards: &shards };
    let mut children = [task.start(), task.start()];
    let (mut most, mut looks) = (0, 0);
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        most = most.max(files(cache.path()).iter().map(|(_, size)| *size).sum());
        looks += 1;
        sleep(1);
    }
    for child in children {
        let said = end(child);
        assert!(said.contains("DONE") && !said.contains("ERROR"), "{said}");
    }
    assert!(most <= limit && most > limit / 2 && looks > 20, "{most} of {limit} in {looks} looks");
}

#[test]
fn the_limit_holds_while_several_arrive() {
    let shards = Shard::several(6, 600 * KIB);
    let server = Server::new(shards.iter().map(Shard::file));
    let cache = tempfile::tempdir().unwrap();
    let limit = 3 * 600 * KIB as u64;
    let remote = limited(&server, cache.path(), limit);
    shards[..3].iter().for_each(|shard| shard.arrives(&remote));
    server.manners(|manners| manners.pause = Duration::from_millis(5));
    let arriving: Vec<_> = shards[3..]
        .iter()
        .map(|shard| {
            let (shard, remote) = (shard.clone(), remote.clone());
            std::thread::spawn(move || shard.arrives(&remote))
        })
        .collect();
    let (mut most, mut together) = (0, 0);
    while arriving.iter().any(|thread| !thread.is_finished()) {
        let now = files(cache.path());
        together = together.max(now.iter().filter(|(name, _)| name.starts_with('.')).count());
        most = most.max(now.iter().map(|(_, size)| *size).sum());
        sleep(1);
    }
    arriving.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(most <= limit && together == 3, "{most} of {limit}, {together} at a time");
    assert_eq!(names(cache.path()), ["train-000003", "train-000004", "train-000005"]);
}

#[test]
fn a_limit_that_is_too_small_is_said() {
    let shards = Shard::several(3, 100 * KIB);
    let server = Server::new(shards.iter().map(Shard::file));
    let cache = tempfile::tempdir().unwrap();
    let error = shards[0].fails(&limited(&server, cache.path(), 100));
    assert!(matches!(error, Error::Limit { .. }) && error.blame() == Blame::Usage, "{error}");
    assert!(error.to_string().contains("raise data.cache_limit to 102400 or more"), "{error}");
    let mut settings = settings(cache.path(), Some(250 * KIB as u64));
    settings.patience.room = Duration::from_millis(300);
    let remote = Remote::open(&Location::parse(&server.url()).unwrap(), settings).unwrap();
    let held = [shards[0].get(&remote).unwrap(), shards[1].get(&remote).unwrap()];
    let begin = Instant::now();
    let error = shards[2].fails(&remote);
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(error.to_string().contains("the limit is 256000 bytes, of which 204800 are being read"), "{error}");
    drop(held);
    shards[2].arrives(&remote);
}

#[test]
fn a_reader_that_waits_for_room_gets_it() {
    let shards = Shard::several(2, 100 * KIB);
    let server = Server::new(shards.iter().map(Shard::file));
    let cache = tempfile::tempdir().unwrap();
    let remote = limited(&server, cache.path(), 150 * KIB as u64);
    let held = shards[0].get(&remote).unwrap();
    let waiting = std::thread::spawn({
        let (shard, remote) = (shards[1].clone(), remote.clone());
        move || shard.arrives(&remote)
    });
    sleep(400);
    assert!(!waiting.is_finished() && held.path().exists());
    drop(held);
    waiting.join().unwrap();
    assert_eq!(names(cache.path()), ["train-000001"]);
}

#[test]
fn a_damaged_copy_is_fetched_again() {
    let shard = Shard::new("train-000000.tar", 100 * KIB);
    let server = Server::new([shard.file()]);
    let cache = tempfile::tempdir().unwrap();
    let remote = open(&server.url(), cache.path());
    let path = shard.get(&remote).unwrap().path().to_owned();
    let damages: [&dyn Fn(&Path); 3] = [
        &|path| fs::write(path, vec![0; 100 * KIB]).unwrap(),
        &|path| fs::File::options().write(true).open(path).unwrap().set_len(10).unwrap(),
        &|path| fs::remove_file(path).unwrap(),
    ];
    for (at, damage) in damages.iter().enumerate() {
        damage(&path);
        shard.arrives(&remote);
        assert_eq!(server.requests(&shard.name).len(), at + 2);
    }
    // Decay does not change the time of change: only a reader that finds the shard wrong can tell.
    let changed = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, vec![0; 100 * KIB]).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(changed).unwrap();
    drop(shard.get(&remote).unwrap());
    assert_eq!(server.requests(&shard.name).len(), 4);
    let again = || remote.shard_again(&shard.name, shard.bytes.len() as u64, &shard.sha256).unwrap();
    super::compare(&again(), &shard.sha256, 0);
    super::compare(&again(), &shard.sha256, 0);
    assert_eq!(server.requests(&shard.name).len(), 5);
}

#[test]
fn sets_and_versions_have_their_own_files() {
    let (old, new) = (Shard::new("a.tar", 1000), Shard::of("a.tar", vec![7; 1000]));
    let servers = [Server::new([old.file()]), Server::new([new.file()])];
    let cache = tempfile::tempdir().unwrap();
    let [first, second] = [0, 1].map(|at| open(&servers[at].url(), cache.path()));
    for _ in 0..2 {
        old.arrives(&first);
        new.arrives(&second);
    }
    assert!(servers.iter().all(|server| server.requests("a.tar").len() == 1));
    servers[0].state.files.lock().unwrap().extend([new.file()]);
    new.arrives(&first);
    old.arrives(&first);
    assert_eq!(servers[0].requests("a.tar").len(), 2);
}

#[test]
fn what_others_have_in_the_directory_stays() {
    let shards = Shard::several(2, 100 * KIB);
    let server = Server::new(shards.iter().map(Shard::file));
    let cache = tempfile::tempdir().unwrap();
    fs::write(cache.path().join("mine"), [0; 4096]).unwrap();
    let remote = limited(&server, cache.path(), 100 * KIB as u64);
    let theirs = cache.path().join("shards-1/link");
    std::os::unix::fs::symlink(cache.path(), &theirs).unwrap();
    shards.iter().for_each(|shard| shard.arrives(&remote));
    assert!(cache.path().join("mine").exists() && theirs.exists());
    let mode = |path: PathBuf| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(cache.path().join("shards-1")), 0o700);
    assert_eq!(mode(shards[1].get(&remote).unwrap().path().to_owned()), 0o600);
    fs::set_permissions(cache.path().join("shards-1"), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Remote::open(&Location::parse(&server.url()).unwrap(), settings(cache.path(), None)).unwrap_err();
    assert!(error.to_string().contains("other users may write to it") && error.blame() == Blame::Usage, "{error}");
}

/// A disk of 2 MiB; none where this user may not mount one.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(test: &str) -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Disk(folder));
        }
        end_to_end::skip::cannot_run(test, "this user may not mount a tmpfs");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk() {
    let Some(disk) = Disk::mount("a_full_disk") else { return };
    let cache = disk.0.path();
    let shards = Shard::several(4, 600 * KIB);
    let server = Server::new(shards.iter().map(Shard::file));
    // The limit says more than the disk has: what is not used makes room when the disk is full.
    let generous = limited(&server, cache, 1 << 30);
    shards.iter().for_each(|shard| shard.arrives(&generous));
    assert_eq!(names(cache).last().unwrap(), "train-000003");
    let held: Vec<_> = [1, 2, 3].iter().map(|at| shards[*at].get(&generous).unwrap()).collect();
    let error = shards[0].fails(&generous);
    assert!(matches!(error, Error::Full { .. }) && error.blame() == Blame::Machine, "{error}");
    assert!(error.to_string().contains("the disk is full") && error.to_string().contains("data.cache_dir"), "{error}");
    // Without a limit nothing is begun that cannot end.
    let before = server.requests(&shards[0].name).len();
    let mut hasty = settings(cache, None);
    hasty.patience.room = Duration::ZERO;
    let careful = Remote::open(&Location::parse(&server.url()).unwrap(), hasty).unwrap();
    assert!(matches!(shards[0].fails(&careful), Error::Full { .. }));
    assert_eq!(server.requests(&shards[0].name).len(), before);
    drop(held);
    shards[0].arrives(&careful);
}
