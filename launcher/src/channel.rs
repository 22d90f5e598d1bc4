//! The launcher's end of the side channel: takes the workers' connections and turns what they say
//! into events. It judges nothing but the token.
//!
//! The connections are also the workers' leash: they stay open for as long as the workers may live,
//! and [`Channel::cut`] makes every worker kill itself.

use crate::attempt::Event;
use crate::ends::Ends;
use crate::events::{Happened, Sender};
use protocol::Rank;
use protocol::message::{Message, WELCOME};
use protocol::side_channel::notice_silence;
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A connection must show the token by then.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A longer message is none.
const LONGEST: u64 = 1 << 20;
/// Strangers get no more memory than this.
const LONGEST_HELLO: usize = 1 << 12;
/// Connections without the token that are served at once, besides one a worker; further ones are dropped, and a worker
/// that meets this tries again.
const MOST_STRANGERS: usize = 64;

/// The listeners and their connections; dropping it cuts them.
#[derive(Debug)]
pub struct Channel {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    token: String,
    world_size: usize,
    cut: AtomicBool,
    connections: Mutex<Connections>,
    ends: Ends,
    events: Sender,
}

#[derive(Debug, Default)]
struct Connections {
    held: Vec<TcpStream>,
    ranks: BTreeSet<Rank>,
    strangers: usize,
}

impl Connections {
    fn take_stranger(&mut self, most: usize) -> bool {
        let room = self.strangers < most;
        self.strangers += usize::from(room);
        room
    }
}

impl Channel {
    /// Listens on a free port of each of these addresses of this machine, and nowhere else. One that cannot be listened
    /// on is left out; it is an error only when none is left.
    pub fn open(token: &str, world_size: usize, addresses: &[IpAddr], events: Sender) -> io::Result<Channel> {
        let shared = Arc::new(Shared {
            token: token.into(),
            world_size,
            cut: AtomicBool::new(false),
            connections: Mutex::default(),
            ends: Ends::open(),
            events,
        });
        let mut channel = Channel { addresses: Vec::new(), shared };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for &address in addresses {
            match channel.listen_on(address) {
                Ok(address) => channel.addresses.push(address),
                Err(error) => {
                    channel.shared.events.send(Happened::Note(format!("cannot listen on {address}: {error}")));
                    last = error;
                }
            }
        }
        if channel.addresses.is_empty() { Err(last) } else { Ok(channel) }
    }

    fn listen_on(&self, address: IpAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((address, 0))?;
        let address = listener.local_addr()?;
        let own = Arc::clone(&self.shared);
        std::thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &own))?;
        Ok(address)
    }

    /// Where workers reach it: the addresses with their ports, separated by commas.
    pub fn addresses(&self) -> String {
        self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
    }

    /// Closes all connections: workers that still live kill themselves.
    pub fn cut(&self) {
        if self.shared.cut.swap(true, Ordering::SeqCst) {
            return;
        }
        for stream in self.shared.lock().held.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accepting threads, which then see that it is over.
        for address in &self.addresses {
            let _ = TcpStream::connect_timeout(address, Duration::from_secs(1));
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    fn tell(&self, event: Event) {
        self.events.send(Happened::Event(event));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_cut() {
            return;
        }
        match stream {
            Ok(stream) => admit(stream, shared),
            // Out of file descriptors, say: others may close some.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn admit(stream: TcpStream, shared: &Arc<Shared>) {
    if !shared.lock().take_stranger(MOST_STRANGERS + shared.world_size) {
        return;
    }
    let own = Arc::clone(shared);
    let serving = std::thread::Builder::new().name("worker".into()).spawn(move || serve(stream, &own));
    if serving.is_err() {
        shared.lock().strangers -= 1;
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let met = meet(stream, shared);
    shared.lock().strangers -= 1;
    match met {
        Ok((rank, reader)) => listen(rank, reader, shared),
        Err(why) => shared.events.send(Happened::Note(format!("dropped a connection to the side channel: {why}"))),
    }
}

/// Waits for the hello; holds and welcomes the connection of a worker that said a right one.
fn meet(stream: TcpStream, shared: &Shared) -> Result<(Rank, BufReader<TcpStream>), String> {
    let held = prepare(&stream).map_err(|e| e.to_string())?;
    let (rank, host, pid) = match hello(&stream) {
        Some(Message::Hello { token, rank, host, pid }) if same(&token, &shared.token) => (rank, host, pid),
        Some(Message::Hello { .. }) => return Err(format!("wrong token, from {}", peer(&stream))),
        _ => return Err(format!("no hello, from {}", peer(&stream))),
    };
    stream.set_read_timeout(None).map_err(|e| e.to_string())?;
    register(rank, &held, shared)?;
    shared.tell(Event::Hello { rank, host, pid });
    Ok((rank, BufReader::new(stream)))
}

fn peer(stream: &TcpStream) -> String {
    stream.peer_addr().map_or_else(|_| "?".into(), |address| address.to_string())
}

/// The first line, byte by byte, so that nothing behind it is lost, and all of it in time: a stranger that sends a byte
/// now and then gets no more of it than one that sends nothing.
fn hello(mut stream: &TcpStream) -> Option<Message> {
    let until = Instant::now() + HELLO_WITHIN;
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.len() < LONGEST_HELLO && byte != *b"\n" {
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    serde_json::from_slice(&line).ok()
}

fn prepare(stream: &TcpStream) -> io::Result<TcpStream> {
    stream.set_write_timeout(Some(HELLO_WITHIN))?;
    notice_silence(stream)?;
    stream.try_clone()
}

/// Takes as long whatever the first difference is, so that the answer's time tells nothing about the token.
fn same(token: &str, expected: &str) -> bool {
    let differences = token.bytes().zip(expected.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    token.len() == expected.len() && differences == 0
}

/// The welcome is sent under the lock, so that a channel that is cut welcomes nobody any more.
fn register(rank: Rank, mut held: &TcpStream, shared: &Shared) -> Result<(), String> {
    let mut connections = shared.lock();
    if shared.is_cut() {
        return Err("the job is over".into());
    }
    if rank.0 >= shared.world_size {
        return Err(format!("rank {rank} of {} workers", shared.world_size));
    }
    if connections.ranks.contains(&rank) {
        return Err(format!("a second rank {rank}"));
    }
    let kept = held.try_clone().map_err(|e| e.to_string())?;
    held.write_all(WELCOME).map_err(|e| e.to_string())?;
    shared.ends.watch(rank, &kept);
    connections.ranks.insert(rank);
    connections.held.push(kept);
    Ok(())
}

fn listen(rank: Rank, mut reader: BufReader<TcpStream>, shared: &Shared) {
    while let Some(message) = next(&mut reader) {
        match message {
            Ok(message) => shared.tell(Event::Said(rank, message)),
            Err(why) => shared.events.send(Happened::Note(format!("a message of rank {rank} makes no sense: {why}"))),
        }
    }
    let at = shared.ends.of(rank, shared.events.now());
    shared.events.send_at(at, Happened::Event(Event::Closed(rank)));
}

/// The next message; `None` at the end of the connection.
fn next(reader: &mut BufReader<TcpStream>) -> Option<Result<Message, String>> {
    let mut line = Vec::new();
    match reader.take(LONGEST).read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(serde_json::from_slice(&line).map_err(|e| e.to_string())),
    }
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
