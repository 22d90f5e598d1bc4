//! What scipy writes, against numpy's own bytes.

use std::path::Path;
use std::process::Command;

use data_shards::mat::{self, Values};

/// Writes files, and for each variable of them a line `file name type sizes…` and its values in row-major order.
const WRITE: &str = r#"
import sys, numpy as np, scipy.io
folder, kinds = sys.argv[1], "u1 i1 u2 i2 u4 i4 u8 i8 f4 f8 ?".split()
shapes = [(1, 64, 12, 14), (1, 64, 6, 7), (5, 7), (1, 1), (3, 1, 2), (0, 4), (33, 65)]
draw = np.random.default_rng(0)
manifest = open(folder + "/manifest", "w")
for at in range(24):
    variables = {}
    for place in draw.permutation(len(shapes))[: 2 + at % 5]:
        kind = np.dtype(kinds[(at + place) % len(kinds)] if at % 4 else "u1")
        values = draw.normal(0, 1e3, shapes[place]) if kind.kind == "f" else draw.integers(0, 2**16, shapes[place])
        variables[["vgg_feats", "res2net_feats", "a", "b", "c", "d", "e"][place]] = values.astype(kind)
    saved = dict(variables)
    if at % 3 == 0:
        saved = {"text": "words", "cell": np.array([1, "two"], dtype=object), "struct": {"x": 1.0}, "z": 1j, **saved}
    order = "F" if at % 2 else "C"
    saved = {name: np.asarray(value, order=order) if name in variables else value for name, value in saved.items()}
    scipy.io.savemat(f"{folder}/{at}.mat", saved, do_compression=at % 2 == 0)
    for name, values in variables.items():
        kind = "bytes" if values.dtype.itemsize == 1 and values.dtype.kind in "ub" else "floats"
        print(f"{at}.mat", name, kind, *values.shape, file=manifest)
        raw = values if kind == "bytes" else values.astype("<f4")
        open(f"{folder}/{at}.mat.{name}", "wb").write(np.ascontiguousarray(raw).tobytes())
scipy.io.savemat(folder + "/old.mat", {"x": np.eye(2)}, format="4")
"#;

#[test]
fn what_scipy_writes() {
    let Some(python) = end_to_end::skip::python("what_scipy_writes", "numpy, scipy.io") else { return };
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new(python).args(["-W", "error", "-c", WRITE]).arg(folder.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let manifest = std::fs::read_to_string(folder.path().join("manifest")).unwrap();
    assert!(manifest.lines().count() > 60);
    manifest.lines().for_each(|line| compare(folder.path(), line));
    let old = mat::read(&folder.path().join("old.mat"), &["x"]).unwrap_err().to_string();
    assert!(old.contains("a MATLAB 4 file"), "{old}");
}

fn compare(folder: &Path, line: &str) {
    let fields: Vec<&str> = line.split(' ').collect();
    let [file, name, kind, sizes @ ..] = &fields[..] else { panic!("{line}") };
    let array = mat::read(&folder.join(file), &[name]).unwrap().remove(0);
    let sizes: Vec<usize> = sizes.iter().map(|size| size.parse().unwrap()).collect();
    assert_eq!(array.shape, sizes, "{line}");
    let (found, bytes) = match array.values {
        Values::U8(values) => ("bytes", values),
        Values::F32(values) => ("floats", values.into_iter().flat_map(f32::to_le_bytes).collect()),
    };
    let expected = std::fs::read(folder.join(format!("{file}.{name}"))).unwrap();
    assert!(found == *kind && bytes == expected, "{line}: {} bytes of {found}", bytes.len());
}
