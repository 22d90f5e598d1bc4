//! Every pixel type that a CT data set is seen with.

use data_shards::decode;
use image::{DynamicImage, ImageBuffer, Luma, Rgba};

/// 3 x 2 pixels, 1-bit palette (black, white), as the masks of ct100 are. By Python:
/// `def ch(t, d): return struct.pack('>I', len(d)) + t + d + struct.pack('>I', zlib.crc32(t + d))`
/// `b'\x89PNG\r\n\x1a\n' + ch(b'IHDR', struct.pack('>IIBBBBB', 3, 2, 1, 3, 0, 0, 0)) + ch(b'PLTE', bytes([0, 0, 0, 255,
/// 255, 255])) + ch(b'IDAT', zlib.compress(b'\0\x40\0\xe0')) + ch(b'IEND', b'')`
const PALETTE: &str = "89504e470d0a1a0a0000000d4948445200000003000000020103000000a7baf45900000006504c5445000000ffffffa5d99fdd0000000c49444154789c63706078000001a401214d5783010000000049454e44ae426082";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_one_bit_palette_mask() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.png");
    std::fs::write(&path, unhex(PALETTE)).unwrap();
    assert_eq!(decode::dimensions(&path).unwrap(), (3, 2));
    assert_eq!(decode::mask(&path).unwrap().data, [0, 1, 0, 1, 1, 1]);
    let rgb = decode::rgb(&path).unwrap();
    assert_eq!(rgb.data[..9], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn eight_bits_gray() {
    let folder = tempfile::tempdir().unwrap();
    let path = crate::png(&folder.path().join("gray.png"), 2, 2, &[0, 51, 254, 255]);
    let rgb = decode::rgb(&path).unwrap();
    assert_eq!(rgb.data, [0.0, 0.2, 254.0 / 255.0, 1.0].map(|value: f32| [value; 3]).concat());
    assert_eq!(decode::mask(&path).unwrap().data, [0, 0, 0, 1]);
}

#[test]
fn sixteen_bits_gray() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep.png");
    let pixels: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_raw(3, 1, vec![255u16, 13107, 65535]).unwrap();
    DynamicImage::from(pixels).save(&path).unwrap();
    assert_eq!(decode::rgb(&path).unwrap().data[3..], [0.2, 0.2, 0.2, 1.0, 1.0, 1.0]);
    assert_eq!(decode::mask(&path).unwrap().data, [0, 0, 1]);
}

#[test]
fn alpha_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alpha.png");
    let pixels: ImageBuffer<Rgba<u8>, _> =
        ImageBuffer::from_raw(2, 1, vec![255, 255, 255, 0, 255, 0, 51, 255]).unwrap();
    DynamicImage::from(pixels).save(&path).unwrap();
    assert_eq!(decode::rgb(&path).unwrap().data, [1.0, 1.0, 1.0, 1.0, 0.0, 0.2]);
    assert_eq!(decode::mask(&path).unwrap().data, [1, 0]);
}

#[test]
fn jpeg_by_content_whatever_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really_jpeg.png");
    image::save_buffer_with_format(&path, &[128; 64], 8, 8, image::ExtendedColorType::L8, image::ImageFormat::Jpeg)
        .unwrap();
    let rgb = decode::rgb(&path).unwrap();
    assert_eq!((rgb.width, rgb.height), (8, 8));
    assert!(rgb.data.iter().all(|value| (value - 128.0 / 255.0).abs() < 0.02));
}

#[test]
fn a_file_cut_short_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let pixels: Vec<u8> = (0..4096u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, format) in [("a.png", image::ImageFormat::Png), ("a.jpg", image::ImageFormat::Jpeg)] {
        let path = folder.path().join(name);
        image::save_buffer_with_format(&path, &pixels, 64, 64, image::ExtendedColorType::L8, format).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        decode::rgb(&path).unwrap();
        for share in [1, 2, 3] {
            std::fs::write(&path, &bytes[..bytes.len() * share / 4]).unwrap();
            let error = decode::rgb(&path).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("cannot decode"), "{error}");
        }
    }
}

#[test]
fn what_is_no_image_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.png");
    for text in ["", "hello", "\u{89}PNG"] {
        std::fs::write(&path, text).unwrap();
        assert!(decode::rgb(&path).unwrap_err().to_string().contains("notes.png"));
        assert!(decode::dimensions(&path).is_err());
    }
    let missing = decode::rgb(&folder.path().join("none.png")).unwrap_err().to_string();
    assert!(missing.contains("none.png") && missing.starts_with("cannot read"), "{missing}");
}
