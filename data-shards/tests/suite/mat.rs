//! Sound MATLAB 5 files: what is read out of them.

use std::io::Cursor;
use std::path::Path;

use data_shards::Error;
use data_shards::mat::{self, Array, Values};

use crate::mat_files::{ALL, COMPRESSED, DOUBLE, LOGICAL, PLAIN, STORAGES, UINT8, Variable, Writer, words};

pub(crate) fn read(bytes: &[u8], wanted: &[&str]) -> Result<Vec<Array>, Error> {
    mat::read_from(Cursor::new(bytes), Path::new("some/a.mat"), wanted)
}

fn one(bytes: &[u8]) -> Array {
    read(bytes, &["x"]).unwrap().remove(0)
}

/// Numbers from a multiplicative generator (Knuth's), so that neighbours differ.
fn numbers(count: usize) -> impl Iterator<Item = u32> {
    (1..=count as u32).map(|at| at.wrapping_mul(2_654_435_761) >> 8)
}

/// The two variables of a feature file: 20 times the value, as bytes.
fn features() -> [Variable<'static>; 2] {
    let values = |count| numbers(count).map(|number| number as u8).collect::<Vec<_>>();
    [
        Variable::bytes("vgg_feats", &[1, 64, 6, 8], &values(64 * 6 * 8)),
        Variable::bytes("res2net_feats", &[1, 64, 3, 4], &values(64 * 3 * 4)),
    ]
}

#[test]
fn features_come_in_the_order_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features.mat");
    let [vgg, res2net] = features();
    for writer in ALL {
        std::fs::write(&path, writer.variables(&[res2net.clone(), vgg.clone()])).unwrap();
        let arrays = mat::read(&path, &["vgg_feats", "res2net_feats"]).unwrap();
        for (array, variable) in arrays.iter().zip([&vgg, &res2net]) {
            assert_eq!((array.name.as_str(), &array.shape), (variable.name, &variable.shape));
            let expected = variable.values.iter().map(|&value| value as u8).collect();
            assert_eq!(array.values, Values::U8(expected));
            assert!(!array.values.is_empty() && array.values.len() == variable.values.len());
        }
        assert_eq!(mat::read(&path, &["vgg_feats"]).unwrap(), arrays[..1]);
        assert_eq!(mat::read(&path, &["vgg_feats", "vgg_feats"]).unwrap(), arrays[..1]);
        assert_eq!(mat::read(&path, &[]).unwrap(), []);
    }
}

#[test]
fn every_class_and_storage_in_both_byte_orders() {
    for (at, (storage, class, width)) in STORAGES.into_iter().enumerate() {
        // Odd sizes: the data needs padding, and each is packed into its tag for one of the shapes.
        for shape in [vec![1, 1], vec![1, 3], vec![3, 5, 7], vec![1, 1, 2, 1, 3, 1]] {
            let count: usize = shape.iter().product();
            let signed = [0, 2, 4, 6, 7, 8].contains(&at);
            let bits = (8 * width).min(24) as u32 - u32::from(signed);
            let value = |number: u32| {
                f64::from(number % (1 << bits)) * if signed && number.is_multiple_of(3) { -1.0 } else { 1.0 }
            };
            let values: Vec<f64> = numbers(count).map(value).collect();
            let expected: Vec<f32> = values.iter().map(|&value| value as f32).collect();
            for writer in ALL {
                // As of its own class, and as the storage that a double came to fit in.
                for class in [class, DOUBLE] {
                    let variable =
                        Variable { name: "x", class, flags: 0, shape: shape.clone(), storage, values: values.clone() };
                    let array = one(&writer.variables(&[variable]));
                    assert_eq!(array.shape, shape);
                    assert_eq!(matches!(array.values, Values::U8(_)), class == UINT8);
                    assert_eq!(array.values.into_f32(), expected, "class {class}, storage {storage}, {shape:?}");
                }
            }
        }
    }
}

#[test]
fn any_shape_in_row_major_order() {
    let mut sizes = numbers(1000).map(|number| [1, 2, 3, 4, 5, 7, 31, 33, 65, 70][number as usize % 10]);
    for round in 0..200 {
        let mut shape: Vec<usize> = sizes.by_ref().take(2 + round % 5).collect();
        while shape.iter().product::<usize>() > 20_000 {
            let largest = shape.iter_mut().max().unwrap();
            *largest = (*largest / 2).max(1);
        }
        let values: Vec<u8> = numbers(shape.iter().product()).map(|number| number as u8).collect();
        let writer = ALL[round % 4];
        let array = one(&writer.variables(&[Variable::bytes("x", &shape, &values)]));
        assert_eq!(array, Array { name: "x".to_owned(), shape, values: Values::U8(values.clone()) });
        let mut double = Variable::bytes("x", &array.shape, &values);
        double.class = DOUBLE;
        let array = one(&writer.variables(&[double]));
        assert_eq!(array.values, Values::F32(values.into_iter().map(f32::from).collect()));
    }
}

