#!/usr/bin/env bash
# Runs torch-ext's own tests under LeakSanitizer: a hook, tensor or message that the shim forgets
# to free makes this fail. First shows that the sanitizer works here, with a leak made for it.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() {
  echo "SKIPPED torch-ext/tests/leaks.sh: $1" | tee -a "${JCS_TEST_SKIPPED:-/dev/null}" >&2
  [ "${CI:-}" != true ] || { echo "a skipped test is a failure in CI" >&2; exit 1; }
  exit 0
}

lsan=$(cc -print-file-name=liblsan.so)
[ -e "$lsan" ] || skip "the C compiler has no liblsan.so (Debian: apt-get install liblsan0 libgcc-12-dev)"

probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
cat > "$probe/leak.c" <<'C'
#include <stdlib.h>
#include <string.h>
__attribute__((noinline)) static void leak(void) { memset(malloc(77), 1, 77); }
int main(void) { leak(); return 0; }
C
cc -O0 -o "$probe/leak" "$probe/leak.c"
if LD_PRELOAD="$lsan" LSAN_OPTIONS=exitcode=23 "$probe/leak" 2>/dev/null; then
  skip "LeakSanitizer does not find a leak made on purpose (is this process being traced?)"
fi

binary=$(cargo test --no-run --message-format=json -p torch-ext --test shim 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*shim-[^"]*\)".*/\1/p' | tail -n 1)
[ -x "$binary" ] || { echo "leaks.sh: the test binary was not built" >&2; exit 1; }
# Without the test of CUDA's own libraries, whose memory is theirs.
LD_PRELOAD="$lsan" LSAN_OPTIONS=exitcode=23 "$binary" --test-threads 1 --quiet --skip cuda_that_is_loaded_late
echo "leaks.sh: no leak"
