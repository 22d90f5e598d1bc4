//! DICOM series, written through dicom-rs.

use std::fs;
use std::path::Path;

use data_shards::pack::{Options, Why};
use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

use super::compressed::{JPEG_2000, JPEG_2000_SIGNED, JPEG_LOSSLESS};
use super::nifti::{SHOWN, Volume, plain};
use super::{holds, options, packed, tree, try_all};

pub(super) const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// A slice to be written.
#[derive(Clone)]
pub(super) struct Slice {
    pub(super) series: &'static str,
    pub(super) instance: String,
    pub(super) patient: &'static str,
    pub(super) modality: &'static str,
    pub(super) position: [f64; 3],
    pub(super) orientation: &'static str,
    pub(super) size: [u16; 2],
    pub(super) signed: bool,
    pub(super) stored: u16,
    pub(super) rescale: Option<[&'static str; 2]>,
}

/// What the pixels are written as.
pub(super) enum Pixels {
    Words(Vec<u16>),
    Fragments(Vec<Vec<u8>>),
}

impl Slice {
    pub(super) fn at(z: f64) -> Slice {
        Slice {
            series: "1.2.826.1111",
            instance: format!("1.2.826.1111.{}", (z * 10.0) as i64 + 5000),
            patient: "SECRET-7",
            modality: "CT",
            position: [0.0, 0.0, z],
            orientation: "1\\0\\0\\0\\1\\0",
            size: [4, 3],
            signed: true,
            stored: 16,
            rescale: None,
        }
    }

    pub(super) fn write(&self, path: &Path, syntax: &str, pixels: Pixels) {
        let mut object = InMemDicomObject::new_empty();
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let short = |element, value: u16| DataElement::new(Tag(0x28, element), VR::US, PrimitiveValue::from(value));
        object.put(text(Tag(0x8, 0x16), VR::UI, "1.2.840.10008.5.1.4.1.1.2"));
        object.put(text(Tag(0x8, 0x18), VR::UI, &self.instance));
        object.put(text(Tag(0x8, 0x60), VR::CS, self.modality));
        object.put(text(Tag(0x10, 0x10), VR::PN, "Doe^Jane"));
        object.put(text(Tag(0x10, 0x20), VR::LO, self.patient));
        object.put(text(Tag(0x20, 0xd), VR::UI, "1.2.826.2222"));
        object.put(text(Tag(0x20, 0xe), VR::UI, self.series));
        let [x, y, z] = self.position;
        object.put(text(Tag(0x20, 0x32), VR::DS, &format!("{x}\\{y}\\{z}")));
        object.put(text(Tag(0x20, 0x37), VR::DS, self.orientation));
        object.put(text(Tag(0x28, 0x30), VR::DS, "1\\1"));
        let [columns, rows] = self.size;
        for (element, value) in
            [(2, 1), (0x10, rows), (0x11, columns), (0x100, 16), (0x101, self.stored), (0x102, self.stored - 1)]
        {
            object.put(short(element, value));
        }
        object.put(short(0x103, u16::from(self.signed)));
        object.put(text(Tag(0x28, 4), VR::CS, "MONOCHROME2"));
        for (element, value) in [0x1052, 0x1053].into_iter().zip(self.rescale.into_iter().flatten()) {
            object.put(text(Tag(0x28, element), VR::DS, value));
        }
        let tag = Tag(0x7fe0, 0x10);
        match pixels {
            Pixels::Words(words) => object.put(DataElement::new(tag, VR::OW, PrimitiveValue::U16(words.into()))),
            Pixels::Fragments(fragments) => {
                object.put(DataElement::new(tag, VR::OB, PixelFragmentSequence::new(Vec::<u32>::new(), fragments)))
            }
        };
        let meta = FileMetaTableBuilder::new().transfer_syntax(syntax);
        object.with_meta(meta).unwrap().write_to_file(path).unwrap();
    }
}

/// Twelve words, told apart by a number.
pub(super) fn words(from: u16) -> Pixels {
    Pixels::Words((from..from + 12).collect())
}

fn greys(from: u8) -> Vec<u8> {
    (from..from + 12).collect()
}

#[test]
fn a_series_is_sorted_by_place_and_says_nothing_of_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    // By name c, b, a; from the feet to the head a, c, b; in three encodings.
    Slice::at(-20.0).write(&source.join("c.dcm"), EXPLICIT, words(10));
    Slice::at(5.5).write(&source.join("b"), IMPLICIT, words(30));
    Slice::at(-100.0).write(&source.join("a.dcm"), BIG_ENDIAN, words(50));
    let (report, samples) = packed(&source, &out, &plain());
    assert_eq!(samples.iter().map(super::Read::grey).collect::<Vec<_>>(), [greys(50), greys(10), greys(30)]);
    assert_eq!((report.patients, report.left_out.len()), (1, 0));
    assert_eq!(samples[0].facts()["spacing"], serde_json::json!([1.0, 1.0, 80.0]));
    for (path, bytes) in tree(&out) {
        for secret in ["SECRET", "1.2.826", "Doe"] {
            assert!(!holds(&bytes, secret), "{secret} in {}", path.display());
        }
    }
}

