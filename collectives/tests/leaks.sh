#!/usr/bin/env bash
# A thousand sums of one rank over the NCCL backend and the stand-ins under LeakSanitizer: what the backend forgets to free makes this fail.
# torch-ext/tests/leaks.sh shows that the sanitizer works here.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() {
  echo "SKIPPED collectives/tests/leaks.sh: $1" | tee -a "${JCS_TEST_SKIPPED:-/dev/null}" >&2
  [ "${CI:-}" != true ] || { echo "a skipped test is a failure in CI" >&2; exit 1; }
  exit 0
}

lsan=$(cc -print-file-name=liblsan.so)
[ -e "$lsan" ] || skip "the C compiler has no liblsan.so (Debian: apt-get install liblsan0 libgcc-12-dev)"

# The suite has built the stand-ins, where they can be built.
binary=$(cargo test --no-run --message-format=json -p collectives --test nccl 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*nccl-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$binary" ] || { echo "leaks.sh: the test binary was not built" >&2; exit 1; }
cargo test --quiet -p collectives --test nccl -- --exact two_ranks_on_one_gpu_and_a_rank_without_one_are_refused_everywhere >/dev/null
libraries=$(find "$(dirname "$binary")/../../tmp" -maxdepth 1 -name 'stand-in-*' -type d -printf '%T@ %p\n' 2>/dev/null |
  sort -n | tail -n 1 | cut -d ' ' -f 2-)
[ -n "$libraries" ] || skip "the stand-ins were not built (setup/python.sh fetches NVIDIA's headers)"

said=$(mktemp -d)
trap 'rm -rf "$said"' EXIT
LD_PRELOAD="$lsan" LSAN_OPTIONS=exitcode=23 LD_LIBRARY_PATH="$libraries" STAND_IN_DIR="$said" STAND_IN_CHECK_LEAKS=1 \
  "$binary" --exact a_thousand_sums_alone --ignored | tee "$said/out"
grep -q "1 passed" "$said/out" || { echo "leaks.sh: there is no test a_thousand_sums_alone" >&2; exit 1; }
[ ! -s "$said/violations" ] || { cat "$said/violations" >&2; exit 1; }
echo "leaks.sh: no leak in a thousand sums"
