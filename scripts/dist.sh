#!/usr/bin/env bash
# Packs what runs without these sources, a compiler and Rust: target/dist/jcs-launch-VERSION-linux-MACHINE-{cpu,gpu}.tar.xz, with the
# checksum beside it. GPU=1 packs the CUDA libraries, too; without, nothing of CUDA is inside. dist/README.md is the archive's own.
# dist.sh --folder stops before packing, and says where everything lies. JCS_DIST_PROFILE=debug packs the programs that the tests run (CI).
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-}
target=${CARGO_TARGET_DIR:-$PWD/target}
variant=cpu
if [ "${GPU:-0}" = 1 ]; then variant=gpu; fi
[ "$(cat .deps/torch.choice)" = 2.13 ] || { echo "dist: packs the pinned libtorch 2.13: run 'make setup TORCH=2.13' first" >&2; exit 2; }
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s); fi
export SOURCE_DATE_EPOCH

programs=$target/${JCS_DIST_PROFILE:-release}
profile=()
if [ "${programs##*/}" = release ]; then profile=(--release); fi
cargo build "${profile[@]}" --locked --workspace --bins
version=$("$programs/jcs" --version | cut -d' ' -f2)
name=jcs-launch-$version-linux-$(uname -m)-$variant
# Never taken for what is published.
[ "${programs##*/}" = release ] || name=$name-${programs##*/}
place=$target/dist/$name
rm -rf "$place"
mkdir -p "$place/lib"
dist/stage.sh "$place" "$programs"/{jcs,jcs-launch,data-shards}

libtorch=.deps/libtorch/lib
requirements=(setup/build.txt setup/torch-2.13.txt)
cp -aL "$libtorch"/{libtorch_cpu.so,libc10.so,libgomp.so.1} "$place/lib/"
if [ "$variant" = gpu ]; then
  requirements+=(setup/gpu-2.13.txt)
  cp -aL "$libtorch"/{libtorch_cuda.so,libtorch_cuda_linalg.so,libtorch_nvshmem.so,libc10_cuda.so,libcaffe2_nvrtc.so} "$place/lib/"
  find -L .deps/nvidia -name '*.so*' -exec cp -aL -t "$place/lib/" {} +
  ln -s libnccl.so.2 "$place/lib/libnccl.so"
else
  for library in CUDART:libcudart.so.13 CUPTI:libcupti.so.13; do
    file=${library#*:}
    echo "$file { global: cu*; local: *; };" >"$target/dist/$file.map"
    cc -shared -fPIC -Os -s -D"${library%%:*}" -Wl,--version-script="$target/dist/$file.map" -Wl,-soname,"$file" -o "$place/lib/$file" dist/no_cuda.c
  done
fi
for program in jcs jcs-launch data-shards; do "$place/bin/$program" manual "$place/share"; done
cp -r configs "$place/configs"
cp dist/README.md LICENSE* "$place/"
# Of libclang nothing is inside, and of NVIDIA's only where the archive is for GPUs.
absent=(libclang)
[ "$variant" = gpu ] || absent+=(nvidia-cuda-runtime nvidia-cuda-cupti)
python3 dist/notices.py .deps "$place" "$(IFS=,; echo "${absent[*]}")" "${requirements[@]}"

# What the programs ask of a system: the newest versions of its C and C++ libraries that one of them or of their libraries needs.
symbols=$(find "$place" -type f \( -perm -u+x -o -name '*.so*' \) -exec objdump -T {} + 2>/dev/null || true)
needs=
for limit in GLIBC_2.34 GLIBCXX_3.4.30; do
  newest=$(grep -oE "${limit%%_*}_[0-9.]+" <<<"$symbols" | sort -Vu | tail -1)
  if [ "$what" != --folder ] && [ "$(printf '%s\n' "$newest" "$limit" | sort -V | tail -1)" != "$limit" ]; then
    echo "dist: $newest is needed, and archives are for systems from $limit on: $(grep -F "$newest" <<<"$symbols" | head -3)" >&2
    exit 1
  fi
  needs+=" ${newest/_/ }"
done
(cd "$place" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum) >"$target/dist/sums"
mv "$target/dist/sums" "$place/SHA256SUMS"
echo "dist: $(du -sh --apparent-size "$place" | cut -f1) in $place ($(du -sm --apparent-size "$place/lib" | cut -f1) MiB of libraries), needs$needs"
echo "$place" >"$target/dist/folder"
[ "$what" != --folder ] || exit 0

archive=$place.tar.xz
tar c -C "$target/dist" --mode=u=rwX,go=rX --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" "$name" | xz -T0 -6 >"$archive.part"
mv "$archive.part" "$archive"
(cd "$target/dist" && sha256sum "$name.tar.xz" >"$name.tar.xz.sha256")
echo "dist: $(($(stat -c %s "$archive") / 1048576)) MiB in $archive"
