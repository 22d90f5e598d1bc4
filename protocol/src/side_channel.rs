//! The worker's end of the side channel.
//!
//! The channel is also a leash: when the launcher is gone, however it ended, the connection closes
//! and the worker kills itself, so that no process outlives its job.

use crate::message::Message;
use crate::{Rank, env};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

/// A worker's connection to its launcher; silent where there is none (`jcs train` alone).
#[derive(Debug, Default)]
pub struct SideChannel {
    stream: Option<Mutex<TcpStream>>,
}

/// The launcher named by the environment cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the launcher at {address} ({source}); it has probably ended, start the job again")]
pub struct Unreachable {
    address: String,
    source: io::Error,
}

impl SideChannel {
    /// Connects to the launcher that the environment names, and ties this process's life to it.
    pub fn from_env(rank: Rank) -> Result<SideChannel, Unreachable> {
        let Ok(address) = std::env::var(env::JCS_LAUNCHER) else {
            return Ok(SideChannel::default());
        };
        let token = std::env::var(env::JCS_TOKEN).unwrap_or_default();
        Self::connect(&address, token, rank).map_err(|source| Unreachable { address, source })
    }

    fn connect(address: &str, token: String, rank: Rank) -> io::Result<SideChannel> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        let leash = stream.try_clone()?;
        std::thread::Builder::new().name("leash".into()).spawn(move || hold(leash))?;
        let channel = SideChannel { stream: Some(Mutex::new(stream)) };
        channel.send(&Message::Hello { token, rank, host: host_name(), pid: std::process::id() });
        Ok(channel)
    }

    /// Whether a launcher listens.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Sends a message. A launcher that is gone is no error here: the leash ends this process.
    pub fn send(&self, message: &Message) {
        let Some(stream) = &self.stream else { return };
        let Ok(mut line) = serde_json::to_vec(message) else { return };
        line.push(b'\n');
        let mut stream = stream.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = stream.write_all(&line);
    }
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
