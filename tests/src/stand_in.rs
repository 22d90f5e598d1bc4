//! The stand-in CUDA driver and NCCL of `tests/stand-in/`, compiled for the tests. What they do is in the README there.

use crate::shared::once;
use crate::{repository, say, skip, text};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Given to the compiler with everything.
const FLAGS: [&str; 9] = [
    "-std=c++20",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pthread",
    "-fvisibility-inlines-hidden",
    // Sums of integers wrap, as on a GPU.
    "-fwrapv",
];

/// What is compiled, in this order: source, what becomes of it, its other name, and how it is linked.
const PRODUCTS: [(&str, &str, &str, &[&str]); 3] = [
    ("driver.cpp", "libcuda.so.1", "libcuda.so", &["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]),
    ("nccl.cpp", "libnccl.so.2", "libnccl.so", &["-shared", "-fPIC", "-Wl,-soname,libnccl.so.2", "-lcuda"]),
    ("selftest.cpp", "selftest", "", &["-lnccl", "-lcuda"]),
];

/// A folder for `LD_LIBRARY_PATH`, with `libcuda.so.1`, `libnccl.so.2`, their names without a version, and the program `selftest`.
/// Made anew when the sources have changed. `None`, with a named skip of `test`, where NVIDIA's headers or the compiler are missing.
pub fn build(test: &str) -> Option<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match BUILT.get_or_init(build_once) {
        Ok(folder) => Some(folder.clone()),
        Err(why) => {
            skip(test, why);
            None
        }
    }
}

/// The lines that the stand-in wrote to `violations` in its `STAND_IN_DIR`; empty when all went by the rules.
pub fn violations(dir: &Path) -> Vec<String> {
    fs::read_to_string(dir.join("violations")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn build_once() -> Result<PathBuf, String> {
    let headers = headers()?;
    if Command::new("c++").arg("--version").output().is_err() {
        return Err("no C++ compiler is called c++".into());
    }
    let sources = repository().join("tests/stand-in");
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap().join("tmp");
    let folder = target.join(format!("stand-in-{}", fingerprint(&sources, &headers)));
    once(&folder, |fresh| {
        say("compiling the stand-in CUDA driver and NCCL");
        PRODUCTS.iter().for_each(|product| compile(&sources, &headers, fresh, *product));
    });
    Ok(folder)
}

/// What NVIDIA's wheels have put beside the Python that `JCS_TEST_PYTHON` names: the real NCCL and CUDA runtime, and their headers.
pub fn nvidia() -> Result<PathBuf, String> {
    let python = std::env::var("JCS_TEST_PYTHON").map_err(|_| "JCS_TEST_PYTHON names no Python".to_owned())?;
    let lib = repository().join(python).parent().unwrap().join("../lib");
    let versions = fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut folders = versions.map(|version| version.join("site-packages/nvidia"));
    let all = ["cu13/include/cuda.h", "nccl/include/nccl.h", "nccl/lib/libnccl.so.2"];
    folders
        .find(|folder| all.iter().all(|file| folder.join(file).is_file()))
        .ok_or_else(|| "the Python that JCS_TEST_PYTHON names has no NCCL: run setup/python.sh".into())
}

/// Folders of `cuda.h` and `nccl.h`.
fn headers() -> Result<[PathBuf; 2], String> {
    nvidia().map(|nvidia| [nvidia.join("cu13/include"), nvidia.join("nccl/include")])
}

/// Of everything that the compiler is given.
fn fingerprint(sources: &Path, headers: &[PathBuf]) -> String {
    let mut files: Vec<_> = fs::read_dir(sources).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.to_string_lossy().as_bytes());
        hash.update(fs::read(&file).unwrap());
    }
    hash.update(format!("{headers:?} {FLAGS:?} {PRODUCTS:?}"));
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn compile(sources: &Path, headers: &[PathBuf], folder: &Path, product: (&str, &str, &str, &[&str])) {
    let (source, result, other_name, link) = product;
    let mut compiler = Command::new("c++");
    compiler.args(FLAGS);
    for folder in headers {
        compiler.arg("-isystem").arg(folder);
    }
    compiler.arg(sources.join(source)).arg("-o").arg(folder.join(result));
    // Threads of streams may run when a library is closed.
    compiler.arg("-L").arg(folder).args(["-Wl,-rpath,$ORIGIN", "-Wl,-z,nodelete,-z,defs"]).args(link);
    let out = compiler.output().unwrap();
    assert!(out.status.success(), "{source} does not compile: {}", text(&out));
    if !other_name.is_empty() {
        symlink(result, folder.join(other_name)).unwrap();
    }
}
