//! A zip archive as it is written: stored entries, aligned, without a clock.
//!
//! Duty: headers, directory and end of an archive, for entries that are in memory. Must not: branch on sizes: every length
//! and position has 64 bits (zip64), so that small files show that large ones are right.

use std::io::{self, Write};

/// What PyTorch itself aligns storages to, so that they can be mapped.
const ALIGNMENT: u64 = 64;
/// Version 4.5 of the format, the first with zip64.
const VERSION: [u8; 2] = 45u16.to_le_bytes();
/// Stands for a length or position that the zip64 field has.
const ELSEWHERE: [u8; 4] = [0xff; 4];
/// 1980-01-01, 0:00: the earliest that can be said.
const DATE: [u8; 4] = [0, 0, 0x21, 0];

/// Writes entries one after the other; not an archive before [`Archive::finish`].
pub(crate) struct Archive<W> {
    writer: W,
    at: u64,
    count: u64,
    directory: Vec<u8>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(writer: W) -> Self {
        Archive { writer, at: 0, count: 0, directory: Vec::new() }
    }

    /// `name` is short.
    pub(crate) fn entry(&mut self, name: &str, data: &[u8]) -> io::Result<()> {
        let (start, length) = (self.at.to_le_bytes(), (data.len() as u64).to_le_bytes());
        let crc32 = crc32fast::hash(data).to_le_bytes();
        // What both headers have: no flags, stored, and lengths and checksum.
        let common = [&VERSION[..], &[0; 4], &DATE, &crc32, &ELSEWHERE, &ELSEWHERE, &short(name.len())].concat();
        let lengths = [length, length].concat();
        let local = field(1, &lengths);
        let header = 4 + common.len() + 2 + name.len() + local.len();
        let padding = padding(self.at + header as u64 + 4);
        self.put(&[b"PK\x03\x04", &common, &short(local.len() + padding.len()), name.as_bytes(), &local, &padding])?;
        self.put(&[data])?;
        let central = field(1, &[&lengths[..], &start].concat());
        let directory = [b"PK\x01\x02", &VERSION[..], &common, &short(central.len()), &[0; 10], &ELSEWHERE];
        self.directory.extend([&directory.concat(), name.as_bytes(), &central].concat());
        self.count += 1;
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        let (start, length) = (self.at.to_le_bytes(), (self.directory.len() as u64).to_le_bytes());
        let count = self.count.to_le_bytes();
        let directory = std::mem::take(&mut self.directory);
        self.put(&[&directory])?;
        let end = self.at.to_le_bytes();
        let rest_of_record = 44u64.to_le_bytes();
        self.put(&[b"PK\x06\x06", &rest_of_record, &VERSION, &VERSION, &[0; 8], &count, &count, &length, &start])?;
        self.put(&[b"PK\x06\x07", &[0; 4], &end, &1u32.to_le_bytes()])?;
        self.put(&[b"PK\x05\x06", &[0; 4], &[0xff; 4], &ELSEWHERE, &ELSEWHERE, &[0; 2]])?;
        self.writer.flush()
    }

    fn put(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        for part in parts {
            self.writer.write_all(part)?;
            self.at += part.len() as u64;
        }
        Ok(())
    }
}

fn short(length: usize) -> [u8; 2] {
    (length as u16).to_le_bytes()
}

fn field(id: u16, data: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &short(data.len()), data].concat()
}

/// A field after which the data begins aligned, where it would begin at `at` after an empty one.
fn padding(at: u64) -> Vec<u8> {
    // As PyTorch marks its own.
    const ID: u16 = u16::from_le_bytes(*b"FB");
    field(ID, &vec![0; (at.next_multiple_of(ALIGNMENT) - at) as usize])
}
