#!/usr/bin/env bash
# make install: everything into PREFIX/lib/jcs-launch, with links to the programs in PREFIX/bin, and man pages and completions where they
# are looked for in PREFIX/share. DESTDIR is put before PREFIX, for packages. What was installed there before is replaced as a whole.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=${PREFIX:-/usr/local}
case $prefix in /*) ;; *) echo "install: PREFIX=$prefix is no absolute path" >&2; exit 2 ;; esac
scripts/dist.sh --folder
from=$(cat "${CARGO_TARGET_DIR:-target}/dist/folder")
root=${DESTDIR:-}$prefix
place=$root/lib/jcs-launch
mkdir -p "$root/lib" "$root/bin"
rm -rf "$place.part"
cp -a --no-preserve=ownership "$from" "$place.part"
chmod -R u=rwX,go=rX "$place.part"
rm -rf "$place"
mv "$place.part" "$place"
for program in "$place"/bin/*; do ln -sfn "../lib/jcs-launch/bin/${program##*/}" "$root/bin/${program##*/}"; done
(cd "$place/share" && find . -type f) | while read -r file; do install -D -m 644 "$place/share/$file" "$root/share/$file"; done
echo "install: $root/bin/{$(cd "$place/bin" && printf '%s\n' ./* | cut -c3- | paste -sd,)}; configurations in $place/configs"
