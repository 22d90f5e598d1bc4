//! What leaks between splits, on images that the test makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use data_shards::leak::{Candidate, Code, Flip, Grey, Kind, WIDTH, candidates, find, scan};
use data_shards::phantom::{self, Settings};
use data_shards::shard::{Record, ShardWriter, write_collection, write_index};
use image::GrayImage;
use image::imageops::{self, FilterType};
use serde_json::Value;

/// A folder of phantoms: 8 people with 4 slices each of 256 x 256.
fn phantoms(folder: &Path) -> PathBuf {
    let out = folder.join("phantoms");
    phantom::generate(&out, Settings { patients: 8, size: 256, seed: 3 }, &|_, _| {}).unwrap();
    out
}

fn slice(folder: &Path, name: &str) -> GrayImage {
    image::open(folder.join("images").join(name)).unwrap().into_luma8()
}

fn candidate(split: &str, name: &str, image: GrayImage) -> Candidate<'static> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let data: Vec<f32> = image.as_raw().iter().map(|value| f32::from(*value) / 255.0).collect();
    let load = Box::new(move || Grey::new(width, height, data.clone()).ok_or_else(|| "no pixels".to_owned()));
    Candidate { split: split.to_owned(), name: name.to_owned(), patient: None, load }
}

fn jpeg(image: &GrayImage, quality: u8) -> GrayImage {
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, quality).encode_image(image).unwrap();
    image::load_from_memory(&file).unwrap().into_luma8()
}

/// Encoded again (JPEG of three qualities; PNG, whose pixels are equal), resized, flipped, and some of it at once: each copy is
/// found with its original, and with no other.
pub(crate) fn assert_copies_are_found(originals: &[(String, GrayImage)]) {
    let resized = |image: &GrayImage, side| imageops::resize(image, side, side, FilterType::CatmullRom);
    type Change<'a> = Box<dyn Fn(&GrayImage) -> GrayImage + 'a>;
    let changes: Vec<(Kind, Flip, Change<'_>)> = vec![
        (Kind::SamePixels, Flip::None, Box::new(png)),
        (Kind::NearlySame, Flip::None, Box::new(|image| jpeg(image, 30))),
        (Kind::NearlySame, Flip::None, Box::new(|image| jpeg(image, 60))),
        (Kind::NearlySame, Flip::None, Box::new(|image| jpeg(image, 90))),
        (Kind::NearlySame, Flip::None, Box::new(|image| resized(image, 200))),
        (Kind::NearlySame, Flip::None, Box::new(|image| resized(image, 384))),
        (Kind::NearlySame, Flip::None, Box::new(|image| resized(image, 600))),
        (Kind::NearlySame, Flip::None, Box::new(|image| jpeg(&resized(image, 256), 30))),
        (Kind::NearlySame, Flip::Mirrored, Box::new(imageops::flip_horizontal)),
        (Kind::NearlySame, Flip::UpsideDown, Box::new(|image| jpeg(&imageops::flip_vertical(image), 30))),
        (Kind::NearlySame, Flip::Turned, Box::new(|image| resized(&imageops::rotate180(image), 300))),
    ];
    for (number, (kind, flip, change)) in changes.iter().enumerate() {
        let one = originals.iter().map(|(name, image)| candidate("a", name, image.clone()));
        let two = originals.iter().map(|(name, image)| candidate("b", name, change(image)));
        let findings = find(&one.chain(two).collect::<Vec<_>>());
        let right =
            |pair: &data_shards::leak::Pair| pair.kind == *kind && pair.flip == *flip && pair.one.name == pair.two.name;
        let all = findings.leaks.len() == originals.len() && findings.leaks.iter().all(right);
        assert!(all && findings.warnings.is_empty(), "change {number}: {findings}");
    }
}

fn png(image: &GrayImage) -> GrayImage {
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, image::ImageFormat::Png).unwrap();
    image::load_from_memory(file.get_ref()).unwrap().into_luma8()
}

#[test]
fn copies_of_ten_phantoms_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("phantoms");
    phantom::generate(&set, Settings { patients: 10, size: 256, seed: 4 }, &|_, _| {}).unwrap();
    let names = (1..=10).map(|patient| format!("p{patient:04}_s2.png"));
    assert_copies_are_found(&names.map(|name| (name.clone(), slice(&set, &name))).collect::<Vec<_>>());
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_data-shards")).arg("leak").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn copies_are_found_however_they_were_made() {
    let folder = tempfile::tempdir().unwrap();
    let original = slice(&phantoms(folder.path()), "p0001_s2.png");
    let resized = |width, height, filter| imageops::resize(&original, width, height, filter);
    let copies = [
        ("jpeg 30", Flip::None, jpeg(&original, 30)),
        ("resized", Flip::None, resized(384, 384, FilterType::CatmullRom)),
        ("of another shape", Flip::None, resized(300, 200, FilterType::Triangle)),
        ("half, jpeg 50", Flip::None, jpeg(&resized(128, 128, FilterType::Triangle), 50)),
        ("mirrored", Flip::Mirrored, imageops::flip_horizontal(&original)),
        ("upside down, jpeg 50", Flip::UpsideDown, jpeg(&imageops::flip_vertical(&original), 50)),
        ("turned", Flip::Turned, imageops::rotate180(&original)),
    ];
    for (name, flip, copy) in copies {
        let found = find(&[candidate("a", "original", original.clone()), candidate("b", name, copy)]);
        let [pair] = &found.leaks[..] else { panic!("{name}: {found}") };
        assert_eq!((pair.kind, pair.flip, &pair.two.name[..]), (Kind::NearlySame, flip, name), "{found}");
        assert!(pair.similarity.unwrap() > 0.95 && found.warnings.is_empty(), "{found}");
    }
}

