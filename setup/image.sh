#!/usr/bin/env bash
# What scripts/dist-check.sh needs: debootstrap and buildah, from Debian's packages where they are missing. Where it may not install
# them, it says so, and dist-check skips by name.
set -euo pipefail
missing=()
for program in debootstrap buildah; do
  PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "image: everything is there"
elif [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "image: not root on Debian, so ${missing[*]} is not installed" >&2
else
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" ubuntu-keyring >/dev/null
fi
