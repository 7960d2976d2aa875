#!/bin/sh
# Becomes a machine that boots: the root file system of this one, under an overlay
# that takes all writes, and systemd as process 1. The caller has made the
# namespaces (mount, pid, cgroup, ipc, network) and owns the directory $1, a tmpfs.
# Units of this machine are not there: only targets, and what is installed. What
# is in the directory SLUICE_TEST_OVER is laid over them: another systemd, say.
set -e
here=$1 root=$1/root
mkdir "$here/upper" "$here/work" "$root"
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$here/upper,workdir=$here/work" "$root"
cd "$root"
if [ -n "$SLUICE_TEST_OVER" ]; then cp -a "$SLUICE_TEST_OVER/." .; fi
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir run/lock run/netns
rm -rf etc/systemd/system usr/lib/systemd/system usr/lib/tmpfiles.d/[!s]* etc/sluice
mkdir etc/systemd/system usr/lib/systemd/system
for target in booted sysinit basic network-online shutdown umount final multi-user; do
    printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $target > usr/lib/systemd/system/$target.target
done
pivot_root . "$(mkdir -p mnt/old && echo mnt/old)"
cd /
umount -l /mnt/old
unset NOTIFY_SOCKET
container=test exec /lib/systemd/systemd --unit=booted.target --log-target=console --log-level=info --show-status=no