#[test]
fn no_message_says_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    for (name, z) in [("a.dcm", 0.0), ("b.dcm", 5.0), ("c.dcm", 5.0)] {
        Slice::at(z).write(&source.join(name), EXPLICIT, words(9));
    }
    let lists = ["train.csv", "val.csv"].map(|name| source.join(name));
    fs::write(&lists[0], "file,label\na.dcm,1\na.dcm,1\n").unwrap();
    fs::write(&lists[1], "file,label\nb.dcm,1\n").unwrap();
    let refused = try_all(&lists, &folder.path().join("out"), &options()).unwrap_err().to_string();
    assert!(refused.contains("leak: patient p") && refused.contains("a.dcm") && refused.contains("b.dcm"), "{refused}");
    let report = try_all(&lists, &folder.path().join("out"), &Options { allow_leaks: true, ..options() }).unwrap();
    let left_out = try_all(&[source], &folder.path().join("series"), &plain()).unwrap().left_out;
    assert!(left_out.iter().any(|one| one.reason.starts_with("the same instance as ")), "{left_out:?}");
    let told = format!("{refused} {:?} {:?} {left_out:?}", report.notes, report.left_out);
    let files = tree(folder.path()).into_iter().filter(|(path, _)| !path.starts_with("source"));
    for (name, bytes) in files
        .map(|(path, bytes)| (path.display().to_string(), bytes))
        .chain([("messages".to_owned(), told.into_bytes())])
    {
        for secret in ["SECRET", "1.2.826", "Doe"] {
            assert!(!holds(&bytes, secret), "{secret} in {name}");
        }
    }
}

#[test]
fn of_two_copies_the_whole_one_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    let pixels = || Pixels::Fragments(vec![hex(JPEG_LOSSLESS)]);
    Slice { size: [16, 12], signed: false, stored: 12, ..Slice::at(0.0) }.write(
        &source.join("whole.dcm"),
        "1.2.840.10008.1.2.4.70",
        pixels(),
    );
    let bytes = fs::read(source.join("whole.dcm")).unwrap();
    fs::write(source.join("cut.dcm"), &bytes[..bytes.len() - 40]).unwrap();
    let left_out = try_all(std::slice::from_ref(&source), &folder.path().join("out"), &plain());
    let left_out = left_out.map_or_else(|error| panic!("{error}"), |report| report.left_out);
    assert!(left_out.len() == 1 && left_out[0].input.contains("cut.dcm"), "{left_out:?}");
}

#[test]
fn values_are_rescaled_and_signs_extended() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    // Twelve bits with a sign, and rubbish above them.
    let words = [0xf000, 0x0001, 0x0fff, 0x0800, 0x07ff, 0x1064, 0, 0, 0, 0, 0, 0];
    let slice = Slice { stored: 12, rescale: Some(["-10", "0.5"]), ..Slice::at(0.0) };
    slice.write(&source.join("a.dcm"), EXPLICIT, Pixels::Words(words.to_vec()));
    let hu = [-10.0, -9.5, -10.5, -1034.0, 1013.5, 40.0];
    let window = data_shards::pack::Window { level: 0.0, width: 3000.0 };
    let (_, samples) = packed(&source, &folder.path().join("out"), &Options { window, ..plain() });
    let greys = hu.map(|hu: f64| ((hu + 1500.0) / 3000.0 * 255.0).round() as u8);
    assert_eq!(samples[0].grey()[..6], greys);
}

