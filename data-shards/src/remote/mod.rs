//! Data sets on servers, through a cache that the processes of a node share; and files that are put there.
//!
//! Duty: the files of a data set, verified, on this machine. Must not: know what is in them, nor let a credential into a log,
//! an error or the cache.
//!
//! `location` understands URLs, `server` makes requests, `patience` decides how often, `download` brings a shard, `small` the
//! files that may change, `set` the data set of them all, `store` (with `put`) takes files, `entry` has the locks, `room` the limit, `redact` the texts. Inside there is a runtime that is
//! asynchronous; nothing of it shows. Nothing here may be called from within such a runtime.

mod download;
mod entry;
mod error;
mod location;
mod patience;
mod put;
mod redact;
mod room;
mod server;
mod set;
mod small;
mod store;
mod witness;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use sha2::{Digest, Sha256};

use self::download::Download;
use self::entry::Entry;
use self::room::Budget;
use self::server::{Limits, Server};
use self::small::Small;
use crate::hex;

pub use self::entry::Held;
pub use self::error::{Blame, Error, Fault};
pub use self::location::Location;
pub use self::patience::Patience;
pub use self::set::{RemoteSet, RemoteShards};
pub use self::store::Store;

/// Most bytes of a file that [`Remote::small`] fetches.
pub const SMALL: u64 = 1 << 28;
/// Threads that fetch ahead.
const AHEAD: usize = 2;
/// Shards that may wait to be fetched ahead.
const QUEUE: usize = 64;
/// The part of a cache's directory that is ours, with the version of its layout.
const LAYOUT: &str = "shards-1";

/// Where to keep what was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// A directory on a disk of this node. It comes to be if need be; what else lies in it is left alone.
    pub dir: PathBuf,
    /// Bytes that all data sets together may take in `dir`; none: all that the disk has, less a twentieth
    /// or 2 GiB, whichever is less.
    pub limit_bytes: Option<u64>,
    /// How long to go on trying.
    pub patience: Patience,
}

impl Default for CacheSettings {
    fn default() -> CacheSettings {
        CacheSettings { dir: default_dir(), limit_bytes: None, patience: Patience::default() }
    }
}

/// A remote data set. Copies share their connections; all processes of a node with the same [`CacheSettings::dir`] share what
/// was fetched.
#[derive(Clone, Debug)]
pub struct Remote {
    inner: Arc<Inner>,
    ahead: Arc<Ahead>,
}

#[derive(Debug)]
struct Inner {
    location: Location,
    server: Server,
    budget: Budget,
    /// The data set's folder in the cache.
    folder: PathBuf,
    patience: Patience,
    stop: AtomicBool,
}

/// A shard as an index lists it.
#[derive(Clone, Debug)]
struct Wanted {
    name: String,
    bytes: u64,
    sha256: String,
}

/// The threads that fetch ahead. They end with the last copy of their [`Remote`].
#[derive(Debug)]
struct Ahead {
    inner: Arc<Inner>,
    jobs: Option<Sender<Wanted>>,
    threads: Vec<JoinHandle<()>>,
}

impl Remote {
    /// Prepares the cache and the connections to the data set in `location`. Makes no request.
    ///
    /// # Errors
    /// [`Error::Url`] where `location` is a directory of this machine; [`Error::Client`] for settings in the environment that
    /// make no sense; [`Error::Cache`] where the cache cannot be made, [`Error::Unsafe`] where others could change it.
    pub fn open(location: &Location, cache: CacheSettings) -> Result<Remote, Error> {
        let CacheSettings { dir, limit_bytes, patience } = cache;
        let server = Server::new(location)?;
        let root = dir.join(LAYOUT);
        let folder = root.join(location.cache_name(server.endpoint()));
        if dir == default_dir() {
            make_private(&dir)?;
        }
        make_private(&root)?;
        make_private(&folder)?;
        let budget = Budget { root, limit: limit_bytes };
        let stop = AtomicBool::new(false);
        let inner = Arc::new(Inner { location: location.clone(), server, budget, folder, patience, stop });
        let ahead = Arc::new(Ahead::start(&inner)?);
        Ok(Remote { inner, ahead })
    }

    /// Where the data set is.
    pub fn location(&self) -> &Location {
        &self.inner.location
    }

    /// The bytes of a small file, such as an index: the version that the server has now. It is fetched only where the cache
    /// has another one.
    ///
    /// # Errors
    /// [`Error::Remote`] where it cannot be had, or has more than [`SMALL`] bytes; [`Error::Name`].
    pub fn small(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.inner.small(name, false)
    }

    /// As [`Self::small`], but believes nothing that the cache has: for a reader to whom the file does not look right.
    ///
    /// # Errors
    /// Those of [`Self::small`].
    pub fn small_again(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.inner.small(name, true)
    }

    /// A shard of this size and SHA-256 (hexadecimal), open and locked in the cache. Fetches it if need be, however long that
    /// takes; one download a node, whoever asks for it at the same time.
    ///
    /// # Errors
    /// [`Error::Remote`] where it cannot be had or is not what the index says; [`Error::Limit`] or [`Error::Full`] where there
    /// is no room; [`Error::Cache`]; [`Error::Stopped`]; [`Error::Name`] and [`Error::NoChecksum`] for an impossible listing.
    pub fn shard(&self, name: &str, bytes: u64, sha256: &str) -> Result<Held, Error> {
        self.inner.shard(&Wanted::new(name, bytes, sha256))
    }

