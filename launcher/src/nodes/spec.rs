//! `--nodes SPEC` as written: a number of hosts, a least and a most, or the hosts themselves. Pure.

use super::Node;
use super::ranges::{MOST_HOSTS, RangeError, expand, split_list};
use std::net::Ipv6Addr;

/// More workers on one host than this are a slip of the finger.
pub const MOST_SLOTS: usize = 1024;

/// What `--nodes` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// From the least to the most that there are.
    Count {
        /// Fewer will not do.
        least: usize,
        /// More are not used.
        most: usize,
    },
    /// These.
    Hosts(Vec<Node>),
}

/// A SPEC that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A range.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// A number of hosts that makes no sense.
    #[error("{text:?} is no number of hosts: from 1 to {MOST_HOSTS}, or MIN:MAX with MIN no more than MAX")]
    Count {
        /// The value.
        text: String,
    },
    /// A number of workers that is none.
    #[error("{slots:?} in {text:?} is no number of workers from 1 to {MOST_SLOTS} (as in gpu01:8)")]
    Slots {
        /// The host and its number.
        text: String,
        /// What stands after the colon.
        slots: String,
    },
    /// A name that no host has.
    #[error("{text:?} is no host name: {why}")]
    Name {
        /// The name.
        text: String,
        /// What to do about it.
        why: &'static str,
    },
}

/// Reads the value of `--nodes`.
pub fn parse(text: &str) -> Result<Spec, SpecError> {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once(':') {
        None if digits(text) => count(text, text, text),
        Some((least, most)) if digits(least) && digits(most) => count(text, least, most),
        _ => hosts(text).map(Spec::Hosts),
    }
}

fn count(text: &str, least: &str, most: &str) -> Result<Spec, SpecError> {
    let number = |part: &str| part.parse().ok().filter(|n| (1..=MOST_HOSTS).contains(n));
    match (number(least), number(most)) {
        (Some(least), Some(most)) if least <= most => Ok(Spec::Count { least, most }),
        _ => Err(SpecError::Count { text: text.into() }),
    }
}

fn hosts(text: &str) -> Result<Vec<Node>, SpecError> {
    let mut all = Vec::new();
    for part in split_list(text)? {
        all.extend(host(part)?);
        if all.len() > MOST_HOSTS {
            return Err(RangeError::TooMany { text: text.into() }.into());
        }
    }
    Ok(all)
}

/// One element of a list: `gpu[01-04]:8`, `10.0.0.1`, `[fd00::1]:8`. A bracket at the very start can only be that of
/// an IPv6 address, because no host name is a bare number.
pub fn host(text: &str) -> Result<Vec<Node>, SpecError> {
    let (names, slots) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => (vec![ipv6(text, address)?], after_colon(text, rest)?),
        None if text.matches(':').count() > 1 && text.parse::<Ipv6Addr>().is_ok() => {
            let why = "an IPv6 address stands in brackets, as in [fd00::1]:8";
            return Err(SpecError::Name { text: text.into(), why });
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            (expand(name)?, after_colon(text, rest)?)
        }
    };
    let slots = slots.map(|slots| number_of_slots(text, slots)).transpose()?;
    names.into_iter().map(|name| Ok(Node::new(checked(name)?, slots))).collect()
}

fn ipv6(text: &str, address: &str) -> Result<String, SpecError> {
    let parsed: Ipv6Addr = address.parse().map_err(|_| SpecError::Name {
        text: text.into(),
        why: "what starts with a bracket is an IPv6 address, as in [fd00::1]:8",
    })?;
    Ok(parsed.to_string())
}

fn after_colon<'a>(text: &str, rest: &'a str) -> Result<Option<&'a str>, SpecError> {
    match rest.strip_prefix(':') {
        Some(slots) => Ok(Some(slots)),
        None if rest.is_empty() => Ok(None),
        None => Err(SpecError::Slots { text: text.into(), slots: rest.into() }),
    }
}

/// A number of workers on a host; `text` is where it stands.
pub fn number_of_slots(text: &str, slots: &str) -> Result<usize, SpecError> {
    let number = slots.parse().ok().filter(|n| (1..=MOST_SLOTS).contains(n));
    number
        .filter(|_| !slots.starts_with('+'))
        .ok_or_else(|| SpecError::Slots { text: text.into(), slots: slots.into() })
}

/// Names travel on command lines of ssh, srun and mpirun: one that starts with a dash would be an option there.
pub fn checked(name: String) -> Result<String, SpecError> {
    let wrong = |why| Err(SpecError::Name { text: name.clone(), why });
    if name.parse::<Ipv6Addr>().is_ok() {
        return Ok(name);
    }
    if name.contains('@') {
        return wrong("a user belongs into ssh's configuration (Host, User), not into the name");
    }
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return wrong("a bare number is a number of hosts and stands alone");
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if name.is_empty() || name.len() > 253 || name.starts_with(['-', '.']) || !name.bytes().all(plain) {
        return wrong("letters, digits, dashes, dots and underscores make one");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> String {
        match parse(text).unwrap() {
            Spec::Hosts(hosts) => hosts.iter().map(Node::to_string).collect::<Vec<_>>().join(" "),
            Spec::Count { least, most } => format!("{least} to {most}"),
        }
    }

    #[test]
    fn numbers_ranges_and_hosts_are_told_apart() {
        assert_eq!(list("4"), "4 to 4");
        assert_eq!(list("2:4"), "2 to 4");
        assert_eq!(list("gpu01:8,gpu02:4"), "gpu01:8 gpu02:4");
        assert_eq!(list("gpu[01-03,07]:8, login"), "gpu01:8 gpu02:8 gpu03:8 gpu07:8 login");
        assert_eq!(list("10.0.0.1:2,node.lab"), "10.0.0.1:2 node.lab");
        assert_eq!(list("[fd00::1]:8,[FD00:0::2]"), "[fd00::1]:8 [fd00::2]");
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for text in ["0", "1025", "0:2", "4:2", ":", ":4", "4:", "99999999999999999999", ""] {
            let error = parse(text).unwrap_err();
            let refused = matches!(error, SpecError::Count { .. });
            assert!(refused, "{text}: {error}");
        }
    }

    #[test]
    fn slots_are_a_positive_number() {
        for text in ["localhost:", "h:0", "h:two", "h:1:1", "h:-1", "h:+1", "h:1025", "gpu[1-2]:x", "[fd00::1]x"] {
            assert!(matches!(parse(text), Err(SpecError::Slots { .. })), "{text}: {:?}", parse(text));
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_advice() {
        let wrong = [
            ("fd00::1", "in brackets"),
            ("[fd00::1%eth0]:8", "as in [fd00::1]:8"),
            ("[01-04]:8", "as in [fd00::1]:8"),
            ("me@gpu01:8", "ssh's configuration"),
            ("-oProxyCommand=x", "letters, digits"),
            ("a b", "letters, digits"),
            ("gpu01,4", "stands alone"),
        ];
        for (text, advice) in wrong {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(advice), "{text}: {error}");
        }
    }

    #[test]
    fn lists_are_bounded() {
        assert!(matches!(parse("a[1-1000],b[1-1000]"), Err(SpecError::Range(RangeError::TooMany { .. }))));
    }
}
