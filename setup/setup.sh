#!/usr/bin/env bash
# Fills .deps/ with what the build links against: libtorch, Open MPI and libclang, pinned and
# checksummed (cpu.txt, gpu.txt), without root. A second run finds the stamp and does nothing.
# GPU=1 adds the CUDA libraries. MPICC=/path/to/mpicc keeps that Open MPI instead of ours.
set -euo pipefail
cd "$(dirname "$0")/.."
here=setup
deps=.deps

fail() { echo "setup: $1" >&2; exit 1; }

case "$(uname -sm)" in
  "Linux x86_64") ;;
  *) fail "libtorch 2.13.0 is pinned for Linux x86_64; this is $(uname -sm)" ;;
esac
for tool in python3 cargo c++; do
  command -v "$tool" >/dev/null || fail "'$tool' is not on PATH; install it and run 'make setup' again"
done

# One stamp a requirements file: its checksum, so that a changed pin is fetched again.
stamp() { sha256sum "$here/$1.txt" "$here/unpack.py" | sha256sum | cut -d' ' -f1; }

install_set() { # NAME: downloads the wheels of NAME.txt and unpacks them into .deps/
  local name=$1
  local want; want=$(stamp "$name")
  [ "$(cat "$deps/$name.stamp" 2>/dev/null)" = "$want" ] && return 0
  echo "setup: fetching $name libraries into $deps/ (pinned in $here/$name.txt)" >&2
  mkdir -p "$deps"
  local wheels; wheels=$(mktemp -d "$deps/wheels.XXXXXX")
  trap 'rm -rf "$wheels"' EXIT
  [ -x "$deps/venv/bin/pip" ] || python3 -m venv "$deps/venv" ||
    fail "python3 has no venv module (Debian: apt-get install python3-venv)"
  # The wheels are used for their C++ libraries alone, so any host Python may fetch them.
  "$deps/venv/bin/pip" download --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
    --only-binary :all: --implementation cp --python-version 3.11 --abi cp311 --abi none \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 \
    --dest "$wheels" -r "$here/$name.txt" >&2 ||
    fail "the download of $here/$name.txt failed; check the network and the free space here, then run 'make setup' again"
  python3 "$here/unpack.py" "$deps" "$wheels"/*.whl
  rm -rf "$wheels"
  trap - EXIT
  echo "$want" > "$deps/$name.stamp"
}

install_set cpu
if [ "${GPU:-0}" = 1 ]; then
  install_set gpu
  # cudarc looks for libnccl.so, and the programs' rpath leads to libtorch's libraries; the wheel has only libnccl.so.2, elsewhere.
  ln -sfn ../../nvidia/nccl/lib/libnccl.so.2 "$deps/libtorch/lib/libnccl.so"
fi

# What the build links against: without libtorch_cuda.so, which is loaded only where a GPU is asked for.
mkdir -p "$deps/link/lib"
for lib in libtorch.so libtorch_cpu.so libc10.so; do ln -sfn "../../libtorch/lib/$lib" "$deps/link/lib/$lib"; done

# bindgen's libclang has no headers of its own: lend it those of the C compiler.
ln -sfn "$(cc -print-file-name=include)" "$deps/cc-include"
