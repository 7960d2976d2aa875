#!/bin/sh
# What keepalived calls when a firewall's role changes, in the manner of those
# that sites have had for conntrackd for years: one command after the other, and
# a line in the log for each that ends with the status 1.
#
# usage: notify.sh primary|backup|fault CONFIGURATION LOCKFILE LOGFILE

config=$2 lock=$3 log=$4

daemon() {
	conntrackd -C "$config" "$@"
	if [ $? -eq 1 ]; then
		echo "ERROR: failed to invoke conntrackd $*" >>"$log"
		return 1
	fi
}

case "$1" in
primary)
	daemon -c # commit the external cache to the kernel
	daemon -f # empty both caches
	daemon -R # read the kernel's table into the internal cache
	daemon -B # send it to the others
	;;
backup)
	if ! daemon -s >/dev/null; then # is it running at all?
		rm -f "$lock"
		daemon -d
	fi
	daemon -t # forget what this node carried, a little later
	daemon -n # ask the others for everything
	;;
fault)
	daemon -t
	;;
*)
	echo "usage: $0 primary|backup|fault" >&2
	exit 1
	;;
esac
