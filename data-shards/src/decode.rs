//! PNG and JPEG files to pixels.
//!
//! Duty: 8 and 16 bits, gray, RGB, palette, with or without alpha (alpha is dropped), told apart by content and not by
//! extension. Must not: resize, normalise or guess: a damaged file is an error, never a gray image.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader};

use crate::Error;

/// A colour image, gray ones with three equal channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Rgb {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Height x width x 3, interleaved, 0..1: `x / 255` or `x / 65535`.
    pub data: Vec<f32>,
}

/// A lesion mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Height x width; 1 where the pixel has full scale (255; in 16-bit files 65535), else 0.
    pub data: Vec<u8>,
}

/// An image as its file has it, but for alpha, which is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 (grey) or 3.
    pub(crate) channels: usize,
    /// Height x width x channels, interleaved.
    pub(crate) levels: Levels,
}

/// The depth of a file's pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Levels {
    /// 0..=255.
    Bytes(Vec<u8>),
    /// 0..=65535.
    Words(Vec<u16>),
}

impl Image {
    /// Three channels of 0..1.
    pub(crate) fn rgb(&self) -> Rgb {
        let data = match &self.levels {
            Levels::Bytes(levels) => three(levels, self.channels, of_byte),
            Levels::Words(levels) => three(levels, self.channels, of_word),
        };
        Rgb { width: self.width, height: self.height, data }
    }
}

/// Decodes an image.
///
/// # Errors
/// [`Error::Read`]; [`Error::Decode`] where the file is no PNG or JPEG, or is damaged or cut short.
pub fn rgb(path: &Path) -> Result<Rgb, Error> {
    rgb_of(&read(path)?, path)
}

/// As [`rgb`], from the bytes of a file; `path` stands in the errors.
///
/// # Errors
/// [`Error::Decode`].
pub fn rgb_of(file: &[u8], path: &Path) -> Result<Rgb, Error> {
    Ok(image_of(file, path)?.rgb())
}

/// As [`rgb_of`], with the levels and channels of the file.
pub(crate) fn image_of(file: &[u8], path: &Path) -> Result<Image, Error> {
    let image = decode(file, path)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let (channels, levels) = match image {
        DynamicImage::ImageLuma8(pixels) => (1, Levels::Bytes(pixels.into_raw())),
        DynamicImage::ImageLumaA8(pixels) => (1, Levels::Bytes(opaque(pixels.as_raw(), 1))),
        DynamicImage::ImageRgb8(pixels) => (3, Levels::Bytes(pixels.into_raw())),
        DynamicImage::ImageRgba8(pixels) => (3, Levels::Bytes(opaque(pixels.as_raw(), 3))),
        DynamicImage::ImageLuma16(pixels) => (1, Levels::Words(pixels.into_raw())),
        DynamicImage::ImageLumaA16(pixels) => (1, Levels::Words(opaque(pixels.as_raw(), 1))),
        DynamicImage::ImageRgb16(pixels) => (3, Levels::Words(pixels.into_raw())),
        DynamicImage::ImageRgba16(pixels) => (3, Levels::Words(opaque(pixels.as_raw(), 3))),
        other => return Err(unexpected(path, &other)),
    };
    Ok(Image { width, height, channels, levels })
}

/// Decodes a mask. In a colour file a pixel counts where all three channels have full scale.
///
/// # Errors
/// As [`rgb`].
pub fn mask(path: &Path) -> Result<Mask, Error> {
    mask_of(&read(path)?, path)
}

/// As [`mask`], from the bytes of a file; `path` stands in the errors.
///
/// # Errors
/// [`Error::Decode`].
pub fn mask_of(file: &[u8], path: &Path) -> Result<Mask, Error> {
    let image = decode(file, path)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    let data = match image {
        DynamicImage::ImageLuma8(pixels) => {
            let mut levels = pixels.into_raw();
            levels.iter_mut().for_each(|level| *level = u8::from(*level == u8::MAX));
            levels
        }
        DynamicImage::ImageLumaA8(pixels) => full_scale(pixels.as_raw(), 2, 1),
        DynamicImage::ImageRgb8(pixels) => full_scale(pixels.as_raw(), 3, 3),
        DynamicImage::ImageRgba8(pixels) => full_scale(pixels.as_raw(), 4, 3),
        DynamicImage::ImageLuma16(pixels) => full_scale(pixels.as_raw(), 1, 1),
        DynamicImage::ImageLumaA16(pixels) => full_scale(pixels.as_raw(), 2, 1),
        DynamicImage::ImageRgb16(pixels) => full_scale(pixels.as_raw(), 3, 3),
        DynamicImage::ImageRgba16(pixels) => full_scale(pixels.as_raw(), 4, 3),
        other => return Err(unexpected(path, &other)),
    };
    Ok(Mask { width, height, data })
}

