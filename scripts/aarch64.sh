#!/usr/bin/env bash
# Whether everything compiles for Linux on aarch64, on another machine: fetches that one's libtorch (700 MB), and lets `cargo check` type-check
# all programs and tests against it. Nothing is linked and nothing is run. Needs rustup, and a C++ compiler for aarch64 (Debian: g++-aarch64-linux-gnu).
set -euo pipefail
cd "$(dirname "$0")/.."
triple=aarch64-unknown-linux-gnu
command -v aarch64-linux-gnu-g++ >/dev/null || { echo "aarch64: no aarch64-linux-gnu-g++ (Debian: apt-get install g++-aarch64-linux-gnu)" >&2; exit 2; }
setup/setup.sh
[ "$(cat .deps/torch.choice)" = 2.13 ] || { echo "aarch64: checks the pinned libtorch 2.13: run 'make setup TORCH=2.13' first" >&2; exit 2; }
JCS_MACHINE=aarch64 setup/setup.sh
rustup target add "$triple"
export LIBTORCH=$PWD/.deps/aarch64/libtorch
# Open MPI's headers are the same; its compiler wrapper for aarch64 does not run here.
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu='-isystem /usr/aarch64-linux-gnu/include'
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
cargo check --locked --workspace --all-targets --target "$triple"
echo "aarch64: everything compiles for $triple"
