//! The elements of a DICOM file that packing needs.
//!
//! Duty: values out of files that nobody vouches for: no length is believed beyond the end of the file, and what is not needed
//! is skipped. Must not: interpret pixels.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use dicom_core::Tag;
use dicom_core::header::HasLength as _;
use dicom_encoding::transfer_syntax::TransferSyntaxIndex as _;
use dicom_parser::StatefulDecode as _;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::Problem;

pub(super) const PIXEL_DATA: Tag = Tag(0x7fe0, 0x0010);
const TRANSFER_SYNTAX: Tag = Tag(0x0002, 0x0010);
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
/// Most bytes of a value other than the pixels.
const LONGEST: u32 = 1 << 12;
/// Most bytes of the group before the data set.
const LONGEST_META: u64 = 1 << 16;
/// Most bytes of a file with one slice.
const LARGEST: u64 = 1 << 28;
/// Most levels of sequences within each other.
const DEEPEST: usize = 64;

/// The elements of the outermost level.
pub(crate) struct Elements {
    values: BTreeMap<Tag, Vec<u8>>,
    big_endian: bool,
    pub(super) transfer_syntax: String,
    /// Whether pixels follow, which were perhaps not asked for.
    pub(super) has_pixels: bool,
    /// Empty where only the header was asked for.
    pub(super) pixels: Pixels,
}

/// The bytes of the pixels.
#[derive(Default)]
pub(super) enum Pixels {
    /// There are none, or they were not asked for.
    #[default]
    None,
    /// As they are.
    Native(Vec<u8>),
    /// Compressed: the fragments, without the offset table.
    Encapsulated(Vec<Vec<u8>>),
}

/// Whether the file begins as a DICOM file does.
pub(crate) fn is_dicom(path: &Path) -> bool {
    let mut start = [0; 132];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start.ends_with(b"DICM")
}

