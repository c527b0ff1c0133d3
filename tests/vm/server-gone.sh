#!/bin/bash
# The server is killed, or stops to answer, under load: programs in the guest get their errors
# within the timeout that nbd-client was given, nothing hangs, and after a new attach the file
# system's journal recovers all that was acknowledged.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-load.sh
. "$(dirname "$0")/lib-load.sh"

# For each of the connections, which the kernel tries one after the other; a killed server's
# requests wait for it as well.
TIMEOUT=5
SLACK=5

boot 2 mkfs.ext4 e2fsck
load_in_guest

# under_load NAME CONNECTIONS SIGNAL SECONDS
under_load() {
	local name=$1 connections=$2 signal=$3 limit=$4

	make_luks2 "$T/volume" 80M
	ok "$name: is served" serve disk "$T/volume" "$key" || return
	ok "$name: attach" guest attach "${ports[disk]}" /dev/nbd0 -timeout $TIMEOUT -C "$connections"
	ok "$name: load" guest start_load
	kill "-$signal" "${server_pids[disk]}"
	ok "$name: errors come within $limit seconds" errors_within "$limit"
	ok "$name: unmount, detach; nothing hangs" guest "stop_load && detach /dev/nbd0 && none_hang"
	if [ "$signal" = KILL ]; then
		wait "${server_pids[disk]}" 2>/dev/null
		unset "server_pids[disk]"
	else
		kill -CONT "${server_pids[disk]}"
		ok "$name: the server ends well when it may go on" stop_server disk
	fi
	ok "$name: a new server" serve disk "$T/volume" "$key" || return
	ok "$name: attach again" guest attach "${ports[disk]}" /dev/nbd0 -C "$connections"
	ok "$name: the journal recovers, and all acknowledged files are whole" guest recovers
	ok "$name: unmount, fsck, detach" guest \
		"umount /mnt && e2fsck -fn /dev/nbd0 && detach /dev/nbd0"
	ok "$name: the server ends well" stop_server disk
	ok "$name: the host sees the same files" same_on_host "$T/volume"
	rm "$T/volume"
}

under_load "killed, 1 connection" 1 KILL $((TIMEOUT + SLACK))
under_load "killed, 4 connections" 4 KILL $((TIMEOUT + SLACK))
under_load "stopped, 1 connection" 1 STOP $((TIMEOUT + SLACK))
under_load "stopped, 2 connections" 2 STOP $((2 * TIMEOUT + SLACK))
sound_kernel
done_testing
