//! Views, their storages and the memory they may take.

use pth::{Dtype, Error};

use crate::support::*;

/// Offset, shape and strides.
type View<'a> = (i64, &'a [i64], &'a [i64]);

#[test]
fn views() {
    let cases: [(View, &[u8]); 11] = [
        ((0, &[2, 2], &[2, 1]), &[1, 2, 3, 4]),
        ((0, &[2, 2], &[1, 2]), &[1, 3, 2, 4]),
        ((1, &[3], &[1]), &[2, 3, 4]),
        ((1, &[2], &[2]), &[2, 4]),
        ((3, &[], &[]), &[4]),
        ((1, &[2, 3], &[0, 1]), &[2, 3, 4, 2, 3, 4]),
        ((2, &[2, 2, 2], &[0, 1, 0]), &[3, 3, 4, 4, 3, 3, 4, 4]),
        ((0, &[1, 4, 1], &[77, 1, 99]), &[1, 2, 3, 4]),
        ((0, &[2, 1, 2], &[2, 5, 1]), &[1, 2, 3, 4]),
        ((9, &[2, 0], &[5, 5]), &[]),
        ((0, &[1 << 40, 1 << 40, 0], &[0, 0, 0]), &[]),
    ];
    for ((offset, shape, strides), data) in cases {
        let lengths: Vec<usize> = shape.iter().map(|length| *length as usize).collect();
        let read = pth::from_bytes(&bytes_view(offset, shape, strides)).unwrap();
        assert_eq!(read, [tensor("w", Dtype::U8, &lengths, data)], "{shape:?} by {strides:?} from {offset}");
    }
}

#[test]
fn views_that_cannot_be() {
    let big = i64::MAX;
    let cases: [(View, &str); 11] = [
        ((1, &[4], &[1]), "has shape [4] and strides [1] from 1, outside its storage of 4 elements"),
        ((0, &[2, 2], &[3, 1]), "has shape [2, 2] and strides [3, 1] from 0, outside its storage of 4 elements"),
        ((4, &[], &[]), "has shape [] and strides [] from 4, outside its storage of 4 elements"),
        (
            (big, &[1], &[1]),
            "has shape [1] and strides [1] from 9223372036854775807, outside its storage of 4 elements",
        ),
        (
            (0, &[3, 3], &[big, big]),
            "has shape [3, 3] and strides [9223372036854775807, 9223372036854775807] from 0, outside its storage of 4 \
            elements",
        ),
        ((0, &[2], &[]), "has shape [2] but strides []"),
        ((0, &[-1], &[1]), "has -1 in its shape"),
        ((0, &[1], &[-1]), "has -1 in its strides"),
        ((0, &[big, big], &[0, 0]), "has shape [9223372036854775807, 9223372036854775807], too many elements to count"),
        ((0, &[1; 65], &[1; 65]), "has 65 dimensions, at most 64 are allowed"),
        ((0, &[5, 1], &[1, 1]), "has shape [5, 1] and strides [1, 1] from 0, outside its storage of 4 elements"),
    ];
    for ((offset, shape, strides), problem) in cases {
        let error = fails(&bytes_view(offset, shape, strides), &format!("tensor `w` {problem}"));
        assert!(matches!(error, Error::Tensor { .. }));
    }
    let negative = bytes_view(-1, &[1], &[1]);
    assert!(pth::from_bytes(&negative).unwrap_err().to_string().ends_with("a tensor's offset is -1"));
}

#[test]
fn memory_is_bounded_by_the_file() {
    let limit = |file: &[u8]| 4 * file.len() + (1 << 20);
    let message = |name: &str, bytes: usize, file: &[u8]| {
        format!(
            "tensor `{name}` brings the tensors to {bytes} bytes, allowed are {} (4 x the file and 1 MiB); save expanded \
            tensors as `tensor.clone()`, or fewer that share a storage",
            limit(file)
        )
    };
    let file = bytes_view(0, &[1 << 60], &[0]);
    fails(&file, &message("w", 1 << 60, &file));
    let allowed = limit(&bytes_view(0, &[1], &[0])) as i64;
    assert_eq!(pth::from_bytes(&bytes_view(0, &[allowed], &[0])).unwrap()[0].data.len(), allowed as usize);
    let file = bytes_view(0, &[allowed + 1], &[0]);
    fails(&file, &message("w", allowed as usize + 1, &file));
    // The sum counts, not each alone; counted in bytes, not elements.
    let half = view(&storage("DoubleStorage", "0", 1), 0, &[70_000], &[0]);
    let file = new(&pickle(&dict(&[("a", &half), ("b", &half)])), &[("0", &[0; 8])]);
    fails(&file, &message("b", 1_120_000, &file));
    assert_eq!(pth::tensor_limit(usize::MAX), usize::MAX);
}

