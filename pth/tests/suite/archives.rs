//! What files are taken for, and archives that are not as they should be.

use pth::Error;

use crate::support::*;

#[test]
fn other_files_are_named() {
    let tar = [vec![b'x'; 257], b"ustar".to_vec(), vec![0; 250]].concat();
    let cases: [(&[u8], &str); 11] = [
        (b"", "an empty file; fetch or save it again"),
        (
            b"\xef\xbb\xbf\n<!DOCTYPE html><html>",
            "an HTML or XML page, as a failed download leaves it; fetch the file again",
        ),
        (b"<HTML><head>", "an HTML or XML page, as a failed download leaves it; fetch the file again"),
        (b"\x02\0\0\0\0\0\0\0{}", "a safetensors file; read it as such"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer; fetch the file itself with `git lfs pull`",
        ),
        (b"\x1f\x8b\x08\0", "compressed with gzip; decompress it first"),
        (&tar, "a tar archive, perhaps by PyTorch before 0.1.10; save it again with a newer PyTorch"),
        (b"\x80\x02}q\0.", "a plain pickle, not written by torch.save; save it with torch.save"),
        (b"PK", "of no kind known here"),
        (b"\x03\0\0\0\0\0\0\0{}", "of no kind known here"),
        (b"{\"a\": 1}", "of no kind known here"),
    ];
    for (file, seems) in cases {
        let error = fails(file, &format!("not a PyTorch weight file: it seems to be {seems}"));
        assert!(matches!(error, Error::Foreign { .. }));
    }
    let beside = [b"\x80\x02\x8a\x0b", &MAGIC[4..14], b"\x01."].concat();
    fails(&beside, "not a PyTorch weight file: it seems to be a pickle that only resembles a file by torch.save");
}

#[test]
fn paths_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = pth::read(folder.path()).unwrap_err();
    assert!(matches!(error, Error::NotAFile { .. }));
    assert_eq!(error.to_string(), format!("{}: not a regular file", folder.path().display()));
    let missing = folder.path().join("x.pth");
    let error = pth::read(&missing).unwrap_err();
    assert!(matches!(error, Error::Read { .. }));
    assert!(error.to_string().starts_with(&format!("cannot read {}: ", missing.display())));
    // Content decides, not the name.
    std::fs::write(folder.path().join("x.safetensors"), old(&pickle(b"}"), &[])).unwrap();
    assert_eq!(pth::read(&folder.path().join("x.safetensors")).unwrap(), []);
}

#[test]
fn archives_that_are_unusual_as_a_whole() {
    let object = single(&seven("0"));
    let good = entries(&object, &[("0", &[7, 8])]);
    assert_eq!(pth::from_bytes(&zip(&good)).unwrap(), [bytes("w", &[7, 8])]);
    let twice = [&good[..], &good[..1]].concat();
    let message =
        |problem: &str| format!("the zip archive is damaged or unusual: {problem}; fetch or save the file again");
    fails(&zip(&twice), &message("two entries have one name"));
    let mut inside = good.clone();
    inside[3].at = Some(0);
    fails(&zip(&inside), &message("entries overlap"));
    let mut long = good.clone();
    long[2].size += 10_000;
    fails(&zip(&long), &message("entries overlap"));
    let whole = zip(&good);
    for length in 4..whole.len() {
        assert!(matches!(pth::from_bytes(&whole[..length]), Err(Error::Zip { .. })), "cut at {length}");
    }
    let before = [b"PK\x03\x04 and more", &whole[..]].concat();
    assert!(matches!(pth::from_bytes(&before), Err(Error::Zip { .. })));
    // A directory is as long as its headers say, wherever they are.
    let header = [&b"PK\x01\x02"[..], &[0; 26], &[0xff; 2], &[0; 14]].concat();
    let length = |headers: usize| [b"PK\x03\x04".to_vec(), header.repeat(headers)].concat();
    let limit = (8 << 20) / (46 + 65_535);
    fails(&length(limit + 1), &message("a directory of more than 8388608 bytes"));
    fails(&length(limit), &message("invalid Zip archive: Could not find EOCD"));
}

#[test]
fn entries_that_cannot_be_used() {
    let good = entries(&single(&seven("0")), &[("0", &[7, 8])]);
    let with = |change: &dyn Fn(&mut Vec<crate::support::Entry>)| {
        let mut entries = good.clone();
        change(&mut entries);
        zip(&entries)
    };
    for name in ["/a/x", "a/../x", "..", "a\\x", "C:x"] {
        let file = with(&|entries| entries.push(entry(name, b"")));
        let error = pth::from_bytes(&file).unwrap_err();
        assert!(matches!(error, Error::Entry { .. }), "{name}: {error}");
        assert!(
            error
                .to_string()
                .ends_with("has a name that leads out of the archive; the file was not written by torch.save")
        );
    }
    fails(&with(&|entries| entries[3].name[0] = 0xff), "archive entry `\u{fffd}/version` has a name that is not UTF-8");
    fails(&with(&|entries| entries[2].flags = 1), "archive entry `a/data/0` is encrypted");
    fails(
        &with(&|entries| entries[2].method = 8),
        "archive entry `a/data/0` is compressed, which torch.save never does; unpack the archive and pack it uncompressed \
        (zip -0)",
    );
    fails(
        &with(&|entries| entries[2].data[1] ^= 1),
        "archive entry `a/data/0` is damaged (its CRC-32 differs); fetch the file again",
    );
    let unchecked = with(&|entries| entries[2].crc32 = 0);
    assert_eq!(pth::from_bytes(&unchecked).unwrap(), [bytes("w", &[7, 8])]);
    let advice = "; a file by torch.save has it: fetch or save the file again";
    fails(&with(&|entries| drop(entries.remove(2))), &format!("the archive has no entry `a/data/0`{advice}"));
    fails(&with(&|entries| drop(entries.remove(0))), &format!("the archive has no entry `a/data.pkl`{advice}"));
    fails(&zip(&[]), &format!("the archive has no entry `NAME/data.pkl`{advice}"));
    fails(
        &with(&|entries| entries[1] = entry("a/byteorder", b"big")),
        "a/byteorder says that the file is big-endian; save it again on a little-endian machine",
    );
    fails(
        &with(&|entries| entries[1] = entry("a/byteorder", b"middle")),
        "archive entry `a/byteorder` is neither `little` nor `big`",
    );
    assert_eq!(pth::from_bytes(&with(&|entries| drop(entries.remove(1)))).unwrap().len(), 1);
}
