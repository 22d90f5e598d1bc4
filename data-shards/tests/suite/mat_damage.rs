//! MATLAB files that are damaged, hostile or of another kind.

use std::path::Path;
use std::process::Command;

use data_shards::{Error, mat};

use crate::mat::read;
use crate::mat_files::{ALL, COMPLEX, COMPRESSED, DOUBLE, PLAIN, UINT8, Variable, zlib};

fn message(bytes: &[u8]) -> String {
    read(bytes, &["x"]).unwrap_err().to_string()
}

/// Two variables, so that damage to what is not wanted is seen, too.
fn small() -> [Variable<'static>; 2] {
    let values: Vec<u8> = (0..30).map(|at| at * 7 % 31).collect();
    let double = Variable { class: DOUBLE, ..Variable::bytes("other", &[1, 3], &[1, 2, 3]) };
    [Variable::bytes("x", &[1, 2, 3, 5], &values), double]
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for writer in ALL {
        let bytes = writer.variables(&small());
        let first = writer.variables(&small()[..1]).len();
        let whole = read(&bytes, &["x", "other"]).unwrap();
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            let error = read(cut, &["x", "other"]).unwrap_err();
            let expected = match error {
                Error::MatVersion { .. } => length < 128,
                Error::MatMissing { .. } => length == 128 || length == first,
                Error::MatDamaged { .. } => length > 128,
                _ => false,
            };
            assert!(expected, "{length} of {} bytes: {error}", bytes.len());
            // Without a hole in what is there, what is there counts.
            assert_eq!(read(cut, &["x"]).ok(), (length == first).then(|| vec![whole[0].clone()]), "{length}");
        }
    }
}

#[test]
fn no_byte_changed_anywhere_is_a_panic() {
    for writer in ALL {
        let bytes = writer.variables(&small());
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at] ^ 0x10] {
                let mut changed = bytes.clone();
                changed[at] = value;
                for array in read(&changed, &["x", "other"]).into_iter().flatten() {
                    assert_eq!(array.shape.iter().product::<usize>(), array.values.len());
                }
            }
        }
    }
}

/// In a small array the checksum is at hand with the last value, in a large one it comes later.
#[test]
fn compressed_values_with_another_checksum() {
    for size in [5, 300_000] {
        let values: Vec<u8> = (0..size).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut bytes = COMPRESSED.variables(&[Variable::bytes("x", &[1, values.len()], &values)]);
        assert!(read(&bytes, &["x"]).is_ok());
        *bytes.last_mut().unwrap() ^= 1;
        let error = message(&bytes);
        assert!(error.contains("a.mat: the variable at byte 128 is damaged: cannot decompress"), "{size}: {error}");
    }
}

#[test]
fn files_of_other_versions() {
    let plain = PLAIN.variables(&small());
    let with = |at: usize, text: &[u8]| {
        let mut bytes = plain.clone();
        bytes.resize(1024, 0);
        bytes[at..at + text.len()].copy_from_slice(text);
        bytes
    };
    // scipy.io.savemat(file, {"x": numpy.eye(2)}, format="4"), its first 24 bytes: type 0, 2 rows, 2 columns, real, "x\0".
    let words = [0, 2, 2, 0, 2, 0x78_u32];
    let old = words.map(u32::to_le_bytes).concat();
    let old_big = [1000, 2, 2, 0, 2, 0x7800_0000].map(u32::to_be_bytes).concat();
    for (bytes, found) in [
        (with(0, b"\x89HDF\r\n\x1a\n"), "a MATLAB 7.3 file, which is HDF5-based"),
        (with(512, b"\x89HDF\r\n\x1a\n"), "a MATLAB 7.3 file, which is HDF5-based"),
        (with(0, b"MATLAB 7.3 MAT-file, Platform: GLNXA64"), "a MATLAB 7.3 file, which is HDF5-based"),
        (old, "a MATLAB 4 file"),
        (old_big, "a MATLAB 4 file"),
        (with(124, b"\x00\x03IM"), "a MATLAB file of an unknown version"),
        (plain[..127].to_vec(), "a MATLAB 5 file cut short in its header"),
        (vec![0; 4096], "no MATLAB file"),
        (b"\x89PNG\r\n\x1a\n".repeat(40), "no MATLAB file"),
        (Vec::new(), "no MATLAB file"),
    ] {
        let rest = "expected a MATLAB 5 file: save it again with `save -v7` (or scipy.io.savemat)";
        assert_eq!(message(&bytes), format!("some/a.mat: {found}; {rest}"));
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path(), &folder.path().join("none.mat")] {
        assert!(matches!(mat::read(path, &["x"]), Err(Error::Read { .. })), "{}", path.display());
    }
}

