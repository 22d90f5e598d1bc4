//! The table of `docs/leak.md`: what the measures of `leak` say of copies, of neighbouring slices and of different people.
//!
//! `cargo run --release -p data-shards --example leak_table -- DATA`, where DATA has `ct100/`, `mosmed/` and `nifti/`.
#![expect(clippy::print_stdout, reason = "a table")]

use std::error::Error;
use std::fs::{self, File};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use data_shards::leak::{Code, Flip, Grey, Portrait, code_of};
use image::imageops::FilterType;
use image::{GrayImage, ImageFormat};
use rayon::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
type Change = fn(&GrayImage) -> Result<GrayImage>;

struct Drawn {
    name: String,
    code: Code,
    portrait: Portrait,
}

fn main() -> Result<()> {
    let data = PathBuf::from(std::env::args().nth(1).ok_or("which folder has ct100, mosmed and nifti?")?);
    let ct100 = images(&data.join("ct100/tr_im"))?;
    let mut mosmed = images(&data.join("mosmed/covid"))?;
    mosmed.extend(images(&data.join("mosmed/normal"))?);
    let volume = slices(&data.join("nifti/lung2_image.nii.gz"))?;
    println!("{:34} {:>6}  agreement: least, 1%, half, 99%, most   kinship            code", "pairs", "count");
    let originals = [&ct100, &mosmed, &volume].into_iter().flatten().step_by(4).collect::<Vec<_>>();
    for (name, flip, change) in changes() {
        let rows = originals.par_iter().map(|(_, image)| {
            let (one, two) = (draw("", image)?, draw("", &change(image)?)?);
            Ok((compare(&one, &two, flip), String::new()))
        });
        row(name, rows.collect::<Result<_>>()?);
    }
    for (name, share) in [("slices at 3 mm, interpolated", 0.6), ("slices at 2 mm, interpolated", 0.4)] {
        let rows = volume.par_iter().zip(volume.par_iter().skip(1)).map(|((_, one), (_, two))| {
            let (one, between) = (draw("", one)?, draw("", &mixed(one, two, share))?);
            Ok((compare(&one, &between, Flip::None), String::new()))
        });
        row(name, rows.collect::<Result<_>>()?);
    }
    let drawn = |images: &[(String, GrayImage)]| {
        images.par_iter().map(|(name, image)| draw(name, image)).collect::<Result<Vec<_>>>()
    };
    let (ct100, mosmed, volume) = (drawn(&ct100)?, drawn(&mosmed)?, drawn(&volume)?);
    let apart = |by: usize| {
        let pairs = volume.iter().zip(volume.iter().skip(by));
        pairs.map(|(one, two)| (compare(one, two, Flip::None), format!("{} {}", one.name, two.name))).collect()
    };
    row("neighbouring slices, 5 mm", apart(1));
    row("slices at 10 mm", apart(2));
    for (one, two) in [("0049", "0095"), ("0040", "0065"), ("0026", "0027")] {
        let find = |name: &str| ct100.iter().find(|drawn| drawn.name.contains(name)).ok_or("no such slice");
        row(&format!("ct100 {one} {two}"), vec![(compare(find(one)?, find(two)?, Flip::None), String::new())]);
    }
    row("ct100, all pairs", all(&ct100, Flip::None));
    row("mosmed, all pairs (people)", all(&mosmed, Flip::None));
    row("mosmed, all pairs, mirrored", all(&mosmed, Flip::Mirrored));
    Ok(())
}

/// Agreement, kinship, likeness of the codes.
fn compare(one: &Drawn, two: &Drawn, flip: Flip) -> [f32; 3] {
    let measures = one.portrait.compare(&two.portrait, flip);
    [measures.agreement, measures.kinship, one.code.likeness(&two.code)]
}

fn all(drawn: &[Drawn], flip: Flip) -> Vec<([f32; 3], String)> {
    let pairs: Vec<(&Drawn, &Drawn)> =
        drawn.iter().enumerate().flat_map(|(at, one)| drawn.iter().skip(at + 1).map(move |two| (one, two))).collect();
    pairs.par_iter().map(|(one, two)| (compare(one, two, flip), format!("{} {}", one.name, two.name))).collect()
}

fn row(name: &str, rows: Vec<([f32; 3], String)>) {
    let quantiles = |measure: usize| {
        let mut values: Vec<f32> = rows.iter().map(|(measures, _)| measures[measure]).collect();
        values.sort_by(f32::total_cmp);
        let at = |share: f32| values[((values.len() - 1) as f32 * share).round() as usize];
        [0.0, 0.01, 0.5, 0.99, 1.0].map(|share| format!("{:6.3}", at(share))).join(" ")
    };
    let most = rows.iter().max_by(|(a, _), (b, _)| a[1].total_cmp(&b[1])).map(|(_, name)| name.as_str());
    println!(
        "{name:34} {:6} | {} | {} | {} | {}",
        rows.len(),
        quantiles(0),
        quantiles(1),
        quantiles(2),
        most.unwrap_or("")
    );
}

fn draw(name: &str, image: &GrayImage) -> Result<Drawn> {
    let data = image.as_raw().iter().map(|value| f32::from(*value) / 255.0).collect();
    let grey = Grey::new(image.width() as usize, image.height() as usize, data).ok_or("no pixels")?;
    let (code, portrait) = (code_of(&grey).ok_or("no content")?, Portrait::of(&grey).ok_or("no content")?);
    Ok(Drawn { name: name.to_owned(), code, portrait })
}

