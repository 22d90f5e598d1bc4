//! `MANIFEST.json`: what a complete checkpoint consists of.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Version of the layout of a checkpoint; a reader refuses newer ones.
pub(super) const FORMAT: u32 = 1;

/// The files of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) step: u64,
    pub(super) files: BTreeMap<String, FileEntry>,
}

/// Size and checksum of a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl FileEntry {
    pub(super) fn of(content: &[u8]) -> FileEntry {
        let digest = Sha256::digest(content);
        let sha256 = digest.iter().map(|b| format!("{b:02x}")).collect();
        FileEntry { bytes: content.len() as u64, sha256 }
    }
}
