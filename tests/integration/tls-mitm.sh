#!/bin/bash
# Someone between us and a server who changes what passes: whatever is done to the stream is an
# error, no read is wrong, no acknowledged write is lost, and nothing hangs. See mitm.py for what
# is done; what fails can be had again by its seed.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/tls.sh"

records=$NDIO_BUILD/tests/clients/ndio-records
seed=$((RANDOM * 32768 + RANDOM))
cases=2
[ -z "${NDIO_SLOW_TESTS:-}" ] || cases=40
stream=({flip,drop,replay,swap,cut,reset}-{up,down})
start=(strip-{unsup,policy,tls-reqd,ack,flags} old-style inject replay)

# Writes, and then looks into the server's own file for what was acknowledged.
cat >"$T/writes" <<'SCRIPT'
disk=$1
records=$2
shift 2
fallocate --punch-hole --offset 0 --length "$(stat -c %s "$disk")" "$disk"
"$records" "$@" "$disk.numbers"
status=$?
[ $status -gt 1 ] || { cp "$disk" "$disk.copy" && "$records" verify "$disk.copy" "$disk.numbers"; } ||
	exit 4
exit $status
SCRIPT

# mitm NAME CASES CHANGE... -- CLIENT...
mitm() {
	local name=$1 count=$2

	shift 2
	ok "$name (--seed $seed)" timeout 500 /usr/bin/python3 "$root/tests/tools/mitm.py" \
		--seed $seed --cases "$count" "$T/disk.sock" "$@"
}

# of_relay URI: with the relay's socket for the server's.
of_relay() {
	echo "${1/$T\/disk.sock/SOCKET}"
}

# What reads find. The server has locked its file against us.
fill() {
	truncate -s 4M "$T/filled"
	"$records" write "$T/filled" >/dev/null && dd if="$T/filled" of="$T/disk" bs=1M conv=notrunc status=none
}

# both NAME URI CHANGE...: reads and writes, through one connection and through several.
both() {
	local name=$1 uri

	uri=$(of_relay "$2")
	shift 2
	fill
	mitm "$name: reads" $cases "$@" -- "$records" -c 1 read "$uri"
	# One of several that is lost with nothing under way isn't missed: what counts is the data.
	mitm "$name: reads through 4 connections" 1 --expect any "$@" -- "$records" -c 4 read "$uri"
	mitm "$name: writes" $cases "$@" -- bash "$T/writes" "$T/disk" "$records" -c 1 write "$uri"
	mitm "$name: writes through 4 connections" 1 --expect any "$@" -- \
		bash "$T/writes" "$T/disk" "$records" -c 4 write "$uri"
}

# The start of a connection, with a server that would take clients without TLS as well.
starts() {
	local uri

	uri=$(of_relay "$2")
	fill
	mitm "$1: the start" 1 "${start[@]}" nothing -- "$records" -c 2 read "$uri"
	mitm "$1: its bits" $((cases * 4)) hello-up hello-down greeting -- "$records" -c 1 read "$uri"
	mitm "$1: delays" $cases delay-up delay-down -- "$records" -c 2 read "$uri"
}

truncate -s 4M "$T/disk"
make_tls

start_qemu_nbd disk "${qemu_psk[@]}" --format raw "$T/disk"
both "key" "$(with_psk disk)" "${stream[@]}"
ok "the server ends cleanly" stop_server disk

start_stock disk --tls=on --tls-psk="$psk" --threads 1 file "$T/disk"
starts "key" "$(with_psk disk)"
end_server disk

start_stock disk --tls=on --tls-certificates="$tls" --threads 1 file "$T/disk"
starts "certificates" "$(with_certificates disk)"
both "certificates" "$(with_certificates disk)" "${stream[@]}"
end_server disk
done_testing
