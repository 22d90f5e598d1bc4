//! The key that launcher and agents have in common. It is never printed.

use std::fmt;
use std::path::{Path, PathBuf};

/// 32 bytes that nobody else has.
#[derive(Clone)]
pub struct Key([u8; 32]);

/// A file that holds no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the agents' key {}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something else is in it.
    #[error("{} holds no key of 64 hexadecimal digits: `openssl rand -hex 32` makes one", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
    },
}

impl Key {
    /// From a file with 64 hexadecimal digits, and blanks around them perhaps.
    pub fn read(file: &Path) -> Result<Key, KeyError> {
        let text = std::fs::read_to_string(file).map_err(|source| KeyError::Read { file: file.into(), source })?;
        Key::parse(text.trim()).ok_or_else(|| KeyError::Malformed { file: file.into() })
    }

    fn parse(digits: &str) -> Option<Key> {
        let mut key = [0; 32];
        if digits.len() != 64 || !digits.is_ascii() {
            return None;
        }
        for (byte, pair) in key.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|p| !p.starts_with('+'))?, 16).ok()?;
        }
        Some(Key(key))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_digits_and_nothing_of_it_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Key::read(&file)
        };
        let digits = "00ff".repeat(16);
        assert_eq!(read(&format!("{digits}\n")).unwrap().bytes()[..2], [0, 255]);
        assert_eq!(format!("{:?}", read(&digits).unwrap()), "Key(…)");
        for wrong in ["", "secret", &"0".repeat(63), &"0".repeat(65), &"+f".repeat(32), &"ä".repeat(32)] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("64 hexadecimal digits") && (wrong.is_empty() || !error.contains(wrong)), "{error}");
        }
        assert!(Key::read(Path::new("/no/such/key")).unwrap_err().to_string().contains("/no/such/key"));
    }
}
