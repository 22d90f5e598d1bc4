//! A place on a server that takes files.
//!
//! Duty: to put, get, list and remove files by their names, tried again while there is hope. Must not: know what is in them, or
//! decide which go. What is put is visible as a whole or not at all.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::multipart::PartId;

use super::error::{Error, Fault};
use super::location::{Location, Place};
use super::patience::{Attempts, Patience, chance};
use super::server::{Ask, Limits, Server, Trouble};

/// Bytes of a part; a file that has no more comes as a whole.
const PART: usize = 8 << 20;
/// So many times longer than an answer may a part take on its way.
const ON_ITS_WAY: u32 = 4;

/// Files below a URL that can be written to. One request at a time, whoever makes them.
#[derive(Debug)]
pub struct Store {
    location: Location,
    server: Mutex<Server>,
    patience: Patience,
    part: usize,
    stop: AtomicBool,
}

impl Store {
    /// Prepares connections; makes none. Credentials come from the environment.
    ///
    /// # Errors
    /// [`Error::Url`] where nothing can be put there: only `s3://` URLs take files. [`Error::Client`] for settings in the
    /// environment that make no sense.
    pub fn open(location: &Location, patience: Patience) -> Result<Store, Error> {
        let refused = |problem: &str| Err(Error::Url { url: location.to_string(), problem: problem.to_owned() });
        match location.place() {
            Place::S3 { .. } => {}
            Place::Http(_) => {
                return refused(
                    "a web server takes no files: there is no common way to upload, list and remove; use s3://",
                );
            }
            Place::Local(_) => return refused("it is a directory, not an object store: use s3://BUCKET/PREFIX"),
        }
        let server = Mutex::new(Server::new(location)?);
        Ok(Store { location: location.clone(), server, patience, part: PART, stop: AtomicBool::new(false) })
    }

    /// A file's URL, for messages: without credentials, and with the server where the URL does not say it.
    pub fn url(&self, name: &str) -> String {
        self.shown(&self.server(), name)
    }

