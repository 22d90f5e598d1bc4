//! NumPy's `.npy` files with bytes (`|u1`) or 32-bit floats (`<f4`) in row-major order.
//!
//! Duty: bytes to an array and back. Must not: believe a declared size beyond the bytes that are there, or know what the
//! array means.

use std::path::Path;

use crate::Error;
use crate::mat::Values;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Values begin at a multiple of this.
const ALIGNMENT: usize = 64;
/// Most dimensions, as NumPy has it.
const DIMENSIONS: usize = 64;

/// An array of bytes as a `.npy` file of version 1.0.
///
/// # Errors
/// [`Error::Npy`] where there are not as many bytes as the shape says.
pub fn write(path: &Path, shape: &[usize], values: &[u8]) -> Result<Vec<u8>, Error> {
    if elements(shape) != Some(values.len()) || shape.len() > DIMENSIONS {
        return Err(damaged(path, format!("{} values are no array of {shape:?}", values.len())));
    }
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let header =
        format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}{comma}), }}", sizes.join(", ")).into_bytes();
    // Magic, version and length take 10 bytes, the newline one.
    let padded = (10 + header.len() + 1).next_multiple_of(ALIGNMENT) - 10;
    let length = u16::try_from(padded).map_err(|_| damaged(path, format!("{shape:?} is too long")))?;
    let mut file = [MAGIC, &[1, 0], &length.to_le_bytes(), &header].concat();
    file.resize(10 + padded - 1, b' ');
    file.push(b'\n');
    file.extend_from_slice(values);
    Ok(file)
}

/// Shape and values of a `.npy` file; `path` stands in the errors.
///
/// # Errors
/// [`Error::Npy`].
pub fn read(path: &Path, file: &[u8]) -> Result<(Vec<usize>, Values), Error> {
    parse(file).map_err(|problem| damaged(path, problem))
}

fn damaged(path: &Path, problem: String) -> Error {
    Error::Npy { path: path.to_owned(), problem }
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size))
}

fn parse(file: &[u8]) -> Result<(Vec<usize>, Values), String> {
    let (header, data) = take_header(file)?;
    let Header { descr, fortran_order, shape } = Header::parse(header)?;
    if fortran_order && shape.len() > 1 {
        return Err("its values are in column-major order; save it with order \"C\"".to_owned());
    }
    let width = match descr.as_str() {
        "|u1" => 1,
        "<f4" => 4,
        other => return Err(format!("its values are `{}`; expected `|u1` or `<f4`", other.escape_debug())),
    };
    let expected = elements(&shape).and_then(|count| count.checked_mul(width));
    if expected != Some(data.len()) {
        return Err(format!("{} bytes follow its header, which are no array of {shape:?} of {descr}", data.len()));
    }
    let float = |bytes: &[u8]| bytes.try_into().map(f32::from_le_bytes).unwrap_or_default();
    let values = match width {
        1 => Values::U8(data.to_vec()),
        _ => Values::F32(data.chunks_exact(4).map(float).collect()),
    };
    Ok((shape, values))
}

/// Takes the file apart: header text and data.
fn take_header(file: &[u8]) -> Result<(&str, &[u8]), String> {
    let short = || "it is cut short".to_owned();
    let rest = file.strip_prefix(MAGIC).ok_or("it does not begin as a .npy file does")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (length, rest) = match version {
        [1, _] => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
            (u32::from(u16::from_le_bytes(*length)), rest)
        }
        [2 | 3, _] => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            (u32::from_le_bytes(*length), rest)
        }
        [major, _] => return Err(format!("version {major} of the format is not known")),
    };
    let length = usize::try_from(length).map_err(|_| short())?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(short)?;
    Ok((std::str::from_utf8(header).map_err(|_| "its header is no text")?, data))
}

#[derive(Default)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// A Python dictionary with just these three entries, in any order.
    fn parse(text: &str) -> Result<Header, String> {
        let mut rest = Rest(text);
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        rest.expect('{')?;
        while !rest.take('}') {
            let name = rest.string()?;
            rest.expect(':')?;
            match name {
                "descr" => descr = Some(rest.string()?.to_owned()),
                "fortran_order" => fortran_order = Some(rest.boolean()?),
                "shape" => shape = Some(rest.tuple()?),
                other => return Err(format!("its header has an entry `{}`", other.escape_debug())),
            }
            if !rest.take(',') {
                rest.expect('}')?;
                break;
            }
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Header { descr, fortran_order, shape }),
            _ => Err("its header lacks `descr`, `fortran_order` or `shape`".to_owned()),
        }
    }
}

