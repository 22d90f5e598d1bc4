#!/usr/bin/env bash
# The suite N times, beside a full load on one core: each test's failures, and the slowest runs.
# flaky.sh N [NEXTEST ARGUMENTS...], for example: flaky.sh 20 -E 'binary(hangs)'. Exit code 1 if any test failed in any run.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:?how many times? flaky.sh N [NEXTEST ARGUMENTS...]}
shift
cargo nextest --version >/dev/null 2>&1 || { echo "flaky: needs cargo-nextest" >&2; exit 2; }
out=$(mktemp -d)
cargo build --workspace --bins
export JCS_TEST_PROGRAMS=built
cargo nextest run --workspace --profile ci --no-run "$@"

# The load: a loop that never waits, on the first core that this process may use.
core=$(taskset -pc $$ | sed 's/.*: //; s/[-,].*//')
taskset -c "$core" sh -c 'while :; do :; done' &
load=$!
trap 'kill $load 2>/dev/null || true; rm -rf "$out"' EXIT

reports=() failures=0
for run in $(seq "$runs"); do
  start=$SECONDS status=0
  rm -f target/nextest/ci/junit.xml
  cargo nextest run --workspace --profile ci --status-level fail --final-status-level fail "$@" || status=$?
  echo "flaky: run $run of $runs: exit code $status after $((SECONDS - start)) s"
  [ "$status" = 0 ] || failures=$((failures + 1))
  cp target/nextest/ci/junit.xml "$out/$run.xml"
  reports+=("$out/$run.xml")
done
python3 scripts/timings.py --top 20 "${reports[@]}"
echo "flaky: $failures of $runs runs failed"
[ "$failures" = 0 ]
