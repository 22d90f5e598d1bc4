//! What somebody without the key sends to an agent: it is never taken for a launcher, and says nothing that was not encrypted.
#![no_main]

use jcs_launch::agent::key::Key;
use jcs_launch::agent::secure;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::LazyLock;

static LISTENER: LazyLock<TcpListener> = LazyLock::new(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
static KEY: LazyLock<Key> = LazyLock::new(|| {
    let file = std::env::temp_dir().join(format!("jcs-fuzz-{}.key", std::process::id()));
    std::fs::write(&file, "5a".repeat(32)).expect("a file for the key");
    let key = Key::read(&file).expect("a key");
    let _ = std::fs::remove_file(&file);
    key
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut stranger = TcpStream::connect(LISTENER.local_addr().expect("its address")).expect("a connection");
    // Gone at once afterwards: there are more tries than ports.
    setsockopt(&stranger, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).expect("an option");
    let (agent, _) = LISTENER.accept().expect("the other end");
    // The agent may have hung up by then.
    let _ = stranger.write_all(&bytes[..bytes.len().min(100_000)]);
    let _ = stranger.shutdown(Shutdown::Write);
    let known = secure::respond(agent, &KEY).and_then(|(sender, mut receiver)| Ok((sender, receiver.receive(None)?)));
    assert!(known.is_err(), "a stranger was let in");
    drop(known);
    let mut said = Vec::new();
    let _ = stranger.read_to_end(&mut said);
    assert!(said.is_empty(), "a stranger was told something");
});
