//! Builds the C++ shim against libtorch's headers and gives this crate's tests their rpath.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=shim/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // `make setup TORCH=` puts another libtorch in the same place, and dates this file.
    let Some(libtorch) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        println!("cargo:error=LIBTORCH is not set: run `make setup` and build inside the repository");
        return;
    };
    let include = libtorch.join("include");
    if !include.is_dir() {
        println!("cargo:error={} does not exist: run `make setup`", include.display());
        return;
    }
    println!("cargo:rerun-if-changed={}", libtorch.join("build-version").display());
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .file("shim/shim.cpp")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        .compile("jcs_torch_shim");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
}
