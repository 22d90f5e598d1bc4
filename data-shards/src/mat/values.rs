//! The values of an array.
//!
//! Duty: from any numeric storage to bytes or `f32`, growing as the data arrives. Must not: reserve memory by a
//! declared size alone.

use std::io::{self, Read};

use super::LIMIT;
use super::element::{Header, Input};
use super::layout::row_major;
use crate::Error;

/// Bytes converted at a time; a multiple of every width.
const CHUNK: usize = 1 << 16;

const CLASS_UINT8: u8 = 9;
const STORED_UINT8: u32 = 2;

/// Numbers as the network's loader wants them.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Of MATLAB's class `uint8`, and `logical` as 0 and 1.
    U8(Vec<u8>),
    /// Of any other numeric class, rounded to the nearest `f32`; what is too large for it becomes infinite.
    F32(Vec<f32>),
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Values::U8(values) => values.len(),
            Values::F32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them as `f32`, bytes as 0 to 255.
    pub fn into_f32(self) -> Vec<f32> {
        match self {
            Values::U8(values) => values.into_iter().map(f32::from).collect(),
            Values::F32(values) => values,
        }
    }
}

/// Appends what the bytes (little-endian) hold.
type Convert<T> = fn(&[u8], &mut Vec<T>);

/// Reads the values that follow `header`, in row-major order.
pub(super) fn read<R: Read>(input: &mut Input<R>, header: &Header) -> Result<Values, Error> {
    let path = || input.place.path.to_owned();
    if let Some(kind) = unsupported(header) {
        return Err(Error::MatUnsupported { path: path(), name: header.name.clone(), kind });
    }
    let width = if header.class == CLASS_UINT8 { 1 } else { size_of::<f32>() as u64 };
    let count = count(&header.shape, width).ok_or_else(|| Error::MatTooLarge {
        path: path(),
        name: header.name.clone(),
        shape: header.shape.clone(),
        limit: LIMIT,
    })?;
    if header.class == CLASS_UINT8 {
        let bytes =
            |kind| (kind == STORED_UINT8).then_some((1, (|from, to| to.extend_from_slice(from)) as Convert<u8>));
        in_order(input, header, count, bytes).map(Values::U8)
    } else {
        in_order(input, header, count, floats).map(Values::F32)
    }
}

/// Why it is no array of real numbers, if so.
fn unsupported(header: &Header) -> Option<&'static str> {
    Some(match header.class {
        1 => "a cell array",
        2 => "a struct",
        3 | 17 => "an object",
        4 => "text",
        5 => "a sparse matrix",
        6..=15 if header.complex => "an array of complex numbers",
        6..=15 => return None,
        16 => "a function handle",
        _ => "of an unknown class",
    })
}

/// The product of the dimensions, where that many values of `width` bytes are within the limit.
fn count(shape: &[usize], width: u64) -> Option<usize> {
    let count = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size))?;
    (count as u64 <= LIMIT / width).then_some(count)
}

/// Reads `count` values in the file's order, column-major, and brings them into ours. `storage` knows the width and the
/// conversion of a type of data, where it may stand for this class: a file stores numbers as narrow as they fit.
fn in_order<T: Copy + Default, R: Read>(
    input: &mut Input<R>,
    header: &Header,
    count: usize,
    storage: impl Fn(u32) -> Option<(usize, Convert<T>)>,
) -> Result<Vec<T>, Error> {
    let tag = input.tag()?;
    let Some((width, convert)) = storage(tag.kind) else {
        return Err(input.place.damaged(format!("values of class {} stored as type {}", header.class, tag.kind)));
    };
    if tag.length != count as u64 * width as u64 {
        let problem = format!("{count} values of {width} bytes do not take the {} bytes declared", tag.length);
        return Err(input.place.damaged(problem));
    }
    let values = arriving(input, count, width, convert)?;
    input.skip_padding(&tag)?;
    row_major(values, &header.shape).map_err(|error| input.place.io(error.into()))
}

fn arriving<T, R: Read>(
    input: &mut Input<R>,
    count: usize,
    width: usize,
    convert: Convert<T>,
) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    let mut buffer = vec![0; CHUNK];
    while values.len() < count {
        let arrived = (count - values.len()).min(CHUNK / width);
        buffer.truncate(arrived * width);
        input.fill(&mut buffer)?;
        if input.big_endian {
            buffer.chunks_exact_mut(width).for_each(<[u8]>::reverse);
        }
        make_room(&mut values, arrived, count).map_err(|source| input.place.io(source))?;
        convert(&buffer, &mut values);
    }
    Ok(values)
}

/// Room for what has arrived, doubling, but never for more than `count` values in all.
fn make_room<T>(values: &mut Vec<T>, arrived: usize, count: usize) -> io::Result<()> {
    if values.capacity() - values.len() < arrived {
        values.try_reserve_exact(values.len().max(arrived).min(count - values.len()))?;
    }
    Ok(())
}

fn floats(storage: u32) -> Option<(usize, Convert<f32>)> {
    Some(match storage {
        1 => (1, |from, to| each(from, to, |bytes| f32::from(i8::from_le_bytes(bytes)))),
        2 => (1, |from, to| each(from, to, |bytes| f32::from(u8::from_le_bytes(bytes)))),
        3 => (2, |from, to| each(from, to, |bytes| f32::from(i16::from_le_bytes(bytes)))),
        4 => (2, |from, to| each(from, to, |bytes| f32::from(u16::from_le_bytes(bytes)))),
        5 => (4, |from, to| each(from, to, |bytes| i32::from_le_bytes(bytes) as f32)),
        6 => (4, |from, to| each(from, to, |bytes| u32::from_le_bytes(bytes) as f32)),
        7 => (4, |from, to| each(from, to, f32::from_le_bytes)),
        9 => (8, |from, to| each(from, to, |bytes| f64::from_le_bytes(bytes) as f32)),
        12 => (8, |from, to| each(from, to, |bytes| i64::from_le_bytes(bytes) as f32)),
        13 => (8, |from, to| each(from, to, |bytes| u64::from_le_bytes(bytes) as f32)),
        _ => return None,
    })
}

fn each<const N: usize>(from: &[u8], to: &mut Vec<f32>, value: impl Fn([u8; N]) -> f32) {
    to.extend(from.as_chunks().0.iter().map(|bytes| value(*bytes)));
}
