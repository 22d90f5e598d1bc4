#!/usr/bin/env bash
# Everything that is checked without running the product, the cheapest first. Goes on after a failure
# and ends with a list. Called by `make check`, which installs the tools before.
# A part whose tool cannot be had is SKIPPED, which is a failure where CI=true.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
tools=$PWD/.deps/tools
PATH=$tools/bin:$PATH
failed=()
skipped=()
notes=()

part() { # NAME COMMAND...
  local name=$1 start=$SECONDS status=0
  shift
  echo "== $name"
  "$@" || status=$?
  if [ "$status" = 0 ]; then
    echo "== $name: ok, $((SECONDS - start)) s"
  else
    echo "== $name: FAILED, $((SECONDS - start)) s"
    failed+=("$name")
  fi
}

skip() { # NAME REASON
  echo "== $1: SKIPPED: $2"
  skipped+=("$1")
}

part_with() { # TOOL NAME COMMAND...
  local tool=$1
  shift
  if [ -x "$tools/bin/$tool" ]; then
    part "$@"
  else
    skip "$1" "no $tool: $(cat "$tools/$tool.missing" 2>/dev/null || echo 'run setup/tools.sh')"
  fi
}

scripts() { git ls-files -co --exclude-standard '*.sh' .ci/run; }

shell_scripts() { scripts | xargs -r shellcheck; }

# The database is not ours: where it cannot be reached, that is said and is no failure.
advisories() {
  if ! [ -x "$tools/bin/cargo-deny" ] || timeout 120 cargo deny --locked fetch db >/dev/null 2>&1; then
    part_with cargo-deny "advisories" cargo deny --locked check --disable-fetch advisories
  else
    echo "== advisories: NOT CHECKED: the advisory database cannot be reached"
    notes+=("advisories were NOT CHECKED: the advisory database cannot be reached")
  fi
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked; }

part "format" cargo fmt --all --check
part_with typos "spelling" typos
part_with shellcheck "shell scripts" shell_scripts
part_with cargo-deny "licences, bans, sources" cargo deny --locked check licenses bans sources
advisories
part "lock file" python3 setup/lock.py --check 2.13
part "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
part "docs" docs

echo
if [ "${#notes[@]}" -gt 0 ]; then printf 'check: %s\n' "${notes[@]}"; fi
if [ "${#skipped[@]}" -gt 0 ]; then
  printf 'check: SKIPPED: %s\n' "${skipped[@]}"
  if [ "${CI:-}" = true ]; then failed+=("${skipped[@]}"); fi
fi
if [ "${#failed[@]}" -gt 0 ]; then
  printf 'check: FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "check: passed in $SECONDS s"
