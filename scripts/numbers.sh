#!/usr/bin/env bash
# Every number that depends on the CPU, beside its bound: the tests that use end_to_end::numbers, with this CPU's instructions and
# with fewer of them. Prints the rows of the table in tests/README.md, and fails where a bound does not hold.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
tests='binary(reference) | binary(sync_norm) | test(by_rounding_alone) | test(uneven_shares) | test(bfloat16)'
tests="$tests | test(prediction_tells) | test(two_workers_add_up_right) | test(bytes_are_normalised)"
cargo build --workspace --bins
export JCS_TEST_PROGRAMS=built
status=0
for setting in JCS_TEST_AS_IT_IS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=default; do
  echo "numbers: $setting" >&2
  env "$setting" JCS_TEST_NUMBERS="$out/$setting" cargo nextest run --workspace --no-fail-fast \
    --status-level fail --final-status-level fail -E "$tests" >&2 || status=1
done
python3 - "$out"/JCS* "$out"/ONE* "$out"/ATEN* <<'PYTHON'
import math
import sys
seen = {}
for column, path in enumerate(sys.argv[1:]):
    for line in open(path):
        test, what, value, bound = line.rstrip("\n").split("\t")
        # One row for all tensors of a network, and for all parts of a norm.
        if "_official_one" in test and not what.startswith("share"):
            what = what.rpartition(": ")[2] if ": " in what else "the worst of all"
        if "one_batch" in test or "are_one_of" in test:
            what = "the worst of all"
        columns = seen.setdefault((test.rpartition("::")[2], what, float(bound)), [[], [], []])
        columns[column].append(float(value))
print("| test | number | bound | as it is | oneDNN: AVX2 | ATen: default |")
print("| --- | --- | --- | --- | --- | --- |")
for (test, what, bound), columns in sorted(seen.items()):
    # Not a number is the worst of all; a dash is a test that did not run.
    worst = [max(values, key=lambda value: (math.isnan(value), value), default=None) for values in columns]
    print(f"| `{test}` | {what} | {bound:.2g} | " + " | ".join("-" if v is None else f"{v:.1e}" for v in worst) + " |")
PYTHON
exit "$status"
