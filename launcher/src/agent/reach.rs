//! The program in ssh's place: runs a command on the host of an agent, with this process's standard streams, and ends as the
//! command does. Ends with 255, as ssh does, where the agent is not reached.

use super::key::Key;
use super::message::{FromAgent, ToAgent};
use super::secure::{self, Broken, Sender};
use crate::cause::Death;
use crate::signals;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What ssh ends with where it fails itself.
const FAILED: u8 = 255;
/// How long a host may take to let itself be connected to.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection to the agent of `host`.
pub(super) fn connect(host: &str, port: u16, key: &Key) -> Result<(Sender, secure::Receiver), Broken> {
    let mut last = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => return secure::initiate(stream, key),
            Err(e) => last = Some(e),
        }
    }
    Err(last.map_or_else(|| std::io::Error::other("the name has no address").into(), Broken::Io))
}

/// Runs `command` on `host`. What cannot be done is said by `complain`.
pub fn run(host: &str, port: u16, key: &Key, command: &str, complain: impl Fn(&str)) -> u8 {
    match talk(host, port, key, command) {
        Ok(death) => death.exit_code(),
        Err(why) => {
            complain(&format!("agent of {host}, port {port}: {why}"));
            FAILED
        }
    }
}

fn talk(host: &str, port: u16, key: &Key, command: &str) -> Result<Death, String> {
    let (_, signals) = signals::listen().map_err(|e| e.to_string())?;
    let (mut sender, mut receiver) = connect(host, port, key).map_err(|e| e.to_string())?;
    let run = ToAgent::Run { host: host.into(), command: command.into() };
    sender.send(&run.encode()).map_err(|e| e.to_string())?;
    let sender = Arc::new(Mutex::new(sender));
    let send = |sender: &Mutex<Sender>, message: &ToAgent| {
        sender.lock().unwrap_or_else(PoisonError::into_inner).send(&message.encode()).is_ok()
    };
    let feeding = sender.clone();
    std::thread::spawn(move || {
        let (mut input, mut part) = (std::io::stdin().lock(), vec![0; 16 << 10]);
        while let Ok(n @ 1..) = input.read(&mut part) {
            if !send(&feeding, &ToAgent::Input(part[..n].to_vec())) {
                return;
            }
        }
        send(&feeding, &ToAgent::InputEnds);
    });
    std::thread::spawn(move || {
        for arrived in signals {
            send(&sender, &ToAgent::Signal(arrived.signal));
        }
    });
    loop {
        let frame = receiver.receive(None).map_err(|e| e.to_string())?;
        match FromAgent::decode(&frame) {
            // Whoever does not read it any more is no reason to end the command.
            Some(FromAgent::Output(bytes)) => drop(write(std::io::stdout().lock(), &bytes)),
            Some(FromAgent::Errors(bytes)) => drop(write(std::io::stderr().lock(), &bytes)),
            Some(FromAgent::Ended(death)) => return Ok(death),
            Some(FromAgent::Refused(why)) => return Err(why),
            Some(FromAgent::Alive | FromAgent::Heard | FromAgent::Stop) => {}
            None => return Err("it said something that makes no sense: another version?".into()),
        }
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
