//! Writes MATLAB 5 files byte by byte, sound ones and others, for the tests of the reader.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

pub(crate) const UINT8: u8 = 9;
pub(crate) const DOUBLE: u8 = 6;
pub(crate) const LOGICAL: u8 = 2;
pub(crate) const COMPLEX: u8 = 8;

/// Types of data with the class that each is native to and its width.
pub(crate) const STORAGES: [(u32, u8, usize); 10] = [
    (1, 8, 1),
    (2, UINT8, 1),
    (3, 10, 2),
    (4, 11, 2),
    (5, 12, 4),
    (6, 13, 4),
    (7, 7, 4),
    (9, DOUBLE, 8),
    (12, 14, 8),
    (13, 15, 8),
];

/// A variable whose values are given in row-major order.
#[derive(Clone)]
pub(crate) struct Variable<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: u8,
    pub(crate) flags: u8,
    pub(crate) shape: Vec<usize>,
    pub(crate) storage: u32,
    pub(crate) values: Vec<f64>,
}

impl<'a> Variable<'a> {
    pub(crate) fn bytes(name: &'a str, shape: &[usize], values: &[u8]) -> Self {
        let values = values.iter().map(|&value| f64::from(value)).collect();
        Variable { name, class: UINT8, flags: 0, shape: shape.to_vec(), storage: 2, values }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Writer {
    pub(crate) big_endian: bool,
    pub(crate) compressed: bool,
}

pub(crate) const PLAIN: Writer = Writer { big_endian: false, compressed: false };
pub(crate) const COMPRESSED: Writer = Writer { big_endian: false, compressed: true };
pub(crate) const ALL: [Writer; 4] =
    [PLAIN, COMPRESSED, Writer { big_endian: true, compressed: false }, Writer { big_endian: true, compressed: true }];

impl Writer {
    pub(crate) fn file(self, elements: &[Vec<u8>]) -> Vec<u8> {
        let mut file = format!("{:<124}", "MATLAB 5.0 MAT-file, by a test").into_bytes();
        file.extend(if self.big_endian { *b"\x01\x00MI" } else { *b"\x00\x01IM" });
        file.extend(elements.concat());
        file
    }

    pub(crate) fn variables(self, variables: &[Variable]) -> Vec<u8> {
        self.file(&variables.iter().map(|variable| self.variable(variable)).collect::<Vec<_>>())
    }

    pub(crate) fn variable(self, variable: &Variable) -> Vec<u8> {
        let data = self.encoded(variable.storage, &column_major(&variable.shape, &variable.values));
        let Variable { name, class, flags, shape, storage, .. } = variable;
        self.array(*class, *flags, &words(shape), name.as_bytes(), &self.packed(*storage, &data))
    }

    /// An array from its parts: `rest` is what follows its name.
    pub(crate) fn array(self, class: u8, flags: u8, shape: &[u32], name: &[u8], rest: &[u8]) -> Vec<u8> {
        let parts = [
            self.element(6, &[self.word(u32::from_le_bytes([class, flags, 0, 0])), self.word(0)].concat()),
            self.element(5, &shape.iter().flat_map(|&size| self.word(size)).collect::<Vec<_>>()),
            self.packed(1, name),
            rest.to_vec(),
        ];
        self.wrapped(&self.element(14, &parts.concat()))
    }

    /// Compressed, if so wished.
    pub(crate) fn wrapped(self, element: &[u8]) -> Vec<u8> {
        if !self.compressed {
            return element.to_vec();
        }
        let zlib = zlib(element);
        [&self.word(15)[..], &self.word(zlib.len() as u32), &zlib].concat()
    }

    /// In the small format, where the data allows it.
    pub(crate) fn packed(self, kind: u32, data: &[u8]) -> Vec<u8> {
        if data.is_empty() || data.len() > 4 {
            return self.element(kind, data);
        }
        let mut element = self.word((data.len() as u32) << 16 | kind).to_vec();
        element.extend(data);
        element.resize(8, 0);
        element
    }

    pub(crate) fn element(self, kind: u32, data: &[u8]) -> Vec<u8> {
        let mut element = [self.word(kind), self.word(data.len() as u32)].concat();
        element.extend(data);
        element.resize(element.len().next_multiple_of(8), 0);
        element
    }

    pub(crate) fn word(self, word: u32) -> [u8; 4] {
        if self.big_endian { word.to_be_bytes() } else { word.to_le_bytes() }
    }

    fn encoded(self, storage: u32, values: &[f64]) -> Vec<u8> {
        let encode = |&value: &f64| {
            let mut bytes = match storage {
                1 => (value as i8).to_le_bytes().to_vec(),
                2 => (value as u8).to_le_bytes().to_vec(),
                3 => (value as i16).to_le_bytes().to_vec(),
                4 => (value as u16).to_le_bytes().to_vec(),
                5 => (value as i32).to_le_bytes().to_vec(),
                6 => (value as u32).to_le_bytes().to_vec(),
                7 => (value as f32).to_le_bytes().to_vec(),
                9 => value.to_le_bytes().to_vec(),
                12 => (value as i64).to_le_bytes().to_vec(),
                13 => (value as u64).to_le_bytes().to_vec(),
                other => panic!("no storage {other}"),
            };
            if self.big_endian {
                bytes.reverse();
            }
            bytes
        };
        values.iter().flat_map(encode).collect()
    }
}

pub(crate) fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn words(shape: &[usize]) -> Vec<u32> {
    shape.iter().map(|&size| size as u32).collect()
}

/// Value by value, by the definition of both orders.
fn column_major(shape: &[usize], values: &[f64]) -> Vec<f64> {
    let mut out = vec![0.0; values.len()];
    for (at, &value) in values.iter().enumerate() {
        let (mut rest, mut place) = (at, 0);
        for (axis, &size) in shape.iter().enumerate().rev() {
            place += rest % size * shape[..axis].iter().product::<usize>();
            rest /= size;
        }
        out[place] = value;
    }
    out
}
