#!/usr/bin/env bash
# Installs what `make check` and `make soak` need into .deps/tools/bin, pinned, without root, from wheels (tools.txt). A second run
# does nothing.
# A tool that cannot be had is no error here: it leaves its reason in .deps/tools/NAME.missing, and
# the script that calls it decides what that means.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=.deps/tools
names=(typos shellcheck cargo-deny cargo-fuzz)
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

all_there() {
  local name
  for name in "${names[@]}"; do [ -x "$tools/bin/$name" ] || return 1; done
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
  [ "$(cat "$tools/wheels.stamp" 2>/dev/null)" = "$want" ] && all_there && return 0
  say "fetching ${names[*]} (pinned in setup/tools.txt)"
  if ! [ -x .deps/venv/bin/pip ] && ! python3 -m venv .deps/venv; then
    missing "python3 has no venv module (Debian: apt-get install python3-venv)" "${names[@]}"
    return 0
  fi
  mkdir -p "$wheels"
  if .deps/venv/bin/pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --require-hashes \
      --only-binary :all: --platform manylinux2014_x86_64 --dest "$wheels" -r setup/tools.txt >&2 &&
      unpack "$wheels"/*.whl; then
    rm -f "$tools"/*.missing
    echo "$want" > "$tools/wheels.stamp"
  else
    missing "the download of setup/tools.txt failed" "${names[@]}"
  fi
}

install_wheels
