//! The launcher's end of the side channel: takes the workers' connections and turns what they say
//! into events. It judges nothing but the token.
//!
//! The connections are also the workers' leash: they stay open for as long as the workers may live,
//! and [`Channel::cut`] makes every worker kill itself.

use crate::attempt::Event;
use crate::events::{Happened, Sender};
use protocol::Rank;
use protocol::message::Message;
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A connection must show the token by then.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A longer message is none.
const LONGEST: u64 = 1 << 20;
/// Connections without the token that are served at once; further ones are dropped.
const MOST_STRANGERS: usize = 64;

/// The listener and its connections; dropping it cuts them.
#[derive(Debug)]
pub struct Channel {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    token: String,
    world_size: usize,
    cut: AtomicBool,
    connections: Mutex<Connections>,
    events: Sender,
}

#[derive(Debug, Default)]
struct Connections {
    held: Vec<TcpStream>,
    ranks: BTreeSet<Rank>,
    strangers: usize,
}

impl Channel {
    /// Listens on a free port of this machine only.
    pub fn open(token: &str, world_size: usize, events: Sender) -> io::Result<Channel> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            token: token.into(),
            world_size,
            cut: AtomicBool::new(false),
            connections: Mutex::default(),
            events,
        });
        let own = Arc::clone(&shared);
        std::thread::Builder::new().name("accept".into()).spawn(move || accept(&listener, &own))?;
        Ok(Channel { address, shared })
    }

    /// Where workers reach it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Closes all connections: workers that still live kill themselves.
    pub fn cut(&self) {
        if self.shared.cut.swap(true, Ordering::SeqCst) {
            return;
        }
        for stream in self.shared.lock().held.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
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
    if shared.lock().strangers >= MOST_STRANGERS {
        return;
    }
    shared.lock().strangers += 1;
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

/// Waits for the hello; holds the connection of a worker that said a right one.
fn meet(stream: TcpStream, shared: &Shared) -> Result<(Rank, BufReader<TcpStream>), String> {
    stream.set_read_timeout(Some(HELLO_WITHIN)).map_err(|e| e.to_string())?;
    let held = stream.try_clone().map_err(|e| e.to_string())?;
    let mut reader = BufReader::new(stream);
    let (rank, host, pid) = match next(&mut reader) {
        Some(Ok(Message::Hello { token, rank, host, pid })) if token == shared.token => (rank, host, pid),
        Some(Ok(Message::Hello { .. })) => return Err("wrong token".into()),
        _ => return Err("no hello".into()),
    };
    reader.get_ref().set_read_timeout(None).map_err(|e| e.to_string())?;
    register(rank, held, shared)?;
    shared.tell(Event::Hello { rank, host, pid });
    Ok((rank, reader))
}

fn register(rank: Rank, held: TcpStream, shared: &Shared) -> Result<(), String> {
    let mut connections = shared.lock();
    if shared.is_cut() {
        return Err("the job is over".into());
    }
    if rank.0 >= shared.world_size {
        return Err(format!("rank {rank} of {} workers", shared.world_size));
    }
    if !connections.ranks.insert(rank) {
        return Err(format!("a second rank {rank}"));
    }
    connections.held.push(held);
    Ok(())
}

fn listen(rank: Rank, mut reader: BufReader<TcpStream>, shared: &Shared) {
    while let Some(message) = next(&mut reader) {
        match message {
            Ok(message) => shared.tell(Event::Said(rank, message)),
            Err(why) => shared.events.send(Happened::Note(format!("a message of rank {rank} makes no sense: {why}"))),
        }
    }
    shared.tell(Event::Closed(rank));
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