#[test]
fn a_variable_that_is_missing() {
    let error = read(&COMPRESSED.variables(&small()), &["x", "vgg_feats"]).unwrap_err().to_string();
    assert_eq!(error, "some/a.mat: there is no variable `vgg_feats`; the file holds `x`, `other`");
    assert!(message(&PLAIN.file(&[])).ends_with("there is no variable `x`; the file holds none"));
    // Names are printed, and may be anything.
    let element = PLAIN.array(UINT8, 0, &[1, 1], b"a\x1b[2J\xff", &[]);
    let error = message(&PLAIN.file(&vec![element; 23]));
    assert!(error.contains("the file holds `a\\u{1b}[2J\u{fffd}`, `a") && error.ends_with("` and 3 more"), "{error}");
}

#[test]
fn two_variables_of_one_name() {
    let [x, other] = small();
    assert!(message(&COMPRESSED.variables(&[x.clone(), other.clone(), x])).contains("there are two variables `x`"));
    let [x, other] = [x_of(2), other];
    read(&COMPRESSED.variables(&[other.clone(), x, other]), &["x"]).unwrap();
}

fn x_of(values: u8) -> Variable<'static> {
    Variable::bytes("x", &[1, usize::from(values)], &vec![1; usize::from(values)])
}

#[test]
fn variables_of_other_kinds() {
    for (class, flags, kind) in [
        (1, 0, "a cell array"),
        (2, 0, "a struct"),
        (3, 0, "an object"),
        (4, 0, "text"),
        (5, 0, "a sparse matrix"),
        (16, 0, "a function handle"),
        (0, 0, "of an unknown class"),
        (DOUBLE, COMPLEX, "an array of complex numbers"),
        (UINT8, COMPLEX, "an array of complex numbers"),
    ] {
        for writer in ALL {
            let error = message(&writer.file(&[writer.array(class, flags, &[1, 1], b"x", &[0; 16])]));
            assert_eq!(error, format!("some/a.mat: variable `x` is {kind}; expected an array of real numbers"));
        }
    }
}

#[test]
fn arrays_beyond_the_limit() {
    for (class, shape, large) in [
        (UINT8, vec![1 << 15, 1 << 15], false),
        (UINT8, vec![1 << 15, (1 << 15) + 1], true),
        (DOUBLE, vec![1 << 14, 1 << 14], false),
        (DOUBLE, vec![1 << 14, (1 << 14) + 1], true),
        (UINT8, vec![0x7fff_ffff; 40], true),
    ] {
        for writer in ALL {
            // As many bytes are declared as the length of an element can say; none are there.
            let rest = [writer.word(2), writer.word(u32::MAX)].concat();
            let error = read(&writer.file(&[writer.array(class, 0, &shape, b"x", &rest)]), &["x"]).unwrap_err();
            assert_eq!(matches!(error, Error::MatTooLarge { .. }), large, "{shape:?}: {error}");
            assert_eq!(matches!(error, Error::MatDamaged { .. }), !large, "{shape:?}: {error}");
        }
    }
    let error = message(&PLAIN.file(&[PLAIN.array(UINT8, 0, &[65536, 65536], b"x", &[])]));
    assert!(error.contains("`x` is [65536, 65536], which takes more than the 1073741824 bytes"), "{error}");
}

