//! Pixels against straightforward references.

use super::*;
use crate::augment::Augment;
use crate::decode::{Levels, Rgb};

const WILD: Augment = Augment {
    crop: 0.1,
    flip_horizontal: 0.5,
    brightness: 0.3,
    contrast: 0.3,
    scale: 0.3,
    rotation: 40.0,
    noise: 0.1,
    ..Augment::OFFICIAL
};

fn draw() -> Draw {
    Augment::NONE.draw(0, 0, 0)
}

/// Nothing but this.
fn only(set: impl Fn(&mut Draw)) -> Draw {
    let mut draw = draw();
    set(&mut draw);
    draw
}

fn geometry(height: usize, width: usize, fit: Fit, pixels: PixelType) -> Geometry {
    Geometry { fit, pixels, ..Geometry::imagenet(height, width) }
}

/// 0..1 as it is.
fn plain(height: usize, width: usize) -> Geometry {
    Geometry { mean: [0.0; 3], std: [1.0; 3], ..Geometry::imagenet(height, width) }
}

/// Levels that look random.
fn levels(count: usize) -> impl Iterator<Item = u32> {
    (0..count as u32).map(|at| at.wrapping_add(77).wrapping_mul(2_654_435_761) >> 16)
}

fn bytes(width: usize, height: usize, channels: usize) -> Image {
    let levels = Levels::Bytes(levels(width * height * channels).map(|level| level as u8).collect());
    Image { width, height, channels, levels }
}

fn words(width: usize, height: usize, channels: usize) -> Image {
    let levels = Levels::Words(levels(width * height * channels).map(|level| level as u16).collect());
    Image { width, height, channels, levels }
}

fn in_colour(grey: &Image) -> Image {
    let levels = match &grey.levels {
        Levels::Bytes(levels) => Levels::Bytes(levels.iter().flat_map(|&level| [level; 3]).collect()),
        Levels::Words(levels) => Levels::Words(levels.iter().flat_map(|&level| [level; 3]).collect()),
    };
    Image { channels: 3, levels, ..*grey }
}

fn lesion(width: usize, height: usize) -> Mask {
    Mask { width, height, data: levels(width * height).map(|level| (level % 2) as u8).collect() }
}

fn float(image: &Image, draw: &Draw, geometry: &Geometry) -> Vec<f32> {
    normalised(image, draw, geometry, Vec::new())
}

fn mask_of(mask: &Mask, draw: &Draw, geometry: &Geometry) -> Vec<u8> {
    let image = bytes(mask.width, mask.height, 1);
    super::mask(&image, Some(mask), draw, geometry, vec![9; 3])
}

/// Where an output pixel lies in the source: the definition, step by step.
fn place((x, y): (usize, usize), geometry: &Geometry, rect: Rect, draw: &Draw) -> (f64, f64) {
    let (width, height) = (geometry.width as f64, geometry.height as f64);
    let (mut x, mut y) = (x as f64 + 0.5, y as f64 + 0.5);
    if draw.flip_horizontal {
        x = width - x;
    }
    if draw.flip_vertical {
        y = height - y;
    }
    // From the middle of the part, in pixels of the source.
    let (x, y) = ((x / width - 0.5) * rect.width as f64, (y / height - 0.5) * rect.height as f64);
    // What is turned counter-clockwise (rows go down) was clockwise of here.
    let (sin, cos) = draw.rotation.to_radians().sin_cos();
    let (x, y) = ((x * cos - y * sin) / draw.scale, (x * sin + y * cos) / draw.scale);
    (x + rect.left as f64 + rect.width as f64 / 2.0 - 0.5, y + rect.top as f64 + rect.height as f64 / 2.0 - 0.5)
}

fn at(image: &Rgb, x: f64, y: f64, channel: usize) -> f64 {
    let inside = x >= 0.0 && y >= 0.0 && x < image.width as f64 && y < image.height as f64;
    if inside { f64::from(image.data[(y as usize * image.width + x as usize) * 3 + channel]) } else { 0.0 }
}

