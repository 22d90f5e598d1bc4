//! One shard from the server into the cache.
//!
//! Duty: one download a node however many ask; to go on where an earlier attempt, or process, stopped; and to hand out
//! nothing whose checksum was not verified. Must not: talk HTTP, or choose what the cache gives up.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::entry::{Entry, Held};
use super::error::{Error, Fault};
use super::patience::{Attempts, Patience, chance};
use super::room::{Budget, Meta, Room};
use super::server::{Ask, Limits, Server, Trouble};
use crate::hex;

/// Bytes that are hashed and written at a time.
const PIECE: usize = 1 << 18;
/// So often a file has to be missing on a server that has others.
const MISSING: u32 = 3;
/// How often one who waits for another's download looks.
const LOOK: Duration = Duration::from_millis(20);
/// How often one who waits for room looks.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(200);

/// A shard that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Download<'a> {
    pub(super) server: &'a Server,
    pub(super) budget: &'a Budget,
    pub(super) patience: &'a Patience,
    pub(super) limits: Limits<'a>,
    pub(super) name: &'a str,
    /// Its URL, for messages.
    pub(super) url: String,
    pub(super) bytes: u64,
    /// 64 lower-case hexadecimal digits.
    pub(super) sha256: &'a str,
    pub(super) entry: Entry,
}

/// A failure that those who waited for the download share.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    when: SystemTime,
    fault: Fault,
}

/// The part that has arrived.
struct Part {
    file: Flock<File>,
    have: u64,
    hash: Sha256,
    etag: Option<String>,
}

