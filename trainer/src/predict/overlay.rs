//! Mask and overlay as PNG.

use crate::Error;
use data_shards::decode::Rgb;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

/// How much of a lesion pixel is red.
const OPACITY: f32 = 0.4;
const RED: [f32; 3] = [1.0, 0.15, 0.1];
const OUTLINE: [f32; 3] = [1.0, 0.9, 0.1];

/// 255 where the mask is set, 0 elsewhere.
pub(super) fn mask_png(mask: &[bool], like: &Rgb) -> Result<Vec<u8>, Error> {
    let pixels: Vec<u8> = mask.iter().map(|m| if *m { 255 } else { 0 }).collect();
    encode(&pixels, like, ExtendedColorType::L8)
}

/// The image with lesions tinted and outlined.
pub(super) fn overlay_png(mask: &[bool], image: &Rgb) -> Result<Vec<u8>, Error> {
    let mut pixels = Vec::with_capacity(image.data.len());
    for (i, rgb) in image.data.chunks_exact(3).enumerate() {
        let color = match (mask[i], is_edge(mask, i, image.width)) {
            (false, _) => [rgb[0], rgb[1], rgb[2]],
            (true, true) => OUTLINE,
            (true, false) => std::array::from_fn(|c| rgb[c] * (1.0 - OPACITY) + RED[c] * OPACITY),
        };
        pixels.extend(color.map(|c| (c * 255.0).round().clamp(0.0, 255.0) as u8));
    }
    encode(&pixels, image, ExtendedColorType::Rgb8)
}

/// Whether a neighbour above, below, left or right is outside the mask.
fn is_edge(mask: &[bool], i: usize, width: usize) -> bool {
    let (x, set) = (i % width, |j: Option<usize>| j.and_then(|j| mask.get(j)).is_some_and(|m| *m));
    !(set(i.checked_sub(width))
        && set(Some(i + width))
        && x > 0
        && set(i.checked_sub(1))
        && x + 1 < width
        && set(Some(i + 1)))
}

fn encode(pixels: &[u8], size: &Rgb, color: ExtendedColorType) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(pixels, size.width as u32, size.height as u32, color)
        .map_err(|e| Error::Usage(format!("cannot encode a PNG of {} × {}: {e}", size.height, size.width)))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outline_is_the_masks_border() {
        let mut mask = vec![false; 25];
        for i in [6, 7, 8, 11, 12, 13, 16, 17, 18] {
            mask[i] = true;
        }
        let edges: Vec<usize> = (0..25).filter(|i| mask[*i] && is_edge(&mask, *i, 5)).collect();
        assert_eq!(edges, [6, 7, 8, 11, 13, 16, 17, 18]);
        assert!(is_edge(&[true; 4], 0, 2));
    }
}
