//! Lists, and the check of a whole list before the first step.

use std::fs;
use std::path::Path;

use data_shards::{Dataset, Error, list};

fn list_of(folder: &Path, text: &str) -> std::path::PathBuf {
    let path = folder.join("list.txt");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn crlf_blank_lines_and_a_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    let list = list_of(folder.path(), "\u{feff}a.png am.png\r\n\r\n  \nsub/b.png\t/abs/bm.png");
    let entries = list::read(&list, None).unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].image, folder.path().join("a.png"));
    assert_eq!(entries[0].mask, Some(folder.path().join("am.png")));
    assert_eq!((entries[1].mask.as_deref(), entries[1].line), (Some(Path::new("/abs/bm.png")), 4));
    let elsewhere = list::read(&list, Some(Path::new("/data"))).unwrap();
    assert_eq!(elsewhere[1].image, Path::new("/data/sub/b.png"));
}

#[test]
fn lines_without_two_fields() {
    let folder = tempfile::tempdir().unwrap();
    for (text, found) in [("a b\n\na b c\n", 3), ("a b\n\na\n", 1)] {
        let error = list::read(&list_of(folder.path(), text), None).unwrap_err();
        assert!(error.to_string().contains("list.txt:3: expected"), "{error}");
        assert!(matches!(error, Error::Line { line: 3, found: count, .. } if count == found));
    }
}

#[test]
fn empty_missing_and_binary_lists() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(list::read(&list_of(folder.path(), "\r\n \n"), None), Err(Error::Empty { .. })));
    assert!(matches!(list::read(&folder.path().join("none.txt"), None), Err(Error::Read { .. })));
    let binary = folder.path().join("binary.txt");
    fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
    assert!(matches!(list::read(&binary, None), Err(Error::NotText { .. })));
}

#[test]
fn all_offending_lines_in_one_message() {
    let folder = tempfile::tempdir().unwrap();
    crate::small_set(folder.path(), 1);
    crate::png(&folder.path().join("wide.png"), 9, 6, &[0; 54]);
    fs::write(folder.path().join("cut.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    let mut text = "i0.png m0.png\ni0.png wide.png\ngone.png m0.png\ncut.png m0.png\n".to_owned();
    text += &"i0.png lost.png\n".repeat(9);
    let error = Dataset::open(&crate::of(&list_of(folder.path(), &text)), crate::plain(4, 4)).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].contains("12 of 13 entries"), "{error}");
    assert!(lines[1].contains("list.txt:2: ") && lines[1].contains("wide.png") && lines[1].contains("9x6"), "{error}");
    assert!(lines[2].contains("list.txt:3: ") && lines[2].contains("gone.png"), "{error}");
    assert!(lines[3].contains("list.txt:4: ") && lines[3].contains("cut.png"), "{error}");
    assert_eq!(lines[6..], ["  and 7 more"]);
}

#[test]
fn masks_with_other_values_than_255() {
    let folder = tempfile::tempdir().unwrap();
    let list = crate::small_set(folder.path(), 3);
    let open = || Dataset::open(&crate::of(&list), crate::plain(4, 4)).unwrap();
    open().check_masks().unwrap();
    for at in 0..3 {
        let value = u8::from(at > 0);
        crate::png(&folder.path().join(format!("m{at}.png")), 8, 6, &[[0; 24], [value; 24]].concat());
    }
    let error = open().check_masks().unwrap_err().to_string();
    assert!(error.contains("m1.png") && error.contains("these masks hold 0,1: rewrite"), "{error}");
    // Without any lesion there is nothing to object to.
    fs::copy(folder.path().join("m0.png"), folder.path().join("m1.png")).unwrap();
    fs::copy(folder.path().join("m0.png"), folder.path().join("m2.png")).unwrap();
    open().check_masks().unwrap();
}

#[test]
fn the_fingerprint_is_of_the_list_as_written() {
    let [here, there] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let prints = [&here, &there].map(|folder| {
        let list = crate::small_set(folder.path(), 2);
        Dataset::open(&crate::of(&list), crate::plain(4, 4)).unwrap().fingerprint()
    });
    // printf 'i0.png m0.png\ni1.png m1.png\n' | sha256sum
    assert_eq!(prints[0], "afbf1f643d2730bbe1e952033e2014472f388cedffdc9caa1d930f07f399560e");
    assert_eq!(prints[0], prints[1]);
}