/// What of a header is still to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, character: char) -> bool {
        let rest = self.0.trim_start();
        let after = rest.strip_prefix(character);
        self.0 = after.unwrap_or(rest);
        after.is_some()
    }

    fn expect(&mut self, character: char) -> Result<(), String> {
        if self.take(character) { Ok(()) } else { Err(format!("its header has no `{character}` where one should be")) }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.take('"') { '"' } else { '\'' };
        if quote == '\'' {
            self.expect('\'')?;
        }
        let (text, rest) = self.0.split_once(quote).ok_or("its header has a text without an end")?;
        self.0 = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        let rest = self.0.trim_start();
        for (name, value) in [("True", true), ("False", false)] {
            if let Some(after) = rest.strip_prefix(name) {
                self.0 = after;
                return Ok(value);
            }
        }
        Err("its header has neither True nor False for `fortran_order`".to_owned())
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut sizes = Vec::new();
        while !self.take(')') {
            let rest = self.0.trim_start();
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, after) = rest.split_at_checked(end).unwrap_or_default();
            sizes.push(digits.parse().map_err(|_| "its header has a shape that is none")?);
            if sizes.len() > DIMENSIONS {
                return Err(format!("its header has more than {DIMENSIONS} dimensions"));
            }
            self.0 = after;
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(file: &[u8]) -> String {
        read(Path::new("a.npy"), file).unwrap_err().to_string()
    }

    fn with(header: &str, data: &[u8]) -> Vec<u8> {
        [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn bytes_as_numpy_writes_them() {
        // numpy.lib.format.write_array of numpy.arange(6, dtype="u1").reshape(1, 2, 3), NumPy 2.4.
        let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 3), }";
        let expected = [b"\x93NUMPY\x01\x00v\x00", format!("{text:<117}\n").as_bytes(), &[0, 1, 2, 3, 4, 5]].concat();
        assert_eq!(write(Path::new("a"), &[1, 2, 3], &[0, 1, 2, 3, 4, 5]).unwrap(), expected);
        assert_eq!(read(Path::new("a"), &expected).unwrap(), (vec![1, 2, 3], Values::U8(vec![0, 1, 2, 3, 4, 5])));
    }

    #[test]
    fn shapes_of_any_length() {
        for shape in [vec![], vec![1], vec![0, 7], vec![1; 40]] {
            let values = vec![7; shape.iter().product()];
            let file = write(Path::new("a"), &shape, &values).unwrap();
            assert_eq!(read(Path::new("a"), &file).unwrap(), (shape, Values::U8(values)));
        }
        assert!(write(Path::new("a"), &[2, 3], &[1, 2]).is_err());
    }

    #[test]
    fn floats_and_other_versions() {
        let header = "{\"shape\": (2,), \"descr\": '<f4', 'fortran_order': True}";
        let data = [1.5f32, -2.0].map(f32::to_le_bytes).concat();
        assert_eq!(read(Path::new("a"), &with(header, &data)).unwrap(), (vec![2], Values::F32(vec![1.5, -2.0])));
        let second = [MAGIC, &[2, 0], &(header.len() as u32).to_le_bytes(), header.as_bytes(), &data].concat();
        assert_eq!(read(Path::new("a"), &second).unwrap().0, [2]);
    }

    #[test]
    fn damaged_files_are_errors() {
        let of = |descr: &str, order: &str, shape: &str| {
            with(&format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"), &[1, 2, 3, 4])
        };
        for (file, expected) in [
            (b"PNG".to_vec(), "does not begin as a .npy file"),
            (MAGIC.to_vec(), "cut short"),
            ([MAGIC, &[1, 0, 255, 255]].concat(), "cut short"),
            ([MAGIC, &[9, 0, 0, 0]].concat(), "version 9"),
            (with("\u{fe}", &[]), "`{`"),
            (of("|u1", "False", "(5,)"), "4 bytes follow its header, which are no array of [5] of |u1"),
            (of("|u1", "False", "(18446744073709551615, 18446744073709551615)"), "no array of"),
            (of("|u1", "False", "(99999999999999999999,)"), "a shape that is none"),
            (of("|u1", "False", &format!("({})", "1,".repeat(65))), "more than 64 dimensions"),
            (of("<f8", "False", "(4,)"), "its values are `<f8`"),
            (of("|u1", "True", "(2, 2)"), "column-major"),
            (of("|u1", "Maybe", "(4,)"), "neither True nor False"),
            (with("{'descr': '|u1'}", &[]), "lacks"),
            (with("{'descr': '|u1", &[]), "without an end"),
            (with("{'other': 1}", &[]), "entry `other`"),
        ] {
            let found = problem(&file);
            assert!(found.contains(expected) && found.starts_with("a.npy"), "{found}");
        }
    }
}