#[test]
fn equal_pixels_are_found_whatever_the_file_and_the_size() {
    let folder = tempfile::tempdir().unwrap();
    let original = slice(&phantoms(folder.path()), "p0001_s2.png");
    let small = imageops::resize(&original, 12, 9, FilterType::Triangle);
    let sixteen = image::DynamicImage::from(original.clone()).into_luma16();
    sixteen.save(folder.path().join("x.png")).unwrap();
    let deep = folder.path().join("x.png");
    let load = Box::new(move || Grey::read(&deep).map_err(|error| error.to_string()));
    let found = find(&[
        candidate("a", "original", original),
        candidate("a", "small", small.clone()),
        Candidate { split: "b".to_owned(), name: "deep".to_owned(), patient: None, load },
        candidate("b", "small too", small),
    ]);
    let pairs: Vec<_> = found.leaks.iter().map(|pair| (pair.kind, &pair.one.name[..], &pair.two.name[..])).collect();
    assert_eq!(pairs, [(Kind::SamePixels, "original", "deep"), (Kind::SamePixels, "small", "small too")]);
}

#[test]
fn images_without_content_are_no_evidence() {
    let labelled =
        |x: u32| GrayImage::from_fn(256, 256, |at, y| image::Luma([if at / 8 == x && y < 8 { 255 } else { 0 }]));
    let mut images = Vec::new();
    for split in ["a", "b"] {
        for (name, value) in [("black", 0), ("white", 255)] {
            images.push(candidate(split, name, GrayImage::from_pixel(256, 256, image::Luma([value]))));
            images.push(candidate(split, name, GrayImage::from_pixel(1, 1, image::Luma([value]))));
        }
        images.push(candidate(split, "letter", labelled(3)));
    }
    images.push(candidate("b", "other letter", labelled(4)));
    let found = find(&images);
    assert!(found.leaks.is_empty() && found.warnings.is_empty(), "{found}");
    assert_eq!(found.without_content, 11);
}

#[test]
fn different_people_and_slices_of_one_split_are_neither() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantoms(folder.path());
    let (code, out, _) = run(&[set.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("compared the images of train.txt (24), eval.txt (8)\n"), "{out}");
    assert!(out.contains("leaks: 0 (") && !out.contains("leak: "), "{out}");
}

