#!/bin/bash
# Memory is bounded by configuration, not by what clients ask for; and nothing is left of a
# connection that has gone.
. "$(dirname "$0")/../lib/lib.sh"

load=$NDIO_BUILD/tests/clients/load

if [ -n "$NDIO_SANITIZE" ]; then
	skip_all "a sanitizer's own memory hides the server's"
fi
if [ "$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)" -lt 1500 ]; then
	skip_all "16 requests of 32 MiB need more memory than there is"
fi

status() { # NAME FIELD: in KiB, or just the number
	awk -v field="$2:" '$1 == field { print $2 }' "/proc/$(cat "$T/$1.pid")/status"
}

# growth NAME: sets grown, the KiB by which the server's peak rises above what it has now, in a
# few rounds of 16 requests of 32 MiB at once.
growth() {
	local name=$1 before percent

	"$load" -n 1 "$(uri "$name")" >/dev/null # the file with its pid comes before it is ready
	before=$(status "$name" VmRSS)
	# Where that may not be done, the peak is that of its start, too.
	{ echo 5 >"/proc/$(cat "$T/$name.pid")/clear_refs"; } 2>/dev/null
	for percent in 100 0 50; do
		"$load" -d 16 -s $((32 << 20)) -n 20 -w $percent "$(uri "$name")" >/dev/null ||
			diag "load failed on $name"
	done
	grown=$(($(status "$name" VmHWM) - before))
}

mib() {
	echo "$(($1 / 1024)) MiB"
}

# bounded NAME FILE PLUGIN-OPTION...
bounded() {
	local name=$1 file=$2

	shift 2
	start_door disk "$file" "$@" || return
	growth disk
	diag "$name: 16 requests of 32 MiB: $(mib $grown); nbdkit's null plugin: $(mib $null)"
	ok "$name: at most 64 MiB, besides what nbdkit itself takes" test $((grown - null)) -le 65536
	stop_server disk
}

# left NAME FILE PLUGIN-OPTION...: what twenty connections leave behind.
left() {
	local name=$1 file=$2 round fds threads memory

	shift 2
	start_door disk "$file" "$@" || return
	for round in 0 1 2 3; do
		"$load" -c 20 -d 4 -s 65536 -n 400 -w 50 -r "$(uri disk)" >/dev/null ||
			diag "load failed"
		settle
		if [ $round = 0 ]; then
			fds=$(descriptors disk) threads=$(status disk Threads)
			memory=$(status disk VmRSS)
		fi
	done
	is "$name: no descriptor is left of a connection" "$(descriptors disk)" "$fds"
	is "$name: no thread is left of a connection" "$(status disk Threads)" "$threads"
	diag "$name: $(mib "$memory") after 20 connections, $(mib "$(status disk VmRSS)") after 80"
	ok "$name: hardly any memory is left of a connection" \
		test "$(status disk VmRSS)" -le $((memory + 16384))
	ok "$name: the server ends cleanly" stop_server disk
}

# A server's threads end a little after the client has gone.
settle() {
	local deadline=$((SECONDS + 10)) now before=

	while [ $SECONDS -le $deadline ]; do
		now="$(descriptors disk) $(status disk Threads)"
		[ "$now" != "$before" ] || return
		before=$now
		sleep 0.3
	done
}

# Slow enough that each of its threads gets a request. Our own server is all of it.
null=0
if [ "$DOOR" = nbdkit ]; then
	start_nbdkit null --filter=delay null size=1G rdelay=50ms wdelay=50ms
	growth null
	null=$grown
	stop_server null
fi

truncate -s 1G "$T/raw"
bounded raw "$T/raw"
make_luks2 "$T/luks" 1G --sector-size 4096
bounded LUKS2 "$T/luks" passphrase=+"$T/pass"
bounded "LUKS2, direct=off" "$T/luks" passphrase=+"$T/pass" direct=off
left LUKS2 "$T/luks" passphrase=+"$T/pass"

done_testing
