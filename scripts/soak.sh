#!/usr/bin/env bash
# The long tests: all the real slices (`make test` has one division of them), training under a real Slurm (skipped by name where
# there is none; setup/hosts.sh installs it), kills at random moments (CHAOS_KILLS, 100; `make test` has 5; 0: none), and fuzzing of
# the readers of files from strangers. Each target runs FUZZ_SECONDS (600) on one core, from the seeds in its corpus folder where
# seeds.py has written some. A finding is left in artifacts/, and fails.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-600}
tools=$PWD/.deps/tools

echo "soak: real slices"
cargo test --quiet --workspace --test suite -- --ignored --nocapture

echo "soak: Slurm"
cargo test --quiet -p end-to-end --test slurm -- --ignored --nocapture --test-threads=1

setup/tools.sh
[ -x "$tools/bin/cargo-fuzz" ] || { echo "soak: no cargo-fuzz: $(cat "$tools/cargo-fuzz.missing")" >&2; exit 1; }

kills=${CHAOS_KILLS:-100}
if [ "$kills" -gt 0 ]; then
  echo "soak: chaos, $kills kills"
  cargo build --workspace --bins
  JCS_CHAOS_KILLS=$kills cargo test -p end-to-end --test chaos -- --nocapture
fi

python=${JCS_TEST_PYTHON:-$PWD/.deps/python/bin/python}

seed() { # SCRIPT FOLDER MODULE: writes the seeds, where there is a Python with the module
  if "$python" -c "import $3" 2>/dev/null; then
    "$python" "$1" "$2"
  else
    echo "soak: no seeds by $1: no Python with $3 (setup/python.sh makes one)" >&2
  fi
}

fuzz() { # FOLDER TARGET
  echo "soak: fuzzing $1 $2 for $seconds s"
  # Coverage and sanitizer are unstable options of a stable compiler.
  (cd "$1" && RUSTC_BOOTSTRAP=1 PATH="$tools/bin:$PATH" cargo fuzz run --fuzz-dir . "$2" -- \
    -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20)
}

seed pth/fuzz/seeds.py pth/fuzz/corpus torch
seed data-shards/fuzz/seeds.py data-shards/fuzz/corpus/mat scipy
python3 data-shards/fuzz/seeds_shard.py data-shards/fuzz/corpus/shard
fuzz pth/fuzz read
fuzz pth/fuzz unpickle
fuzz data-shards/fuzz mat
fuzz data-shards/fuzz shard
fuzz launcher/fuzz handshake
fuzz launcher/fuzz message
echo "soak: no finding"
