//! Gray pixels, and their averages over the cells of a grid.
//!
//! Duty: decoded pixels to a small square of fixed size, and to a hash. Must not: judge.

use std::io::Cursor;
use std::path::Path;

use image::ImageReader;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::decode::{self, Rgb};

/// Most pixels of an image: what is held of it while it is read stays below a gigabyte.
pub const MOST: u64 = 1 << 25;

/// One pixel in so many must differ from the median, or an image is no evidence of anything: black ends of scans, with
/// or without a letter in the corner, are alike whoever they are of.
const VARIED: usize = 20;

/// A gray image.
#[derive(Clone, Debug, PartialEq)]
pub struct Grey {
    width: usize,
    height: usize,
    data: Vec<f32>,
}

impl Grey {
    /// An image of `height` rows of `width` pixels, 0..1; none where `data` has another number of pixels, or none.
    pub fn new(width: usize, height: usize, data: Vec<f32>) -> Option<Grey> {
        (width > 0 && width.checked_mul(height) == Some(data.len()) && !data.is_empty()).then_some(Grey {
            width,
            height,
            data,
        })
    }

    /// Decodes the bytes of a PNG or JPEG file; `path` stands in the error.
    ///
    /// # Errors
    /// As [`decode::rgb_of`]; [`Error::Decode`] where the image has more than [`MOST`] pixels.
    pub fn decode(file: &[u8], path: &Path) -> Result<Grey, Error> {
        let failed = |problem: String| Error::Decode { path: path.to_owned(), problem };
        let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
        let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
        // What has no size is left to the decoder, which says what is wrong.
        match size.map(|(width, height)| u64::from(width) * u64::from(height)) {
            Some(pixels) if pixels > MOST => {
                Err(failed(format!("it has {pixels} pixels; at most {MOST} are compared")))
            }
            _ => Ok(Grey::of(&decode::rgb_of(file, path)?)),
        }
    }

    /// Reads and decodes a PNG or JPEG file.
    ///
    /// # Errors
    /// [`Error::Read`], and as [`Self::decode`].
    pub fn read(path: &Path) -> Result<Grey, Error> {
        Grey::decode(&decode::read(path)?, path)
    }

    fn of(image: &Rgb) -> Grey {
        let gray = |pixel: &[f32]| match *pixel {
            // Gray files keep their exact values, so that equal pixels have equal hashes.
            [red, green, blue] if red == green && green == blue => green,
            [red, green, blue] => 0.299 * red + 0.587 * green + 0.114 * blue,
            _ => 0.0,
        };
        Grey { width: image.width, height: image.height, data: image.data.chunks_exact(3).map(gray).collect() }
    }

    /// Pixels a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// SHA-256 over the size and the pixels as 16-bit numbers: equal for equal pixels, whatever the file's format.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for side in [self.width, self.height] {
            hash.update((side as u64).to_le_bytes());
        }
        let bytes: Vec<u8> = self.data.iter().flat_map(|value| word(*value).to_le_bytes()).collect();
        hash.update(&bytes);
        hash.finalize().into()
    }

    /// Whether there is enough in the image for equality to mean anything.
    pub(crate) fn is_varied(&self) -> bool {
        let mut words: Vec<u16> = self.data.iter().map(|value| word(*value)).collect();
        let middle = words.len() / 2;
        let (_, &mut median, _) = words.select_nth_unstable(middle);
        words.iter().filter(|value| **value != median).count() >= words.len().div_ceil(VARIED)
    }

    /// The averages over `side` x `side` cells of equal size, row by row; whatever the shape of the image.
    pub(crate) fn cells(&self, side: usize) -> Vec<f32> {
        let columns = spans(self.width, side);
        let rows = spans(self.height, side);
        let mut out = vec![0.0; side * side];
        for (cells, row) in out.chunks_exact_mut(side).zip(&rows) {
            for &(y, share) in row {
                let pixels = self.data.chunks_exact(self.width).nth(y).unwrap_or_default();
                for (cell, column) in cells.iter_mut().zip(&columns) {
                    let sum: f32 =
                        column.iter().map(|&(x, part)| part * pixels.get(x).copied().unwrap_or_default()).sum();
                    *cell += share * sum;
                }
            }
        }
        out
    }
}

fn word(value: f32) -> u16 {
    (value.clamp(0.0, 1.0) * 65535.0).round() as u16
}

/// The pixels that each of `cells` cells covers, with the share of the cell that each has; shares sum to 1.
fn spans(pixels: usize, cells: usize) -> Vec<Vec<(usize, f32)>> {
    let step = pixels as f64 / cells as f64;
    let span = |cell: usize| {
        let (start, end) = (cell as f64 * step, (cell + 1) as f64 * step);
        let covered = (start.floor() as usize)..(end.ceil() as usize).min(pixels);
        let share = |x: usize| ((end.min((x + 1) as f64) - start.max(x as f64)) / step).max(0.0) as f32;
        covered.map(|x| (x, share(x))).collect()
    };
    (0..cells).map(span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_averages_whatever_the_size() {
        let ramp = |width: usize, height: usize| {
            let data = (0..width * height).map(|at| (at % width) as f32 / width as f32).collect();
            Grey::new(width, height, data).unwrap()
        };
        for (width, height) in [(8, 8), (12, 5), (3, 3), (640, 480)] {
            let cells = ramp(width, height).cells(4);
            let mean = cells.iter().sum::<f32>() / 16.0;
            assert!((mean - (width - 1) as f32 / (2 * width) as f32).abs() < 1e-4, "{width}x{height}: {cells:?}");
            assert!(cells[0] < cells[3] && cells[0] == cells[12]);
        }
    }

    #[test]
    fn nearly_empty_images_are_not_varied() {
        let mut data = vec![0.0; 1000];
        data[..40].fill(1.0);
        assert!(!Grey::new(100, 10, data.clone()).unwrap().is_varied());
        data[..60].fill(1.0);
        assert!(Grey::new(100, 10, data).unwrap().is_varied());
        assert_eq!(Grey::new(3, 3, vec![0.0; 8]), None);
        assert_eq!(Grey::new(0, 3, Vec::new()), None);
    }
}
