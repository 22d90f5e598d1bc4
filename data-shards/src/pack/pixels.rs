//! Pixels to PNG.
//!
//! Duty: lossless: the file holds exactly the pixels it was given, and nothing else (no text, no date). Must not: resize or
//! convert, but for alpha, which is dropped.

use std::path::Path;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{DynamicImage, ExtendedColorType, ImageEncoder as _};

use crate::{Error, decode};

/// An encoded image.
pub(crate) struct Png {
    pub(crate) bytes: Vec<u8>,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// Decodes a PNG or JPEG and encodes its pixels: grey stays grey, 8 bits 8 and 16 bits 16.
pub(crate) fn of_file(path: &Path) -> Result<Png, Error> {
    let image = match decode::decode(&decode::read(path)?, path)? {
        DynamicImage::ImageLumaA8(pixels) => DynamicImage::ImageLumaA8(pixels).into_luma8().into(),
        DynamicImage::ImageLumaA16(pixels) => DynamicImage::ImageLumaA16(pixels).into_luma16().into(),
        DynamicImage::ImageRgba8(pixels) => DynamicImage::ImageRgba8(pixels).into_rgb8().into(),
        DynamicImage::ImageRgba16(pixels) => DynamicImage::ImageRgba16(pixels).into_rgb16().into(),
        other => other,
    };
    let colour = match &image {
        DynamicImage::ImageLuma8(_) => ExtendedColorType::L8,
        DynamicImage::ImageLuma16(_) => ExtendedColorType::L16,
        DynamicImage::ImageRgb8(_) => ExtendedColorType::Rgb8,
        DynamicImage::ImageRgb16(_) => ExtendedColorType::Rgb16,
        other => return Err(decode::unexpected(path, other)),
    };
    let (width, height) = (image.width(), image.height());
    encode(image.as_bytes(), width, height, colour).map_err(|problem| Error::Decode { path: path.to_owned(), problem })
}

/// Encodes 8-bit grey pixels, row after row.
pub(crate) fn grey(pixels: &[u8], width: usize, height: usize) -> Result<Png, String> {
    let side = |n: usize| u32::try_from(n).map_err(|_| format!("{width}x{height} pixels are too many"));
    encode(pixels, side(width)?, side(height)?, ExtendedColorType::L8)
}

fn encode(pixels: &[u8], width: u32, height: u32, colour: ExtendedColorType) -> Result<Png, String> {
    let mut bytes = Vec::new();
    // Of all settings the one that is read fastest for its size: of CT slices a tenth larger than with the filter chosen row by
    // row, and read in 6 tenths of its time (docs/loader.md).
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Up);
    encoder.write_image(pixels, width, height, colour).map_err(|error| format!("cannot be written as PNG: {error}"))?;
    Ok(Png { bytes, width: width as usize, height: height as usize })
}
