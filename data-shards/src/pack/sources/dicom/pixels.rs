//! The pixels of a DICOM file.
//!
//! Duty: one grey frame, uncompressed, RLE, JPEG or JPEG 2000, to whole numbers as they are stored. Must not: rescale.

use dicom_core::Tag;
use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
use jpeg_decoder::PixelFormat;

use super::elements::{Elements, Pixels};
use super::{Problem, tags};

/// Most pixels of a slice.
const LIMIT: usize = 1 << 24;

/// How pixels are stored.
pub(super) struct Layout {
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Bits of the words that hold them: 8, 16 or 32.
    allocated: u16,
    stored: u32,
    /// Of the lowest bit in the word.
    shift: u32,
    signed: bool,
}

impl Layout {
    pub(super) fn of(elements: &Elements) -> Result<Layout, Problem> {
        let need = |tag: Tag, name: &str| {
            elements.short(tag).ok_or_else(|| Problem::Unsupported(format!("no image: it has no {name}")))
        };
        let [rows, columns] = [need(tags::ROWS, "Rows")?, need(tags::COLUMNS, "Columns")?].map(usize::from);
        if rows == 0 || columns == 0 || rows * columns > LIMIT {
            return Err(Problem::Damaged(format!("{columns}x{rows} pixels")));
        }
        if elements.short(tags::SAMPLES).unwrap_or(1) != 1 {
            return Err(Problem::Unsupported("a colour image; expected CT values".to_owned()));
        }
        if elements.decimals::<1>(tags::FRAMES).is_some_and(|[frames]| frames != 1.0) {
            return Err(Problem::Unsupported(
                "a file of several frames; store each slice as a file of its own".to_owned(),
            ));
        }
        let allocated = need(tags::ALLOCATED, "BitsAllocated")?;
        let stored = elements.short(tags::STORED).unwrap_or(allocated);
        let high = elements.short(tags::HIGH_BIT).unwrap_or(stored.saturating_sub(1));
        if !matches!(allocated, 8 | 16 | 32)
            || stored == 0
            || stored > allocated
            || high >= allocated
            || high + 1 < stored
        {
            return Err(Problem::Damaged(format!("{stored} bits, the highest {high}, in words of {allocated}")));
        }
        let (stored, shift) = (u32::from(stored), u32::from(high + 1 - stored));
        Ok(Layout { rows, columns, allocated, stored, shift, signed: elements.short(tags::SIGNED) == Some(1) })
    }

    fn count(&self) -> usize {
        self.rows * self.columns
    }

    /// A word to its value.
    fn value(&self, word: u32) -> i64 {
        let word = i64::from(word) >> self.shift;
        let range = 1i64 << self.stored;
        let value = word & (range - 1);
        if self.signed && value >= range / 2 { value - range } else { value }
    }

    fn exactly(&self, values: Vec<i64>) -> Result<Vec<i64>, Problem> {
        match values.len() {
            len if len == self.count() => Ok(values),
            len => Err(Problem::Damaged(format!("{len} pixels where {}x{} are declared", self.columns, self.rows))),
        }
    }
}

/// The pixels of a file that was read with them, row after row.
pub(super) fn decode(elements: &Elements, layout: &Layout) -> Result<Vec<i64>, Problem> {
    let syntax = elements.transfer_syntax.as_str();
    match (&elements.pixels, syntax.strip_prefix("1.2.840.10008.1.2").unwrap_or("?")) {
        (Pixels::None, _) => Err(Problem::Unsupported("it has no pixels".to_owned())),
        (Pixels::Native(bytes), "" | ".1" | ".2") => native(bytes, layout, elements.is_big_endian()),
        (Pixels::Encapsulated(fragments), ".5") => rle(fragments, layout),
        (Pixels::Encapsulated(fragments), ".4.50" | ".4.51" | ".4.57" | ".4.70") => jpeg(&fragments.concat(), layout),
        (Pixels::Encapsulated(fragments), ".4.90" | ".4.91") => jpeg2000(&fragments.concat(), layout),
        _ => Err(Problem::Unsupported(format!(
            "pixels of transfer syntax {syntax}; store it uncompressed, or as RLE, JPEG or JPEG 2000"
        ))),
    }
}

fn native(bytes: &[u8], layout: &Layout, big_endian: bool) -> Result<Vec<i64>, Problem> {
    let width = usize::from(layout.allocated / 8);
    let wanted = layout.count() * width;
    let Some(bytes) = bytes.get(..wanted) else {
        return Err(Problem::Damaged(format!("it is cut short: {} of {wanted} bytes of pixels", bytes.len())));
    };
    let word = |bytes: &[u8]| {
        let join = |word: u32, byte: &u8| word << 8 | u32::from(*byte);
        if big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
    };
    Ok(bytes.chunks_exact(width).map(|bytes| layout.value(word(bytes))).collect())
}

