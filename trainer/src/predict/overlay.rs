//! Mask, overlay and attention as PNG.

use crate::Error;
use data_shards::decode::Rgb;
use data_shards::resize::Rect;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

/// How much of a lesion pixel is red.
const OPACITY: f32 = 0.4;
const RED: [f32; 3] = [1.0, 0.15, 0.1];
const OUTLINE: [f32; 3] = [1.0, 0.9, 0.1];
/// Colours of attention from none to the most, as far apart as one another.
const HEAT: [[f32; 3]; 4] = [[0.1, 0.1, 0.6], [0.1, 0.75, 0.75], [1.0, 0.85, 0.1], [0.9, 0.1, 0.05]];
/// How much of the strongest place is colour; weaker ones have proportionally less.
const STRONGEST: f32 = 0.65;
/// Brightness of what the network did not see.
const UNSEEN: f32 = 0.4;

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

/// The image with `heat`, the attention within `seen` row by row, in colour: relative to its largest value.
pub(super) fn attention_png(heat: &[f32], seen: Rect, image: &Rgb) -> Result<Vec<u8>, Error> {
    let most = heat.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let at = |i: usize| {
        let (row, column) = ((i / image.width).checked_sub(seen.top)?, (i % image.width).checked_sub(seen.left)?);
        (row < seen.height && column < seen.width).then(|| heat.get(row * seen.width + column).map(|h| h / most))?
    };
    let mut pixels = Vec::with_capacity(image.data.len());
    for (i, rgb) in image.data.chunks_exact(3).enumerate() {
        let color: [f32; 3] = match at(i) {
            None => std::array::from_fn(|c| rgb[c] * UNSEEN),
            Some(strength) => {
                let (hue, share) = (hue(strength), STRONGEST * strength);
                std::array::from_fn(|c| rgb[c] * (1.0 - share) + hue[c] * share)
            }
        };
        pixels.extend(color.map(|c| (c * 255.0).round().clamp(0.0, 255.0) as u8));
    }
    encode(&pixels, image, ExtendedColorType::Rgb8)
}

/// The colour of 0…1.
fn hue(strength: f32) -> [f32; 3] {
    let strength = if strength.is_nan() { 0.0 } else { strength.clamp(0.0, 1.0) };
    let place = strength * (HEAT.len() - 1) as f32;
    let below = (place as usize).min(HEAT.len() - 2);
    let share = place - below as f32;
    std::array::from_fn(|c| HEAT[below][c] * (1.0 - share) + HEAT[below + 1][c] * share)
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

    #[test]
    fn attention_is_colour_where_it_is_and_darkness_where_nothing_was_seen() {
        let image = Rgb { width: 4, height: 2, data: vec![0.5; 24] };
        let seen = Rect { left: 1, top: 0, width: 2, height: 2 };
        let png = attention_png(&[0.0, 2.0, 0.0, 0.0], seen, &image).unwrap();
        let pixels = image::load_from_memory(&png).unwrap().to_rgb8();
        assert_eq!(pixels.get_pixel(0, 0).0, [51; 3]);
        assert_eq!(pixels.get_pixel(3, 1).0, [51; 3]);
        assert_eq!(pixels.get_pixel(1, 1).0, [128; 3]);
        // 0.35 of the grey and 0.65 of the last colour.
        assert_eq!(pixels.get_pixel(2, 0).0, [194, 61, 53]);
        assert_eq!((hue(0.0), hue(1.0), hue(f32::NAN)), (HEAT[0], HEAT[3], HEAT[0]));
    }
}