impl Elements {
    /// Reads up to the pixels, or with them.
    pub(super) fn read(path: &Path, wanted: &[Tag], with_pixels: bool) -> Result<Elements, Problem> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if length > LARGEST {
            return Err(Problem::Unsupported(format!("{length} bytes; at most {LARGEST} are allowed for a slice")));
        }
        let mut source = BufReader::with_capacity(1 << 14, file);
        let syntax = meta(&mut source)?;
        if syntax == DEFLATED {
            return Err(Problem::Unsupported("a deflated data set; store it uncompressed".to_owned()));
        }
        let Some(known) = TransferSyntaxRegistry.get(&syntax) else {
            return Err(Problem::Unsupported(format!("an unknown transfer syntax {syntax}")));
        };
        let big_endian = syntax == BIG_ENDIAN;
        let (values, transfer_syntax) = (BTreeMap::new(), syntax.clone());
        let elements = Elements { values, big_endian, transfer_syntax, has_pixels: false, pixels: Pixels::None };
        let reader = LazyDataSetReader::new_with_ts(source, known).map_err(damaged)?;
        Walk { reader, elements, length, depth: 0 }.through(wanted, with_pixels)
    }

    /// The text of an element, without padding; none where it is absent or empty.
    pub(crate) fn text(&self, tag: Tag) -> Option<String> {
        let bytes = self.values.get(&tag)?;
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Decimal numbers with `\` between them; none where there are not so many, or one is no number.
    pub(crate) fn decimals<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let text = self.text(tag)?;
        let numbers: Option<Vec<f64>> =
            text.split('\\').map(|part| part.trim().parse().ok().filter(|number: &f64| number.is_finite())).collect();
        numbers?.try_into().ok()
    }

    /// A 16-bit number.
    pub(super) fn short(&self, tag: Tag) -> Option<u16> {
        let bytes = self.values.get(&tag)?.first_chunk()?;
        Some(if self.big_endian { u16::from_be_bytes(*bytes) } else { u16::from_le_bytes(*bytes) })
    }

    pub(super) fn is_big_endian(&self) -> bool {
        self.big_endian
    }
}

/// The transfer syntax, from the group before the data set, which is always of one encoding. Leaves the source where the data
/// set begins.
fn meta(source: &mut BufReader<File>) -> Result<String, Problem> {
    const START: u64 = 132;
    source.seek(SeekFrom::Start(START - 4))?;
    let mut magic = [0; 4];
    source.read_exact(&mut magic)?;
    if magic != *b"DICM" {
        return Err(Problem::damaged("there is no `DICM` at byte 128"));
    }
    let mut bytes = Vec::new();
    source.by_ref().take(LONGEST_META).read_to_end(&mut bytes)?;
    let (mut at, mut syntax) = (0, None);
    while let Some((tag, value, end)) = meta_element(&bytes, at) {
        if tag == TRANSFER_SYNTAX {
            let text = String::from_utf8_lossy(value);
            syntax = Some(text.trim_end_matches(['\0', ' ']).to_owned());
        }
        at = end;
    }
    source.seek(SeekFrom::Start(START + at as u64))?;
    syntax.ok_or_else(|| Problem::damaged("it names no transfer syntax"))
}

/// The element of group 2 at a byte, with where it ends; none at the group's end.
fn meta_element(bytes: &[u8], at: usize) -> Option<(Tag, &[u8], usize)> {
    let short = |at: usize| bytes.get(at..at.checked_add(2)?).map(|two| u16::from_le_bytes([two[0], two[1]]));
    let tag = Tag(short(at)?, short(at + 2)?);
    if tag.0 != 2 {
        return None;
    }
    let long = matches!(bytes.get(at + 4..at + 6)?, b"OB" | b"OW" | b"UN" | b"UT" | b"SQ" | b"OF");
    let (start, length) = if long {
        (at + 12, usize::from(short(at + 8)?) | usize::from(short(at + 10)?) << 16)
    } else {
        (at + 8, usize::from(short(at + 6)?))
    };
    let end = start.checked_add(length)?;
    Some((tag, bytes.get(start..end)?, end))
}

struct Walk {
    reader: LazyDataSetReader<dicom_parser::DynStatefulDecoder<BufReader<File>>>,
    elements: Elements,
    /// Bytes of the file.
    length: u64,
    depth: usize,
}

impl Walk {
    fn through(mut self, wanted: &[Tag], with_pixels: bool) -> Result<Elements, Problem> {
        while let Some(token) = self.reader.advance() {
            match token.map_err(damaged)? {
                LazyDataToken::SequenceStart { .. } => {
                    self.depth += 1;
                    if self.depth > DEEPEST {
                        return Err(Problem::damaged("sequences within sequences without end"));
                    }
                }
                LazyDataToken::SequenceEnd => self.depth = self.depth.saturating_sub(1),
                LazyDataToken::PixelSequenceStart if self.depth == 0 => {
                    self.elements.has_pixels = true;
                    if with_pixels {
                        self.fragments()?;
                    }
                    return Ok(self.elements);
                }
                LazyDataToken::PixelSequenceStart => self.depth += 1,
                LazyDataToken::LazyValue { header, decoder } => {
                    let length = header.length().get().ok_or_else(|| Problem::damaged("a value without a length"))?;
                    bounded(decoder.position(), length, self.length)?;
                    if self.depth > 0 {
                        decoder.skip_bytes(length).map_err(damaged)?;
                    } else if header.tag == PIXEL_DATA {
                        self.elements.has_pixels = true;
                        if with_pixels {
                            let mut bytes = Vec::new();
                            decoder.read_to_vec(length, &mut bytes).map_err(damaged)?;
                            self.elements.pixels = Pixels::Native(bytes);
                        }
                        return Ok(self.elements);
                    } else if wanted.contains(&header.tag) && length <= LONGEST {
                        let mut bytes = Vec::new();
                        decoder.read_to_vec(length, &mut bytes).map_err(damaged)?;
                        self.elements.values.insert(header.tag, bytes);
                    } else {
                        decoder.skip_bytes(length).map_err(damaged)?;
                    }
                }
                LazyDataToken::LazyItemValue { len, decoder } => {
                    bounded(decoder.position(), len, self.length)?;
                    decoder.skip_bytes(len).map_err(damaged)?;
                }
                _ => {}
            }
        }
        Ok(self.elements)
    }

    /// The items of the pixels; the first is the offset table.
    fn fragments(&mut self) -> Result<(), Problem> {
        let (mut items, mut fragments) = (0u64, Vec::new());
        while let Some(token) = self.reader.advance() {
            match token.map_err(damaged)? {
                LazyDataToken::ItemStart { .. } => items += 1,
                LazyDataToken::LazyItemValue { len, decoder } => {
                    bounded(decoder.position(), len, self.length)?;
                    let mut bytes = Vec::new();
                    if items > 1 {
                        decoder.read_to_vec(len, &mut bytes).map_err(damaged)?;
                        fragments.push(bytes);
                    } else {
                        decoder.skip_bytes(len).map_err(damaged)?;
                    }
                }
                LazyDataToken::SequenceEnd => {
                    self.elements.pixels = Pixels::Encapsulated(fragments);
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(Problem::damaged("it is cut short within its pixels"))
    }
}

/// Sees that a value lies within the file, before room is made for it.
fn bounded(position: u64, length: u32, file: u64) -> Result<(), Problem> {
    match position.checked_add(u64::from(length)) {
        Some(end) if end <= file => Ok(()),
        _ => Err(Problem::Damaged(format!("a value of {length} bytes does not fit into the file"))),
    }
}

fn damaged(error: impl std::error::Error) -> Problem {
    // The sources say what is wrong; the outermost error only what was being done.
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    Problem::Damaged(text.chars().take(200).collect())
}
