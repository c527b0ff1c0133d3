#!/bin/bash
# The server is killed, or stops to answer, under load: programs in the guest get their errors
# within the timeout that nbd-client was given, nothing hangs, and after a new attach the file
# system's journal recovers all that was acknowledged.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# For each of the connections, which the kernel tries one after the other; a killed server's
# requests wait for it as well.
TIMEOUT=5
SLACK=5

boot 2 mkfs.ext4 e2fsck
ok "some data" guest "head -c 1m /dev/urandom >/run/random"

# Files are written one by one, and the device is read, until either fails. Each file that is
# on the disk is in /run/acknowledged.
guest "write_files() {
	local i=0

	while dd if=/run/random of=/mnt/\$i bs=\$((i * 499 + 1)) count=1 conv=fsync; do
		echo \$i >>/run/acknowledged
		i=\$((i + 1))
	done
	seconds >/run/writer-ended
}

read_device() {
	while dd if=/dev/nbd0 of=/dev/null bs=64k count=100 iflag=direct; do
		:
	done
	seconds >/run/reader-ended
}

acknowledged() { # COUNT
	[ \$(wc -l </run/acknowledged) -ge \$1 ]
}

same_files() {
	while read -r i; do
		head -c \$((i * 499 + 1)) /run/random | cmp - /mnt/\$i || return 1
	done </run/acknowledged
}"

start_load() {
	guest "rm -f /run/acknowledged /run/*-ended; : >/run/acknowledged
		mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt || return
		write_files >/dev/null 2>&1 &
		read_device >/dev/null 2>&1 &
		await 60 acknowledged 30"
}

# errors_within SECONDS
errors_within() {
	guest "start=\$(seconds)
		await $(($1 + 30)) test -e /run/writer-ended -a -e /run/reader-ended || return
		echo \$((\$(seconds) - start)) seconds
		[ \$((\$(seconds) - start)) -le $1 ]"
}

clean_up_guest() {
	guest "wait; timeout 20 umount /mnt && detach /dev/nbd0 &&
		! ps -o stat,comm | grep ^D"
}

recovers() {
	guest "dmesg -c >/dev/null; mount /dev/nbd0 /mnt && dmesg | grep 'nbd0): recovery complete' &&
		same_files && cd /mnt && sha256sum \$(cat /run/acknowledged) >/run/sums; cd /"
}

same_on_host() {
	plaintext "$T/volume" "$T/plain" && e2fsck -fn "$T/plain" || return
	rm -rf "$T/tree"
	mkdir "$T/tree"
	debugfs -R "rdump / $T/tree" "$T/plain" && guest cat /run/sums >"$T/sums" &&
		(cd "$T/tree" && sha256sum -c "$T/sums")
}

# under_load NAME CONNECTIONS SIGNAL SECONDS
under_load() {
	local name=$1 connections=$2 signal=$3 limit=$4

	make_luks2 "$T/volume" 80M
	ok "$name: is served" serve disk "$T/volume" "$key" || return
	ok "$name: attach" guest attach "${ports[disk]}" /dev/nbd0 -timeout $TIMEOUT -C "$connections"
	ok "$name: load" start_load
	kill "-$signal" "${server_pids[disk]}"
	ok "$name: errors come within $limit seconds" errors_within "$limit"
	ok "$name: unmount, detach; nothing hangs" clean_up_guest
	if [ "$signal" = KILL ]; then
		wait "${server_pids[disk]}" 2>/dev/null
		unset "server_pids[disk]"
	else
		kill -CONT "${server_pids[disk]}"
		ok "$name: the server ends well when it may go on" stop_server disk
	fi
	ok "$name: a new server" serve disk "$T/volume" "$key" || return
	ok "$name: attach again" guest attach "${ports[disk]}" /dev/nbd0 -C "$connections"
	ok "$name: the journal recovers, and all acknowledged files are whole" recovers
	ok "$name: unmount, fsck, detach" guest \
		"umount /mnt && e2fsck -fn /dev/nbd0 && detach /dev/nbd0"
	ok "$name: the server ends well" stop_server disk
	ok "$name: the host sees the same files" same_on_host
	rm "$T/volume"
}

under_load "killed, 1 connection" 1 KILL $((TIMEOUT + SLACK))
under_load "killed, 4 connections" 4 KILL $((TIMEOUT + SLACK))
under_load "stopped, 1 connection" 1 STOP $((TIMEOUT + SLACK))
under_load "stopped, 2 connections" 2 STOP $((2 * TIMEOUT + SLACK))
sound_kernel
done_testing
