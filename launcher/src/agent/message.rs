//! What travels between launcher and agent: a letter, and what it means in bytes or JSON.

use crate::cause::Death;

/// To the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToAgent {
    /// The first frame of a connection: run this with `/bin/sh -c`.
    Run {
        /// By which name the agent's host was reached.
        host: String,
        /// The command.
        command: String,
    },
    /// The first frame of a connection, with the name by which the host was reached: from now on the agent is this launcher's, until it
    /// says farewell or is lost.
    Hold(String),
    /// For the command's standard input.
    Input(Vec<u8>),
    /// There is no more of it.
    InputEnds,
    /// For the command and what it has started.
    Signal(i32),
    /// The job is over, with this exit code.
    Farewell(u8),
    /// I am here.
    Alive,
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromAgent {
    /// The command's standard output.
    Output(Vec<u8>),
    /// Its standard error.
    Errors(Vec<u8>),
    /// It ended.
    Ended(Death),
    /// This host is about to go: the job is asked to stop.
    Stop,
    /// The farewell was heard, or the hold taken.
    Heard,
    /// I am here.
    Alive,
    /// Why nothing was done.
    Refused(String),
}

impl ToAgent {
    /// As a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToAgent::Run { host, command } => tagged(b'r', format!("{host}\n{command}").as_bytes()),
            ToAgent::Hold(host) => tagged(b'h', host.as_bytes()),
            ToAgent::Input(bytes) => tagged(b'i', bytes),
            ToAgent::InputEnds => tagged(b'e', &[]),
            ToAgent::Signal(signal) => tagged(b's', &signal.to_be_bytes()),
            ToAgent::Farewell(code) => tagged(b'f', &[*code]),
            ToAgent::Alive => tagged(b'a', &[]),
        }
    }

    /// From a frame; `None` where it makes no sense.
    pub fn decode(frame: &[u8]) -> Option<ToAgent> {
        let (tag, rest) = frame.split_first()?;
        Some(match (tag, rest) {
            (b'r', words) => {
                let (host, command) = std::str::from_utf8(words).ok()?.split_once('\n')?;
                ToAgent::Run { host: host.into(), command: command.into() }
            }
            (b'h', [_, ..]) => ToAgent::Hold(String::from_utf8(rest.to_vec()).ok()?),
            (b'i', bytes) => ToAgent::Input(bytes.to_vec()),
            (b'e', []) => ToAgent::InputEnds,
            (b's', signal) => ToAgent::Signal(number(signal)?),
            (b'f', [code]) => ToAgent::Farewell(*code),
            (b'a', []) => ToAgent::Alive,
            _ => return None,
        })
    }
}

impl FromAgent {
    /// As a frame.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            FromAgent::Output(bytes) => tagged(b'o', bytes),
            FromAgent::Errors(bytes) => tagged(b'e', bytes),
            FromAgent::Ended(Death::Code(code)) => tagged(b'c', &code.to_be_bytes()),
            FromAgent::Ended(Death::Signal(signal)) => tagged(b's', &signal.to_be_bytes()),
            FromAgent::Stop => tagged(b't', &[]),
            FromAgent::Heard => tagged(b'h', &[]),
            FromAgent::Alive => tagged(b'a', &[]),
            FromAgent::Refused(why) => tagged(b'x', why.as_bytes()),
        }
    }

    /// From a frame; `None` where it makes no sense.
    pub fn decode(frame: &[u8]) -> Option<FromAgent> {
        let (tag, rest) = frame.split_first()?;
        Some(match (tag, rest) {
            (b'o', bytes) => FromAgent::Output(bytes.to_vec()),
            (b'e', bytes) => FromAgent::Errors(bytes.to_vec()),
            (b'c', code) => FromAgent::Ended(Death::Code(number(code)?)),
            (b's', signal) => FromAgent::Ended(Death::Signal(number(signal)?)),
            (b't', []) => FromAgent::Stop,
            (b'h', []) => FromAgent::Heard,
            (b'a', []) => FromAgent::Alive,
            (b'x', why) => FromAgent::Refused(String::from_utf8_lossy(why).into_owned()),
            _ => return None,
        })
    }
}

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    [&[tag], rest].concat()
}

fn number(bytes: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_mean_what_they_were_made_from() {
        for message in [
            ToAgent::Run { host: "jcs-1.jcs".into(), command: "echo ä\necho b".into() },
            ToAgent::Hold("jcs-1.jcs".into()),
            ToAgent::Input(vec![0, 255]),
            ToAgent::InputEnds,
            ToAgent::Signal(15),
            ToAgent::Farewell(143),
            ToAgent::Alive,
        ] {
            assert_eq!(ToAgent::decode(&message.encode()), Some(message));
        }
        for message in [
            FromAgent::Output(vec![1]),
            FromAgent::Errors(Vec::new()),
            FromAgent::Ended(Death::Code(3)),
            FromAgent::Ended(Death::Signal(9)),
            FromAgent::Stop,
            FromAgent::Heard,
            FromAgent::Alive,
            FromAgent::Refused("no".into()),
        ] {
            assert_eq!(FromAgent::decode(&message.encode()), Some(message));
        }
        for nonsense in [&b""[..], b"?", b"h", b"s1", b"f", b"r\xff"] {
            assert_eq!(ToAgent::decode(nonsense), None);
        }
        assert_eq!(FromAgent::decode(b"c123"), None);
    }
}
