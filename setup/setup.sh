#!/usr/bin/env bash
# Fills .deps/ with what the build links against: libtorch, Open MPI and libclang, pinned and checksummed
# (*.txt here, where the first checksum is of x86-64's wheel and the second of aarch64's), without root. What is there already is not
# fetched again.
#
# TORCH=PYTHON takes libtorch and NCCL of that Python's torch (2.13 or 2.11, for CPUs or any CUDA) and fetches neither; TORCH=2.13 and
# TORCH=2.11 are the pinned ones. The choice stays until another is made; 2.13 without one.
# GPU=1 adds the CUDA libraries to the pinned 2.13. MPICC=/path/to/mpicc keeps that Open MPI instead of ours. JCS_MACHINE=aarch64 on another
# machine fetches that one's, into .deps/aarch64 (scripts/aarch64.sh).
#
#   .deps/libtorch -> torch-2.13 | torch-2.11 | torch-of-python    .deps/link: what is linked    .deps/nccl: libnccl.so, if any
set -euo pipefail
cd "$(dirname "$0")/.."
here=setup
machine=${JCS_MACHINE:-$(uname -m)}
deps=.deps
[ "$machine" = "$(uname -m)" ] || deps=.deps/$machine

fail() { echo "setup: $1" >&2; exit 1; }

case $(uname -s)-$machine in
  Linux-x86_64 | Linux-aarch64) ;;
  *) fail "libtorch is pinned for Linux on x86_64 and aarch64; this is $(uname -s) on $machine" ;;
esac
for tool in python3 cargo c++; do
  command -v "$tool" >/dev/null || fail "'$tool' is not on PATH; install it and run 'make setup' again"
done
mkdir -p "$deps"
# One at a time: two would take the folders from under each other.
exec 9>"$deps/lock"
flock 9
wheels=
trap '[ -z "$wheels" ] || rm -rf "$wheels"' EXIT

# One stamp a requirements file: its checksum, so that a changed pin is fetched again.
stamp() { sha256sum "$here/$1.txt" "$here/unpack.py" | sha256sum | cut -d' ' -f1; }

install_set() { # NAME PLACE: downloads the wheels of NAME.txt and unpacks them into .deps/, libtorch as .deps/PLACE
  local name=$1 place=$2 want
  want=$(stamp "$name")
  [ "$(cat "$deps/$name.stamp" 2>/dev/null)" = "$want" ] && return 0
  echo "setup: fetching what $here/$name.txt lists into $deps/" >&2
  wheels=$(mktemp -d "$deps/wheels.XXXXXX")
  [ -x "$deps/venv/bin/pip" ] || python3 -m venv "$deps/venv" ||
    fail "python3 has no venv module (Debian: apt-get install python3-venv)"
  # The wheels are used for their C++ libraries alone, so any host Python may fetch them.
  "$deps/venv/bin/pip" download --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
    --only-binary :all: --implementation cp --python-version 3.11 --abi cp311 --abi none \
    --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" --platform "manylinux_2_25_$machine" \
    --platform "manylinux_2_18_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
    --platform "manylinux2010_$machine" \
    --dest "$wheels" -r "$here/$name.txt" >&2 ||
    fail "the download of $here/$name.txt failed; check the network and the free space here, then run 'make setup' again"
  python3 "$here/unpack.py" "$deps" "$place" "$wheels"/*.whl
  rm -rf "$wheels"
  wheels=
  echo "$want" > "$deps/$name.stamp"
}

# tch and what is built here look at `build-version`: at the first to refuse another version, at its date to be built again.
of_python() { # PYTHON
  local python=$1 facts version folder
  facts=$("$python" "$here/libtorch.py") || exit 1
  { read -r version; read -r folder; read -r cuda; read -r nccl; } <<<"$facts" || true
  case $version in
    2.13.* | 2.11.*) release=${version%"${version#2.1?}"} ;;
    *) fail "$python has torch $version, and 2.13 and 2.11 are supported: another Python, or leave out TORCH" ;;
  esac
  local place=$deps/torch-of-python
  rm -rf "$place"
  mkdir "$place"
  for part in include lib share; do ln -s "$folder/$part" "$place/$part"; done
  echo "$release.0" > "$place/build-version"
  echo "$cuda" > "$place/cuda"
  sha256sum "$folder/version.py" > "$place/version.sum"
  echo "setup: libtorch of torch $version in $folder (CUDA: ${cuda:-none}; NCCL: ${nccl:-none})" >&2
}

choice=${TORCH:-$(cat "$deps/torch.choice" 2>/dev/null || echo 2.13)}
install_set build none
cuda='' nccl='' place=torch-$choice
case $choice in
  2.13 | 2.11)
    release=$choice
    install_set "torch-$choice" "$place"
    if [ "${GPU:-0}" = 1 ]; then
      [ "$choice" = 2.13 ] || fail "GPU=1 adds to the pinned 2.13 alone: TORCH=2.13, or TORCH=PYTHON of a torch for CUDA"
      install_set gpu-2.13 none
    fi
    # Before there was a choice, the stamp had no version.
    if [ "$choice" = 2.13 ] && [ -f "$deps/gpu.stamp" ] && [ ! -f "$deps/gpu-2.13.stamp" ]; then install_set gpu-2.13 none; fi
    if [ "$choice" = 2.13 ] && [ -f "$deps/gpu-2.13.stamp" ]; then nccl=../nvidia/nccl/lib/libnccl.so.2; fi
    ;;
  *)
    if ! python=$(command -v "$choice"); then
      [ -n "${TORCH:-}" ] || fail "the Python of an earlier 'make setup TORCH=$choice' is gone: TORCH=2.13 takes the pinned libtorch, or name another"
      fail "TORCH=$choice is neither a Python nor 2.13 or 2.11"
    fi
    choice=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
    place=torch-of-python
    # A second run asks that Python again only where its torch has changed.
    if [ "$choice" != "$(cat "$deps/torch.choice" 2>/dev/null)" ] || ! sha256sum --status --check "$deps/$place/version.sum" 2>/dev/null; then
      of_python "$choice"
    else
      release=$(cut -d. -f1,2 "$deps/$place/build-version")
      cuda=$(cat "$deps/$place/cuda")
      nccl=$(readlink "$deps/nccl/libnccl.so" || true)
    fi
    if [ "${GPU:-0}" = 1 ] && [ -z "$cuda" ]; then fail "GPU=1, but the torch of $choice is built for CPUs alone"; fi
    ;;
esac

link() { # TARGET NAME: nothing is touched where it is so already
  [ "$(readlink "$2" || true)" = "$1" ] && return 0
  rm -rf "$2"
  ln -s "$1" "$2"
}

if [ "$(readlink "$deps/libtorch" || true)" != "$place" ]; then touch "$deps/$place/build-version"; fi
link "$place" "$deps/libtorch"
echo "$choice" > "$deps/torch.choice"
python3 "$here/lock.py" "$release"

# cudarc looks for libnccl.so, and PyTorch's wheels have only libnccl.so.2.
mkdir -p "$deps/nccl"
if [ -n "$nccl" ]; then link "$nccl" "$deps/nccl/libnccl.so"; else rm -f "$deps/nccl/libnccl.so"; fi

# What the build links against: without libtorch_cuda.so, which is loaded only where a GPU is asked for.
mkdir -p "$deps/link/lib"
for lib in libtorch.so libtorch_cpu.so libc10.so; do link "../../libtorch/lib/$lib" "$deps/link/lib/$lib"; done

# bindgen's libclang has no headers of its own: lend it those of the C compiler.
link "$(cc -print-file-name=include)" "$deps/cc-include"
