//! Archives and pickles by hand: independent of the crate's writer, and able to be wrong.

use pth::{Dtype, Error, Tensor};

/// An entry of an archive and what may be wrong with it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) data: Vec<u8>,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    pub(crate) crc32: u32,
    /// Size in both headers.
    pub(crate) size: u32,
    /// Where the directory says that the entry begins, if not where it does.
    pub(crate) at: Option<u32>,
}

pub(crate) fn entry(name: &str, data: &[u8]) -> Entry {
    let (name, data) = (name.as_bytes().to_vec(), data.to_vec());
    Entry { name, crc32: crc32fast::hash(&data), size: data.len() as u32, data, method: 0, flags: 0, at: None }
}

/// A zip archive of these entries, in this order.
pub(crate) fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = entry.at.unwrap_or(out.len() as u32);
        out.extend(b"PK\x03\x04\x14\0");
        out.extend(header(entry));
        out.extend(&entry.name);
        out.extend(&entry.data);
        directory.extend(b"PK\x01\x02\x14\0\x14\0");
        directory.extend(header(entry));
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(&entry.name);
    }
    let (start, count) = (out.len() as u32, entries.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend([(directory.len() as u32).to_le_bytes(), start.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

/// What local header and directory have in common, from the flags to the length of the extra fields.
fn header(entry: &Entry) -> Vec<u8> {
    let mut out = [entry.flags.to_le_bytes(), entry.method.to_le_bytes()].concat();
    out.extend([0, 0, 0x21, 0]);
    out.extend(entry.crc32.to_le_bytes());
    out.extend([entry.size.to_le_bytes(), entry.size.to_le_bytes()].concat());
    out.extend((entry.name.len() as u16).to_le_bytes());
    out.extend([0, 0]);
    out
}

/// The entries of a file by PyTorch with this object and these storages.
pub(crate) fn entries(object: &[u8], storages: &[(&str, &[u8])]) -> Vec<Entry> {
    let mut entries = vec![entry("a/data.pkl", object), entry("a/byteorder", b"little")];
    entries.extend(storages.iter().map(|(key, data)| entry(&format!("a/data/{key}"), data)));
    entries.push(entry("a/version", b"3\n"));
    entries
}

pub(crate) fn new(object: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    zip(&entries(object, storages))
}

pub(crate) const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
pub(crate) const VERSION: &[u8] = b"\x80\x02M\xe9\x03.";
pub(crate) const SYSTEM: &[u8] = b"\x80\x02}(X\x10\0\0\0protocol_versionM\xe9\x03X\x0d\0\0\0little_endian\x88u.";

/// A file of the format before 1.6 with this object and these storages (key, elements, bytes).
pub(crate) fn old(object: &[u8], storages: &[(&str, i64, &[u8])]) -> Vec<u8> {
    let mut keys = b"\x80\x02](".to_vec();
    storages.iter().for_each(|(key, _, _)| keys.extend(text(key)));
    keys.extend(b"e.");
    let mut out = [MAGIC, VERSION, SYSTEM, object, &keys].concat();
    for (_, count, data) in storages {
        out.extend(count.to_le_bytes());
        out.extend(*data);
    }
    out
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

fn tuple(items: &[i64]) -> Vec<u8> {
    [&b"("[..], &items.iter().flat_map(|item| int(*item)).collect::<Vec<_>>(), b"t"].concat()
}

/// A storage of this class by its persistent id.
pub(crate) fn storage(class: &str, key: &str, elements: i64) -> Vec<u8> {
    let class = format!("ctorch\n{class}\n").into_bytes();
    [&b"("[..], &text("storage"), &class, &text(key), &text("cpu"), &int(elements), b"tQ"].concat()
}

/// `_rebuild_tensor_v2` of a storage.
pub(crate) fn view(storage: &[u8], offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let callee = b"ctorch._utils\n_rebuild_tensor_v2\n(";
    let tail = b"\x89ccollections\nOrderedDict\n)RtR";
    [&callee[..], storage, &int(offset), &tuple(shape), &tuple(strides), tail].concat()
}

/// A dict of these values, which are pickled.
pub(crate) fn dict(items: &[(&str, &[u8])]) -> Vec<u8> {
    let items: Vec<u8> = items.iter().flat_map(|(name, value)| [text(name), value.to_vec()].concat()).collect();
    [&b"}("[..], &items, b"u"].concat()
}

/// A whole pickle of this value.
pub(crate) fn pickle(value: &[u8]) -> Vec<u8> {
    [b"\x80\x02", value, b"."].concat()
}

/// A dict with a single tensor `w`.
pub(crate) fn single(tensor: &[u8]) -> Vec<u8> {
    pickle(&dict(&[("w", tensor)]))
}

/// Four bytes as a tensor `w` of this shape over a storage of 4 bytes.
pub(crate) fn bytes_view(offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    new(&single(&view(&storage("ByteStorage", "0", 4), offset, shape, strides)), &[("0", &[1, 2, 3, 4])])
}

/// Two bytes, 7 and 8.
pub(crate) fn seven(key: &str) -> Vec<u8> {
    view(&storage("ByteStorage", key, 2), 0, &[2], &[1])
}

pub(crate) fn tensor(name: &str, dtype: Dtype, shape: &[usize], data: &[u8]) -> Tensor {
    Tensor { name: name.to_owned(), dtype, shape: shape.to_vec(), data: data.to_vec() }
}

pub(crate) fn bytes(name: &str, data: &[u8]) -> Tensor {
    tensor(name, Dtype::U8, &[data.len()], data)
}

#[track_caller]
pub(crate) fn fails(file: &[u8], message: &str) -> Error {
    let error = pth::from_bytes(file).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert!(!message.contains('\n'));
    error
}
