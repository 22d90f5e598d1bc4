#!/usr/bin/env bash
# Whether what `make dist` packs works where there is nothing else, as root on a machine with debootstrap and buildah (setup/image.sh):
# the archive, unpacked by another user on a minimal Debian without a compiler, and the image of the Dockerfile, built without a Docker
# daemon and run as a user without a name on a read-only root. Each trains three steps on two workers. Sizes are printed.
# SUITES (bookworm) are the systems on which the archive is unpacked; MIRROR is Debian's, or UBUNTU_MIRROR Ubuntu's.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
place=$target/dist-check
suites=${SUITES:-bookworm}

skip() {
  echo "dist-check: SKIPPED: $1"
  if [ "${CI:-}" = true ]; then exit 1; fi
  exit 0
}
[ "$(id -u)" = 0 ] || skip "not root"
PATH=$PATH:/usr/sbin
for program in debootstrap buildah unshare setpriv ip; do command -v "$program" >/dev/null || skip "no $program: run setup/image.sh"; done

archive=$(cat "$target/dist/folder" 2>/dev/null || true).tar.xz
[ -e "$archive" ] || { echo "dist-check: no archive in $target/dist: run 'make dist'" >&2; exit 2; }
rm -rf "$place/work"
mkdir -p "$place/work"
trap 'rm -rf "$place/work"' EXIT

base() { # SUITE: a minimal system, made once
  local root=$place/$1
  if [ ! -e "$root.made" ]; then
    rm -rf "$root"
    case $1 in
      # All of Ubuntu's have one script, and Debian's debootstrap may not know the newest of its names.
      jammy | noble) debootstrap --variant=minbase "$1" "$root" "${UBUNTU_MIRROR:-http://archive.ubuntu.com/ubuntu}" gutsy >"$root.log" ;;
      *) debootstrap --variant=minbase "$1" "$root" "${MIRROR:-http://deb.debian.org/debian}" >"$root.log" ;;
    esac || { tail -5 "$root.log" >&2; exit 1; }
    rm -rf "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    touch "$root.made"
  fi
}

# Runs a shell as USER, group 0, with nothing of this machine but its kernel: the root file system is read-only, /tmp and /dev/shm are not.
inside() { # ROOT USER COMMAND
  # shellcheck disable=SC2016 # For the shell inside.
  unshare --mount --pid --fork --kill-child --net --ipc --uts /bin/sh -eu -c '
    root=$1 user=$2 command=$3
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -t tmpfs tmpfs "$root/tmp"
    mount -t tmpfs tmpfs "$root/dev"
    mkdir "$root/dev/shm"
    chmod 1777 "$root/tmp" "$root/dev/shm"
    for device in null zero random urandom; do : >"$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    ip link set lo up
    mount -o remount,bind,ro "$root"
    exec chroot "$root" setpriv --reuid "$user" --regid 0 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
      /usr/bin/env -i PATH="$PATH" HOME=/tmp /bin/sh -eu -c "$command"' sh "$@"
}

# Synthetic data, three steps on two workers, a prediction.
trains=$(cat <<'END'
  cd /tmp
  for tool in cc gcc rustc cargo; do if command -v $tool; then echo "a compiler is here" >&2; exit 1; fi; done
  data-shards phantom data --patients 4 --size 64
  jcs-launch --nproc-per-node 2 "$CONFIGS/demo.toml" run.dir=/tmp/run data.train=/tmp/data/train.txt data.eval=/tmp/data/eval.txt data.size=64 train.max_steps=3 optim.warmup_steps=0
  jcs predict --weights run --out predictions data/images/*.png
  test -s predictions/report.html
  awk '$2 == "/" && $4 ~ /^ro(,|$)/ { ro = 1 } END { exit !ro }' /proc/mounts || { echo "the root can be written" >&2; exit 1; }
END
)

name=$(basename "$archive" .tar.xz)
for suite in $suites; do
  base "$suite"
  root=$place/work/$suite
  cp -a "$place/$suite" "$root"
  mkdir -p "$root/opt/home"
  chown 4711:4711 "$root/opt/home"
  setpriv --reuid 4711 --regid 4711 --clear-groups tar xJf "$archive" -C "$root/opt/home" --no-same-owner
  (cd "$root/opt/home/$name" && sha256sum --check --quiet SHA256SUMS)
  inside "$root" 4711 "PATH=/opt/home/$name/bin:\$PATH CONFIGS=/opt/home/$name/configs; export PATH; $trains" >"$place/$suite.out" 2>&1 ||
    { cat "$place/$suite.out"; echo "dist-check: the archive does not work on $suite" >&2; exit 1; }
  # shellcheck source=/dev/null
  echo "dist-check: the archive works on $suite ($(. "$root/etc/os-release"; echo "$PRETTY_NAME")): $(grep -c . "$place/$suite.out") lines of output in $place/$suite.out"
  rm -rf "$root"
done

# The image. Layers are whole folders with vfs, which needs nothing of the kernel.
export BUILDAH_ISOLATION=chroot
store=(--root "$place/work/storage" --runroot "$place/work/run" --storage-driver vfs)
trap 'buildah "${store[@]}" umount --all >/dev/null; rm -rf "$place/work"' EXIT
base bookworm
context=$place/work/context
mkdir "$context"
ln "$archive" "$context/" 2>/dev/null || cp "$archive" "$context/"
tar c -C "$place/bookworm" . >"$place/work/base.tar"
container=$(buildah "${store[@]}" from scratch)
buildah "${store[@]}" add --quiet "$container" "$place/work/base.tar" / >/dev/null
buildah "${store[@]}" commit --quiet "$container" base >/dev/null
buildah "${store[@]}" bud --quiet --build-arg FROM=archive --build-arg BASE=localhost/base --build-arg BUILD_BASE=localhost/base \
  --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" -f Dockerfile -t jcs "$context" >"$place/image.log" 2>&1 ||
  { tail -20 "$place/image.log"; echo "dist-check: the image cannot be built" >&2; exit 1; }
container=$(buildah "${store[@]}" from localhost/jcs)
mounted=$(buildah "${store[@]}" mount "$container")
user=$(buildah "${store[@]}" inspect --format '{{.OCIv1.Config.User}}' "$container")
inside "$mounted" 1000730000 "PATH=/opt/jcs/bin:\$PATH CONFIGS=/opt/jcs/configs; export PATH; $trains" >"$place/image.out" 2>&1 ||
  { cat "$place/image.out"; echo "dist-check: the image does not work" >&2; exit 1; }
echo "dist-check: the image works as user 1000730000 on a read-only root; its own user is $user; $(du -sm --apparent-size "$mounted" | cut -f1) MiB, of which $(du -sm --apparent-size "$place/bookworm" | cut -f1) MiB are the base"
