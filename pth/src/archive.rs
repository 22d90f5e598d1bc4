//! The zip format of PyTorch 1.6 and later.
//!
//! Duty: find and check the archive's entries, and hand their bytes as slices of the file. Must not: copy or decompress an
//! entry, or use one that another reader could see otherwise (duplicates, overlaps, data before the archive).

use std::collections::HashMap;
use std::io::Cursor;

use zip::read::{ArchiveOffset, Config};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use crate::error::shown;
use crate::tensor::{Tensor, gather, tensor_limit};
use crate::value::Storage;
use crate::{Error, pickle, select};

/// Bytes of the directory. PyTorch takes about 60 an entry, and the largest networks have some thousands of storages; a
/// directory of empty extra fields takes the reader about 20 bytes a byte.
const LONGEST_DIRECTORY: usize = 8 << 20;

pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Tensor>, Error> {
    let archive = Archive::open(bytes)?;
    archive.check_byte_order()?;
    let part = archive.path("data.pkl");
    let object = archive.required(&part)?;
    let pickle = pickle::load(&shown(&part), object, 0)?;
    if pickle.end < object.len() {
        return Err(Error::Trailing { part: shown(&part), bytes: object.len() - pickle.end });
    }
    let named = select::weights(&pickle.heap, pickle.root)?;
    // Several tensors may share a storage, whose checksum is checked once.
    let mut known = HashMap::new();
    gather(&pickle.heap, &named, tensor_limit(bytes.len()), |storage| match known.get(storage.key) {
        Some(found) => Ok(*found),
        None => {
            let found = archive.storage(storage)?;
            known.insert(storage.key, found);
            Ok(found)
        }
    })
}

struct Entry<'a> {
    data: &'a [u8],
    crc32: u32,
}

/// The entries of an archive, checked against the file and each other.
struct Archive<'a> {
    /// The folder that all of a file's parts lie in.
    folder: String,
    entries: HashMap<String, Entry<'a>>,
}

impl<'a> Archive<'a> {
    fn open(bytes: &'a [u8]) -> Result<Archive<'a>, Error> {
        let mut zip = open(bytes)?;
        let mut entries = HashMap::new();
        let mut folder = None;
        for index in 0..zip.len() {
            let (name, entry) = entry(&mut zip, index, bytes)?;
            folder = folder.or_else(|| name.split_once('/').map(|(folder, _)| folder.to_owned()));
            entries.insert(name, entry);
        }
        let folder = folder.ok_or(Error::MissingEntry { entry: "NAME/data.pkl".to_owned() })?;
        Ok(Archive { folder, entries })
    }

    fn path(&self, part: &str) -> String {
        format!("{}/{part}", self.folder)
    }

    fn required(&self, name: &str) -> Result<&'a [u8], Error> {
        let entry = self.entries.get(name).ok_or_else(|| Error::MissingEntry { entry: shown(name) })?;
        checked(name, entry)
    }

    /// Files by PyTorch before 2.1 do not say; those are little-endian as far as they came from machines of today.
    fn check_byte_order(&self) -> Result<(), Error> {
        let part = self.path("byteorder");
        let Some(entry) = self.entries.get(&part) else { return Ok(()) };
        match checked(&part, entry)? {
            b"little" => Ok(()),
            b"big" => Err(Error::ByteOrder { part: shown(&part) }),
            _ => Err(Error::Entry { entry: shown(&part), problem: "is neither `little` nor `big`" }),
        }
    }

    fn storage(&self, storage: &Storage<'_>) -> Result<&'a [u8], Error> {
        let wrong = |problem| Error::Storage { key: shown(storage.key), problem };
        let data = self.required(&self.path(&format!("data/{}", storage.key)))?;
        let described = u128::from(storage.total) * storage.dtype.size() as u128;
        if described != data.len() as u128 {
            return Err(wrong(format!("should have {described} bytes, its entry has {}", data.len())));
        }
        Ok(data)
    }
}

fn open(bytes: &[u8]) -> Result<ZipArchive<Cursor<&[u8]>>, Error> {
    if directory(bytes) > LONGEST_DIRECTORY {
        return Err(Error::Zip { problem: format!("a directory of more than {LONGEST_DIRECTORY} bytes") });
    }
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut zip = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(damaged)?;
    if zip.has_duplicate_names() {
        return Err(Error::Zip { problem: "two entries have one name".to_owned() });
    }
    if zip.has_overlapping_entries().map_err(damaged)? {
        return Err(Error::Zip { problem: "entries overlap".to_owned() });
    }
    Ok(zip)
}

/// No directory in the file is longer: each of its headers has this signature, and says how long it is.
fn directory(bytes: &[u8]) -> usize {
    const HEADER: usize = 46;
    let short = |header: &[u8], at: usize| {
        let bytes = header.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| usize::from(u16::from_le_bytes(*bytes)))
    };
    let headers = bytes.windows(HEADER).filter(|header| header.starts_with(b"PK\x01\x02"));
    // Fixed part, name, extra fields, comment.
    headers.map(|header| HEADER + short(header, 28) + short(header, 30) + short(header, 32)).sum()
}

fn damaged(error: ZipError) -> Error {
    Error::Zip { problem: shown(&error.to_string()) }
}

fn entry<'a>(zip: &mut ZipArchive<Cursor<&[u8]>>, index: usize, bytes: &'a [u8]) -> Result<(String, Entry<'a>), Error> {
    let file = zip.by_index_raw(index).map_err(damaged)?;
    let raw = file.name_raw();
    let wrong = |problem| Err(Error::Entry { entry: shown(&String::from_utf8_lossy(raw)), problem });
    let Ok(name) = std::str::from_utf8(raw) else { return wrong("has a name that is not UTF-8") };
    if !is_inside(name) {
        return wrong("has a name that leads out of the archive; the file was not written by torch.save");
    }
    if file.encrypted() {
        return wrong("is encrypted");
    }
    if file.compression() != CompressionMethod::Stored {
        return wrong(
            "is compressed, which torch.save never does; unpack the archive and pack it uncompressed (zip -0)",
        );
    }
    let range = file.data_start().and_then(|start| {
        let end = start.checked_add(file.compressed_size())?;
        Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    });
    let data = range.and_then(|range| bytes.get(range)).filter(|data| data.len() as u64 == file.size());
    let Some(data) = data else { return wrong("is longer or shorter than its bytes in the file") };
    Ok((name.to_owned(), Entry { data, crc32: file.crc32() }))
}

fn is_inside(name: &str) -> bool {
    !name.starts_with('/') && !name.contains(['\\', ':', '\0']) && name.split('/').all(|part| part != "..")
}

/// `torch.serialization.set_crc32_options(False)` leaves 0 for a checksum.
fn checked<'a>(name: &str, entry: &Entry<'a>) -> Result<&'a [u8], Error> {
    if entry.crc32 != 0 && crc32fast::hash(entry.data) != entry.crc32 {
        return Err(Error::Entry {
            entry: shown(name),
            problem: "is damaged (its CRC-32 differs); fetch the file again",
        });
    }
    Ok(entry.data)
}
