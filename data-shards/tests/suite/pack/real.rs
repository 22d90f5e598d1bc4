//! Real data, where it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use data_shards::pack::{Options, PackError};

use super::{Read, options, packed, try_all, try_pack};

fn data(name: &str, test: &str) -> Option<PathBuf> {
    end_to_end::skip::data(test, name)
}

fn kept() -> Options {
    Options { keep_ids: true, ..options() }
}

fn file(sample: &Read) -> String {
    sample.facts()["file"].as_str().unwrap().to_owned()
}

#[test]
fn ct100_comes_back_as_it_was() {
    let Some(source) = data("ct100", "ct100_comes_back_as_it_was") else { return };
    let folder = tempfile::tempdir().unwrap();
    let error = try_pack(&source, &folder.path().join("refused"), &kept()).unwrap_err();
    assert!(matches!(error, PackError::Leaks { count: 20, .. }) && error.is_input(), "{error}");
    let published = fs::read_to_string(source.join("test.txt")).unwrap();
    let tested: Vec<&str> = published.split_whitespace().step_by(2).collect();
    assert!(tested.len() == 20 && tested.iter().all(|image| error.to_string().contains(image)), "{error}");
    let (report, samples) = packed(&source, &folder.path().join("out"), &Options { allow_leaks: true, ..kept() });
    assert_eq!(report.splits.iter().map(|split| split.samples).collect::<Vec<_>>(), [79, 20]);
    assert!(report.left_out.is_empty(), "{:?}", report.left_out);
    for sample in &samples {
        let image = file(sample);
        let mask = image.replace("tr_im", "tr_mask").replacen("tr_mask", "tr_mask_new", 1);
        assert_eq!(sample.image(), image::open(source.join(&image)).unwrap());
        let drawn = image::open(source.join(mask)).unwrap().into_rgb8();
        let lesion = |pixel: &image::Rgb<u8>| if pixel.0 == [255; 3] { 255 } else { 0 };
        assert_eq!(sample.mask().unwrap(), drawn.pixels().map(lesion).collect::<Vec<u8>>());
    }
    let lists = ["split_train.txt", "split_val.txt"].map(|name| source.join(name));
    let report = try_all(&lists, &folder.path().join("split"), &kept()).unwrap();
    assert_eq!(report.splits.iter().map(|split| split.samples).collect::<Vec<_>>(), [64, 15]);
}

#[test]
fn mosmed_comes_back_as_it_was() {
    let Some(source) = data("mosmed", "mosmed_comes_back_as_it_was") else { return };
    let folder = tempfile::tempdir().unwrap();
    let split = Some("train=0.8,val=0.1,test=0.1".parse().unwrap());
    let (report, samples) = packed(&source, &folder.path().join("out"), &Options { split, ..kept() });
    assert_eq!((samples.len(), report.patients, report.left_out.len()), (320, 320, 0));
    let table = fs::read_to_string(source.join("labels.csv")).unwrap();
    let rows: std::collections::BTreeSet<&str> = table.lines().collect();
    assert_eq!(report.splits.iter().fold([0, 0], |[p, n], s| [p + s.labels[0], n + s.labels[1]]), [160, 160]);
    for sample in &samples {
        assert_eq!(sample.image(), image::open(source.join(file(sample))).unwrap());
        let row =
            format!("{},{},{}", file(sample), u8::from(sample.label.unwrap()), sample.patient.as_deref().unwrap());
        assert!(rows.contains(row.as_str()), "{row}");
    }
}

#[test]
fn dicom_comes_back_through_the_window() {
    let Some(source) = data("dicom", "dicom_comes_back_through_the_window") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (report, samples) = packed(&source, &folder.path().join("out"), &kept());
    assert_eq!(samples.len() + report.left_out.len(), 3, "{:?}", report.left_out);
    let mut sizes: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for sample in &samples {
        *sizes.entry((sample.image().width(), sample.image().height())).or_default() += 1;
    }
    assert!(sizes.contains_key(&(512, 512)) && sizes.contains_key(&(128, 128)), "{sizes:?}");
    // Against dicom-rs's own reader, which knows nothing of ours.
    for path in ["lungmask_chest_2files/0.dcm", "pydicom/CT_small.dcm"] {
        let object = dicom_object::open_file(source.join(path)).unwrap();
        let number = |name: &str| object.element_by_name(name).unwrap().to_float64().unwrap();
        let [slope, intercept] = ["RescaleSlope", "RescaleIntercept"].map(number);
        let signed = number("PixelRepresentation") == 1.0;
        let words = object.element_by_name("PixelData").unwrap().to_multi_int::<u16>().unwrap();
        let hu = |word: u16| slope * if signed { f64::from(word as i16) } else { f64::from(word) } + intercept;
        let greys: Vec<u8> = words
            .into_iter()
            .map(|word| ((hu(word) + 1350.0) / 1500.0 * 255.0).round().clamp(0.0, 255.0) as u8)
            .collect();
        assert!(samples.iter().any(|sample| sample.grey() == greys), "{path}");
    }
}

#[test]
fn nifti_comes_back_through_the_window() {
    use std::io::Read as _;
    let Some(source) = data("nifti", "nifti_comes_back_through_the_window") else { return };
    let folder = tempfile::tempdir().unwrap();
    let options = Options { masks: Some(source.clone()), ..kept() };
    let error = try_pack(&source, &folder.path().join("refused"), &options).unwrap_err();
    assert!(error.to_string().contains("--mask-values 1"), "{error}");
    let options = Options { mask_values: Some("1".parse().unwrap()), ..options };
    let (report, samples) = packed(&source, &folder.path().join("out"), &options);
    assert_eq!((samples.len(), report.splits[0].masks, report.left_out.len()), (28, 28, 0));
    let voxels = |name: &str| {
        let mut bytes = Vec::new();
        let file = fs::File::open(source.join(name)).unwrap();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        bytes.split_off(352)
    };
    let (image, mask) = (voxels("lung2_image.nii.gz"), voxels("lung2_label.nii.gz"));
    // The file is stored as it is shown: 512 x 512 x 28, int16 in HU; the mask in bytes.
    let hu: Vec<i16> = image.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect();
    for (sample, (hu, mask)) in samples.iter().zip(hu.chunks_exact(512 * 512).zip(mask.chunks_exact(512 * 512))) {
        let grey = |hu: &i16| ((f64::from(*hu) + 1350.0) / 1500.0 * 255.0).round().clamp(0.0, 255.0) as u8;
        assert_eq!(sample.grey(), hu.iter().map(grey).collect::<Vec<_>>());
        assert_eq!(sample.mask().unwrap(), mask.iter().map(|value| 255 * value).collect::<Vec<_>>());
    }
}