#[test]
fn storages_of_an_archive() {
    let object = single(&view(&storage("FloatStorage", "k", 2), 0, &[1], &[1]));
    fails(&new(&object, &[("k", &[0; 7])]), "storage `k` should have 8 bytes, its entry has 7");
    fails(&new(&object, &[("k", &[0; 9])]), "storage `k` should have 8 bytes, its entry has 9");
    let object = single(&view(&storage("FloatStorage", "k", i64::MAX), 0, &[1], &[1]));
    fails(&new(&object, &[("k", &[0; 8])]), "storage `k` should have 36893488147419103228 bytes, its entry has 8");
    let other = view(&storage("CharStorage", "0", 2), 0, &[2], &[1]);
    let file = new(&pickle(&dict(&[("a", &seven("0")), ("b", &other)])), &[("0", &[7, 8])]);
    let error = pth::from_bytes(&file).unwrap_err();
    assert!(error.to_string().ends_with("storage `0` has two types or lengths"), "{error}");
}

#[test]
fn storages_of_the_format_before_1_6() {
    let object = single(&seven("k"));
    let file = |storages: &[(&str, i64, &[u8])]| old(&object, storages);
    assert_eq!(pth::from_bytes(&file(&[("k", 2, &[7, 8])])).unwrap(), [bytes("w", &[7, 8])]);
    fails(&file(&[("k", 2, &[7])]), "storage `k` is cut short, 2 bytes expected, 1 left; fetch the file again");
    fails(&file(&[("k", 3, &[7, 8])]), "storage `k` should have 2 elements, but 3 are said to follow");
    fails(&file(&[("k", -1, &[7, 8])]), "storage `k` should have 2 elements, but -1 are said to follow");
    fails(&file(&[("k", 2, &[7, 8, 9])]), "1 bytes follow the last storage; fetch or save the file again");
    fails(&file(&[("j", 2, &[7, 8])]), "storage `j` is in the file's list, but no tensor has it");
    fails(&file(&[]), "storage `k` is not in the file's list");
    fails(&file(&[("k", 2, &[7, 8]), ("k", 2, &[7, 8])]), "storage `k` is twice in the file's list");
    let whole = file(&[("k", 2, &[7, 8])]);
    let message = "storage `k` is cut short; fetch or save the file again";
    fails(&whole[..whole.len() - 3], message);
    for length in 15..whole.len() {
        assert!(pth::from_bytes(&whole[..length]).is_err(), "cut at {length}");
    }
    let keys = |list: &[u8]| [MAGIC, VERSION, SYSTEM, &object, list].concat();
    let at = keys(b"").len() + 4;
    fails(&keys(b"\x80\x02}."), &format!("the list of storages, byte {at}: a list of keys was expected, found a dict"));
    let at = at + 2;
    fails(&keys(b"\x80\x02]Na."), &format!("the list of storages, byte {at}: a key is a string, found None"));
    // No reader could skip or allocate this one.
    let object = single(&view(&storage("LongStorage", "k", i64::MAX), 0, &[1], &[1]));
    let message = "storage `k` is cut short, 73786976294838206456 bytes expected, 8 left; fetch the file again";
    fails(&old(&object, &[("k", i64::MAX, &[0; 8])]), message);
}

#[test]
fn parts_of_storages() {
    let part = |part: &[u8]| {
        let id =
            [b"(", &text("storage")[..], b"ctorch\nByteStorage\n", &text("k"), &text("cpu"), b"K\x04", part, b"tQ"];
        old(&single(&view(&id.concat(), 1, &[1], &[1])), &[("k", 4, &[1, 2, 3, 4])])
    };
    assert_eq!(pth::from_bytes(&part(b"N")).unwrap(), [bytes("w", &[2])]);
    assert_eq!(pth::from_bytes(&part(b"X\x01\0\0\0pK\x02K\x02\x87")).unwrap(), [bytes("w", &[4])]);
    let wrong = "a part of a storage is None or (key, first, elements) within its 4 elements";
    let cases: [&[u8]; 5] = [
        b"X\x01\0\0\0pK\x02K\x03\x87",
        b"X\x01\0\0\0pJ\xff\xff\xff\xffK\x01\x87",
        b"X\x01\0\0\0p\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x87",
        b")",
        b"K\x01",
    ];
    for case in cases {
        let error = pth::from_bytes(&part(case)).unwrap_err();
        assert!(error.to_string().ends_with(wrong), "{error}");
    }
    let short = part(b"X\x01\0\0\0pK\x02K\x01\x87");
    fails(&short, "tensor `w` has shape [1] and strides [1] from 1, outside its storage of 1 elements");
}

#[test]
fn versions_and_byte_orders_of_the_format_before_1_6() {
    let rest = pickle(b"}");
    let file = |version: &[u8], system: &[u8]| [MAGIC, version, system, &rest[..], b"\x80\x02]."].concat();
    assert_eq!(pth::from_bytes(&file(VERSION, SYSTEM)).unwrap(), []);
    fails(
        &file(b"\x80\x02M\xea\x03.", SYSTEM),
        "the protocol version is 1002, expected 1001; save the file again with a newer PyTorch",
    );
    fails(
        &file(b"\x80\x02N.", SYSTEM),
        "the protocol version is None, expected 1001; save the file again with a newer PyTorch",
    );
    fails(
        &file(VERSION, b"\x80\x02}X\x0d\0\0\0little_endian\x89s."),
        "the system information says that the file is big-endian; save it again on a little-endian machine",
    );
}