    /// Puts a small file.
    ///
    /// # Errors
    /// [`Error::Remote`], [`Error::Stopped`].
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let (server, bytes) = (self.server(), Bytes::copy_from_slice(bytes));
        self.tried(&server, name, || server.put(name, bytes.clone(), self.long()))
    }

    /// Puts `file` from its beginning, in parts where it is large, so that only the part is sent again that did not arrive.
    /// Its bytes.
    ///
    /// # Errors
    /// Those of [`Self::put`]; [`Error::File`] where it cannot be read.
    pub fn put_file(&self, name: &str, file: &mut File) -> Result<u64, Error> {
        let unreadable = |source| Error::File { path: name.into(), doing: "read", source };
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        let first = piece(file, self.part).map_err(unreadable)?;
        let bytes = first.len() as u64;
        let server = self.server();
        if first.len() < self.part {
            return self.tried(&server, name, || server.put(name, first.clone(), self.long())).map(|()| bytes);
        }
        let id = self.tried(&server, name, || server.begin(name, self.long()))?;
        let done = self.put_parts(&server, name, &id, first, || piece(file, self.part).map_err(unreadable));
        if done.is_err() {
            // What stays costs space until the bucket's own rules remove it.
            let _ = server.abort(name, &id, self.short());
        }
        done
    }

    fn put_parts(
        &self,
        server: &Server,
        name: &str,
        id: &String,
        first: Bytes,
        mut next: impl FnMut() -> Result<Bytes, Error>,
    ) -> Result<u64, Error> {
        let (mut parts, mut bytes, mut piece): (Vec<PartId>, u64, Bytes) = (Vec::new(), 0, first);
        while !piece.is_empty() {
            let put = || server.put_part(name, id, parts.len(), piece.clone(), self.long());
            let part = self.tried(server, name, put)?;
            parts.push(part);
            bytes = bytes.saturating_add(piece.len() as u64);
            piece = next()?;
        }
        let mut before = false;
        self.tried(server, name, || match server.complete(name, id, parts.clone(), self.long()) {
            // The answer to an earlier request may have been lost, not the request.
            Err(Trouble::Missing { all: false }) if before => {
                match server.get(name, &Ask::default(), self.short())?.size {
                    size if size == bytes => Ok(()),
                    _ => Err(Trouble::Final("its parts are gone".to_owned())),
                }
            }
            answer => {
                before = true;
                answer
            }
        })?;
        Ok(bytes)
    }

    /// The bytes of a small file; none where it is not there.
    ///
    /// # Errors
    /// [`Error::Remote`], also where it has more than `most` bytes; [`Error::Stopped`].
    pub fn get(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
        let server = self.server();
        let read = || match whole(&server, name, most, self.short()) {
            Err(Trouble::Missing { all: false }) => Ok(None),
            bytes => bytes.map(Some),
        };
        self.tried(&server, name, read).map_err(|error| match error {
            Error::Remote { url, fault: Fault::TooLarge { found, .. } } => {
                Error::Remote { url, fault: Fault::TooLarge { found, limit: most } }
            }
            error => error,
        })
    }

    /// Fetches a file of `bytes` bytes into a new file `to`, going on where the connection broke off. Whether its content is
    /// right is for the caller to see.
    ///
    /// # Errors
    /// [`Error::Remote`], with [`Fault::Missing`] or [`Fault::Size`] where it is not what was expected; [`Error::File`] where
    /// it cannot be written; [`Error::Stopped`].
    pub fn fetch(&self, name: &str, to: &Path, bytes: u64) -> Result<(), Error> {
        let server = self.server();
        let failed = |source| Error::File { path: to.into(), doing: "write", source };
        let mut file = File::create(to).map_err(failed)?;
        let (mut have, mut etag, mut attempts, begin) = (0, None, Attempts::default(), Instant::now());
        loop {
            let before = have;
            let last = match self.receive(&server, name, &mut file, (&mut have, &mut etag), bytes) {
                Ok(Ok(())) => return file.sync_all().map_err(failed),
                Ok(Err(source)) => return Err(failed(source)),
                Err(Trouble::Passing(last)) => last,
                Err(Trouble::Restart(last)) => {
                    file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(failed)?;
                    (have, etag) = (0, None);
                    last
                }
                Err(Trouble::TooLarge(found)) => {
                    return Err(self.fault(&server, name, Fault::Size { found, expected: bytes }));
                }
                Err(trouble) => return Err(self.hopeless(&server, name, trouble)),
            };
            self.again(&server, name, &mut attempts, have.saturating_sub(before), begin, last)?;
        }
    }

    /// One request for what is missing. The inner error is this machine's.
    fn receive(
        &self,
        server: &Server,
        name: &str,
        file: &mut File,
        (have, etag): (&mut u64, &mut Option<String>),
        bytes: u64,
    ) -> Result<io::Result<()>, Trouble> {
        let same = etag.clone().filter(|etag| *have > 0 && !etag.starts_with("W/"));
        if *have < bytes || bytes == 0 {
            let mut body = server.get(name, &Ask { from: *have, size: bytes, same, other: None }, self.short())?;
            if body.size != bytes {
                return Err(Trouble::TooLarge(body.size));
            }
            *etag = body.etag.take();
            while let Some(more) = body.next(self.short())? {
                if more.len() as u64 > bytes - *have {
                    return Err(Trouble::Restart("more arrived than was announced".to_owned()));
                }
                if let Err(error) = file.write_all(&more) {
                    return Ok(Err(error));
                }
                *have += more.len() as u64;
            }
        }
        if *have < bytes { Err(Trouble::Passing("the connection ended early".to_owned())) } else { Ok(Ok(())) }
    }

    /// Names of the folders in this place.
    ///
    /// # Errors
    /// [`Error::Remote`], [`Error::Stopped`].
    pub fn folders(&self) -> Result<Vec<String>, Error> {
        let server = self.server();
        self.tried(&server, "", || server.list("", self.short())).map(|(folders, _)| folders)
    }

    /// Names of the files in a folder; none where there is no such folder.
    ///
    /// # Errors
    /// [`Error::Remote`], [`Error::Stopped`].
    pub fn files(&self, folder: &str) -> Result<Vec<String>, Error> {
        let server = self.server();
        self.tried(&server, folder, || server.list(folder, self.short())).map(|(_, files)| files)
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// [`Error::Remote`], [`Error::Stopped`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let server = self.server();
        self.tried(&server, name, || server.remove(name, self.short()))
    }

    /// Lets every call that waits, or is made from now on, end with [`Error::Stopped`] within a fraction of a second.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For an answer, or its next bytes.
    fn short(&self) -> Limits<'_> {
        Limits { silence: self.patience.silence, stop: &self.stop }
    }

    /// For bytes of ours to arrive, of which nothing is heard until they all have.
    fn long(&self) -> Limits<'_> {
        Limits { silence: self.patience.silence.saturating_mul(ON_ITS_WAY), stop: &self.stop }
    }

    fn tried<T>(
        &self,
        server: &Server,
        name: &str,
        mut attempt: impl FnMut() -> Result<T, Trouble>,
    ) -> Result<T, Error> {
        let (begin, mut attempts) = (Instant::now(), Attempts::default());
        loop {
            let last = match attempt() {
                Ok(done) => return Ok(done),
                Err(Trouble::Passing(last) | Trouble::Restart(last)) => last,
                Err(trouble) => return Err(self.hopeless(server, name, trouble)),
            };
            self.again(server, name, &mut attempts, 0, begin, last)?;
        }
    }

    /// Pauses before another attempt, or says that there were enough.
    fn again(
        &self,
        server: &Server,
        name: &str,
        attempts: &mut Attempts,
        gained: u64,
        begin: Instant,
        last: String,
    ) -> Result<(), Error> {
        let Some(pause) = attempts.failed(gained, &self.patience, chance()) else {
            let (attempts, seconds) = (attempts.made, begin.elapsed().as_secs());
            return Err(self.fault(server, name, Fault::Unreachable { attempts, seconds, last }));
        };
        tracing::warn!("{}: {last}; trying again in {:.1} s", self.shown(server, name), pause.as_secs_f32());
        self.pause(server, name, pause)
    }

    fn pause(&self, server: &Server, name: &str, pause: Duration) -> Result<(), Error> {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            if self.stop.load(Ordering::Relaxed) {
                return Err(self.hopeless(server, name, Trouble::Stopped));
            }
            thread::sleep(end.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
        }
        Ok(())
    }

    fn hopeless(&self, server: &Server, name: &str, trouble: Trouble) -> Error {
        let fault = match trouble {
            Trouble::Stopped => return Error::Stopped { url: self.shown(server, name) },
            Trouble::Missing { all: true } => Fault::Answer { answer: "there is no such bucket".to_owned() },
            Trouble::Missing { all: false } => Fault::Missing,
            Trouble::Refused(answer) => Fault::Refused { answer, remedy: server.remedy() },
            Trouble::TooLarge(found) => Fault::TooLarge { found, limit: 0 },
            Trouble::Final(answer) | Trouble::Passing(answer) | Trouble::Restart(answer) => Fault::Answer { answer },
            Trouble::Unchanged => Fault::Answer { answer: "unchanged".to_owned() },
        };
        self.fault(server, name, fault)
    }

    fn fault(&self, server: &Server, name: &str, fault: Fault) -> Error {
        Error::Remote { url: self.shown(server, name), fault }
    }

    fn shown(&self, server: &Server, name: &str) -> String {
        let parts = name.split('/').filter(|part| !part.is_empty());
        let place = parts.fold(self.location.clone(), |place, part| place.join(part).unwrap_or(place));
        server.shown(&place)
    }
}

/// The next bytes of a file, so many or up to its end.
fn piece(file: &mut File, bytes: usize) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(bytes);
    file.take(bytes as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

fn whole(server: &Server, name: &str, most: u64, limits: Limits<'_>) -> Result<Vec<u8>, Trouble> {
    let mut body = server.get(name, &Ask::default(), limits)?;
    if body.size > most {
        return Err(Trouble::TooLarge(body.size));
    }
    let mut bytes = Vec::new();
    while let Some(more) = body.next(limits)? {
        bytes.extend_from_slice(&more);
        if bytes.len() as u64 > most {
            return Err(Trouble::TooLarge(bytes.len() as u64));
        }
    }
    if bytes.len() as u64 == body.size {
        Ok(bytes)
    } else {
        Err(Trouble::Passing("the connection ended early".to_owned()))
    }
}
