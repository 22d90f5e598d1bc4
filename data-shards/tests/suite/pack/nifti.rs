//! NIfTI volumes, written byte by byte.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use data_shards::pack::{Options, PackError, Why, Window};

use super::{options, packed, try_pack};

/// A volume; the affine's rows are those of the header's sform.
pub(super) struct Volume {
    pub(super) dims: [usize; 3],
    pub(super) affine: [[f32; 4]; 3],
    pub(super) slope: f32,
    pub(super) intercept: f32,
    /// The first dimension runs fastest.
    pub(super) values: Vec<i16>,
}

/// Columns to the left, rows to the back, slices to the head, of 1 mm.
pub(super) const SHOWN: [[f32; 4]; 3] = [[-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];

impl Volume {
    pub(super) fn new(dims: [usize; 3], value: impl Fn(usize, usize, usize) -> i16) -> Volume {
        let mut values = Vec::new();
        for k in 0..dims[2] {
            for j in 0..dims[1] {
                values.extend((0..dims[0]).map(|i| value(i, j, k)));
            }
        }
        Volume { dims, affine: SHOWN, slope: 0.0, intercept: 0.0, values }
    }

    pub(super) fn bytes(&self, big_endian: bool) -> Vec<u8> {
        let mut file = vec![0; 352];
        let mut put = |at: usize, mut bytes: Vec<u8>| {
            if big_endian {
                bytes.reverse();
            }
            file[at..at + bytes.len()].copy_from_slice(&bytes);
        };
        put(0, 348i32.to_le_bytes().to_vec());
        let dims = [3, self.dims[0], self.dims[1], self.dims[2], 1, 1, 1, 1];
        dims.iter().enumerate().for_each(|(at, dim)| put(40 + 2 * at, (*dim as i16).to_le_bytes().to_vec()));
        put(70, 4i16.to_le_bytes().to_vec());
        put(72, 16i16.to_le_bytes().to_vec());
        (0..4).for_each(|at| put(76 + 4 * at, 1f32.to_le_bytes().to_vec()));
        put(108, 352f32.to_le_bytes().to_vec());
        put(112, self.slope.to_le_bytes().to_vec());
        put(116, self.intercept.to_le_bytes().to_vec());
        put(254, 1i16.to_le_bytes().to_vec());
        for (row, values) in self.affine.iter().enumerate() {
            values
                .iter()
                .enumerate()
                .for_each(|(at, value)| put(280 + 16 * row + 4 * at, value.to_le_bytes().to_vec()));
        }
        file[344..348].copy_from_slice(b"n+1\0");
        let word = |value: &i16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        file.extend(self.values.iter().flat_map(word));
        file
    }

    pub(super) fn write(&self, path: &Path) {
        fs::write(path, self.bytes(false)).unwrap();
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A window in which a value is its own grey.
pub(super) fn plain() -> Options {
    Options { window: Window { level: 127.5, width: 255.0 }, ..options() }
}

fn value(i: usize, j: usize, k: usize) -> i16 {
    (i + 10 * j + 50 * k) as i16
}

#[test]
fn slices_are_windowed_and_in_their_order() {
    for (name, big_endian) in [("a.nii", false), ("a.nii.gz", false), ("a.nii", true), ("a.nii.gz", true)] {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir(&source).unwrap();
        let volume = Volume { slope: 2.0, intercept: -100.0, ..Volume::new([5, 4, 3], value) };
        let bytes = volume.bytes(big_endian);
        fs::write(source.join(name), if name.ends_with("gz") { gzipped(&bytes) } else { bytes }).unwrap();
        let options = Options { window: Window { level: 0.0, width: 200.0 }, ..options() };
        let (_, samples) = packed(&source, &folder.path().join("out"), &options);
        assert_eq!(samples.len(), 3);
        for (k, sample) in samples.iter().enumerate() {
            let grey = |at: usize| {
                let hu = 2.0 * f64::from(value(at % 5, at / 5, k)) - 100.0;
                ((hu + 100.0) / 200.0 * 255.0).round().clamp(0.0, 255.0) as u8
            };
            assert_eq!(sample.grey(), (0..20).map(grey).collect::<Vec<_>>(), "{name} {big_endian} {k}");
            assert_eq!(
                (sample.facts()["slice"].as_u64(), sample.facts()["slices"].as_u64()),
                (Some(k as u64), Some(3))
            );
        }
    }
}

#[test]
fn a_sagittal_volume_is_shown_in_axial_slices() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    // Voxel axes run to the back, to the feet and to the right.
    let affine = [[0.0, 0.0, 3.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -2.0, 0.0, 0.0]];
    Volume { affine, ..Volume::new([5, 4, 3], value) }.write(&source.join("a.nii"));
    let (_, samples) = packed(&source, &folder.path().join("out"), &plain());
    assert_eq!(samples.len(), 4);
    for (slice, sample) in samples.iter().enumerate() {
        assert_eq!((sample.image().width(), sample.image().height()), (3, 5));
        let expected = |at: usize| value(at / 3, 3 - slice, 2 - at % 3) as u8;
        assert_eq!(sample.grey(), (0..15).map(expected).collect::<Vec<_>>());
        assert_eq!(sample.facts()["spacing"], serde_json::json!([3.0, 1.0, 2.0]));
    }
}

#[test]
fn masks_are_found_by_name_and_resampled_by_place() {
    let folder = tempfile::tempdir().unwrap();
    let (source, masks) = (folder.path().join("source"), folder.path().join("masks"));
    [&source, &masks].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    Volume::new([6, 4, 3], value).write(&source.join("case1_image.nii"));
    Volume::new([6, 4, 3], value).write(&source.join("case2_image.nii"));
    // The same place, stored the other way round along the first axis.
    let affine = [[1.0, 0.0, 0.0, -5.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]];
    Volume { affine, ..Volume::new([6, 4, 3], |i, j, k| i16::from((i, j, k) == (1, 2, 2))) }
        .write(&masks.join("case1_label.nii"));
    let with_masks = |values: Option<&str>| Options {
        masks: Some(masks.clone()),
        mask_values: values.map(|values| values.parse().unwrap()),
        ..plain()
    };
    let error = try_pack(&source, &folder.path().join("refused"), &with_masks(None)).unwrap_err();
    assert!(matches!(error, PackError::MaskValues { .. }), "{error}");
    assert!(
        error.to_string().contains("these masks hold 0,1;") && error.to_string().contains("--mask-values 1"),
        "{error}"
    );
    let (report, samples) = packed(&source, &folder.path().join("out"), &with_masks(Some("1")));
    assert_eq!((samples.len(), report.splits[0].masks), (6, 3));
    let lesions: Vec<(u64, usize)> = samples
        .iter()
        .filter_map(|sample| {
            Some((sample.facts()["slice"].as_u64()?, sample.mask()?.iter().position(|at| *at == 255)?))
        })
        .collect();
    assert_eq!(lesions, [(2, 2 * 6 + 4)]);
}

#[test]
fn a_coarser_mask_of_a_part_is_nearest_and_ends_where_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (source, masks) = (folder.path().join("source"), folder.path().join("masks"));
    [&source, &masks].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    Volume::new([4, 4, 4], value).write(&source.join("a.nii"));
    // Voxels of 2 mm whose first lies between the first two of the volume; the last slice is beyond it.
    let affine = [[-2.0, 0.0, 0.0, -0.5], [0.0, -2.0, 0.0, -0.5], [0.0, 0.0, 1.0, 0.0]];
    let mask = Volume::new([2, 2, 3], |i, j, k| if (i, j, k) == (1, 0, 1) { 255 } else { 0 });
    Volume { affine, ..mask }.write(&masks.join("a.nii"));
    let (_, samples) = packed(&source, &folder.path().join("out"), &Options { masks: Some(masks), ..plain() });
    let masks: Vec<Option<Vec<u8>>> = samples.iter().map(super::Read::mask).collect();
    let lesion = vec![0, 0, 255, 255, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(masks, [Some(vec![0; 16]), Some(lesion), Some(vec![0; 16]), None]);
}

#[test]
fn a_mask_from_elsewhere_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (source, masks) = (folder.path().join("source"), folder.path().join("masks"));
    [&source, &masks].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    Volume::new([4, 4, 2], value).write(&source.join("a.nii"));
    let affine = [[-1.0, 0.0, 0.0, 900.0], SHOWN[1], SHOWN[2]];
    Volume { affine, ..Volume::new([4, 4, 2], |_, _, _| 255) }.write(&masks.join("a.nii"));
    let (report, samples) = packed(&source, &folder.path().join("out"), &Options { masks: Some(masks), ..plain() });
    assert!(samples.iter().all(|sample| sample.mask().is_none()));
    assert_eq!((report.left_out.len(), report.left_out[0].why), (1, Why::Mask));
    assert!(report.left_out[0].reason.contains("lies nowhere in its volume"), "{}", report.left_out[0]);
}