fn expected(image: &Rgb, geometry: &Geometry, rect: Rect, draw: &Draw, channel: usize) -> Vec<f64> {
    let pixels = (0..geometry.height).flat_map(|y| (0..geometry.width).map(move |x| (x, y)));
    let value = |pixel| {
        let (x, y) = place(pixel, geometry, rect, draw);
        let (left, top, across, down) = (x.floor(), y.floor(), x - x.floor(), y - y.floor());
        let row = |y: f64| at(image, left, y, channel) * (1.0 - across) + at(image, left + 1.0, y, channel) * across;
        row(top) * (1.0 - down) + row(top + 1.0) * down
    };
    pixels.map(value).collect()
}

#[test]
fn turned_scaled_cropped_and_flipped_as_defined() {
    let shapes = [((37, 23), (29, 41)), ((64, 64), (64, 64)), ((5, 90), (33, 7)), ((1, 1), (9, 9))];
    for ((width, height), (tall, wide)) in shapes {
        let geometry = plain(tall, wide);
        for image in
            [bytes(width, height, 1), bytes(width, height, 3), words(width, height, 1), words(width, height, 3)]
        {
            for epoch in 0..12 {
                let draw =
                    Augment { brightness: 0.0, contrast: 0.0, noise: 0.0, rotation: 180.0, ..WILD }.draw(1, epoch, 0);
                let (out, rect) = (float(&image, &draw, &geometry), draw.rect(width, height));
                for channel in 0..3 {
                    let wanted = expected(&image.rgb(), &geometry, rect, &draw, channel);
                    let got = &out[channel * tall * wide..][..tall * wide];
                    let worst = got.iter().zip(wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                    // Places are rounded to 2^-12 of a pixel at worst, and values differ by up to 1 a pixel.
                    assert!(worst < 2e-3, "{width}x{height} to {wide}x{tall}, {draw:?}: {worst}");
                }
            }
        }
    }
}

#[test]
fn a_quarter_turn_is_exact_and_counter_clockwise() {
    let (geometry, image, mask) = (plain(32, 32), bytes(32, 32, 1), lesion(32, 32));
    let (still, still_mask) = (float(&image, &draw(), &geometry), mask_of(&mask, &draw(), &geometry));
    for (rotation, from) in [
        (90.0, (|x, y| (31 - y, x)) as fn(usize, usize) -> (usize, usize)),
        (-90.0, |x, y| (y, 31 - x)),
        (180.0, |x, y| (31 - x, 31 - y)),
        (360.0, |x, y| (x, y)),
    ] {
        let draw = only(|draw| draw.rotation = rotation);
        let (turned, turned_mask) = (float(&image, &draw, &geometry), mask_of(&mask, &draw, &geometry));
        for (x, y) in (0..32).flat_map(|y| (0..32).map(move |x| (x, y))) {
            let (from_x, from_y) = from(x, y);
            assert_eq!(turned[y * 32 + x], still[from_y * 32 + from_x], "{rotation}: {x} {y}");
            assert_eq!(turned_mask[y * 32 + x], still_mask[from_y * 32 + from_x], "{rotation}: {x} {y}");
        }
    }
}

#[test]
fn half_the_size_leaves_black_around_it_and_twice_the_size_the_middle() {
    let (geometry, image) = (plain(16, 16), Image { levels: Levels::Bytes(vec![255; 256]), ..bytes(16, 16, 1) });
    let mask = Mask { width: 16, height: 16, data: vec![1; 256] };
    let half = only(|draw| draw.scale = 0.5);
    let (small, small_mask) = (float(&image, &half, &geometry), mask_of(&mask, &half, &geometry));
    assert_eq!((small[3 * 16 + 8], small[8 * 16 + 3], small[8 * 16 + 12]), (0.0, 0.0, 0.0));
    assert!((4..12).all(|at| small[8 * 16 + at] > 0.7 && small[at * 16 + 8] > 0.7));
    assert_eq!(small_mask.iter().filter(|&&lesion| lesion == 1).count(), 64);
    let (large, image) = (only(|draw| draw.scale = 2.0), bytes(16, 16, 1));
    let large = float(&image, &large, &geometry);
    let middle = resize::bilinear(&image.rgb(), Rect { left: 3, top: 3, width: 10, height: 10 }, 20, 20);
    for (x, y) in (0..16).flat_map(|y| (0..16).map(move |x| (x, y))) {
        assert!((large[y * 16 + x] - middle.data[((y + 2) * 20 + x + 2) * 3]).abs() < 1e-3, "{x} {y}");
    }
}

#[test]
fn a_mask_reads_the_pixel_that_is_nearest() {
    let (geometry, mask) = (plain(31, 45), lesion(40, 27));
    for epoch in 0..20 {
        let draw = WILD.draw(2, epoch, 0);
        let rect = draw.rect(40, 27);
        let got = mask_of(&mask, &draw, &geometry);
        let pixels = (0..31).flat_map(|y| (0..45).map(move |x| (x, y)));
        let wrong = pixels.zip(&got).filter(|(pixel, got)| {
            let (x, y) = place(*pixel, &geometry, rect, &draw);
            // Halfway, rounding decides.
            let clear = [x, y].iter().all(|place| (place - place.floor() - 0.5).abs() > 1e-3);
            let (x, y) = ((x + 0.5).floor(), (y + 0.5).floor());
            let inside = x >= 0.0 && y >= 0.0 && x < 40.0 && y < 27.0;
            clear && **got != if inside { mask.data[y as usize * 40 + x as usize] } else { 0 }
        });
        assert_eq!(wrong.count(), 0, "{draw:?}");
    }
}

/// The middle of what is brighter than half.
fn middle(values: &[f32], width: usize) -> Option<(f64, f64)> {
    let bright: Vec<usize> = (0..values.len()).filter(|&at| values[at] > 0.5).collect();
    let mean = |of: &dyn Fn(usize) -> usize| bright.iter().map(|&at| of(at) as f64).sum::<f64>() / bright.len() as f64;
    (!bright.is_empty()).then(|| (mean(&|at| at % width), mean(&|at| at / width)))
}

#[test]
fn a_dot_and_its_mask_stay_together() {
    let dot = |x: usize, y: usize| (20..29).contains(&x) && (50..59).contains(&y);
    let data: Vec<u8> = (0..96 * 96).map(|at| u8::from(dot(at % 96, at / 96))).collect();
    let levels = Levels::Bytes(data.iter().map(|lesion| lesion * 255).collect());
    let (image, mask) = (Image { width: 96, height: 96, channels: 1, levels }, Mask { width: 96, height: 96, data });
    let mut places = Vec::new();
    for (fit, pixels) in
        [(Fit::Stretch, PixelType::Float), (Fit::CentreCrop, PixelType::Float), (Fit::Stretch, PixelType::Byte)]
    {
        let geometry = Geometry { fit, pixels, ..plain(80, 80) };
        for epoch in 0..60 {
            let draw = Augment { brightness: 0.0, contrast: 0.0, noise: 0.02, ..WILD }.draw(3, epoch, 0);
            let (pixels, mask) = super::pixels(&image, Some(&mask), &draw, &geometry, Buffers::default());
            let values = match pixels {
                Pixels::Float(values) => values[..6400].to_vec(),
                Pixels::Byte { values, .. } => values.iter().map(|&value| f32::from(value) / 255.0).collect(),
                Pixels::None => Vec::new(),
            };
            let of_mask: Vec<f32> = mask.iter().map(|&lesion| f32::from(lesion)).collect();
            match (middle(&values, 80), middle(&of_mask, 80)) {
                (Some(one), Some(other)) => {
                    let far = (one.0 - other.0).hypot(one.1 - other.1);
                    assert!(far < 1.0, "{fit:?} {draw:?}: {one:?} {other:?}");
                    places.push((one.0 as i32, one.1 as i32));
                }
                (one, other) => assert!(one.is_none() && other.is_none(), "{draw:?}"),
            }
        }
    }
    places.sort_unstable();
    places.dedup();
    assert!(places.len() > 60, "hardly any change: {places:?}");
}

#[test]
fn without_what_is_new_the_resampling_is_the_plain_one_bit_for_bit() {
    let geometry = geometry(29, 41, Fit::Stretch, PixelType::Float);
    for (image, epoch) in [bytes(37, 23, 1), bytes(37, 23, 3), words(41, 29, 3)].iter().zip(0..) {
        let draw = Augment { crop: 0.2, flip_horizontal: 0.5, ..Augment::OFFICIAL }.draw(1, epoch, 0);
        assert_eq!((draw.change(), draw.grain(), draw.scale, draw.rotation, draw.noise), (None, None, 1.0, 0.0, 0.0));
        let small = resize::bilinear(&image.rgb(), draw.rect(image.width, image.height), 29, 41);
        let out = float(image, &draw, &geometry);
        for (at, value) in out.iter().enumerate() {
            let (channel, x, y) = (at / (29 * 41), at % 41, at / 41 % 29);
            let x = if draw.flip_horizontal { 40 - x } else { x };
            let y = if draw.flip_vertical { 28 - y } else { y };
            let source = small.data[(y * 41 + x) * 3 + channel];
            assert_eq!(*value, Scale::of(&geometry, channel).apply(source));
            let official = (source - geometry.mean[channel]) / geometry.std[channel];
            assert!((value - official).abs() < 1e-6, "{value} is not {official}");
        }
    }
}

#[test]
fn grey_is_the_same_in_one_channel_and_in_three_bit_for_bit() {
    for image in [bytes(61, 47, 1), words(61, 47, 1), bytes(40, 40, 1)] {
        for fit in [Fit::Stretch, Fit::CentreCrop] {
            for epoch in 0..8 {
                for augment in [WILD, Augment { scale: 0.0, rotation: 0.0, ..WILD }, Augment::NONE] {
                    let draw = augment.draw(4, epoch, 0);
                    let floats = geometry(40, 40, fit, PixelType::Float);
                    assert!(float(&image, &draw, &floats) == float(&in_colour(&image), &draw, &floats), "{draw:?}");
                    let one = rounded(&image, &draw, &floats, Vec::new());
                    assert!(one.repeat(3) == rounded(&in_colour(&image), &draw, &floats, Vec::new()), "{draw:?}");
                }
            }
        }
    }
}

#[test]
fn bytes_differ_from_floats_by_half_a_level() {
    for image in [bytes(61, 47, 1), bytes(61, 47, 3), words(61, 47, 1)] {
        for fit in [Fit::Stretch, Fit::CentreCrop] {
            for epoch in 0..8 {
                let draw = WILD.draw(5, epoch, 0);
                let geometry = Geometry { fit, ..plain(40, 50) };
                let floats = float(&image, &draw, &geometry);
                let levels = rounded(&image, &draw, &geometry, vec![7; 5]);
                assert_eq!(levels.len(), image.channels * 2000);
                let worst =
                    floats.iter().zip(levels).map(|(a, b)| (a - f32::from(b) / 255.0).abs()).fold(0.0, f32::max);
                assert!(worst <= 1.0 / 510.0 + 1e-6, "{draw:?}: {worst}");
                assert!(fit == Fit::CentreCrop || worst > 1.0 / 520.0, "compared with itself: {worst}");
            }
        }
    }
}

#[test]
fn the_memory_of_another_sample_leaves_no_trace() {
    let (image, mask, draw) = (bytes(30, 20, 1), lesion(30, 20), WILD.draw(6, 0, 0));
    for pixels in [PixelType::Float, PixelType::Byte] {
        for geometry in [geometry(24, 24, Fit::Stretch, pixels), geometry(24, 24, Fit::CentreCrop, pixels)] {
            for mask in [Some(&mask), None] {
                for draw in [&draw, &super::tests::draw()] {
                    let dirty = Buffers { floats: vec![9.0; 5000], bytes: vec![9; 5000], mask: vec![9; 5000] };
                    let clean = super::pixels(&image, mask, draw, &geometry, Buffers::default());
                    assert!(super::pixels(&image, mask, draw, &geometry, dirty) == clean);
                    assert_eq!(clean.1.len(), 576);
                }
            }
        }
    }
}

#[test]
fn noise_has_its_strength_and_is_the_same_in_all_channels() {
    let grey = Image { levels: Levels::Bytes(vec![128; 100 * 100]), ..bytes(100, 100, 1) };
    for image in [grey.clone(), in_colour(&grey)] {
        let draw = only(|draw| draw.noise = 0.05);
        let out = float(&image, &draw, &plain(200, 200));
        let mean = out.iter().map(|&value| f64::from(value)).sum::<f64>() / out.len() as f64;
        let variance = out.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / out.len() as f64;
        assert!((mean - 128.0 / 255.0).abs() < 1e-3 && (variance.sqrt() - 0.05).abs() < 1e-3, "{mean} {variance}");
        assert!(out[..40_000] == out[40_000..80_000] && out[..40_000] == out[80_000..]);
        let clamped = float(&image, &only(|draw| draw.noise = 10.0), &plain(200, 200));
        assert!(clamped.iter().all(|value| (0.0..=1.0).contains(value)));
    }
}
