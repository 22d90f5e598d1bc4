//! A hostfile as text: `host slots=N` or `host:N` a line, `#` comments. Pure; reading the file is the caller's.

use super::Node;
use super::ranges::MOST_HOSTS;
use super::spec::{SpecError, host, number_of_slots};
use std::path::{Path, PathBuf};

/// A hostfile that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostfileError {
    /// A host or a number is wrong.
    #[error("{}:{line}: {source}", file.display())]
    Host {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        source: SpecError,
    },
    /// Something else than a host and its slots.
    #[error("{}:{line}: {word:?} is not understood: a line is `host`, `host slots=N` or `host:N`", file.display())]
    Word {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        word: String,
    },
    /// Both ways at once.
    #[error("{}:{line}: {host} has its number of workers twice, after the colon and in slots=", file.display())]
    Twofold {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The host.
        host: String,
    },
    /// The same host twice.
    #[error("{}:{line}: host {host} stands in line {first} already: give it one line with all its slots", file.display())]
    Again {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The line that has it first.
        first: usize,
        /// The host.
        host: String,
    },
    /// Too many.
    #[error("{}: more than {MOST_HOSTS} hosts, which is the most that a job may have", file.display())]
    TooMany {
        /// The file.
        file: PathBuf,
    },
    /// None.
    #[error("{}: no host in it: a line is `host slots=N`", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

/// The hosts in `text`, which is what `file` holds.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Node>, HostfileError> {
    let mut found: Vec<(usize, Node)> = Vec::new();
    for (i, content) in text.lines().enumerate() {
        let line = i + 1;
        for node in parse_line(file, line, content)? {
            if let Some((first, _)) = found.iter().find(|(_, earlier)| earlier.is_same(&node)) {
                return Err(HostfileError::Again { file: file.into(), line, first: *first, host: node.name });
            }
            found.push((line, node));
        }
        if found.len() > MOST_HOSTS {
            return Err(HostfileError::TooMany { file: file.into() });
        }
    }
    if found.is_empty() {
        return Err(HostfileError::Empty { file: file.into() });
    }
    Ok(found.into_iter().map(|(_, node)| node).collect())
}

fn parse_line(file: &Path, line: usize, content: &str) -> Result<Vec<Node>, HostfileError> {
    let located = |source| HostfileError::Host { file: file.into(), line, source };
    let mut words = content.split('#').next().unwrap_or_default().split_whitespace();
    let Some(first) = words.next() else { return Ok(Vec::new()) };
    let mut nodes = host(first).map_err(located)?;
    for word in words {
        let Some(slots) = word.strip_prefix("slots=") else {
            return Err(HostfileError::Word { file: file.into(), line, word: word.into() });
        };
        let slots = number_of_slots(word, slots).map_err(located)?;
        for node in &mut nodes {
            if node.slots.replace(slots).is_some() {
                return Err(HostfileError::Twofold { file: file.into(), line, host: node.name.clone() });
            }
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let nodes = parse(Path::new("hosts"), text).map_err(|e| e.to_string())?;
        Ok(nodes.iter().map(Node::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn both_spellings_and_comments_are_read() {
        let text = "# the lab\n\ngpu01 slots=8\r\n  gpu02:4 # the small one\ngpu03\n[fd00::1]:2\ngpu[05-06] slots=8\n";
        assert_eq!(read(text).unwrap(), "gpu01:8 gpu02:4 gpu03 [fd00::1]:2 gpu05:8 gpu06:8");
    }

    #[test]
    fn a_host_named_twice_is_refused_with_both_lines() {
        for again in ["gpu01 slots=8", "GPU01", "gpu[01-02]"] {
            let error = read(&format!("gpu01 slots=4\n# more\n{again}\n")).unwrap_err();
            assert!(error.starts_with("hosts:3: host ") && error.contains("in line 1 already"), "{error}");
        }
    }

    #[test]
    fn wrong_lines_are_named() {
        let wrong = [
            ("a\nb slots=0", "hosts:2: \"0\" in \"slots=0\" is no number"),
            ("a slot=2", "hosts:1: \"slot=2\" is not understood"),
            ("a max_slots=2", "hosts:1: \"max_slots=2\" is not understood"),
            ("a:2 slots=2", "hosts:1: a has its number of workers twice"),
            ("a slots=2 slots=3", "hosts:1: a has its number of workers twice"),
            ("a,b", "hosts:1: \"a,b\" is no host name"),
            ("4", "hosts:1: \"4\" is no host name"),
            ("# nothing\n", "hosts: no host in it"),
        ];
        for (text, message) in wrong {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn the_file_is_bounded() {
        let text: String = (0..2000).map(|i| format!("n{i}\n")).collect();
        assert!(read(&text).unwrap_err().contains("more than 1024 hosts"));
    }
}
