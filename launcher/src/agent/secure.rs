//! A connection between two that have the same key: Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s (noiseprotocol.org) over TCP.
//!
//! ```text
//! launcher                          agent
//!   ── e, tag (48 bytes) ─────────▶         made without the key: closed, and nothing was said
//!   ◀──────────── e, ee, tag (48) ──
//!   ── first frame ───────────────▶         whoever only repeats what another has sent cannot make one
//! ```
//!
//! A frame is the length of its ciphertext in two bytes, big-endian, and the ciphertext: nobody can announce more than
//! 64 KiB, and nothing is kept of what does not decrypt.

use super::HANDSHAKE;
use super::key::Key;
use protocol::side_channel::notice_silence;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, StatelessTransportState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Of a handshake's message: a public key and a tag.
const HELLO: usize = 32 + TAG;
const TAG: usize = 16;
/// Most bytes that go in a frame.
pub const MOST: usize = 65_535 - TAG;
/// How long the other end may leave what was sent unread.
const UNREAD: Duration = Duration::from_secs(30);

/// A connection that is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The network.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other end has another key, or is no agent.
    #[error("the other end has not the same key")]
    Foreign,
    /// Something that was not sent so.
    #[error("what came cannot be decrypted")]
    Garbled,
    /// It refused.
    #[error("{0}")]
    Refused(String),
    /// Nothing came in time.
    #[error("nothing came within {:.0} s", .0.as_secs_f64())]
    Late(Duration),
    /// The other end has closed it.
    #[error("the connection was closed")]
    Closed,
    /// More than goes in a frame.
    #[error("{0} bytes at once, and {MOST} are the most")]
    TooLong(usize),
}

impl From<snow::Error> for Broken {
    fn from(_: snow::Error) -> Broken {
        Broken::Foreign
    }
}

/// The end that sends.
pub struct Sender {
    stream: TcpStream,
    cipher: Arc<StatelessTransportState>,
    frames: u64,
}

/// The end that receives.
pub struct Receiver {
    stream: TcpStream,
    cipher: Arc<StatelessTransportState>,
    frames: u64,
}

/// Begins the handshake, on a connection to an agent.
pub fn initiate(mut stream: TcpStream, key: &Key) -> Result<(Sender, Receiver), Broken> {
    let until = Instant::now() + HANDSHAKE;
    let mut state = builder()?.psk(0, key.bytes())?.build_initiator()?;
    prepare(&stream)?;
    say(&mut stream, &mut state)?;
    hear(&mut stream, &mut state, until).map_err(|e| match e {
        // Who has not the key is told nothing.
        Broken::Closed => Broken::Foreign,
        e => e,
    })?;
    split(stream, state)
}

/// Answers a handshake. The first frame, which [`Receiver::receive`] waits for, is part of it.
pub fn respond(mut stream: TcpStream, key: &Key) -> Result<(Sender, Receiver), Broken> {
    let until = Instant::now() + HANDSHAKE;
    let mut state = builder()?.psk(0, key.bytes())?.build_responder()?;
    prepare(&stream)?;
    hear(&mut stream, &mut state, until)?;
    say(&mut stream, &mut state)?;
    split(stream, state)
}

fn builder<'a>() -> Result<Builder<'a>, Broken> {
    let params: NoiseParams = PATTERN.parse()?;
    Ok(Builder::new(params))
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // Also where neither end has anything to say for long.
    notice_silence(stream)?;
    stream.set_write_timeout(Some(UNREAD))
}

fn say(stream: &mut TcpStream, state: &mut HandshakeState) -> Result<(), Broken> {
    let mut message = [0; HELLO];
    let n = state.write_message(&[], &mut message)?;
    Ok(stream.write_all(&message[..n])?)
}

fn hear(stream: &mut TcpStream, state: &mut HandshakeState, until: Instant) -> Result<(), Broken> {
    let mut message = [0; HELLO];
    fill(stream, &mut message, Some((until, HANDSHAKE)))?;
    state.read_message(&message, &mut [])?;
    Ok(())
}

fn split(stream: TcpStream, state: HandshakeState) -> Result<(Sender, Receiver), Broken> {
    let cipher = Arc::new(state.into_stateless_transport_mode()?);
    let sender = Sender { stream: stream.try_clone()?, cipher: cipher.clone(), frames: 0 };
    Ok((sender, Receiver { stream, cipher, frames: 0 }))
}

impl Sender {
    /// Sends a frame.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if bytes.len() > MOST {
            return Err(Broken::TooLong(bytes.len()));
        }
        let mut frame = vec![0; 2 + bytes.len() + TAG];
        let n = self.cipher.write_message(self.frames, bytes, &mut frame[2..])?;
        self.frames += 1;
        let length = u16::try_from(n).map_err(|_| Broken::TooLong(n))?;
        frame[..2].copy_from_slice(&length.to_be_bytes());
        let sent = self.stream.write_all(&frame[..2 + n]);
        if sent.is_err() {
            // Half a frame may be on its way, and no other one would be understood.
            self.close();
        }
        Ok(sent?)
    }

    /// Ends the connection, in both directions.
    pub fn close(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

impl Receiver {
    /// Waits for the next frame, so long at the most.
    pub fn receive(&mut self, within: Option<Duration>) -> Result<Vec<u8>, Broken> {
        let until = within.map(|within| (Instant::now() + within, within));
        let mut length = [0; 2];
        fill(&mut self.stream, &mut length, until)?;
        let mut frame = vec![0; usize::from(u16::from_be_bytes(length))];
        fill(&mut self.stream, &mut frame, until)?;
        let mut bytes = vec![0; frame.len()];
        let n = self.cipher.read_message(self.frames, &frame, &mut bytes).map_err(|_| Broken::Garbled)?;
        self.frames += 1;
        bytes.truncate(n);
        Ok(bytes)
    }
}

/// Fills the buffer by the deadline, however slowly the bytes come.
fn fill(stream: &mut TcpStream, buffer: &mut [u8], until: Option<(Instant, Duration)>) -> Result<(), Broken> {
    let mut filled = 0;
    while filled < buffer.len() {
        let left = until.map(|(until, within)| (until.saturating_duration_since(Instant::now()), within));
        if let Some((left, within)) = left
            && left.is_zero()
        {
            return Err(Broken::Late(within));
        }
        stream.set_read_timeout(left.map(|(left, _)| left))?;
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => return Err(Broken::Closed),
            Ok(n) => filled += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Err(Broken::Closed),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "secure_tests.rs"]
mod tests;
