#!/bin/sh
# Becomes a host: /bin/sh host.sh NAME ssh|bare FOLDER SHARED... as the first process of new namespaces (hosts.rs). A bare
# one has no sshd: its first process only takes in orphans.
# Private: /tmp, /run, /dev/shm, processes, name, network. Shared: the SHARED folders and all else, as over NFS.
set -eu
name=$1 kind=$2 folder=$3
shift 3
mount -t proc proc /proc
hostname "$name"
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/ssh_config" /etc/ssh/ssh_config
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /mnt
i=0
for shared in "$folder" "$@"; do
	i=$((i + 1))
	mkdir "/mnt/$i"
	mount --bind "$shared" "/mnt/$i"
done
mount -t tmpfs tmpfs /tmp
i=0
for shared in "$folder" "$@"; do
	i=$((i + 1))
	mkdir -p "$shared"
	mount --bind "/mnt/$i" "$shared"
done
mount -t tmpfs tmpfs /run
mkdir /run/sshd
ip link set lo up
: >"$folder/ready-$name"
if [ "$kind" = bare ]; then
	while :; do
		sleep infinity &
		wait $!
	done
fi
exec /usr/sbin/sshd -D -e -f "$folder/sshd_config"
