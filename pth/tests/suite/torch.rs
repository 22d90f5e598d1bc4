//! PyTorch's own files, and PyTorch's opinion of ours. Needs `JCS_TEST_PYTHON`, a Python that has torch.

use std::path::Path;
use std::process::Command;

use pth::{Dtype, Error, Tensor};

fn python(python: &str, task: &str, folder: &Path) -> String {
    let output =
        Command::new(python).arg("-c").arg(include_str!("torch.py")).arg(task).arg(folder).output().expect(python);
    assert!(output.status.success(), "{task}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What PyTorch says is in a file: `name type shape` a line, and the bytes.
fn expected(file: &Path) -> Vec<Tensor> {
    let text = std::fs::read_to_string(file.with_extension("txt")).unwrap();
    let bytes = std::fs::read(file.with_extension("bin")).unwrap();
    let mut rest = &bytes[..];
    let tensors = text.lines().map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [name, dtype, shape] = fields[..] else { panic!("{line}") };
        let dtype = *Dtype::ALL.iter().find(|known| format!("{known:?}") == dtype).unwrap();
        let shape: Vec<usize> =
            shape.split(',').filter(|length| !length.is_empty()).map(|length| length.parse().unwrap()).collect();
        let (data, after) = rest.split_at(shape.iter().product::<usize>() * dtype.size());
        rest = after;
        Tensor { name: name.to_owned(), dtype, shape, data: data.to_vec() }
    });
    let tensors = tensors.collect();
    assert!(rest.is_empty());
    tensors
}

#[test]
fn files_by_pytorch_and_back() {
    let Some(interpreter) = end_to_end::skip::python("files_by_pytorch_and_back", "torch") else { return };
    let folder = tempfile::tempdir().unwrap();
    python(&interpreter, "write", folder.path());
    let mut compared = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "pth") {
            let tensors = pth::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert_eq!(tensors, expected(&file), "{}", file.display());
            pth::to_writer(std::fs::File::create(file.with_extension("out")).unwrap(), &tensors).unwrap();
            compared += 1;
        }
    }
    assert_eq!(compared, 12 * 4 + 1);
    assert_eq!(python(&interpreter, "check", folder.path()), "compared\n");
    for kind in ["zip", "old"] {
        let error = pth::read(&folder.path().join(format!("malicious.{kind}"))).unwrap_err();
        assert!(matches!(error, Error::Global { ref name, .. } if name == "posix.system"), "{error}");
    }
    assert!(!folder.path().join("was_run").exists());
}
