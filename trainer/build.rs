//! Gives the binary and this crate's tests the rpaths of libtorch, NCCL and Open MPI.

fn main() {
    println!("cargo:rustc-env=JCS_COMMIT={}", commit());
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=MPICC");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{libtorch}/lib:{libtorch}/../nccl");
    }
    if let Some(prefix) = std::env::var("MPICC").ok().and_then(|m| Some(m.strip_suffix("/bin/mpicc")?.to_owned())) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{prefix}/lib");
    }
}

/// Commit that is being built; `unknown` outside a git checkout.
fn commit() -> String {
    println!("cargo:rerun-if-changed=../.git/HEAD");
    println!("cargo:rerun-if-changed=../.git/refs/heads");
    let output = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let text = output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    text.map_or("unknown".into(), |t| t.trim().to_owned())
}
