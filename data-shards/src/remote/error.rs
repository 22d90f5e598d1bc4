//! What can go wrong with a remote data set and its cache, and what to do about it.
//!
//! Duty: one message a failure, naming URL or file; and whose fault it is. Must not: show credentials: every text that comes
//! from elsewhere passed through `redact`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A remote data set that cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A URL that makes no sense.
    #[error("{url}: {problem}")]
    Url {
        /// As written, without credentials.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Settings of the environment with which no connection can be made.
    #[error(
        "{url}: cannot prepare a connection: {problem}; look at the AWS_* and *_PROXY variables of the environment"
    )]
    Client {
        /// The data set.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// A name of a file that can be none.
    #[error("`{}` is no name of a file of a data set: expected the characters a-z, A-Z, 0-9, `.`, `_` and `-`", name.escape_debug())]
    Name {
        /// The name, shortened.
        name: String,
    },
    /// A checksum that can be none.
    #[error("{url}: `{}` is no SHA-256: pack again", found.escape_debug())]
    NoChecksum {
        /// The file.
        url: String,
        /// What stands in the index, shortened.
        found: String,
    },
    /// The server, or what it delivers.
    #[error("{url}: {fault}")]
    Remote {
        /// The file.
        url: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A directory of a cache that someone else could change.
    #[error("{}: {problem}; name another directory in data.cache_dir", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A cache whose limit is below what has to be in it at the same time.
    #[error("{}: {need} bytes for {url} do not fit: the limit is {limit} bytes, of which {held} are being read or fetched; \
        raise data.cache_limit to {} or more", dir.display(), need.saturating_add(*held))]
    Limit {
        /// The cache.
        dir: PathBuf,
        /// What was to be fetched.
        url: String,
        /// Its bytes.
        need: u64,
        /// Bytes that the cache may take.
        limit: u64,
        /// Bytes that could not be given up.
        held: u64,
    },
    /// A disk without room.
    #[error("{}: the disk is full but for what stays free beside the cache (a twentieth or 2 GiB): {need} bytes for {url} do not fit, \
        and nothing in the cache can be given up; free some space, or name another disk in data.cache_dir", dir.display())]
    Full {
        /// The cache.
        dir: PathBuf,
        /// What was to be fetched.
        url: String,
        /// Bytes still to come.
        need: u64,
    },
    /// A file of the cache that cannot be used.
    #[error("cannot {doing} {}: {source}; the cache must be on a disk of this node where its user may write and lock files (data.cache_dir)", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A thread that could not be started.
    #[error("cannot start a thread for downloads: {source}; allow more processes (ulimit -u)")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
    /// A file of this machine that is uploaded or downloaded.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The download was given up because [`super::Remote::stop`] was called.
    #[error("{url}: given up, because this process is about to end")]
    Stopped {
        /// The file.
        url: String,
    },
}

/// What is wrong with a file of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No attempt succeeded.
    #[error(
        "not reachable: {attempts} attempts in {seconds} s, the last: {last}; see that the server runs and that this node reaches it, then start again: what has arrived is kept"
    )]
    Unreachable {
        /// Attempts in all.
        attempts: u32,
        /// Seconds from the first to the last.
        seconds: u64,
        /// What the last one met.
        last: String,
    },
    /// It is not there.
    #[error("there is no such file on the server: check the URL, or upload the data set again")]
    Missing,
    /// The server does not let us have it.
    #[error("access denied: {answer}; {remedy}")]
    Refused {
        /// What the server said.
        answer: String,
        /// What to do.
        remedy: String,
    },
    /// An answer that does not change by asking again.
    #[error("the server does not serve it: {answer}")]
    Answer {
        /// What the server said.
        answer: String,
    },
    /// A file that is larger than such a file ever is.
    #[error("it has {found} bytes, but at most {limit} are expected: it is none of our files")]
    TooLarge {
        /// Bytes of the file.
        found: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A file of another size than its index says.
    #[error(
        "it has {found} bytes, its index says {expected}, and fetching it again did not help: upload the data set again"
    )]
    Size {
        /// Bytes of the file.
        found: u64,
        /// Bytes that the index lists.
        expected: u64,
    },
    /// A file whose bytes are not those that were written.
    #[error(
        "its SHA-256 is {found}, expected {expected}, and fetching it again did not help: upload the data set again"
    )]
    Checksum {
        /// That of the bytes that arrived.
        found: String,
        /// That of the index.
        expected: String,
    },
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// What the user asked for: exit code 2.
    Usage,
    /// The data, or that they cannot be had: exit code 3.
    Input,
    /// This machine. Another start, or another machine, may do better.
    Machine,
}

impl Error {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Error::Url { .. } | Error::Client { .. } | Error::Unsafe { .. } | Error::Limit { .. } => Blame::Usage,
            Error::Name { .. } | Error::NoChecksum { .. } | Error::Remote { .. } => Blame::Input,
            Error::Full { .. }
            | Error::Cache { .. }
            | Error::File { .. }
            | Error::Thread { .. }
            | Error::Stopped { .. } => Blame::Machine,
        }
    }

    /// A failure of the cache at `path`.
    pub(super) fn cache(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Cache { path: path.to_owned(), doing, source }
    }
}
