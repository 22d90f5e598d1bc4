#!/usr/bin/env bash
# A Python with PyTorch, SciPy, OpenCV, webdataset and moto in .deps/python, for the tests that read and write files with
# them and for the measurement beside them (make bench). 3 GB of downloads,
# 5 GB of disk; the product needs none of it. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
want=$(sha256sum setup/python.txt | cut -d' ' -f1)
[ "$(cat .deps/python.stamp 2>/dev/null)" = "$want" ] && exit 0
echo "python: fetching PyTorch, SciPy, OpenCV, webdataset and moto into .deps/python (setup/python.txt)" >&2
rm -rf .deps/python
mkdir -p .deps
python3 -m venv .deps/python
.deps/python/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --only-binary :all: -r setup/python.txt >&2
.deps/python/bin/python -c 'import cv2, moto.server, scipy.io, torch, webdataset'
echo "$want" > .deps/python.stamp