    /// As [`Self::shard`], but compares the copy in the cache with its checksum first, and fetches it again where it is
    /// damaged: for a reader to whom the shard does not look right.
    ///
    /// # Errors
    /// Those of [`Self::shard`].
    pub fn shard_again(&self, name: &str, bytes: u64, sha256: &str) -> Result<Held, Error> {
        self.inner.shard_again(&Wanted::new(name, bytes, sha256))
    }

    /// Fetches a shard in the background. Does nothing where it is there, where many wait already or where there is no room;
    /// what goes wrong is reported to whoever asks for the shard.
    pub fn prefetch(&self, name: &str, bytes: u64, sha256: &str) {
        if let Some(jobs) = &self.ahead.jobs {
            // A full queue is far enough ahead.
            let _ = jobs.try_send(Wanted::new(name, bytes, sha256));
        }
    }

    /// Lets every call that waits, or is made from now on, end with [`Error::Stopped`] within a fraction of a second.
    pub fn stop(&self) {
        self.inner.stop.store(true, Ordering::Relaxed);
    }

    /// Bytes that all data sets together may take in the cache; none: all that the disk has.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.inner.budget.limit
    }

    /// Bytes that the cache takes, for all data sets, those included that are still to arrive.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub fn used_bytes(&self) -> Result<u64, Error> {
        self.inner.budget.used().map_err(Error::cache("list", &self.inner.budget.root))
    }
}

impl Inner {
    fn limits(&self) -> Limits<'_> {
        Limits { silence: self.patience.silence, stop: &self.stop }
    }

    fn url(&self, name: &str) -> Result<String, Error> {
        Ok(self.server.shown(&self.location.join(name)?))
    }

    fn small(&self, name: &str, again: bool) -> Result<Vec<u8>, Error> {
        let url = self.url(name)?;
        // A query may choose the file, and is kept out of the folder's name.
        let tag: String = hex(&Sha256::digest(self.location.query().as_bytes())).chars().take(8).collect();
        let path = self.folder.join(format!("{name}~{tag}"));
        let (server, patience, limits) = (&self.server, &self.patience, self.limits());
        Small { server, patience, limits, name, url, path, most: SMALL }.get(again)
    }

    fn shard(&self, wanted: &Wanted) -> Result<Held, Error> {
        self.download(wanted, &self.patience)?.get()
    }

    fn shard_again(&self, wanted: &Wanted) -> Result<Held, Error> {
        self.download(wanted, &self.patience)?.get_again()
    }

    fn download<'a>(&'a self, wanted: &'a Wanted, patience: &'a Patience) -> Result<Download<'a>, Error> {
        let Wanted { name, bytes, sha256 } = wanted;
        let url = self.url(name)?;
        if sha256.len() != 64 || !sha256.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)) {
            return Err(Error::NoChecksum { url, found: sha256.chars().take(80).collect() });
        }
        let entry = Entry::new(&self.folder, name, *bytes, sha256);
        let (server, budget, limits) = (&self.server, &self.budget, self.limits());
        Ok(Download { server, budget, patience, limits, name, url, bytes: *bytes, sha256, entry })
    }

    /// Without a wait for room.
    fn fetch_ahead(&self, wanted: &Wanted) {
        let patience = Patience { room: std::time::Duration::ZERO, ..self.patience };
        if let Err(error) = self.download(wanted, &patience).and_then(|download| download.get()) {
            tracing::debug!("not fetched ahead: {error}");
        }
    }
}

impl Wanted {
    fn new(name: &str, bytes: u64, sha256: &str) -> Wanted {
        Wanted { name: name.to_owned(), bytes, sha256: sha256.to_ascii_lowercase() }
    }
}

impl Ahead {
    fn start(inner: &Arc<Inner>) -> Result<Ahead, Error> {
        let (jobs, todo) = bounded::<Wanted>(QUEUE);
        let mut ahead = Ahead { inner: Arc::clone(inner), jobs: Some(jobs), threads: Vec::new() };
        for at in 0..AHEAD {
            let (todo, inner): (Receiver<Wanted>, _) = (todo.clone(), Arc::clone(inner));
            let thread = std::thread::Builder::new().name(format!("ahead-{at}"));
            let work = move || {
                for wanted in todo {
                    if inner.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    inner.fetch_ahead(&wanted);
                }
            };
            ahead.threads.push(thread.spawn(work).map_err(|source| Error::Thread { source })?);
        }
        Ok(ahead)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Nobody is left who could ask, or wait, for a shard.
        self.inner.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has told so on standard error.
            let _ = thread.join();
        }
    }
}

/// `TMPDIR`, or else `/var/tmp`, or else the system's folder for temporary files, with a folder of this user's in it: home
/// directories of clusters are seldom on a disk of the node.
fn default_dir() -> PathBuf {
    let given = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let lasting = || Some(PathBuf::from("/var/tmp")).filter(|dir| dir.is_dir());
    given.or_else(lasting).unwrap_or_else(std::env::temp_dir).join(format!("jcs-cache-{}", user()))
}

/// The number of this process's user.
fn user() -> u32 {
    fs::metadata("/proc/self").map_or(0, |process| process.uid())
}

/// Makes a directory that only this user may enter. One that is there must be this user's, and nobody else may write to it.
fn make_private(dir: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(Error::cache("make", dir))?;
    let found = fs::symlink_metadata(dir).map_err(Error::cache("look at", dir))?;
    let problem = match found {
        found if !found.is_dir() => "it is a link, not a directory",
        found if found.uid() != user() => "it belongs to another user",
        found if found.mode() & 0o022 != 0 => "other users may write to it (chmod go-w)",
        _ => return Ok(()),
    };
    Err(Error::Unsafe { path: dir.to_owned(), problem })
}
