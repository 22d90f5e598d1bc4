//! The worker's end of the side channel.
//!
//! The channel is also a leash: when the launcher is gone, however it ended, or cannot be reached any more, the
//! connection closes and the worker kills itself, so that no process outlives its job.

use crate::message::{Message, WELCOME};
use crate::{Rank, env};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a worker looks for its launcher, over all addresses and attempts. Shorter than the time in which nothing
/// of an ended job may be left.
const LOOK_FOR: Duration = Duration::from_secs(6);
/// How long one address may take to connect and to answer.
const PER_ADDRESS: Duration = Duration::from_secs(2);
/// Before the addresses are tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// A worker's connection to its launcher; silent where there is none (`jcs train` alone).
#[derive(Debug, Default)]
pub struct SideChannel {
    stream: Option<Mutex<TcpStream>>,
}

/// The launcher named by the environment cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot reach the launcher from {host} at {address} ({reason}); either it has ended, then start the job again, or \
     a firewall between the hosts stops connections to its ports"
)]
pub struct Unreachable {
    host: String,
    address: String,
    reason: String,
}

impl SideChannel {
    /// Connects to the launcher that the environment names, and ties this process's life to it.
    pub fn from_env(rank: Rank) -> Result<SideChannel, Unreachable> {
        let Ok(address) = std::env::var(env::JCS_LAUNCHER) else {
            return Ok(SideChannel::default());
        };
        let token = std::env::var(env::JCS_TOKEN).unwrap_or_default();
        Self::connect(&address, token, rank).map_err(|reason| Unreachable { host: host_name(), address, reason })
    }

    fn connect(address: &str, token: String, rank: Rank) -> Result<SideChannel, String> {
        let hello = Message::Hello { token, rank, host: host_name(), pid: std::process::id() };
        let stream = look_for(address, &hello)?;
        let leash = stream.try_clone().map_err(|e| e.to_string())?;
        let holding = std::thread::Builder::new().name("leash".into()).spawn(move || hold(leash));
        holding.map_err(|e| e.to_string())?;
        Ok(SideChannel { stream: Some(Mutex::new(stream)) })
    }

    /// Whether a launcher listens.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Sends a message. A launcher that is gone is no error here: the leash ends this process.
    pub fn send(&self, message: &Message) {
        let Some(stream) = &self.stream else { return };
        let mut stream = stream.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = write(&mut stream, message);
    }
}

/// Tries the addresses in turn, again and again, until the launcher welcomes this worker or time is up. A launcher on a
/// host with several networks names several addresses, and not every one leads to it from everywhere.
fn look_for(addresses: &str, hello: &Message) -> Result<TcpStream, String> {
    let until = Instant::now() + LOOK_FOR;
    let mut tried: Vec<(&str, String)> = addresses.split(',').map(|address| (address, "not tried".into())).collect();
    loop {
        for (address, reason) in &mut tried {
            match meet(address, hello) {
                Ok(stream) => return Ok(stream),
                Err(error) => *reason = error.to_string(),
            }
            if Instant::now() >= until {
                return Err(tried.iter().map(|(at, why)| format!("{at}: {why}")).collect::<Vec<_>>().join("; "));
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Only the launcher that knows the token answers a hello, so that whoever else listens at an address is not taken for it.
fn meet(address: &str, hello: &Message) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    let mut stream = TcpStream::connect_timeout(&address, PER_ADDRESS)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    stream.set_read_timeout(Some(PER_ADDRESS))?;
    notice_silence(&stream)?;
    write(&mut stream, hello)?;
    let mut answer = [0; WELCOME.len()];
    stream.read_exact(&mut answer)?;
    if answer != *WELCOME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "something else than jcs-launch listens there"));
    }
    stream.set_read_timeout(None)?;
    Ok(stream)
}

fn write(stream: &mut TcpStream, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Makes a connection end by itself when the other host does not answer for some 15 seconds: cut off, or without power.
/// Both ends ask for it, because neither may have anything to send.
pub fn notice_silence(stream: &TcpStream) -> io::Result<()> {
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &5)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &2)?;
    setsockopt(stream, sockopt::TcpKeepCount, &5)?;
    setsockopt(stream, sockopt::TcpUserTimeout, &15_000)?;
    Ok(())
}

/// Blocks until the launcher closes the connection, then kills this process. SIGKILL, because the
/// other threads may be anywhere: in a kernel of libtorch or in an MPI call that never returns.
fn hold(mut leash: TcpStream) {
    let mut byte = [0];
    loop {
        match leash.read(&mut byte) {
            Ok(1) => continue,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            _ => break,
        }
    }
    let _ = kill(Pid::this(), Signal::SIGKILL);
}

/// This machine's name, for messages.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_else(|| "?".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    const HELLO: fn() -> Message =
        || Message::Hello { token: "secret".into(), rank: Rank(1), host: "h".into(), pid: 7 };

    /// Listens, and answers the `n`-th hello (from 0) with the `n`-th of `answers`, then closes.
    fn launcher(answers: &'static [&'static [u8]]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                assert!(line.contains("secret"), "{line}");
                stream.write_all(answer).unwrap();
            }
        });
        address
    }

    fn nobody() -> String {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    #[test]
    fn addresses_are_tried_until_one_welcomes() {
        let addresses =
            format!("{},{},[::1]:1,{}", nobody(), launcher(&[b"HTTP/1.1 400 Bad Request"]), launcher(&[WELCOME]));
        look_for(&addresses, &HELLO()).unwrap();
    }

    #[test]
    fn a_launcher_that_is_busy_is_asked_again() {
        look_for(&launcher(&[b"", WELCOME]), &HELLO()).unwrap();
    }

    #[test]
    fn the_search_ends_and_says_what_every_address_said() {
        let (began, gone) = (Instant::now(), nobody());
        let reason = look_for(&format!("{gone},nonsense"), &HELLO()).unwrap_err();
        assert!(reason.contains(&format!("{gone}: Connection refused")) && reason.contains("nonsense: "), "{reason}");
        assert!(began.elapsed() < LOOK_FOR + 2 * PER_ADDRESS, "{:?}", began.elapsed());
    }
}