#[test]
fn compressed_pixels_are_those_that_were_compressed() {
    let values: Vec<i32> = (0..192).map(|at| (at / 16 * 37 + at % 16 * 101) % 2600).collect();
    let big: Vec<u8> = values.iter().flat_map(|value| (*value as u16).to_be_bytes()).collect();
    let cases = [
        ("1.2.840.10008.1.2.4.90", hex(JPEG_2000), false, 12, 0),
        ("1.2.840.10008.1.2.4.90", hex(JPEG_2000_SIGNED), true, 16, 1300),
        ("1.2.840.10008.1.2.4.70", hex(JPEG_LOSSLESS), false, 12, 0),
        ("1.2.840.10008.1.2.5", rle(&big), false, 12, 0),
    ];
    for (syntax, bytes, signed, stored, less) in cases {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        let slice = Slice { size: [16, 12], signed, stored, ..Slice::at(0.0) };
        // In two fragments, as a frame may be.
        let (head, tail) = bytes.split_at((bytes.len() / 2) & !1);
        let fragments = if syntax.ends_with(".5") { vec![bytes.clone()] } else { vec![head.to_vec(), tail.to_vec()] };
        slice.write(&source.join("a.dcm"), syntax, Pixels::Fragments(fragments));
        // Two windows that together tell all values apart.
        for low in [0, 255, 1020, 2295] {
            let level = f64::from(low - less) + 127.5;
            let window = data_shards::pack::Window { level, width: 255.0 };
            let out = folder.path().join(low.to_string());
            let (_, samples) = packed(&source, &out, &Options { window, ..plain() });
            let expected: Vec<u8> = values.iter().map(|value| (value - low).clamp(0, 255) as u8).collect();
            assert_eq!(samples[0].grey(), expected, "{syntax} {signed} {low}");
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// Upper bytes and lower bytes, each in literal runs of at most 128, with one repeated run in front of nothing.
fn rle(big_endian: &[u8]) -> Vec<u8> {
    let segment = |of: usize| -> Vec<u8> {
        let bytes: Vec<u8> = big_endian.iter().skip(of).step_by(2).copied().collect();
        bytes.chunks(100).flat_map(|run| [&[run.len() as u8 - 1][..], run].concat()).collect()
    };
    let (high, low) = (segment(0), segment(1));
    let mut header = vec![0u8; 64];
    for (at, value) in [2, 64, 64 + high.len() as u32].into_iter().enumerate() {
        header[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut file = [header, high, low].concat();
    file.resize(file.len().next_multiple_of(2), 0);
    file
}

#[test]
fn what_is_no_slice_is_left_out_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    Slice::at(0.0).write(&source.join("a.dcm"), EXPLICIT, words(10));
    Slice::at(0.0).write(&source.join("again.dcm"), EXPLICIT, words(10));
    Slice { modality: "MR", ..Slice::at(1.0) }.write(&source.join("mr.dcm"), EXPLICIT, words(10));
    let coronal = Slice { orientation: "1\\0\\0\\0\\0\\-1", ..Slice::at(2.0) };
    coronal.write(&source.join("coronal.dcm"), EXPLICIT, words(10));
    Slice::at(3.0).write(&source.join("short.dcm"), EXPLICIT, Pixels::Words(vec![1; 11]));
    Slice::at(4.0).write(&source.join("ls.dcm"), "1.2.840.10008.1.2.4.80", Pixels::Fragments(vec![vec![0; 8]]));
    let (report, samples) = packed(&source, &folder.path().join("out"), &plain());
    assert_eq!(samples.len(), 1);
    let mut why: Vec<(Why, &str)> =
        report.left_out.iter().map(|one| (one.why, one.input.rsplit('/').next().unwrap())).collect();
    why.sort();
    let expected = [
        (Why::Unreadable, "short.dcm"),
        (Why::Unsupported, "ls.dcm"),
        (Why::Duplicate, "again.dcm"),
        (Why::NotCt, "coronal.dcm"),
        (Why::NotCt, "mr.dcm"),
    ];
    assert_eq!(why, expected);
    let public = fs::read_to_string(folder.path().join("out/report.json")).unwrap();
    assert!(public.contains("\"left_out_count\": 5") && !public.contains("short"), "{public}");
    let private = fs::read_to_string(folder.path().join("out.report.json")).unwrap();
    assert!(private.contains("short.dcm") && private.contains("cut short"), "{private}");
}

#[test]
fn nifti_masks_are_found_by_place() {
    let folder = tempfile::tempdir().unwrap();
    let (source, masks) = (folder.path().join("source"), folder.path().join("masks"));
    [&source, &masks].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    for slice in 0..3u16 {
        Slice::at(f64::from(slice) + 50.0).write(&source.join(format!("x{slice}.dcm")), EXPLICIT, words(20 * slice));
        let other = Slice {
            series: "1.2.826.3333",
            instance: format!("1.2.826.3333.{slice}"),
            patient: "OTHER-8",
            ..Slice::at(f64::from(slice) - 200.0)
        };
        other.write(&source.join(format!("y{slice}.dcm")), EXPLICIT, words(20 * slice));
    }
    // Stored from the head to the feet, in the place of the first series; its name says nothing.
    let affine = [SHOWN[0], SHOWN[1], [0.0, 0.0, -1.0, 52.0]];
    let mask = Volume::new([4, 3, 3], |i, j, k| if (i, j, k) == (3, 1, 0) { 255 } else { 0 });
    Volume { affine, ..mask }.write(&masks.join("whatever.nii"));
    let (report, samples) = packed(&source, &folder.path().join("out"), &Options { masks: Some(masks), ..plain() });
    assert_eq!((samples.len(), report.splits[0].masks, report.left_out.len()), (6, 3, 0));
    let lesions: Vec<(u64, usize)> = samples
        .iter()
        .filter_map(|sample| {
            Some((sample.facts()["slice"].as_u64()?, sample.mask()?.iter().position(|at| *at == 255)?))
        })
        .collect();
    assert_eq!(lesions, [(2, 4 + 3)]);
}