fn changes() -> Vec<(&'static str, Flip, Change)> {
    vec![
        ("JPEG 90", Flip::None, |image| jpeg(image, 90)),
        ("JPEG 50", Flip::None, |image| jpeg(image, 50)),
        ("JPEG 30", Flip::None, |image| jpeg(image, 30)),
        ("JPEG 10", Flip::None, |image| jpeg(image, 10)),
        ("256, bilinear antialiased", Flip::None, |image| resized(image, 256, 256, FilterType::Triangle)),
        ("256, bicubic", Flip::None, |image| resized(image, 256, 256, FilterType::CatmullRom)),
        ("256, nearest", Flip::None, |image| resized(image, 256, 256, FilterType::Nearest)),
        ("384, bilinear", Flip::None, |image| Ok(opencv(image, 384, 384))),
        ("384, nearest", Flip::None, |image| resized(image, 384, 384, FilterType::Nearest)),
        ("600, bicubic", Flip::None, |image| resized(image, 600, 600, FilterType::CatmullRom)),
        ("1024, bilinear", Flip::None, |image| Ok(opencv(image, 1024, 1024))),
        ("400 x 300, bilinear", Flip::None, |image| Ok(opencv(image, 400, 300))),
        ("224, antialiased", Flip::None, |image| resized(image, 224, 224, FilterType::Triangle)),
        ("128, antialiased", Flip::None, |image| resized(image, 128, 128, FilterType::Triangle)),
        ("128, bilinear, aliased", Flip::None, |image| Ok(opencv(image, 128, 128))),
        ("64, antialiased", Flip::None, |image| resized(image, 64, 64, FilterType::Triangle)),
        ("256, then JPEG 30", Flip::None, |image| jpeg(&opencv(image, 256, 256), 30)),
        ("224, then JPEG 30", Flip::None, |image| jpeg(&resized(image, 224, 224, FilterType::Triangle)?, 30)),
        ("mirrored, JPEG 30", Flip::Mirrored, |image| jpeg(&image::imageops::flip_horizontal(image), 30)),
        ("upside down, 300", Flip::UpsideDown, |image| Ok(opencv(&image::imageops::flip_vertical(image), 300, 300))),
        ("turned, 384, JPEG 50", Flip::Turned, |image| jpeg(&opencv(&image::imageops::rotate180(image), 384, 384), 50)),
    ]
}

fn jpeg(image: &GrayImage, quality: u8) -> Result<GrayImage> {
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, quality).encode_image(image)?;
    Ok(image::load(Cursor::new(file), ImageFormat::Jpeg)?.into_luma8())
}

fn resized(image: &GrayImage, width: u32, height: u32, filter: FilterType) -> Result<GrayImage> {
    Ok(image::imageops::resize(image, width, height, filter))
}

/// What a slice at this share of the way from one to the next would be, had it the thickness of both.
fn mixed(one: &GrayImage, two: &GrayImage, share: f32) -> GrayImage {
    let mix = |(one, two): (&u8, &u8)| (f32::from(*one) * (1.0 - share) + f32::from(*two) * share).round() as u8;
    let pixels = one.as_raw().iter().zip(two.as_raw()).map(mix).collect();
    GrayImage::from_raw(one.width(), one.height(), pixels).unwrap_or_default()
}

/// Bilinear without antialiasing, as OpenCV does it.
fn opencv(image: &GrayImage, width: u32, height: u32) -> GrayImage {
    use data_shards::decode::Rgb;
    use data_shards::resize::{Rect, bilinear};
    let data = image.as_raw().iter().flat_map(|value| [f32::from(*value); 3]).collect();
    let source = Rgb { width: image.width() as usize, height: image.height() as usize, data };
    let whole = Rect::whole(source.width, source.height);
    let out = bilinear(&source, whole, height as usize, width as usize);
    let bytes: Vec<u8> = out.data.chunks_exact(3).map(|pixel| pixel[0].round().clamp(0.0, 255.0) as u8).collect();
    GrayImage::from_raw(width, height, bytes).unwrap_or_default()
}

fn images(folder: &Path) -> Result<Vec<(String, GrayImage)>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let open = |path: &PathBuf| {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Ok((name, image::load_from_memory(&fs::read(path)?)?.into_luma8()))
    };
    paths.par_iter().map(open).collect()
}

/// The axial slices of an int16 NIfTI volume, in the lung window.
fn slices(path: &Path) -> Result<Vec<(String, GrayImage)>> {
    let mut file = Vec::new();
    flate2::read::GzDecoder::new(File::open(path)?).read_to_end(&mut file)?;
    let word = |at: usize| u16::from_le_bytes([file[at], file[at + 1]]);
    let (width, height) = (u32::from(word(42)), u32::from(word(44)));
    let values: Vec<u8> = file[352..]
        .chunks_exact(2)
        .map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])))
        .map(|hu| ((hu + 1350.0) / 1500.0 * 255.0).clamp(0.0, 255.0).round() as u8)
        .collect();
    let slices = values.chunks_exact((width * height) as usize).enumerate();
    let slice =
        |(at, pixels): (usize, &[u8])| Some((format!("z{at}"), GrayImage::from_raw(width, height, pixels.to_vec())?));
    slices.map(|slice_of| slice(slice_of).ok_or_else(|| "no slice".into())).collect()
}
