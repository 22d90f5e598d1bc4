//! The first bytes of a file: which version of MATLAB's format it has, and which byte order.
//!
//! Duty: let MATLAB 5 pass and name what else it is. Must not: read variables.

use std::io::Read;
use std::path::Path;

use crate::Error;

/// Bytes before the first variable.
pub(super) const HEADER: u64 = 128;
/// HDF5 allows a block of the user's before its signature; MATLAB's has this size.
const USER_BLOCK: usize = 512;
const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Whether the file is big-endian.
///
/// # Errors
/// [`Error::MatVersion`] where it is no MATLAB 5 file; [`Error::Read`].
pub(super) fn check(file: &mut impl Read, path: &Path) -> Result<bool, Error> {
    let mut head = Vec::new();
    let most = (USER_BLOCK + HDF5.len()) as u64;
    file.take(most).read_to_end(&mut head).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    byte_order(&head).map_err(|found| Error::MatVersion { path: path.to_owned(), found })
}

fn byte_order(head: &[u8]) -> Result<bool, &'static str> {
    let signature = head.starts_with(HDF5) || head.get(USER_BLOCK..).is_some_and(|rest| rest.starts_with(HDF5));
    if signature || head.starts_with(b"MATLAB 7.3 MAT-file") {
        return Err("a MATLAB 7.3 file, which is HDF5-based");
    }
    match head.get(124..128) {
        Some([0x00, 0x01, b'I', b'M']) => Ok(false),
        Some([0x01, 0x00, b'M', b'I']) => Ok(true),
        Some([_, _, b'I', b'M'] | [_, _, b'M', b'I']) => Err("a MATLAB file of an unknown version"),
        _ if is_version_4(head) => Err("a MATLAB 4 file"),
        _ if head.len() < 128 && head.starts_with(b"MATLAB 5.0") => Err("a MATLAB 5 file cut short in its header"),
        _ => Err("no MATLAB file"),
    }
}

/// Version 4 has no signature: type, rows, columns, whether complex, and the length of the name (with the NUL at its end).
fn is_version_4(head: &[u8]) -> bool {
    let (words, _) = head.as_chunks::<4>();
    let plausible = |word: fn([u8; 4]) -> u32| {
        words.first_chunk::<5>().map(|words| words.map(word)).is_some_and(|[kind, _, _, complex, name]| {
            let digits = [kind / 1000, kind / 100 % 10, kind / 10 % 10, kind % 10];
            digits.iter().zip([4, 0, 5, 2]).all(|(digit, most)| *digit <= most)
                && complex <= 1
                && (2..=256).contains(&name)
        })
    };
    plausible(u32::from_le_bytes) || plausible(u32::from_be_bytes)
}
