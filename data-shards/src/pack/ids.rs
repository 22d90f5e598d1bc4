//! Names that do not tell who is meant.
//!
//! Duty: patient ids, file names and UIDs to keyed hashes, with a key that stays beside the data set and never in it. Must
//! not: write anything but the key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::PackError;
use crate::shard;

/// Bytes of a hash that are shown: too many for two of a million names to agree.
const SHOWN: usize = 12;
const KEY_BYTES: usize = 32;

/// How names are written.
pub(crate) enum Ids {
    /// As they are.
    Kept,
    /// As hashes with this key.
    Hashed([u8; KEY_BYTES]),
}

/// The file with the key of a data set: `OUT.key`.
pub fn key_file(out: &Path) -> PathBuf {
    super::outputs::beside(out, ".key")
}

impl Ids {
    /// Names as they are, or hashed with the key in `OUT.key`, which is made where there is none.
    pub(crate) fn open(out: &Path, keep: bool) -> Result<Ids, PackError> {
        if keep {
            return Ok(Ids::Kept);
        }
        let path = key_file(out);
        match fs::read_to_string(&path) {
            Ok(text) => parse(&text).map(Ids::Hashed).ok_or(PackError::Key { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path).map(Ids::Hashed),
            Err(source) => Err(PackError::Read { path, source }),
        }
    }

    /// A patient as it stands in the data set.
    pub(crate) fn patient(&self, id: &str) -> String {
        match self {
            Ids::Kept => id.chars().filter(|c| !c.is_control()).collect(),
            Ids::Hashed(_) => format!("p{}", self.hash("patient", id)),
        }
    }

    /// A series of slices.
    pub(crate) fn series(&self, uid: &str) -> String {
        match self {
            Ids::Kept => uid.to_owned(),
            Ids::Hashed(_) => format!("v{}", self.hash("series", uid)),
        }
    }

    /// The key of a unit, from its name in the source. Kept names are made of what a key may hold, and end in a hash
    /// where that loses something, so that different names have different keys.
    pub(crate) fn key(&self, name: &str) -> String {
        match self {
            Ids::Hashed(_) => format!("s{}", self.hash("sample", name)),
            Ids::Kept => readable(name),
        }
    }

    /// A file that the report names.
    pub(crate) fn file(&self, path: &str) -> String {
        match self {
            Ids::Kept => path.to_owned(),
            Ids::Hashed(_) => format!("f{}", self.hash("file", path)),
        }
    }

    /// Tells keys apart without giving them away.
    pub(crate) fn fingerprint(&self) -> String {
        match self {
            Ids::Kept => "kept".to_owned(),
            Ids::Hashed(_) => self.hash("key", ""),
        }
    }

    fn hash(&self, purpose: &str, text: &str) -> String {
        let Ids::Hashed(key) = self else { return text.to_owned() };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
        mac.update(purpose.as_bytes());
        mac.update(b"\0");
        mac.update(text.as_bytes());
        crate::hex(mac.finalize().into_bytes().get(..SHOWN).unwrap_or_default())
    }
}

/// Longest readable key, which leaves room for the number of a slice.
const READABLE: usize = 70;

fn readable(name: &str) -> String {
    let stem = super::sources::stem(name);
    if shard::check_key(stem).is_ok() && stem.len() <= READABLE {
        return stem.to_owned();
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let text: String = stem.chars().map(plain).take(READABLE - 9).collect();
    let hash = crate::hex(Sha256::digest(name.as_bytes()).get(..4).unwrap_or_default());
    format!("{text}-{hash}")
}

fn parse(text: &str) -> Option<[u8; KEY_BYTES]> {
    let text = text.trim().as_bytes();
    let mut key = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(key)
}

fn create(path: &Path) -> Result<[u8; KEY_BYTES], PackError> {
    let failed = |source| PackError::Write { path: path.to_owned(), source };
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| failed(io::Error::other(error.to_string())))?;
    shard::privately(path, format!("{}\n", crate::hex(&key)).as_bytes()).map_err(PackError::Shard)?;
    Ok(key)
}
