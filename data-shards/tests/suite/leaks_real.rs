//! Leaks among real slices, where they are.

use std::io::Read;
use std::path::{Path, PathBuf};

use data_shards::leak::{Candidate, Findings, Grey, Kind, candidates, find};
use image::GrayImage;

fn data(name: &str, test: &str) -> Option<PathBuf> {
    end_to_end::skip::data(test, name)
}

fn found(sources: &[PathBuf]) -> Findings {
    find(&candidates(sources).unwrap())
}

fn in_memory(split: &str, name: &str, image: GrayImage) -> Candidate<'static> {
    let load = Box::new(move || {
        let data = image.as_raw().iter().map(|value| f32::from(*value) / 255.0).collect();
        Grey::new(image.width() as usize, image.height() as usize, data).ok_or_else(|| "no pixels".to_owned())
    });
    Candidate { split: split.to_owned(), name: name.to_owned(), patient: None, load }
}

fn names(findings: &Findings) -> Vec<(&str, &str)> {
    findings.warnings.iter().map(|pair| (&pair.one.name[..], &pair.two.name[..])).collect()
}

#[test]
fn ct100_as_published_leaks_all_of_its_test_images() {
    let Some(folder) = data("ct100", "ct100_as_published_leaks_all_of_its_test_images") else { return };
    for sources in [vec![folder.clone()], vec![folder.join("train.txt"), folder.join("test.txt")]] {
        let findings = found(&sources);
        assert_eq!(findings.leaks.len(), 20, "{findings}");
        assert!(findings.leaks.iter().all(|pair| pair.kind == Kind::SamePixels && pair.one.name == pair.two.name));
    }
}

#[test]
fn ct100_divided_by_scan_has_no_leak() {
    let Some(folder) = data("ct100", "ct100_divided_by_scan_has_no_leak") else { return };
    let findings = found(&[folder.join("split_train.txt"), folder.join("split_val.txt")]);
    assert!(findings.leaks.is_empty() && findings.warnings.is_empty(), "{findings}");
}

#[test]
fn neighbours_that_were_divided_are_warnings() {
    let Some(folder) = data("ct100", "neighbours_that_were_divided_are_warnings") else { return };
    let images = image_files(&folder.join("tr_im"));
    let split = |path: &Path| {
        let name = path.display().to_string();
        if ["0065", "0095"].iter().any(|number| name.contains(number)) { "b" } else { "a" }
    };
    let of = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        in_memory(split(path), &name, image::open(path).unwrap().into_luma8())
    };
    let findings = find(&images.iter().map(of).collect::<Vec<_>>());
    assert!(findings.leaks.is_empty(), "{findings}");
    assert_eq!(names(&findings), [("tr_im_0040", "tr_im_0065"), ("tr_im_0049", "tr_im_0095")]);
}

#[test]
fn copies_of_real_slices_are_found() {
    let Some(folder) = data("ct100", "copies_of_real_slices_are_found") else { return };
    let originals: Vec<(String, GrayImage)> = image_files(&folder.join("tr_im"))
        .iter()
        .step_by(8)
        .map(|path| (path.display().to_string(), image::open(path).unwrap().into_luma8()))
        .collect();
    assert_eq!(originals.len(), 10);
    crate::leaks::assert_copies_are_found(&originals);
}

#[test]
fn nobody_of_mosmed_is_another() {
    assert_nobody_is_another("nobody_of_mosmed_is_another", &[0]);
}

/// In these nine divisions every two people are in different splits at least once.
#[test]
#[ignore = "half a minute; make soak runs it"]
fn nobody_of_mosmed_is_another_in_any_division() {
    assert_nobody_is_another("nobody_of_mosmed_is_another_in_any_division", &[0, 1, 2, 3, 4, 5, 6, 7, 8]);
}

/// People are divided by these bits of their number, one after the other.
fn assert_nobody_is_another(test: &str, bits: &[usize]) {
    let Some(folder) = data("mosmed", test) else { return };
    let mut files = image_files(&folder.join("covid"));
    files.extend(image_files(&folder.join("normal")));
    assert_eq!(files.len(), 320);
    for &bit in bits {
        let of = |(at, path): (usize, &PathBuf)| {
            let path = path.clone();
            let (split, name) = ((at >> bit & 1).to_string(), path.display().to_string());
            let load = Box::new(move || Grey::read(&path).map_err(|error| error.to_string()));
            Candidate { split, name, patient: None, load }
        };
        let findings = find(&files.iter().enumerate().map(of).collect::<Vec<_>>());
        assert!(findings.leaks.is_empty() && findings.warnings.is_empty(), "{findings}");
        assert!(findings.unreadable.is_empty(), "{findings}");
    }
}

#[test]
fn neighbouring_slices_of_a_volume_are_warnings() {
    let Some(folder) = data("nifti", "neighbouring_slices_of_a_volume_are_warnings") else { return };
    let mut volume = Vec::new();
    let file = std::fs::File::open(folder.join("lung2_image.nii.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_end(&mut volume).unwrap();
    let hounsfield = volume[352..].chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])));
    let pixels: Vec<u8> = hounsfield.map(|hu| ((hu + 1350.0) / 1500.0 * 255.0).clamp(0.0, 255.0) as u8).collect();
    let slice = |(at, pixels): (usize, &[u8])| {
        in_memory(["even", "odd"][at % 2], &format!("{at}"), GrayImage::from_raw(512, 512, pixels.to_vec()).unwrap())
    };
    let findings = find(&pixels.chunks_exact(512 * 512).enumerate().map(slice).collect::<Vec<_>>());
    assert!(findings.leaks.is_empty(), "{findings}");
    let found = names(&findings);
    for at in 0..27usize {
        let (even, odd) = ((at + at % 2).to_string(), (at + 1 - at % 2).to_string());
        assert!(found.contains(&(&even, &odd)), "{even} {odd}: {findings}");
    }
    assert!(found.len() <= 40, "{findings}");
}

fn image_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