/// Each byte of the words is a segment of its own, the highest first.
fn rle(fragments: &[Vec<u8>], layout: &Layout) -> Result<Vec<i64>, Problem> {
    let data = fragments.concat();
    let entry = |at: usize| data.get(4 * at..4 * at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    let segments = usize::from(layout.allocated / 8);
    if entry(0).and_then(|count| usize::try_from(count).ok()) != Some(segments) {
        return Err(Problem::damaged("RLE segments other than the bytes of its words"));
    }
    let mut words = vec![0u32; layout.count()];
    for segment in 1..=segments {
        let start = entry(segment).and_then(|start| usize::try_from(start).ok());
        let bytes = start
            .and_then(|start| data.get(start..))
            .ok_or_else(|| Problem::damaged("an RLE segment outside of it"))?;
        let unpacked = unpack_bits(bytes, layout.count())?;
        words.iter_mut().zip(unpacked).for_each(|(word, byte)| *word = *word << 8 | u32::from(byte));
    }
    Ok(words.into_iter().map(|word| layout.value(word)).collect())
}

fn unpack_bits(mut bytes: &[u8], count: usize) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        let short = || Problem::damaged("an RLE segment is cut short");
        let (control, rest) = bytes.split_first().ok_or_else(short)?;
        let control = usize::from(*control);
        bytes = match control {
            0..=127 => {
                let (literal, rest) = rest.split_at_checked(control + 1).ok_or_else(short)?;
                out.extend_from_slice(literal);
                rest
            }
            128 => rest,
            _ => {
                let (byte, rest) = rest.split_first().ok_or_else(short)?;
                out.extend(std::iter::repeat_n(*byte, 257 - control));
                rest
            }
        };
    }
    out.truncate(count);
    Ok(out)
}

fn jpeg(bytes: &[u8], layout: &Layout) -> Result<Vec<i64>, Problem> {
    let failed = |error: jpeg_decoder::Error| Problem::Damaged(format!("its JPEG cannot be decoded: {error}"));
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(4 * LIMIT);
    decoder.read_info().map_err(failed)?;
    let Some(info) = decoder.info() else { return Err(Problem::damaged("its JPEG has no header")) };
    same_size((usize::from(info.width), usize::from(info.height)), layout)?;
    if !crate::decode::jpeg_is_whole(bytes) {
        return Err(Problem::damaged("its JPEG is cut short (no end marker)"));
    }
    let pixels = decoder.decode().map_err(failed)?;
    let values = match info.pixel_format {
        PixelFormat::L8 => pixels.iter().map(|byte| layout.value(u32::from(*byte))).collect(),
        PixelFormat::L16 => {
            pixels.as_chunks().0.iter().map(|word| layout.value(u32::from(u16::from_ne_bytes(*word)))).collect()
        }
        other => return Err(Problem::Unsupported(format!("a JPEG of kind {other:?}; expected grey"))),
    };
    layout.exactly(values)
}

fn jpeg2000(bytes: &[u8], layout: &Layout) -> Result<Vec<i64>, Problem> {
    let failed =
        |error: hayro_jpeg2000::DecodeError| Problem::Damaged(format!("its JPEG 2000 cannot be decoded: {error}"));
    let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
    let image = Image::new(bytes, &settings).map_err(failed)?;
    same_size((image.width() as usize, image.height() as usize), layout)?;
    // Before there is room for all of them.
    if image.color_space().num_channels() != 1 || image.has_alpha() {
        return Err(Problem::Unsupported("a JPEG 2000 of several colours; expected grey".to_owned()));
    }
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(failed)?;
    let [component] = decoded.components() else {
        return Err(Problem::damaged("its JPEG 2000 has several components"));
    };
    // The decoder moves all values up by half the range, which is right for unsigned ones alone.
    let depth = u32::from(component.bit_depth()).clamp(1, 32);
    let half = 1i64 << (depth - 1);
    let signed = is_signed(bytes);
    let value = |sample: &f32| {
        // Saturates: no sample of sound depth is near the limits.
        let value = sample.round() as i64;
        if signed { (value - half).clamp(-half, half - 1) } else { layout.value(value.clamp(0, 2 * half - 1) as u32) }
    };
    layout.exactly(component.samples().iter().map(value).collect())
}

/// Whether the codestream's first component is signed: the highest bit of `Ssiz`, byte 38 of its second marker.
fn is_signed(bytes: &[u8]) -> bool {
    let start = bytes.windows(4).position(|window| window == [0xff, 0x4f, 0xff, 0x51]).unwrap_or(0);
    bytes.get(start + 42).is_some_and(|ssiz| ssiz & 0x80 != 0)
}

fn same_size((width, height): (usize, usize), layout: &Layout) -> Result<(), Problem> {
    if (width, height) == (layout.columns, layout.rows) {
        return Ok(());
    }
    let declared = (layout.columns, layout.rows);
    Err(Problem::Damaged(format!("its pixels are {width}x{height}, and it declares {}x{}", declared.0, declared.1)))
}
