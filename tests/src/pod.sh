#!/bin/sh
# Becomes a container as a cluster makes one: /bin/sh pod.sh ROOT USER HOSTS VOLUME... -- SHARED... -- NAME=VALUE... COMMAND...
# as root on a host of hosts.rs. VOLUME is FOLDER:PLACE:ro|rw. A read-only root file system with this machine's programs and the
# SHARED folders, the volumes, a /tmp and a /dev/shm of its own, processes of its own; the command is the first of them, as a user
# without a name in the group 0, and without any privilege.
set -eu
root=$1 user=$2 hosts=$3
shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 pod "$root"
for folder in bin sbin lib lib64 usr; do
	if [ -L "/$folder" ]; then
		cp -a "/$folder" "$root/$folder"
	elif [ -d "/$folder" ]; then
		mkdir "$root/$folder"
		mount --bind "/$folder" "$root/$folder"
	fi
done
mkdir "$root/etc" "$root/proc" "$root/dev" "$root/dev/shm" "$root/run" "$root/sys"
mount -t sysfs -o ro sysfs "$root/sys"
# ssl: the certificates that an image has.
for file in ld.so.cache nsswitch.conf alternatives ssl; do
	[ ! -e "/etc/$file" ] || cp -a "/etc/$file" "$root/etc/"
done
echo 'root:x:0:0:root:/root:/sbin/nologin' >"$root/etc/passwd"
: >"$root/etc/hosts"
mount --bind "$hosts" "$root/etc/hosts"
for device in null zero random urandom; do
	: >"$root/dev/$device"
	mount --bind "/dev/$device" "$root/dev/$device"
done
while [ "$1" != -- ]; do
	from=${1%%:*} rest=${1#*:}
	to=${rest%%:*} mode=${rest#*:}
	if [ -d "$from" ]; then mkdir -p "$root$to"; else mkdir -p "$(dirname "$root$to")" && : >"$root$to"; fi
	mount --bind "$from" "$root$to"
	[ "$mode" = rw ] || mount -o remount,bind,ro "$root$to"
	shift
done
shift
while [ "$1" != -- ]; do
	mkdir -p "$root$1"
	mount --bind "$1" "$root$1"
	shift
done
shift
mount -o remount,ro "$root"
exec unshare --pid --fork --kill-child --mount-proc="$root/proc" chroot "$root" \
	setpriv --reuid "$user" --regid 0 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all /usr/bin/env -i "$@"
