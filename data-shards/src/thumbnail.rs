//! Antialiased resizing with the proportions kept, as PIL does it.
//!
//! Duty: the classifier's way from any image to one a little larger than the network's input. Must not: crop or normalise.

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::Rgb;
use crate::resize::{self, Rect};

/// Proportions beyond which an image is squeezed, so that a strip of a few pixels cannot fill the memory.
const LONGEST: usize = 64;

/// Height and width to resize to, so that the shorter side is 8/7 of what is cropped from it (256 for 224), and both are
/// at least as long as the crop. The longer side is rounded down, as torchvision does.
pub(crate) fn size((height, width): (usize, usize), (crop_height, crop_width): (usize, usize)) -> (usize, usize) {
    let short = (crop_height.max(crop_width) * 8).div_ceil(7);
    let long = |long: usize, other: usize| (short * long / other.max(1)).clamp(short, LONGEST * short);
    if height <= width { (short, long(width, height)) } else { (long(height, width), short) }
}

/// Bilinear with antialiasing on 8 bits a channel.
pub(crate) fn resize(image: &Rgb, height: usize, width: usize) -> Rgb {
    antialiased(image, height, width)
        // Cannot fail for sizes that are not 0; then the plain resampling is as good.
        .unwrap_or_else(|| resize::bilinear(image, Rect::whole(image.width, image.height), height, width))
}

fn antialiased(image: &Rgb, height: usize, width: usize) -> Option<Rgb> {
    let side = |n: usize| u32::try_from(n).ok();
    let bytes = image.data.iter().map(|value| (value * 255.0).round() as u8).collect();
    let source = Image::from_vec_u8(side(image.width)?, side(image.height)?, bytes, PixelType::U8x3).ok()?;
    let mut target = Image::new(side(width)?, side(height)?, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut target, &options).ok()?;
    Some(Rgb { width, height, data: target.buffer().iter().map(|byte| f32::from(*byte) / 255.0).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_side_is_eight_sevenths() {
        assert_eq!(size((512, 512), (224, 224)), (256, 256));
        assert_eq!(size((512, 768), (224, 224)), (256, 384));
        assert_eq!(size((301, 100), (224, 224)), (770, 256));
        assert_eq!(size((512, 512), (64, 64)), (74, 74));
    }
}
