//! MATLAB 5 files, as `save -v6`, `save -v7` and `scipy.io.savemat` write them: named arrays of real numbers.
//!
//! Duty: the arrays asked for, in row-major order, out of files that nobody vouches for: a damaged file is an error, and
//! no length that a file declares is believed before its bytes arrive. Must not: hold the whole file, materialise what
//! is not asked for, or know what the arrays mean.

mod element;
mod layout;
mod values;
mod version;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::ZlibDecoder;

use crate::Error;
use element::{COMPRESSED, Input, MATRIX, Place};
pub use values::Values;

/// Most bytes that the values of one array may take; reading it takes twice as many for a moment.
pub const LIMIT: u64 = 1 << 30;

const BUFFER: usize = 1 << 17;
/// Names that one message shows; the others are counted.
const SHOWN: usize = 20;

/// A variable of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its name.
    pub name: String,
    /// Its dimensions as MATLAB has them: at least two, those of size 1 included.
    pub shape: Vec<usize>,
    /// Its values in row-major order: the last dimension runs fastest.
    pub values: Values,
}

/// Reads the variables named in `wanted`, one array for each name, in the order of `wanted`.
///
/// The others are skipped, whatever their kind, but their place in the file is checked: a file cut short within any
/// variable is an error, even where all that is wanted stands before the cut.
///
/// # Errors
/// [`Error::Read`]; [`Error::MatVersion`] where the file is none of MATLAB 5; [`Error::MatDamaged`];
/// [`Error::MatMissing`] with the names that the file holds; [`Error::MatUnsupported`] where a wanted variable is no array
/// of real numbers; [`Error::MatTooLarge`] beyond [`LIMIT`]; [`Error::MatTwice`].
pub fn read(path: &Path, wanted: &[&str]) -> Result<Vec<Array>, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    read_from(file, path, wanted)
}

/// The shapes of the variables named in `wanted`, in its order, with nothing read but where they stand.
///
/// # Errors
/// As [`read`].
pub fn shapes(path: &Path, wanted: &[&str]) -> Result<Vec<Vec<usize>>, Error> {
    let file = File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let arrays = search(file, path, wanted, false)?;
    Ok(arrays.into_iter().map(|array| array.shape).collect())
}

/// As [`read`], from anything that can seek; `path` stands in the errors.
///
/// # Errors
/// As [`read`].
pub fn read_from<R: Read + Seek>(source: R, path: &Path, wanted: &[&str]) -> Result<Vec<Array>, Error> {
    search(source, path, wanted, true)
}

fn search<R: Read + Seek>(source: R, path: &Path, wanted: &[&str], with_values: bool) -> Result<Vec<Array>, Error> {
    let io = |source| Error::Read { path: path.to_owned(), source };
    let mut reader = BufReader::with_capacity(BUFFER, source);
    let length = reader.seek(SeekFrom::End(0)).map_err(io)?;
    reader.rewind().map_err(io)?;
    let big_endian = version::check(&mut reader, path)?;
    reader.seek(SeekFrom::Start(version::HEADER)).map_err(io)?;
    let place = Place { path, at: version::HEADER };
    let file = Input { place, reader, left: length.saturating_sub(version::HEADER), big_endian };
    Search { wanted, with_values, found: Vec::new(), present: Vec::new(), others: 0 }.through(file)
}

/// What was asked for and what was seen so far.
struct Search<'a> {
    wanted: &'a [&'a str],
    /// Else there are none in what is found.
    with_values: bool,
    found: Vec<Array>,
    /// The first names of the file, for [`Error::MatMissing`].
    present: Vec<String>,
    others: usize,
}

impl Search<'_> {
    fn through<R: Read + Seek>(mut self, mut file: Input<BufReader<R>>) -> Result<Vec<Array>, Error> {
        let length = file.left;
        while file.left > 0 {
            file.place.at = version::HEADER + (length - file.left);
            self.element(&mut file)?;
        }
        self.finish(file.place.path)
    }

    /// One element of the file; leaves it behind the element, however much of that was read.
    fn element<R: Read + Seek>(&mut self, file: &mut Input<BufReader<R>>) -> Result<(), Error> {
        let Input { place, big_endian, .. } = *file;
        let tag = file.tag()?;
        let mut bytes = (&mut file.reader).take(tag.length);
        match tag.kind {
            MATRIX => self.array(Input { place, left: tag.length, reader: &mut bytes, big_endian })?,
            COMPRESSED => {
                // What comes out is bounded by the length that the array inside declares.
                let reader = ZlibDecoder::new(&mut bytes);
                let mut inside = Input { place, left: u64::MAX, reader, big_endian };
                let tag = inside.tag()?;
                if tag.kind != MATRIX {
                    return Err(place.damaged(format!("compressed data of type {}; expected an array", tag.kind)));
                }
                inside.left = tag.length;
                self.array(inside)?;
            }
            other => return Err(place.damaged(format!("data of type {other}; expected an array"))),
        }
        let unread = i64::try_from(bytes.limit()).map_err(|_| place.damaged("its length is beyond any file's"))?;
        file.reader.seek_relative(unread).map_err(|source| place.io(source))?;
        file.left -= tag.length;
        Ok(())
    }

    fn array<R: Read>(&mut self, mut input: Input<R>) -> Result<(), Error> {
        let header = input.header()?;
        if !self.wanted.contains(&header.name.as_str()) {
            self.note(&header.name);
            return Ok(());
        }
        if self.found.iter().any(|array| array.name == header.name) {
            return Err(Error::MatTwice { path: input.place.path.to_owned(), name: header.name });
        }
        let values = if self.with_values {
            let values = values::read(&mut input, &header)?;
            input.finish()?;
            values
        } else {
            Values::U8(Vec::new())
        };
        self.note(&header.name);
        self.found.push(Array { name: header.name, shape: header.shape, values });
        Ok(())
    }

    /// MATLAB keeps the data behind its objects in a variable without a name.
    fn note(&mut self, name: &str) {
        if name.is_empty() {
            return;
        }
        if self.present.len() < SHOWN {
            self.present.push(name.escape_debug().to_string());
        } else {
            self.others += 1;
        }
    }

    fn finish(mut self, path: &Path) -> Result<Vec<Array>, Error> {
        let found = |name: &&&str| self.found.iter().any(|array| array.name == **name);
        match self.wanted.iter().find(|name| !found(name)) {
            Some(name) => Err(Error::MatMissing {
                path: path.to_owned(),
                name: (*name).to_owned(),
                present: self.present,
                others: self.others,
            }),
            None => {
                self.found.sort_by_key(|array| self.wanted.iter().position(|name| *name == array.name));
                Ok(self.found)
            }
        }
    }
}