#[test]
fn a_patient_of_two_splits_leaks_once() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantoms(folder.path());
    let of =
        |lines: &[&str]| lines.iter().map(|name| format!("images/{name}.png masks/{name}.png\n")).collect::<String>();
    let one = write(&set.join("one.txt"), &of(&["p0001_s1", "p0001_s2", "p0002_s1"]));
    let two = write(&set.join("two.txt"), &of(&["p0003_s1", "p0001_s4"]));
    let json = folder.path().join("found.json");
    let (code, out, err) = run(&[&one, &two, "--json", json.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{out}{err}");
    assert!(out.contains("leak: patient p0001 is in ") && out.contains("(2 images: images/p0001_s1.png)"), "{out}");
    let found: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(found["leaks"][0]["kind"], "same_patient");
    assert_eq!(found["leaks"][0]["patient"], serde_json::json!(["p0001", [2, 1]]));
    assert_eq!((found["leaks"].as_array().unwrap().len(), &found["splits"][1]["images"]), (1, &Value::from(2)));
}

#[test]
fn packed_collections_are_compared_by_their_splits() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantoms(folder.path());
    let out = folder.path().join("packed");
    for (split, slices) in [("train", ["p0001_s1", "p0002_s1"]), ("val", ["p0003_s1", "p0002_s1"])] {
        let dir = out.join(split);
        fs::create_dir_all(&dir).unwrap();
        let mut writer = ShardWriter::create(&dir, &format!("{split}-000000.tar")).unwrap();
        for name in slices {
            let image = Some(fs::read(set.join(format!("images/{name}.png"))).unwrap());
            let key = format!("{split}_{name}");
            writer.add(&Record { key, image, patient: Some(split.to_owned()), ..Record::default() }).unwrap();
        }
        let finished = writer.finish().unwrap();
        write_index(&dir, Some(split), vec![finished]).unwrap();
    }
    write_collection(&out, &["train", "val"]).unwrap();
    let (code, text, err) = run(&[out.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{text}{err}");
    let expected = "leak: the same pixels: train_p0002_s1 of train and val_p0002_s1 of val";
    assert!(text.contains(expected) && text.contains("leaks: 1 ("), "{text}");
    let (code, _, err) = run(&[out.join("train").to_str().unwrap()]);
    assert!(code == Some(2) && err.contains("only one split"), "{err}");
}

#[test]
fn what_cannot_be_compared_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let set = phantoms(folder.path());
    fs::write(set.join("images/broken.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    let one = write(&set.join("one.txt"), "images/p0001_s1.png -\nimages/broken.png -\n");
    let two = write(&set.join("two.txt"), "images/p0003_s1.png -\nimages/gone.png -\n");
    let (code, out, _) = run(&[&one, &two]);
    assert_eq!(code, Some(3), "of what was not compared nothing is known: {out}");
    assert!(
        out.contains("not compared: images/broken.png of ") && out.contains("not compared: images/gone.png of "),
        "{out}"
    );
    assert_eq!(run(&[&one]).0, Some(2));
    assert_eq!(run(&[]).0, Some(2));
    assert_eq!(run(&[&one, "nowhere.txt"]).0, Some(2));
    let bad = write(&set.join("bad.txt"), "one two three\n");
    let (code, _, err) = run(&[&one, &bad]);
    assert!(code == Some(3) && err.contains("bad.txt:1"), "{err}");
    let nothing = write(&set.join("nothing.txt"), "images/gone.png -\n");
    assert_eq!(run(&[&nothing, &nothing]).0, Some(3));
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(run(&[empty.to_str().unwrap(), &one]).0, Some(2));
}

#[test]
fn an_image_too_large_to_compare_is_refused_by_its_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = crate::png(&folder.path().join("small.png"), 8, 8, &[7; 64]);
    let mut file = fs::read(&path).unwrap();
    file[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let crc = crc32fast::hash(&file[12..29]);
    file[29..33].copy_from_slice(&crc.to_be_bytes());
    let error = Grey::decode(&file, &path).unwrap_err().to_string();
    assert!(error.contains("small.png") && error.contains("268435456 pixels; at most 33554432"), "{error}");
}

#[test]
fn directories_stand_for_their_lists() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["split_train.txt", "split_val.txt", "notes.txt"] {
        fs::write(path(name), "x.png y\n").unwrap();
    }
    fs::write(path("labels.csv"), "file,label\nx.png,1\n").unwrap();
    let splits = || {
        let found = candidates(&[folder.path().to_owned()]).unwrap();
        found.into_iter().map(|candidate| candidate.split).collect::<std::collections::BTreeSet<_>>()
    };
    let owned = |names: [&str; 2]| names.map(str::to_owned).into_iter().collect();
    assert_eq!(splits(), owned(["split_train.txt", "split_val.txt"]));
    for name in ["train.txt", "test.txt"] {
        fs::write(path(name), "x.png y\n").unwrap();
    }
    assert_eq!(splits(), owned(["train.txt", "test.txt"]));
}

/// The scan finds the pairs that looking at every pair in full finds.
#[test]
fn the_search_loses_no_pair() {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let mut codes: Vec<Code> = Vec::new();
    for at in 0..300 {
        // Every third is like an earlier one, some mirrored.
        let base: Option<Code> = (at % 3 == 2).then(|| codes[at / 2].clone());
        let spread = if base.is_some() { 0.02 * (at % 7) as f32 } else { 1.0 };
        let mut values: Vec<f32> = (0..2 * WIDTH).map(|_| spread * random() * 0.3).collect();
        if let Some(base) = base {
            let mirror = |place: usize| if at % 2 == 0 && (place / 16) % 2 == 1 { -1.0 } else { 1.0 };
            let numbers = base.lead.iter().chain(&base.rest).enumerate();
            values.iter_mut().zip(numbers).for_each(|(value, (place, number))| *value += mirror(place) * number);
        }
        let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
        let half = |from: usize| std::array::from_fn(|place| values[from + place] / length);
        codes.push(Code { lead: half(0), rest: half(WIDTH) });
    }
    let splits = [0..90, 90..91, 91..210, 210..300];
    let split = |at: usize| splits.iter().position(|range| range.contains(&at));
    let mut expected = Vec::new();
    for one in 0..300 {
        for two in one + 1..300 {
            let mut mirrored = codes[one].clone();
            for half in [&mut mirrored.lead, &mut mirrored.rest] {
                half.iter_mut()
                    .enumerate()
                    .filter(|(at, _)| (at / 16) % 2 == 1)
                    .for_each(|(_, value)| *value = -*value);
            }
            let alike = codes[one].likeness(&codes[two]) >= 0.945 || mirrored.likeness(&codes[two]) >= 0.985;
            if split(one) != split(two) && alike {
                expected.push((one, two));
            }
        }
    }
    let optional: Vec<Option<Code>> = codes.into_iter().map(Some).collect();
    let hits = scan(&optional, &splits);
    let mut found: Vec<_> = hits.iter().filter(|hit| hit.likeness >= 0.945).map(|hit| (hit.one, hit.two)).collect();
    found.sort_unstable();
    assert!(expected.len() > 20, "{}", expected.len());
    assert_eq!(found, expected);
}
