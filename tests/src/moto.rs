//! A server that speaks S3 (moto), and dies when it is told to. What it has is in its memory alone.

use crate::{repository, text};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Credentials that no output may show.
pub const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
/// The secret half.
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// A Python that has moto; none, said, where there is none.
pub fn python(test: &str) -> Option<String> {
    crate::skip::python(test, "moto.server, boto3, cryptography")
}

/// A port that nobody listens at, and that no other test gets while this process lives. It is below those that the system gives
/// to connections, so that none of these takes it before the server is there.
pub fn free_port() -> u16 {
    let folder = std::env::temp_dir().join(format!("jcs-test-ports-{}", nix::unistd::getuid()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut ports = (0..8000).map(|i| 22_000 + ((std::process::id() + i) % 8000) as u16);
    let free = |port: &u16| {
        let file = std::fs::File::create(folder.join(port.to_string())).unwrap();
        if file.try_lock().is_err() || TcpListener::bind(("127.0.0.1", *port)).is_err() {
            return false;
        }
        // The lock is held to the end of the process.
        std::mem::forget(file);
        true
    };
    ports.find(free).expect("a free port")
}

/// Lets a command use the server at `port`.
pub fn use_server(command: &mut Command, port: u16) {
    command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")).env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
}

/// A way to `port` on which every other connection breaks after so many bytes in one direction; its port.
pub fn breaking_way(port: u16, after: usize) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let own = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (at, here) in listener.incoming().flatten().enumerate() {
            let after = if at % 2 == 0 { after } else { usize::MAX };
            let Ok(there) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for (from, to) in [(&here, &there), (&there, &here)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || pass_on(from, to, after));
            }
        }
    });
    own
}

/// A way to `port` that holds back the first request whose first line has a certain word, until it is let through.
pub struct Gate {
    /// Its port.
    pub port: u16,
    held: Receiver<()>,
    go_on: Sender<()>,
}

impl Gate {
    /// A gate before `port`; it looks for `word`.
    pub fn before(port: u16, word: &'static str) -> Gate {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let ((holds, held), (go_on, goes_on)) = (channel(), channel());
        // Whoever meets the word first takes these.
        let ends = Arc::new(Mutex::new(Some((holds, goes_on))));
        std::thread::spawn(move || {
            for here in listener.incoming().flatten() {
                let Ok(there) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (back, forth) = (there.try_clone().unwrap(), here.try_clone().unwrap());
                std::thread::spawn(move || pass_on(back, forth, usize::MAX));
                let ends = ends.clone();
                std::thread::spawn(move || pass_on_until(here, there, word, &ends));
            }
        });
        Gate { port: own, held, go_on }
    }

    /// Waits until the request is there.
    pub fn await_request(&self) {
        self.held.recv_timeout(Duration::from_secs(120)).expect("the request never came");
    }

    /// Lets it through.
    pub fn open(&self) {
        self.go_on.send(()).unwrap();
    }
}

type Ends = Arc<Mutex<Option<(Sender<()>, Receiver<()>)>>>;

/// Passes requests on; one whose first line has `word` only when it may.
fn pass_on_until(mut from: TcpStream, mut to: TcpStream, word: &str, ends: &Ends) {
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = from.read(&mut piece).unwrap_or(0);
        let first_line = piece[..read].split(|byte| *byte == b'\r').next().unwrap_or_default();
        let meets = first_line.windows(word.len()).any(|window| window == word.as_bytes());
        if meets && let Some((holds, goes_on)) = ends.lock().unwrap().take() {
            let _ = holds.send(());
            let _ = goes_on.recv();
        }
        if read == 0 || to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    for side in [&from, &to] {
        let _ = side.shutdown(Shutdown::Both);
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, mut left: usize) {
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = from.read(&mut piece).unwrap_or(0).min(left);
        if read == 0 || to.write_all(&piece[..read]).is_err() {
            break;
        }
        left -= read;
    }
    for side in [&from, &to] {
        let _ = side.shutdown(Shutdown::Both);
    }
}

/// The way to the server, open once that has its files: the server alone would answer before, that there are none.
struct Door {
    port: u16,
    closed: Arc<AtomicBool>,
    listening: Option<JoinHandle<()>>,
}

impl Door {
    fn open(port: u16, to: u16) -> Door {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let closed = Arc::<AtomicBool>::default();
        let seen = closed.clone();
        let listening = std::thread::spawn(move || {
            for here in listener.incoming().flatten() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(there) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (from, to) in [(&here, &there), (&there, &here)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || pass_on(from, to, usize::MAX));
                }
            }
        });
        Door { port, closed, listening: Some(listening) }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // It waits for somebody to come.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

/// The server.
pub struct Moto {
    process: Child,
    python: String,
    /// Its own.
    port: u16,
    door: Option<Door>,
    log: PathBuf,
}

impl Moto {
    /// Starts it with a bucket `bucket`, which holds the `shards` of a bench, if it has some. Nobody hears of it at `port` before.
    pub fn start(python: &str, port: u16, bench: &Path) -> Moto {
        let own = std::iter::repeat_with(free_port).find(|own| *own != port).unwrap();
        let log = bench.join(format!("moto-{}.log", std::fs::read_dir(bench).unwrap().count()));
        let process = Command::new(python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &own.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut moto = Moto { process, python: python.to_owned(), port: own, door: None, log };
        moto.script("upload.py", &[bench.join("shards").to_str().unwrap()]);
        moto.door = Some(Door::open(port, own));
        moto
    }

    fn script(&self, name: &str, arguments: &[&str]) -> String {
        let script = repository().join("tests/python").join(name);
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let out = Command::new(&self.python).arg(script).arg(endpoint).args(arguments).output().unwrap();
        assert!(out.status.success(), "{}", text(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Ends it, and forgets everything that it has.
    pub fn kill(&mut self) {
        self.door = None;
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Names of the files below `prefix`, sorted, without it.
    pub fn files(&self, prefix: &str) -> Vec<String> {
        self.script("bucket.py", &["list", prefix]).split_whitespace().map(str::to_owned).collect()
    }

    /// The text of a file.
    pub fn read(&self, name: &str) -> String {
        self.script("bucket.py", &["read", name])
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        self.script("bucket.py", &["remove", name]);
    }

    /// Changes a byte in the middle of a file.
    pub fn flip(&self, name: &str) {
        self.script("bucket.py", &["flip", name]);
    }

    /// Lines of its log, one a request.
    pub fn requests(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.door = None;
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_port_is_given_once() {
        let ports = [(); 3].map(|()| super::free_port());
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2], "{ports:?}");
    }
}
