//! Damaged and hostile inputs: left out and reported, whatever is wrong with them.

use std::fs;
use std::path::Path;

use data_shards::pack::{Format, Options, Report};

use super::dicom::{EXPLICIT, Slice, words};
use super::nifti::{Volume, plain};
use super::{options, packed, try_pack};

/// Writes the damaged files beside a sound one, packs, and returns the report.
fn with(sound: impl Fn(&Path), extension: &str, damaged: &[Vec<u8>], options: &Options) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    sound(&source.join(format!("sound.{extension}")));
    for (at, bytes) in damaged.iter().enumerate() {
        fs::write(source.join(format!("damaged{at}.{extension}")), bytes).unwrap();
    }
    packed(&source, &folder.path().join("out"), options).0
}

/// A file cut at many places.
fn cuts(whole: &[u8], step: usize) -> Vec<Vec<u8>> {
    (0..whole.len()).step_by(step).map(|end| whole[..end].to_vec()).collect()
}

/// A file with every so many bytes turned over, one a file.
fn flips(whole: &[u8], step: usize) -> Vec<Vec<u8>> {
    let flip = |at: usize| {
        let mut bytes = whole.to_vec();
        bytes[at] ^= 0xff;
        bytes
    };
    (0..whole.len()).step_by(step).map(flip).collect()
}

fn bytes_of(write: impl Fn(&Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    write(&path);
    fs::read(path).unwrap()
}

#[test]
fn cut_files_are_left_out() {
    let png = |path: &Path| {
        image::save_buffer_with_format(
            path,
            &super::noise(1, 4096),
            64,
            64,
            image::ExtendedColorType::L8,
            image::ImageFormat::Png,
        )
        .unwrap();
    };
    let nifti = |path: &Path| Volume::new([5, 4, 3], |i, _, _| i as i16).write(path);
    let dicom = |path: &Path| Slice::at(0.0).write(path, EXPLICIT, words(9));
    let with_format = |format| Options { format, ..plain() };
    // The end marker of a PNG holds nothing.
    let whole = bytes_of(png);
    let files = cuts(&whole[..whole.len() - 12], 97);
    let report = with(png, "png", &files, &with_format(Format::Folder));
    assert_eq!((report.samples(), report.left_out.len()), (1, files.len()));
    let files = cuts(&bytes_of(nifti), 13);
    let report = with(nifti, "nii", &files, &with_format(Format::Nifti));
    assert_eq!((report.samples(), report.left_out.len()), (3, files.len()));
    let files = cuts(&bytes_of(dicom), 7);
    let report = with(dicom, "dcm", &files, &with_format(Format::Dicom));
    assert_eq!((report.samples(), report.left_out.len()), (1, files.len()));
}

#[test]
fn no_flipped_byte_stops_a_pack() {
    let nifti = |path: &Path| Volume::new([5, 4, 3], |i, _, _| i as i16).write(path);
    let dicom = |path: &Path| Slice::at(0.0).write(path, EXPLICIT, words(9));
    assert!(with(nifti, "nii", &flips(&bytes_of(nifti)[..352], 1), &plain()).samples() >= 3);
    assert!(with(dicom, "dcm", &flips(&bytes_of(dicom), 1), &plain()).samples() >= 1);
}

#[test]
fn declared_sizes_are_not_believed() {
    let dicom = |path: &Path| Slice::at(0.0).write(path, EXPLICIT, words(9));
    let whole = bytes_of(dicom);
    // The last element: tag, `OW`, two bytes, length.
    let at = whole.windows(6).rposition(|window| window == b"\xe0\x7f\x10\x00OW").unwrap();
    let long = |length: u32| {
        let mut bytes = whole.clone();
        bytes[at + 8..at + 12].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    let report = with(dicom, "dcm", &[long(0xffff_fff0), long(0x7fff_fffe), long(26)], &plain());
    assert_eq!(report.left_out.len(), 3, "{:?}", report.left_out);
    assert!(
        report.left_out.iter().all(|one| one.reason.contains("does not fit into the file")),
        "{:?}",
        report.left_out
    );

    let nifti = |path: &Path| Volume::new([5, 4, 3], |i, _, _| i as i16).write(path);
    let sized = |dim: i16| {
        let mut bytes = bytes_of(nifti);
        (0..3).for_each(|axis| bytes[42 + 2 * axis..44 + 2 * axis].copy_from_slice(&dim.to_le_bytes()));
        bytes
    };
    let report = with(nifti, "nii", &[sized(i16::MAX), sized(800), sized(-3), sized(0)], &plain());
    let reasons: Vec<&str> = report.left_out.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(reasons.len(), 4);
    assert!(reasons[0].contains("are allowed") && reasons[1].contains("cut short"), "{reasons:?}");
}

#[test]
fn nothing_sound_is_an_error_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let error = try_pack(&source, &folder.path().join("out"), &options()).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("a.png"), "{error}");
    assert!(!folder.path().join("out").exists());
}