/// Width and height, from the header alone.
///
/// # Errors
/// [`Error::Read`]; [`Error::Decode`] where the header is no PNG's or JPEG's.
pub fn dimensions(path: &Path) -> Result<(usize, usize), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(read)?;
    let reader = ImageReader::new(std::io::BufReader::new(file)).with_guessed_format().map_err(read)?;
    let (width, height) = reader.into_dimensions().map_err(|error| undecodable(path, &error))?;
    Ok((width as usize, height as usize))
}

/// The distinct values of a mask, ascending: 16-bit files in 0..=65535, colour files by their brightest channel.
pub(crate) fn mask_values(file: &[u8], path: &Path) -> Result<BTreeSet<u16>, Error> {
    let image = decode(file, path)?;
    Ok(match image {
        DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_)
        | DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_) => brightest(image.into_rgb16().as_raw(), u16::MAX as usize + 1),
        _ => brightest(image.into_rgb8().as_raw(), 256),
    })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

pub(crate) fn decode(file: &[u8], path: &Path) -> Result<DynamicImage, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(read)?;
    if reader.format() == Some(ImageFormat::Jpeg) && !jpeg_is_whole(file) {
        let problem = "the file is cut short (no end marker)".to_owned();
        return Err(Error::Decode { path: path.to_owned(), problem });
    }
    reader.decode().map_err(|error| undecodable(path, &error))
}

/// Decoders fill what a short JPEG lacks with gray. A scan holds no markers but restarts (0xFF is escaped in it), so a
/// whole file has its end marker after its last start of scan.
pub(crate) fn jpeg_is_whole(file: &[u8]) -> bool {
    let last = |marker: u8| file.windows(2).rposition(|pair| pair == [0xff, marker]);
    last(0xd9) > last(0xda)
}

fn undecodable(path: &Path, error: &image::ImageError) -> Error {
    let problem = match error {
        image::ImageError::Unsupported(_) => "neither a PNG nor a JPEG, or an unsupported kind of one".to_owned(),
        other => other.to_string(),
    };
    Error::Decode { path: path.to_owned(), problem }
}

pub(crate) fn unexpected(path: &Path, image: &DynamicImage) -> Error {
    let problem = format!("unsupported pixel type {:?}; write it with 8 or 16 bits a channel", image.color());
    Error::Decode { path: path.to_owned(), problem }
}

/// A byte as 0..1.
pub(crate) fn of_byte(level: u8) -> f32 {
    f32::from(level) / 255.0
}

/// A word as 0..1.
pub(crate) fn of_word(level: u16) -> f32 {
    f32::from(level) / 65535.0
}

/// Without the alpha behind each pixel's `colours`.
fn opaque<T: Copy>(pixels: &[T], colours: usize) -> Vec<T> {
    pixels.chunks_exact(colours + 1).flat_map(|pixel| &pixel[..colours]).copied().collect()
}

fn three<T: Copy>(levels: &[T], channels: usize, scale: impl Fn(T) -> f32) -> Vec<f32> {
    match channels {
        1 => levels.iter().flat_map(|&level| [scale(level); 3]).collect(),
        _ => levels.iter().map(|&level| scale(level)).collect(),
    }
}

fn full_scale<T: Copy + PartialEq + image::Primitive>(pixels: &[T], channels: usize, colours: usize) -> Vec<u8> {
    let lesion = |pixel: &[T]| pixel[..colours].iter().all(|&value| value == T::max_value());
    pixels.chunks_exact(channels).map(|pixel| u8::from(lesion(pixel))).collect()
}

fn brightest<T: Copy + Into<u16>>(rgb: &[T], levels: usize) -> BTreeSet<u16> {
    let mut seen = vec![false; levels];
    for pixel in rgb.chunks_exact(3) {
        let value: u16 = pixel.iter().map(|&value| value.into()).max().unwrap_or(0);
        seen[usize::from(value)] = true;
    }
    (0..=u16::MAX).zip(seen).filter_map(|(value, seen)| seen.then_some(value)).collect()
}
