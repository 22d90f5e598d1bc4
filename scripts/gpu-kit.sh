#!/usr/bin/env bash
# Packs what a machine with a GPU and PyTorch 2.11 needs to run this, without Rust and without a network: .gpu-kit/kit.tar.xz, with the
# programs and tests of the tree as it is, committed or not, built against the pinned libtorch 2.11, and Open MPI. libtorch
# itself, CUDA and NCCL are those of that machine's Python. scripts/gpu-check and gpu-bench unpack it there.
# The build is kept in target/gpu-kit; a second run takes as long as what has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tree=${CARGO_TARGET_DIR:-$root/target}/gpu-kit/tree
mkdir -p "$tree"

# Files that did not change keep their time, so that cargo sees what did; those that are gone here go there.
git ls-files -co --exclude-standard -z | while IFS= read -r -d '' f; do if [ -f "$f" ]; then printf '%s\0' "$f"; fi; done >"$tree.files"
python3 - "$root" "$tree" "$tree.files" <<'PY'
import filecmp, os, pathlib, shutil, sys
root, tree, listed = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), open(sys.argv[3], "rb").read()
names = {os.fsdecode(name) for name in listed.split(b"\0") if name}
for name in names:
    there = tree / name
    if name == "Cargo.lock" or there.exists() and filecmp.cmp(root / name, there, shallow=False):
        continue
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / name, there)
shutil.copy(root / "Cargo.lock", tree / "Cargo.lock")
for path in [path for path in tree.rglob("*") if path.is_file() or path.is_symlink()]:
    name = path.relative_to(tree)
    if name.parts[0] not in (".deps", "target", "pth" if name.parts[1:2] == ("fuzz",) else "") and str(name) not in names:
        path.unlink()
PY
cd "$tree"
export CARGO_TARGET_DIR=$tree/target
# What the user has chosen is for another tree.
unset GPU LIBTORCH LIBTORCH_LIB MPICC
TORCH=2.11 setup/setup.sh
cargo build --release --locked --workspace --bins
# The names of the tests' programs have a hash, which cargo alone knows.
cargo test --release --locked -p jcs --test reference -p collectives --test nccl --no-run --message-format json >"$tree.built"

kit=$(mktemp -d)
trap 'rm -rf "$kit"' EXIT
mkdir -p "$root/.gpu-kit"
mapfile -t tests < <(python3 -c 'import json, sys
for m in map(json.loads, open(sys.argv[1])):
  if m.get("executable") and m["target"]["kind"] == ["test"]: print(m["executable"])' "$tree.built")
dist/stage.sh "$kit" "$CARGO_TARGET_DIR"/release/{jcs,jcs-launch,data-shards} "${tests[@]}"
mkdir "$kit/lib"
cc -shared -fPIC -O2 -o "$kit/lib/gpu-count.so" bench/gpu_count.c -ldl -lpthread
tar c -C "$kit" . | xz -T0 -6 >"$root/.gpu-kit/kit.part"
mv "$root/.gpu-kit/kit.part" "$root/.gpu-kit/kit.tar.xz"
ls -l "$root/.gpu-kit/kit.tar.xz"