#[test]
fn more_than_one_chunk_arrives_whole() {
    let shape = [2, 300, 501];
    for (storage, class, _) in STORAGES {
        let values: Vec<f64> = numbers(300_600).map(|number| f64::from(number % 128)).collect();
        let expected: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        let variable = Variable { name: "x", class, flags: 0, shape: shape.to_vec(), storage, values };
        assert_eq!(one(&COMPRESSED.variables(&[variable])).values.into_f32(), expected);
    }
}

#[test]
fn logical_is_bytes() {
    let mut variable = Variable::bytes("x", &[2, 2], &[1, 0, 0, 1]);
    variable.flags = LOGICAL;
    assert_eq!(one(&PLAIN.variables(&[variable])).values, Values::U8(vec![1, 0, 0, 1]));
}

#[test]
fn beyond_the_range_of_f32() {
    let values = vec![1e300, -1e300, 1e-300, 0.1];
    let variable = Variable { name: "x", class: DOUBLE, flags: 0, shape: vec![1, 4], storage: 9, values };
    let expected = Values::F32(vec![f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.1]);
    assert_eq!(one(&PLAIN.variables(&[variable])).values, expected);
}

#[test]
fn empty_arrays() {
    for shape in [vec![0, 0], vec![3, 0, 2]] {
        let array = one(&COMPRESSED.variables(&[Variable::bytes("x", &shape, &[])]));
        assert_eq!(array, Array { name: "x".to_owned(), shape, values: Values::U8(Vec::new()) });
    }
}

/// A cell, a struct and the like have other arrays inside, which are not looked at.
#[test]
fn other_kinds_are_skipped() {
    for writer in ALL {
        let plain = Writer { compressed: false, ..writer };
        let rest = [plain.array(UINT8, 0, &[1, 1], b"", &plain.packed(2, &[7])), vec![0xff; 16]].concat();
        let mut elements: Vec<Vec<u8>> =
            [1, 2, 3, 4, 5, 16, 99].map(|class| writer.array(class, 0, &[1, 1], b"kind", &rest)).into();
        elements.push(writer.array(DOUBLE, 8, &[1, 1], b"complex", &rest));
        elements.push(writer.array(UINT8, 0, &[65535, 65535, 65535], b"huge", &[]));
        // An object has no dimensions, and what MATLAB keeps for it no name.
        let flags = writer.element(6, &[writer.word(17), writer.word(0)].concat());
        let object = [flags, writer.packed(1, b"object"), rest].concat();
        elements.push(writer.wrapped(&writer.element(14, &object)));
        elements.push(writer.array(UINT8, 0, &[1, 1], b"", &writer.packed(2, &[1])));
        elements.push(writer.variable(&Variable::bytes("x", &[1, 2], &[3, 4])));
        assert_eq!(one(&writer.file(&elements)).values, Values::U8(vec![3, 4]));
        let names = read(&writer.file(&elements), &["y"]).unwrap_err().to_string();
        assert!(names.ends_with("`kind`, `kind`, `complex`, `huge`, `object`, `x`"), "{names}");
    }
}

/// The format wants INT32 and INT8; scipy reads these, too, and its own tests have such files.
#[test]
fn names_and_dimensions_of_other_types() {
    let parts = [
        PLAIN.element(6, &[PLAIN.word(9), PLAIN.word(0)].concat()),
        PLAIN.element(6, &words(&[1, 2]).into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>()),
        PLAIN.element(16, b"x"),
        PLAIN.element(2, &[5, 6]),
    ];
    let array = one(&PLAIN.file(&[PLAIN.element(14, &parts.concat())]));
    assert_eq!(array.values, Values::U8(vec![5, 6]));
}

#[test]
fn the_last_padding_may_be_absent() {
    let mut element = PLAIN.variable(&Variable::bytes("x", &[1, 5], &[1, 2, 3, 4, 5]));
    element.truncate(element.len() - 3);
    let length = element.len() as u32 - 8;
    element[4..8].copy_from_slice(&length.to_le_bytes());
    for writer in [PLAIN, COMPRESSED] {
        assert_eq!(one(&writer.file(&[writer.wrapped(&element)])).values, Values::U8(vec![1, 2, 3, 4, 5]));
    }
}
