#!/bin/bash
# What was acknowledged as durable is: a flush and a FUA write reach the disk's own flush before
# they are answered, and survive the server's being killed at any time.
. "$(dirname "$0")/../lib/lib.sh"

clients=$NDIO_BUILD/tests/clients
pass=passphrase=+$T/pass
loop=

tear_down() {
	if [ -n "$loop" ]; then
		losetup --detach "$loop"
	fi
	if mountpoint -q "$T/mnt"; then
		umount --lazy "$T/mnt"
	fi
	clean_up
}
trap tear_down EXIT

# A disk that logs what it is asked: $T/mnt/disk has the bytes of a file, and $T/disk-log each
# write and flush.
start_logging_disk() { # FILE
	mkdir -p "$T/mnt"
	: >"$T/disk-log"
	start_server backing nbdfuse --pidfile "$T/backing.pid" "$T/mnt/disk" \
		--command nbdkit -s --filter=log file "$1" logfile="$T/disk-log"
}

# A ring or a loop device lets go of its file a little later than its owner ends.
stop_logging_disk() {
	local deadline=$((SECONDS + 10))

	until umount "$T/mnt" 2>/dev/null || [ $SECONDS -gt $deadline ]; do
		sleep 0.05
	done
	wait "${server_pids[backing]}"
	unset "server_pids[backing]"
}

data_offset() { # FILE: where the data of a LUKS volume start, in bytes
	local sectors

	sectors=$(cryptsetup luksDump --dump-json-metadata "$1" | tr -d ' \n' |
		sed -n 's/.*"offset":"\([0-9]*\)","size":"dynamic".*/\1/p')
	echo "$sectors"
}

# durable NAME DISK OFFSET PLUGIN-OPTION...: all kinds of writes on a disk that logs.
durable() {
	local name=$1 disk=$2 offset=$3 kind

	shift 3
	if ! start_door disk --threads 4 "$disk" "$@"; then
		result 1 "$name: the server starts"
		return
	fi
	for kind in plain flush fua large concurrent; do
		ok "$name: $kind" timeout 60 "$clients/durability" $kind "$(uri disk)" \
			"$T/disk-log" "$offset"
	done
	ok "$name: the server ends cleanly" stop_server disk
}

on_logging_disk() {
	local offset

	truncate -s 16M "$T/raw"
	make_luks2 "$T/luks" 32M --sector-size 4096
	offset=$(data_offset "$T/luks")

	if [ ! -w /dev/fuse ] || ! start_logging_disk "$T/raw" 2>/dev/null; then
		skip "no FUSE here" 24
		return
	fi
	durable "raw file" "$T/mnt/disk" 0
	durable "raw file, direct=off" "$T/mnt/disk" 0 direct=off
	stop_logging_disk

	start_logging_disk "$T/luks" || return
	durable "LUKS2 file" "$T/mnt/disk" "$offset" "$pass"
	if loop=$(losetup --find --show "$T/mnt/disk" 2>/dev/null); then
		durable "LUKS2 block device" "$loop" "$offset" "$pass"
		losetup --detach "$loop"
	else
		skip "no loop devices here" 6
	fi
	loop=
	stop_logging_disk
}

# A flush is an fdatasync() of the file, and a plain write none.
traced() {
	local tracer deadline=$((SECONDS + 10)) before after

	if [ -n "$NDIO_SANITIZE" ] || ! strace -o /dev/null true 2>/dev/null; then
		skip "no strace here, or under a sanitizer" 2
		return
	fi
	truncate -s 16M "$T/raw"
	start_door disk --threads 2 "$T/raw" || return
	"$clients/load" -n 1 "$(uri disk)" >/dev/null
	strace -f -e trace=fdatasync -o "$T/strace" -p "$(cat "$T/disk.pid")" 2>"$T/strace.log" &
	tracer=$!
	until grep -qs attached "$T/strace.log" || [ $SECONDS -gt $deadline ]; do
		sleep 0.05
	done
	"$clients/load" -n 20 "$(uri disk)" >/dev/null
	before=$(grep -c 'fdatasync(.* = 0' "$T/strace")
	"$clients/load" -n 1 -f "$(uri disk)" >/dev/null
	after=$(grep -c 'fdatasync(.* = 0' "$T/strace")
	kill -INT $tracer
	wait $tracer
	is "writes call no fdatasync()" "$before" 0
	is "a flush calls fdatasync() once" "$after" 1
	stop_server disk
}

verify_acknowledged() {
	"$clients/records" verify "$(uri disk)" <"$T/acknowledged"
}

# Of this record or a later one.
wait_for_acknowledged() {
	local deadline=$((SECONDS + 20))

	until [ "$(sort -n "$T/acknowledged" 2>/dev/null | tail -n 1)" -ge "$1" ] 2>/dev/null ||
		[ $SECONDS -gt $deadline ]; do
		sleep 0.05
	done
}

# killed NAME FILE ROUNDS PLUGIN-OPTION...: a server is killed again and again while records are
# written; the next one has all that were acknowledged.
killed() {
	local name=$1 file=$2 rounds=$3 first=0 i writer

	shift 3
	for ((i = 0; i < rounds; i++)); do
		start_door disk --threads 4 "$file" "$@" || break
		"$clients/records" write "$(uri disk)" $first >>"$T/acknowledged" 2>"$T/writer.log" &
		writer=$!
		wait_for_acknowledged "$first"
		sleep "0.$((2 + RANDOM % 5))"
		kill -KILL "${server_pids[disk]}"
		{
			wait "${server_pids[disk]}"
			unset "server_pids[disk]"
		} 2>/dev/null
		wait $writer || break
		first=$(($(sort -n "$T/acknowledged" | tail -n 1) + 100))
	done
	is "$name: the server was killed $rounds times" $i "$rounds"
	start_door disk --threads 4 "$file" "$@" || return
	ok "$name: nothing acknowledged is lost" verify_acknowledged
	ok "$name: the server ends cleanly" stop_server disk
	rm -f "$T/acknowledged" "$file"
}

on_logging_disk
traced

truncate -s 256M "$T/raw"
killed "raw, killed" "$T/raw" 4
make_luks2 "$T/luks" 256M --sector-size 4096
killed "LUKS2, killed" "$T/luks" 4 "$pass"
make_luks2 "$T/luks" 256M --sector-size 512
killed "LUKS2, direct=off, killed" "$T/luks" 3 "$pass" direct=off

done_testing
