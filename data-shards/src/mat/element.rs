//! The grammar of a MATLAB 5 file: tags, padding and the headers of arrays.
//!
//! Duty: hold every length against what is left of the element around it. Must not: allocate by a declared length that
//! is not bounded here, or read values.

use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::Error;

/// The type of an element that is an array.
pub(super) const MATRIX: u32 = 14;
/// The type of an element that holds another one, compressed by zlib.
pub(super) const COMPRESSED: u32 = 15;
const INT8: u32 = 1;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const UTF8: u32 = 16;
/// The class of an object of MATLAB's newer kind, whose array has no dimensions.
const OPAQUE: u8 = 17;

/// MATLAB itself ends at 63.
const LONGEST_NAME: u64 = 256;
const MOST_DIMENSIONS: u64 = 64;

/// Where an error is: the file, and where in it the variable starts.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) at: u64,
}

impl Place<'_> {
    pub(super) fn damaged(self, problem: impl Into<String>) -> Error {
        Error::MatDamaged { path: self.path.to_owned(), at: self.at, problem: problem.into() }
    }

    /// The decompressor reports bad data as an error of input and output, too.
    pub(super) fn io(self, source: io::Error) -> Error {
        match source.kind() {
            ErrorKind::UnexpectedEof => self.damaged("its data ends early"),
            ErrorKind::InvalidData | ErrorKind::InvalidInput => self.damaged(format!("cannot decompress: {source}")),
            _ => Error::Read { path: self.path.to_owned(), source },
        }
    }
}

/// Type and length of the data that follows.
pub(super) struct Tag {
    pub(super) kind: u32,
    pub(super) length: u64,
    padding: u64,
}

/// What an array is, before its values.
pub(super) struct Header {
    pub(super) name: String,
    pub(super) class: u8,
    pub(super) complex: bool,
    pub(super) shape: Vec<usize>,
}

/// Bytes of an element.
pub(super) struct Input<'a, R> {
    pub(super) place: Place<'a>,
    pub(super) reader: R,
    /// Bytes before the element's declared end; nothing is read beyond it.
    pub(super) left: u64,
    pub(super) big_endian: bool,
}

impl<R: Read> Input<'_, R> {
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let needed = buffer.len() as u64;
        let left = self.left.checked_sub(needed);
        let short = || self.place.damaged(format!("{needed} more bytes are needed, but {} are left", self.left));
        let left = left.ok_or_else(short)?;
        self.reader.read_exact(buffer).map_err(|source| self.place.io(source))?;
        self.left = left;
        Ok(())
    }

    pub(super) fn tag(&mut self) -> Result<Tag, Error> {
        let first = self.word()?;
        // Up to 4 bytes of data are packed into the tag: then the upper half holds the length.
        let (kind, length, room) = match first >> 16 {
            0 => {
                let length = u64::from(self.word()?);
                (first, length, length.next_multiple_of(8))
            }
            length => (first & 0xffff, u64::from(length), 4),
        };
        if length > room || length > self.left {
            let room = room.min(self.left);
            return Err(self.place.damaged(format!("{length} bytes are declared where there is room for {room}")));
        }
        Ok(Tag { kind, length, padding: room - length })
    }

    /// To be called behind the data of `tag`. Not every writer pads the last element of an array.
    pub(super) fn skip_padding(&mut self, tag: &Tag) -> Result<(), Error> {
        let mut padding = [0; 8];
        let count = tag.padding.min(self.left) as usize;
        padding.get_mut(..count).map_or(Ok(()), |padding| self.fill(padding))
    }

    pub(super) fn header(&mut self) -> Result<Header, Error> {
        let flags = self.expect("array flags", &[UINT32], 8, 8)?;
        let [flags, ..] = self.words(&flags)[..] else { return Err(self.place.damaged("no array flags")) };
        let [class, bits, ..] = flags.to_le_bytes();
        let shape = if class == OPAQUE { Vec::new() } else { self.shape()? };
        let name = self.expect("a name", &[INT8, UTF8], 0, LONGEST_NAME)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        Ok(Header { name, class, complex: bits & 0x08 != 0, shape })
    }

    /// Checks that the element ends here, and so does what it came in, with the checksum that a compressed one ends in.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        if self.left > 0 {
            return Err(self.place.damaged(format!("{} bytes follow its values", self.left)));
        }
        match self.reader.read(&mut [0]).map_err(|source| self.place.io(source))? {
            0 => Ok(()),
            _ => Err(self.place.damaged("more data than its array follows")),
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, Error> {
        let bytes = self.expect("dimensions", &[INT32, UINT32], 8, 4 * MOST_DIMENSIONS)?;
        let size = |word: u32| i32::try_from(word).ok().and_then(|size| usize::try_from(size).ok());
        let shape = self.words(&bytes).into_iter().map(size).collect::<Option<_>>();
        shape.ok_or_else(|| self.place.damaged("a dimension is negative"))
    }

    /// The data of an element of one of these types with `least` to `most` bytes.
    fn expect(&mut self, what: &str, kinds: &[u32], least: u64, most: u64) -> Result<Vec<u8>, Error> {
        let tag = self.tag()?;
        if !kinds.contains(&tag.kind) || !(least..=most).contains(&tag.length) {
            let Tag { kind, length, .. } = tag;
            return Err(self.place.damaged(format!("expected {what}, found {length} bytes of type {kind}")));
        }
        let mut data = vec![0; tag.length as usize];
        self.fill(&mut data)?;
        self.skip_padding(&tag)?;
        Ok(data)
    }

    fn word(&mut self) -> Result<u32, Error> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(self.number(bytes))
    }

    fn words(&self, bytes: &[u8]) -> Vec<u32> {
        bytes.as_chunks().0.iter().map(|bytes| self.number(*bytes)).collect()
    }

    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}
