//! A small HTTP server with ranges that misbehaves as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trick {
    /// Answers so and sends no body.
    Status(u16),
    /// Ends the connection after so many bytes of the body.
    Cut(usize),
    /// Changes one byte of the body.
    Flip,
    /// Sends one byte less of the whole file, and says so.
    Short,
    /// Answers nothing for so many milliseconds, and then ends the connection.
    Silent(u64),
}

/// How it is in general.
#[derive(Clone, Debug)]
pub(super) struct Manners {
    pub(super) ranges: bool,
    pub(super) etags: bool,
    /// Obeys If-Match.
    pub(super) conditions: bool,
    /// Pause after each 16 KiB.
    pub(super) pause: Duration,
    /// The only `Authorization` that is let in.
    pub(super) authorization: Option<String>,
}

impl Default for Manners {
    fn default() -> Manners {
        Manners { ranges: true, etags: true, conditions: true, pause: Duration::ZERO, authorization: None }
    }
}

/// A request as it came, and what was sent.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) from: Option<u64>,
    pub(super) if_match: Option<String>,
    pub(super) status: u16,
    pub(super) sent: usize,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Played in their order, one a request; then the last one for ever if `stubborn`.
    pub(super) tricks: Mutex<VecDeque<Trick>>,
    pub(super) stubborn: Mutex<Option<Trick>>,
    pub(super) manners: Mutex<Manners>,
    pub(super) seen: Mutex<Vec<Seen>>,
}

pub(super) struct Server {
    pub(super) state: Arc<State>,
    pub(super) port: u16,
    end: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(state: Arc<State>, port: u16) -> Server {
        // The port of a server that was just killed may be busy for a moment.
        let bind = || TcpListener::bind(("127.0.0.1", port));
        let listener = (0..100).find_map(|_| bind().inspect_err(|_| crate::remote::sleep(50)).ok()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (end, open) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let thread = std::thread::spawn({
            let (state, end, open) = (Arc::clone(&state), Arc::clone(&end), Arc::clone(&open));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if end.load(Ordering::SeqCst) {
                        return;
                    }
                    open.lock().unwrap().push(stream.try_clone().unwrap());
                    let state = Arc::clone(&state);
                    std::thread::spawn(move || {
                        let _ = answer(&state, &stream);
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Server { state, port, end, open, thread: Some(thread) }
    }

    pub(super) fn new(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Server {
        let state = State { files: Mutex::new(files.into_iter().collect()), ..State::default() };
        Server::start(Arc::new(state), 0)
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/set", self.port)
    }

    /// Requests for this file.
    pub(super) fn requests(&self, name: &str) -> Vec<Seen> {
        let path = format!("/set/{name}");
        self.state
            .seen
            .lock()
            .unwrap()
            .iter()
            .filter(|seen| seen.path.split('?').next() == Some(&path))
            .cloned()
            .collect()
    }

    pub(super) fn trick(&self, tricks: impl IntoIterator<Item = Trick>) {
        self.state.tricks.lock().unwrap().extend(tricks);
    }

    pub(super) fn manners(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.state.manners.lock().unwrap());
    }

    /// Ends it, with all connections.
    pub(super) fn kill(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn answer(state: &State, mut stream: &TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    if path.is_empty() {
        return Ok(());
    }
    let manners = state.manners.lock().unwrap().clone();
    let trick = state.tricks.lock().unwrap().pop_front().or(*state.stubborn.lock().unwrap());
    let name = path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let mut bytes = state.files.lock().unwrap().get(name).cloned();
    let etag = bytes.as_ref().map(|bytes| format!("\"{:08x}\"", crc(bytes)));
    let header = |name: &str| headers.get(name).cloned();
    let from = header("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse::<u64>().ok());
    if trick == Some(Trick::Short) {
        bytes = bytes.map(|bytes| bytes[1..].to_vec());
    }
    let ranged = from.filter(|_| manners.ranges);
    let status = match (&bytes, trick) {
        (_, Some(Trick::Status(status))) => status,
        _ if manners.authorization.is_some() && manners.authorization != header("authorization") => 401,
        (None, _) => 404,
        _ if header("if-none-match").is_some_and(|tag| Some(&tag) == etag.as_ref()) => 304,
        _ if manners.conditions && header("if-match").is_some_and(|tag| Some(&tag) != etag.as_ref()) => 412,
        (Some(bytes), _) if ranged.is_some_and(|from| from >= bytes.len() as u64) => 416,
        _ if ranged.is_some() => 206,
        _ => 200,
    };
    let at = {
        let mut seen = state.seen.lock().unwrap();
        seen.push(Seen { path, from, if_match: header("if-match"), status, sent: 0 });
        seen.len() - 1
    };
    if let Some(Trick::Silent(time)) = trick {
        crate::remote::sleep(time);
        return Ok(());
    }
    let whole = bytes.unwrap_or_default();
    let start = if status == 206 { ranged.unwrap_or(0) as usize } else { 0 };
    let mut body = if matches!(status, 200 | 206) { whole[start..].to_vec() } else { Vec::new() };
    if trick == Some(Trick::Flip) && !body.is_empty() {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    }
    let mut head = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    if let Some(etag) = etag.filter(|_| manners.etags) {
        head += &format!("ETag: {etag}\r\n");
    }
    if status == 206 {
        head += &format!("Content-Range: bytes {start}-{}/{}\r\n", whole.len() - 1, whole.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if let Some(Trick::Cut(length)) = trick {
        body.truncate(length);
    }
    for piece in body.chunks(1 << 14) {
        stream.write_all(piece)?;
        state.seen.lock().unwrap()[at].sent += piece.len();
        std::thread::sleep(manners.pause);
    }
    Ok(())
}

fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(7, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}
