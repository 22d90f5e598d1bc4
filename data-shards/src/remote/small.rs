//! Small files, of which only the server knows whether they are still the same.
//!
//! Duty: the server's present version, without fetching again what is there already. Must not: hand out a version that the
//! server did not confirm.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::entry::{self, PARTIAL};
use super::error::{Error, Fault};
use super::patience::{Attempts, Patience, chance};
use super::server::{Ask, Limits, Server, Trouble};
use crate::hex;

/// A small file that is wanted.
pub(super) struct Small<'a> {
    pub(super) server: &'a Server,
    pub(super) patience: &'a Patience,
    pub(super) limits: Limits<'a>,
    pub(super) name: &'a str,
    /// Its URL, for messages.
    pub(super) url: String,
    /// Where its last version is kept.
    pub(super) path: PathBuf,
    /// Most bytes that it may have.
    pub(super) most: u64,
}

/// The first line of a kept version; the bytes follow.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    etag: String,
    sha256: String,
}

/// A version that was fetched.
struct Fresh {
    bytes: Vec<u8>,
    etag: Option<String>,
}

impl Small<'_> {
    /// The file; `again`: whatever is kept.
    pub(super) fn get(&self, again: bool) -> Result<Vec<u8>, Error> {
        let kept = if again { None } else { self.kept() };
        let (begin, mut attempts) = (Instant::now(), Attempts::default());
        loop {
            let last = match self.attempt(kept.as_ref()) {
                Ok(Some(Fresh { bytes, etag })) => {
                    self.keep(&bytes, etag);
                    return Ok(bytes);
                }
                Ok(None) => return Ok(kept.map(|(_, bytes)| bytes).unwrap_or_default()),
                Err(Trouble::Passing(last) | Trouble::Restart(last)) => last,
                Err(Trouble::Unchanged) => "an answer that says unchanged".to_owned(),
                Err(trouble) => return Err(self.hopeless(trouble)),
            };
            let Some(pause) = attempts.failed(0, self.patience, chance()) else {
                let (attempts, seconds) = (attempts.made, begin.elapsed().as_secs());
                return Err(self.fault(Fault::Unreachable { attempts, seconds, last }));
            };
            tracing::warn!("{}: {last}; trying again in {:.1} s", self.url, pause.as_secs_f32());
            self.pause(pause)?;
        }
    }

    /// The present version; none where the kept version is it.
    fn attempt(&self, kept: Option<&(Kept, Vec<u8>)>) -> Result<Option<Fresh>, Trouble> {
        let ask = Ask { other: kept.map(|(kept, _)| kept.etag.clone()), ..Ask::default() };
        let mut body = match self.server.get(self.name, &ask, self.limits) {
            Err(Trouble::Unchanged) if kept.is_some() => return Ok(None),
            answer => answer?,
        };
        self.bounded(body.size)?;
        let mut bytes = Vec::new();
        while let Some(more) = body.next(self.limits)? {
            self.bounded((bytes.len() + more.len()) as u64)?;
            bytes.extend_from_slice(&more);
        }
        if bytes.len() as u64 != body.size {
            return Err(Trouble::Passing("the connection ended early".to_owned()));
        }
        Ok(Some(Fresh { bytes, etag: body.etag.take() }))
    }

    fn bounded(&self, found: u64) -> Result<(), Trouble> {
        if found <= self.most { Ok(()) } else { Err(Trouble::TooLarge(found)) }
    }

    fn hopeless(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Stopped => Error::Stopped { url: self.url.clone() },
            Trouble::Missing { .. } => self.fault(Fault::Missing),
            Trouble::Refused(answer) => self.fault(Fault::Refused { answer, remedy: self.server.remedy() }),
            Trouble::TooLarge(found) => self.fault(Fault::TooLarge { found, limit: self.most }),
            Trouble::Final(answer) | Trouble::Passing(answer) | Trouble::Restart(answer) => {
                self.fault(Fault::Answer { answer })
            }
            Trouble::Unchanged => self.fault(Fault::Answer { answer: "unchanged".to_owned() }),
        }
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::Remote { url: self.url.clone(), fault }
    }

    fn pause(&self, pause: Duration) -> Result<(), Error> {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            if self.limits.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped { url: self.url.clone() });
            }
            thread::sleep(end.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
        }
        Ok(())
    }

    /// The kept version, where its bytes are still what they were.
    fn kept(&self) -> Option<(Kept, Vec<u8>)> {
        let found = fs::metadata(&self.path).ok()?;
        if found.len() > self.most.saturating_add(1 << 16) {
            return None;
        }
        let mut bytes = fs::read(&self.path).ok()?;
        let line = bytes.iter().position(|byte| *byte == b'\n')?;
        let kept: Kept = serde_json::from_slice(bytes.get(..line)?).ok()?;
        bytes.drain(..=line);
        (hex(&Sha256::digest(&bytes)) == kept.sha256).then_some((kept, bytes))
    }

    /// Keeps this version. Where that fails, the next start fetches it again.
    fn keep(&self, bytes: &[u8], etag: Option<String>) {
        let Some(etag) = etag else { return };
        let kept = Kept { etag, sha256: hex(&Sha256::digest(bytes)) };
        if let Err(error) = write(&self.path, &kept, bytes) {
            tracing::debug!("{}: not kept in the cache: {error}", self.url);
        }
    }
}

/// Writes it under a name of its own first, locked, so that what a crash leaves counts as a partial file that nobody fetches.
fn write(path: &Path, kept: &Kept, bytes: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let partial = path.with_file_name(format!(".{name}.{process}-{count}{PARTIAL}"));
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let Some(mut file) = entry::try_exclusive(&partial, options)? else {
        return Err(io::ErrorKind::WouldBlock.into());
    };
    let mut head = serde_json::to_vec(kept)?;
    head.push(b'\n');
    let written = file.write_all(&head).and_then(|()| file.write_all(bytes)).and_then(|()| fs::rename(&partial, path));
    written.inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}
