#!/usr/bin/env bash
# The other libtorch that is supported, the pinned 2.11: builds the shim and the trainer against it, and runs the tests of the
# shim, of the reducer and of the network against its reference outputs. Leaves the choice of libtorch as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
before=$(cat .deps/torch.choice 2>/dev/null || echo 2.13)
trap 'TORCH=$before setup/setup.sh' EXIT
TORCH=2.11 setup/setup.sh
cargo test --locked -p torch-ext -p jcs --test shim --test reducer --test reference
