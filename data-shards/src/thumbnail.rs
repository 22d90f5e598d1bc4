//! Antialiased resizing with the proportions kept, as PIL does it.
//!
//! Duty: the classifier's way from any image to one a little larger than the network's input. Must not: crop or normalise.

use std::borrow::Cow;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

use crate::decode::{Image, Levels};
use crate::resize::{self, Rect};
use crate::tone::{self, Tone, Toned};

/// Proportions beyond which an image is squeezed, so that a strip of a few pixels cannot fill the memory.
const LONGEST: usize = 64;

/// Height and width to resize to, so that the shorter side is 8/7 of what is cropped from it (256 for 224), and both are
/// at least as long as the crop. The longer side is rounded down, as torchvision does.
pub(crate) fn size((height, width): (usize, usize), (crop_height, crop_width): (usize, usize)) -> (usize, usize) {
    let short = (crop_height.max(crop_width) * 8).div_ceil(7);
    let long = |long: usize, other: usize| (short * long / other.max(1)).clamp(short, LONGEST * short);
    if height <= width { (short, long(width, height)) } else { (long(height, width), short) }
}

/// Bilinear with antialiasing on 8 bits a channel, after brightness and contrast.
pub(crate) fn resize(image: &Image, tone: Option<Tone>, height: usize, width: usize) -> Image {
    let levels = antialiased(image, tone, height, width)
        // Cannot fail for sizes that are not 0; then the plain resampling is as good.
        .unwrap_or_else(|| plain(image, tone, height, width));
    Image { width, height, channels: image.channels, levels: Levels::Bytes(levels) }
}

fn antialiased(image: &Image, tone: Option<Tone>, height: usize, width: usize) -> Option<Vec<u8>> {
    let bytes = bytes(image, tone);
    let sizes = [image.width, image.height, width, height];
    if image.channels == 1 { convolved::<U8>(&bytes, sizes) } else { convolved::<U8x3>(&bytes, sizes) }
}

/// The kind of pixel is a type, since the untyped interface has the compiler make the code for all of them: a minute of it.
fn convolved<P: PixelTrait>(bytes: &[u8], sizes: [usize; 4]) -> Option<Vec<u8>> {
    let [width, height, to_width, to_height] = sizes.map(|n| u32::try_from(n).ok());
    let source = TypedImageRef::<P>::from_buffer(width?, height?, bytes).ok()?;
    let mut out = vec![0; sizes[2] * sizes[3] * P::size()];
    let mut target = TypedImage::<P>::from_buffer(to_width?, to_height?, &mut out).ok()?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize_typed(&source, &mut target, &options).ok()?;
    Some(out)
}

fn bytes(image: &Image, tone: Option<Tone>) -> Cow<'_, [u8]> {
    match (&image.levels, tone) {
        (Levels::Bytes(levels), None) => Cow::Borrowed(levels),
        (Levels::Bytes(levels), Some(_)) => {
            let table = tone::table(tone).map(tone::byte);
            Cow::Owned(levels.iter().map(|&level| table[usize::from(level)]).collect())
        }
        (Levels::Words(levels), _) => {
            Cow::Owned(levels.iter().map(|&level| tone::byte(tone::of_word(level, tone))).collect())
        }
    }
}

fn plain(image: &Image, tone: Option<Tone>, height: usize, width: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let whole = Rect::whole(image.width, image.height);
    resize::bilinear_rows(&Toned::of(image, tone), whole, height, width, |_, row| {
        let column = |x: usize| row.iter().skip(x).step_by(width).map(|&value| tone::byte(value));
        out.extend((0..width).flat_map(column));
    });
    out
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
