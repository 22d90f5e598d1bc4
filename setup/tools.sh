#!/usr/bin/env bash
# Installs what `make check` needs into .deps/tools/bin, pinned, without root: typos and shellcheck
# from wheels (tools.txt), cargo-deny from its crate. A second run does nothing.
# A tool that cannot be had is no error here: it leaves its reason in .deps/tools/NAME.missing, and
# scripts/check.sh decides what that means.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=.deps/tools
deny=0.20.2
mkdir -p "$tools/bin"
temporary=$tools/temporary.$$
trap 'rm -rf "$temporary"' EXIT

say() { echo "tools: $1" >&2; }

missing() { # REASON NAME...
  local reason=$1 name
  shift
  for name in "$@"; do
    rm -f "$tools/bin/$name"
    echo "$reason" > "$tools/$name.missing"
    say "no $name: $reason"
  done
}

unpack() { # WHEEL...: their scripts, which are programs here
  python3 - "$tools/bin" "$@" <<'PYTHON'
import os, sys, zipfile
place = sys.argv[1]
for wheel in sys.argv[2:]:
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            if ".data/scripts/" in name and not name.endswith("/"):
                out = os.path.join(place, os.path.basename(name))
                with open(out + ".part", "wb") as f:
                    f.write(z.read(name))
                os.chmod(out + ".part", 0o755)
                os.rename(out + ".part", out)
PYTHON
}

install_wheels() {
  local want wheels=$temporary/wheels
  want=$(sha256sum setup/tools.txt | cut -d' ' -f1)
  [ "$(cat "$tools/wheels.stamp" 2>/dev/null)" = "$want" ] && return 0
  say "fetching typos and shellcheck (pinned in setup/tools.txt)"
  if ! [ -x .deps/venv/bin/pip ] && ! python3 -m venv .deps/venv; then
    missing "python3 has no venv module (Debian: apt-get install python3-venv)" typos shellcheck
    return 0
  fi
  mkdir -p "$wheels"
  if .deps/venv/bin/pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
      --only-binary :all: --platform manylinux2014_x86_64 --dest "$wheels" -r setup/tools.txt >&2 &&
      unpack "$wheels"/*.whl; then
    rm -f "$tools/typos.missing" "$tools/shellcheck.missing"
    echo "$want" > "$tools/wheels.stamp"
  else
    missing "the download of setup/tools.txt failed" typos shellcheck
  fi
}

# Unoptimised, without debug information: two minutes of one core, and fast enough for one workspace.
install_deny() {
  [ -x "$tools/bin/cargo-deny" ] && [ "$(cat "$tools/cargo-deny.stamp" 2>/dev/null)" = "$deny" ] && return 0
  say "building cargo-deny $deny (once; some minutes)"
  if CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$PWD/$temporary/build" \
      cargo install --locked --debug --force --version "=$deny" --root "$PWD/$tools" cargo-deny >&2; then
    rm -f "$tools/cargo-deny.missing"
    echo "$deny" > "$tools/cargo-deny.stamp"
  else
    missing "cargo install cargo-deny $deny failed" cargo-deny
  fi
}

install_wheels
install_deny