impl Download<'_> {
    /// The shard, from the cache or else fetched.
    pub(super) fn get(&self) -> Result<Held, Error> {
        let begin = SystemTime::now();
        loop {
            if let Some(held) = self.cached()? {
                return Ok(held);
            }
            let Some(file) = self.entry.lock_partial().map_err(self.cache("lock"))? else {
                self.pause(LOOK)?;
                continue;
            };
            // Another may have finished it between the look and the lock. Without one, a file under the complete name is damaged.
            if let Some(held) = self.cached()? {
                remove(&self.entry.partial).map_err(self.cache("remove"))?;
                return Ok(held);
            }
            if let Some(fault) = self.failed_since(begin) {
                return Err(self.fault(fault));
            }
            remove(&self.entry.complete).map_err(self.cache("remove"))?;
            let mut part = self.resume(file)?;
            // While the lock is had: whoever has it next must find the note.
            self.fetch(&mut part).inspect_err(|error| self.note(error))?;
            if let Some(held) = self.entry.complete(part.file).map_err(self.cache("complete"))? {
                return Ok(held);
            }
        }
    }

    /// As [`Self::get`], but believes only a copy whose checksum holds.
    pub(super) fn get_again(&self) -> Result<Held, Error> {
        let held = self.get()?;
        let found = sha256_of(held.file()).map_err(Error::cache("read", held.path()))?;
        if found == self.sha256 {
            return Ok(held);
        }
        tracing::warn!("{}: the copy in the cache, {}, is damaged: fetching it again", self.url, held.path().display());
        // No longer sound: whoever looks next fetches it anew, under the lock that this takes.
        held.file().set_modified(SystemTime::now()).map_err(Error::cache("mark", held.path()))?;
        drop(held);
        self.get()
    }

    fn cached(&self) -> Result<Option<Held>, Error> {
        self.entry.open().map_err(Error::cache("open", &self.entry.complete))
    }

    /// Goes on until everything is there and verified, or there is no hope.
    fn fetch(&self, part: &mut Part) -> Result<(), Error> {
        self.await_room(part)?;
        let (begin, mut attempts, mut so_far) = (Instant::now(), Attempts::default(), SoFar::default());
        loop {
            let before = part.have;
            let (last, fault) = match self.attempt(part) {
                Ok(None) => return Ok(()),
                // The bytes may have been changed on the way, or on the disk of an earlier process: once.
                Ok(Some(fault)) if so_far.wrong => return Err(self.fault(fault)),
                Ok(Some(fault)) => {
                    tracing::warn!("{}: {fault}: fetching it again from the start", self.url);
                    so_far.wrong = true;
                    self.clear(part)?;
                    continue;
                }
                Err(Failure::Hopeless(error)) => return Err(error),
                Err(Failure::Missing { all }) => {
                    so_far.missing += 1;
                    if !self.may_come_back(all, part.have, &so_far) {
                        return Err(self.fault(Fault::Missing));
                    }
                    ("there is no such file now".to_owned(), Some(Fault::Missing))
                }
                Err(Failure::Passing(last)) => {
                    so_far.trouble = true;
                    (last, None)
                }
                Err(Failure::Restart(last)) => {
                    so_far.restarts += 1;
                    self.clear(part)?;
                    if so_far.restarts < self.patience.attempts.max(2) {
                        tracing::warn!("{}: {last}: fetching it from the start", self.url);
                        continue;
                    }
                    (last, None)
                }
            };
            let pause = attempts.failed(part.have.saturating_sub(before), self.patience, chance());
            let Some(pause) = pause.filter(|_| so_far.restarts < self.patience.attempts.max(2)) else {
                let (attempts, seconds) = (attempts.made.saturating_add(so_far.restarts), begin.elapsed().as_secs());
                return Err(self.fault(fault.unwrap_or(Fault::Unreachable { attempts, seconds, last })));
            };
            let (seconds, have, bytes) = (pause.as_secs_f32(), part.have, self.bytes);
            tracing::warn!("{}: {last}; {have} of {bytes} bytes are there; going on in {seconds:.1} s", self.url);
            self.pause(pause)?;
        }
    }

    /// Whether a file that is not there may be there soon: a server that was started again may not have its files at once.
    fn may_come_back(&self, all: bool, have: u64, so_far: &SoFar) -> bool {
        have > 0 || so_far.trouble || self.server.has_served() && (all || so_far.missing < MISSING)
    }

    /// Takes over what an earlier process has left.
    fn resume(&self, file: Flock<File>) -> Result<Part, Error> {
        let etag = Meta::read(&self.entry.meta).filter(|meta| meta.bytes == self.bytes).and_then(|meta| meta.etag);
        let mut part = Part { file, have: 0, hash: Sha256::new(), etag };
        self.rehash(&mut part).map_err(self.cache("read"))?;
        if part.have > self.bytes {
            self.clear(&mut part)?;
        }
        if part.have > 0 {
            tracing::debug!("{}: {} of {} bytes are there from before", self.url, part.have, self.bytes);
        }
        Ok(part)
    }

    fn rehash(&self, part: &mut Part) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        part.file.seek(SeekFrom::Start(0))?;
        loop {
            let read = part.file.read(&mut buffer)?;
            match buffer.get(..read) {
                None | Some([]) => return Ok(()),
                Some(bytes) => part.hash.update(bytes),
            }
            part.have = part.have.saturating_add(read as u64);
        }
    }

    /// Begins anew.
    fn clear(&self, part: &mut Part) -> Result<(), Error> {
        part.file.set_len(0).and_then(|()| part.file.seek(SeekFrom::Start(0))).map_err(self.cache("empty"))?;
        (part.have, part.hash, part.etag) = (0, Sha256::new(), None);
        Ok(())
    }

    fn await_room(&self, part: &Part) -> Result<(), Error> {
        let (begin, meta) = (Instant::now(), Meta { bytes: self.bytes, etag: part.etag.clone() });
        loop {
            let room = self
                .budget
                .promise(&self.entry.partial, (&self.entry.meta, &meta))
                .map_err(self.cache("make room for"))?;
            let Room::Lacking { held, limit } = room else { return Ok(()) };
            if self.bytes > limit || begin.elapsed() >= self.patience.room {
                return Err(self.lacking(held, limit));
            }
            self.pause(LOOK_FOR_ROOM)?;
        }
    }

    fn lacking(&self, held: u64, limit: u64) -> Error {
        let (dir, url, need) = (self.budget.root.clone(), self.url.clone(), self.bytes);
        match self.budget.limit {
            Some(_) => Error::Limit { dir, url, need, limit, held },
            None => Error::Full { dir, url, need },
        }
    }

    /// One request for what is missing. Nothing where everything is there and right, a fault where it is not right.
    fn attempt(&self, part: &mut Part) -> Result<Option<Fault>, Failure> {
        if part.have < self.bytes {
            // A weak ETag never matches by the rules of HTTP; that of the answer is compared below.
            let same = part.etag.clone().filter(|etag| part.have > 0 && !etag.starts_with("W/"));
            let ask = Ask { from: part.have, size: self.bytes, same, other: None };
            let mut body = self.server.get(self.name, &ask, self.limits).map_err(|trouble| self.failure(trouble))?;
            if body.size != self.bytes {
                return Ok(Some(Fault::Size { found: body.size, expected: self.bytes }));
            }
            self.note_etag(part, body.etag.take())?;
            self.receive(part, &mut body)?;
        }
        let found = hex(&part.hash.clone().finalize());
        let fault = Fault::Checksum { found, expected: self.sha256.to_owned() };
        Ok(matches!(&fault, Fault::Checksum { found, expected } if found != expected).then_some(fault))
    }

    /// Bytes from different versions of a file must not meet.
    fn note_etag(&self, part: &mut Part, etag: Option<String>) -> Result<(), Failure> {
        if part.have > 0 && part.etag.is_some() && etag.is_some() && part.etag != etag {
            return Err(Failure::Restart("the file changed while it was fetched".to_owned()));
        }
        if part.etag != etag && etag.is_some() {
            part.etag = etag;
            let meta = Meta { bytes: self.bytes, etag: part.etag.clone() };
            meta.write(&self.entry.meta).map_err(Error::cache("write", &self.entry.meta)).map_err(Failure::Hopeless)?;
        }
        Ok(())
    }

    fn receive(&self, part: &mut Part, body: &mut super::server::Body<'_>) -> Result<(), Failure> {
        let mut piece = Vec::with_capacity(2 * PIECE);
        let ended = loop {
            match body.next(self.limits) {
                Ok(Some(bytes)) => piece.extend_from_slice(&bytes),
                Ok(None) => break None,
                Err(trouble) => break Some(trouble),
            }
            if piece.len() as u64 > self.bytes - part.have {
                // No server sends more than it announced, unless something between us and it does not do its work.
                return Err(Failure::Restart("more arrived than was announced".to_owned()));
            }
            if piece.len() >= PIECE {
                self.keep(part, &piece).map_err(Failure::Hopeless)?;
                piece.clear();
            }
        };
        self.keep(part, &piece).map_err(Failure::Hopeless)?;
        match ended {
            Some(trouble) => Err(self.failure(trouble)),
            None if part.have < self.bytes => Err(Failure::Passing("the connection ended early".to_owned())),
            None => Ok(()),
        }
    }

    /// Writes bytes behind those that are there. On a full disk the cache gives something up.
    fn keep(&self, part: &mut Part, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match part.file.write(bytes) {
                Ok(0) => return Err(self.cache("write")(ErrorKind::WriteZero.into())),
                Ok(written) => {
                    let (done, rest) = bytes.split_at(written.min(bytes.len()));
                    part.hash.update(done);
                    part.have = part.have.saturating_add(done.len() as u64);
                    bytes = rest;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    self.squeeze(self.bytes.saturating_sub(part.have))?;
                }
                Err(error) => return Err(self.cache("write")(error)),
            }
        }
        Ok(())
    }

    fn squeeze(&self, need: u64) -> Result<(), Error> {
        match self.budget.squeeze(&self.entry.partial, need).map_err(self.cache("make room for"))? {
            0 => Err(Error::Full { dir: self.budget.root.clone(), url: self.url.clone(), need }),
            _ => Ok(()),
        }
    }

    fn failure(&self, trouble: Trouble) -> Failure {
        let fault = match trouble {
            Trouble::Passing(last) => return Failure::Passing(last),
            Trouble::Restart(last) => return Failure::Restart(last),
            Trouble::Unchanged => return Failure::Restart("an answer that says unchanged".to_owned()),
            Trouble::Stopped => return Failure::Hopeless(Error::Stopped { url: self.url.clone() }),
            Trouble::Missing { all } => return Failure::Missing { all },
            Trouble::Refused(answer) => Fault::Refused { answer, remedy: self.server.remedy() },
            Trouble::TooLarge(found) => Fault::Size { found, expected: self.bytes },
            Trouble::Final(answer) => Fault::Answer { answer },
        };
        Failure::Hopeless(self.fault(fault))
    }

    fn fault(&self, fault: Fault) -> Error {
        Error::Remote { url: self.url.clone(), fault }
    }

    /// Tells those who wait for this download that it failed, so that they need not find out one after the other.
    fn note(&self, error: &Error) {
        if let Error::Remote { fault, .. } = error {
            let note = Note { when: SystemTime::now(), fault: fault.clone() };
            // Without it the others find out for themselves.
            let _ = serde_json::to_vec(&note).map(|note| fs::write(&self.entry.note, note));
        }
    }

    /// The failure of a download that ended after `begin`, the time at which we began to wait for it.
    fn failed_since(&self, begin: SystemTime) -> Option<Fault> {
        let note: Note = serde_json::from_slice(&fs::read(&self.entry.note).ok()?).ok()?;
        (begin <= note.when && note.when <= SystemTime::now()).then_some(note.fault)
    }

    /// Sleeps, unless we are told to stop.
    fn pause(&self, pause: Duration) -> Result<(), Error> {
        let end = Instant::now() + pause;
        loop {
            if self.limits.stop.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::Stopped { url: self.url.clone() });
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn cache(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        Error::cache(doing, &self.entry.partial)
    }
}

/// What a download has met.
#[derive(Debug, Default)]
struct SoFar {
    /// Everything had arrived, and was not what it should be.
    wrong: bool,
    /// Attempts that found no file.
    missing: u32,
    /// An attempt failed otherwise.
    trouble: bool,
    /// How often it began anew.
    restarts: u32,
}

/// How an attempt failed.
enum Failure {
    /// It is not there; `all`: neither is anything else.
    Missing { all: bool },
    /// Worth another, from where this one stopped.
    Passing(String),
    /// Worth another, from the start.
    Restart(String),
    /// No more attempts.
    Hopeless(Error),
}

fn sha256_of(mut file: &File) -> io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; PIECE]);
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
