//! Gives the binary and this crate's tests the rpaths of libtorch, NCCL and Open MPI.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=MPICC");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib:{libtorch}/../nccl");
    }
    if let Some(prefix) = std::env::var("MPICC").ok().and_then(|m| Some(m.strip_suffix("/bin/mpicc")?.to_owned())) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{prefix}/lib");
    }
}
