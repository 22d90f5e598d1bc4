#!/usr/bin/env bash
# What the tests on several hosts need (tests/src/hosts.rs): network namespaces, an ssh server and Slurm. Installs Debian's
# packages (whose ssh service Debian also starts) where they are missing; where it may not, it says so, and the tests skip by name.
set -euo pipefail

missing=()
need() { # PROGRAM PACKAGE
  PATH=$PATH:/usr/sbin command -v "$1" >/dev/null || missing+=("$2")
}
need ip iproute2
need nsenter util-linux
need ssh openssh-client
need sshd openssh-server
need slurmctld slurmctld
need slurmd slurmd
need sbatch slurm-client

if [ ${#missing[@]} -eq 0 ]; then
  echo "hosts: everything is there"
elif [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "hosts: not root on Debian, so ${missing[*]} is not installed" >&2
else
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
