//! What kind of file this is, by its first bytes.
//!
//! Duty: choose the reader, or say what the file seems to be. Must not: look at its name.

use crate::Error;
use crate::legacy::MAGIC;

/// The two formats of PyTorch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Zip,
    Legacy,
}

/// The beginning of the file has the magic number as a pickle of protocol 2 to 4, with a frame or without.
const MAGIC_WITHIN: usize = 32;

pub(crate) fn format(bytes: &[u8]) -> Result<Format, Error> {
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Ok(Format::Zip);
    }
    let pickle = bytes.starts_with(b"\x80");
    if pickle && bytes.iter().take(MAGIC_WITHIN).copied().collect::<Vec<_>>().windows(MAGIC.len()).any(|at| at == MAGIC)
    {
        return Ok(Format::Legacy);
    }
    Err(Error::Foreign { seems: seems(bytes) })
}

fn seems(bytes: &[u8]) -> &'static str {
    let begins = |with: &[u8]| bytes.starts_with(with);
    let tar = bytes.get(257..262).is_some_and(|magic| magic == b"ustar");
    if bytes.is_empty() {
        "an empty file; fetch or save it again"
    } else if is_markup(bytes) {
        "an HTML or XML page, as a failed download leaves it; fetch the file again"
    } else if is_safetensors(bytes) {
        "a safetensors file; read it as such"
    } else if begins(b"version https://git-lfs") {
        "a Git LFS pointer; fetch the file itself with `git lfs pull`"
    } else if begins(b"\x1f\x8b") {
        "compressed with gzip; decompress it first"
    } else if tar {
        "a tar archive, perhaps by PyTorch before 0.1.10; save it again with a newer PyTorch"
    } else if begins(b"\x80") {
        "a plain pickle, not written by torch.save; save it with torch.save"
    } else {
        "of no kind known here"
    }
}

fn is_markup(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let begins = |with: &[u8]| text.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
    [&b"<!doctype"[..], b"<html", b"<head", b"<?xml"].into_iter().any(begins)
}

/// A header's length in 8 bytes, then the header, a JSON object.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= rest.len() as u64 && rest.starts_with(b"{")
}
