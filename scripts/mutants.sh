#!/usr/bin/env bash
# Installs cargo-mutants into .deps/tools, pinned, and runs scripts/mutants.py: see there.
set -euo pipefail
cd "$(dirname "$0")/.."
version=27.1.0
tools=$PWD/.deps/tools
cargo nextest --version >/dev/null 2>&1 || { echo "mutants: needs cargo-nextest" >&2; exit 2; }
if ! "$tools/bin/cargo-mutants" mutants --version 2>/dev/null | grep -qF "$version"; then
  echo "mutants: building cargo-mutants $version (once)" >&2
  CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --force --version "=$version" --root "$tools" cargo-mutants
fi
exec env PATH="$tools/bin:$PATH" python3 scripts/mutants.py "$@"