/// A gibibyte is declared, and the lengths agree, but most of the data is absent. The test runs itself where there is not
/// so much address space.
#[test]
fn sizes_that_are_only_declared() {
    const LIMITED: &str = "DATA_SHARDS_TEST_LIMITED";
    if std::env::var_os(LIMITED).is_none() {
        let run = "ulimit -v 800000 && exec \"$0\" --exact mat_damage::sizes_that_are_only_declared";
        let this = std::env::current_exe().unwrap();
        let done = Command::new("sh").args(["-c", run]).arg(this).env(LIMITED, "").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let size = 1_u32 << 30;
    let tag = [2_u32, size].map(u32::to_le_bytes).concat();
    let element = PLAIN.array(UINT8, 0, &[1 << 15, 1 << 15], b"x", &tag);
    let length = size + element.len() as u32 - 8;
    let element = [&element[..4], &length.to_le_bytes(), &element[8..], &[0; 200_000]].concat();
    let error = message(&PLAIN.file(std::slice::from_ref(&element)));
    assert!(error.contains("bytes are declared where there is room for"), "{error}");
    let error = message(&COMPRESSED.file(&[COMPRESSED.wrapped(&element)]));
    assert!(error.contains("its data ends early"), "{error}");
}

#[test]
fn damaged_variables() {
    let flags = PLAIN.element(6, &[PLAIN.word(9), PLAIN.word(0)].concat());
    let shape = PLAIN.element(5, &[PLAIN.word(1), PLAIN.word(2)].concat());
    let name = PLAIN.packed(1, b"x");
    let array = |parts: &[&[u8]]| PLAIN.element(14, &parts.concat());
    let data = PLAIN.packed(2, &[5, 6]);
    let sound = array(&[&flags, &shape, &name, &data]);
    assert!(read(&PLAIN.file(std::slice::from_ref(&sound)), &["x"]).is_ok());
    let compressed = |bytes: &[u8]| COMPRESSED.wrapped(bytes);
    let negative = PLAIN.element(5, &[PLAIN.word(1), PLAIN.word(u32::MAX)].concat());
    let many = PLAIN.element(5, &[1, 0, 0, 0].repeat(65));
    for (element, problem) in [
        (PLAIN.element(2, &[1; 8]), "data of type 2; expected an array"),
        (compressed(&PLAIN.element(2, &[1; 8])), "compressed data of type 2; expected an array"),
        (compressed(&compressed(&sound)), "compressed data of type 15; expected an array"),
        (PLAIN.element(14, &[]), "4 more bytes are needed, but 0 are left"),
        (array(&[&shape]), "expected array flags, found 8 bytes of type 5"),
        (array(&[&PLAIN.element(6, &[9; 16])]), "expected array flags, found 16 bytes of type 6"),
        (array(&[&flags, &name]), "expected dimensions, found 1 bytes of type 1"),
        (array(&[&flags, &PLAIN.packed(5, &[1, 0, 0, 0])]), "expected dimensions, found 4 bytes of type 5"),
        (array(&[&flags, &many]), "expected dimensions, found 260 bytes of type 5"),
        (array(&[&flags, &negative]), "a dimension is negative"),
        (array(&[&flags, &shape, &data]), "expected a name, found 2 bytes of type 2"),
        (array(&[&flags, &shape, &PLAIN.element(1, &[b'x'; 257])]), "expected a name, found 257 bytes of type 1"),
        (array(&[&flags, &shape, &name]), "4 more bytes are needed, but 0 are left"),
        (array(&[&flags, &shape, &name, &PLAIN.packed(1, &[5, 6])]), "values of class 9 stored as type 1"),
        (
            array(&[&flags, &shape, &name, &PLAIN.packed(2, &[5])]),
            "2 values of 1 bytes do not take the 1 bytes declared",
        ),
        (
            array(&[&flags, &shape, &name, &PLAIN.packed(2, &[5, 6, 7])]),
            "2 values of 1 bytes do not take the 3 bytes declared",
        ),
        (array(&[&flags, &shape, &name, &[2, 0, 9, 0, 5, 6, 0, 0]]), "9 bytes are declared where there is room for 4"),
        (array(&[&flags, &shape, &name, &[2, 0, 0, 0, 2, 0, 0, 0]]), "2 bytes are declared where there is room for 0"),
        (array(&[&flags, &shape, &name, &data, &data]), "8 bytes follow its values"),
        (compressed(&[&sound[..], &sound].concat()), "more data than its array follows"),
        (compressed(&sound[..sound.len() - 4]), "its data ends early"),
        (PLAIN.element(15, b"no zlib at all.."), "cannot decompress: corrupt deflate stream"),
        (PLAIN.element(15, &zlib(&sound)[..20]), "its data ends early"),
        (PLAIN.word(14).to_vec(), "4 more bytes are needed, but 0 are left"),
    ] {
        let error = message(&PLAIN.file(&[sound_before(), element]));
        let at = 128 + sound_before().len();
        assert_eq!(error, format!("some/a.mat: the variable at byte {at} is damaged: {problem}"));
    }
}

fn sound_before() -> Vec<u8> {
    COMPRESSED.variable(&Variable::bytes("before", &[1, 2], &[1, 2]))
}

/// A file may become shorter while it is read.
#[test]
fn a_source_that_fails() {
    struct Failing(std::io::Cursor<Vec<u8>>);
    impl std::io::Seek for Failing {
        fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
            self.0.seek(to)
        }
    }
    impl std::io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0.position() >= 128 { Err(std::io::Error::other("gone")) } else { self.0.read(buffer) }
        }
    }
    let mut bytes = PLAIN.variables(&small());
    bytes.resize(300_000, 0);
    let source = Failing(std::io::Cursor::new(bytes));
    let error = mat::read_from(source, Path::new("a.mat"), &["x"]).unwrap_err().to_string();
    assert_eq!(error, "cannot read a.mat: gone");
}
