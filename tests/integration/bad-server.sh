#!/bin/bash
# Servers that misbehave, before the library and before the gateway: each error is told with the
# name of the server, nothing hangs, and no read succeeds that left something out.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"

try=$NDIO_BUILD/tests/clients/ndio-try
hostile="$root/tests/tools/hostile.py"
key=$T/pass
options=()

# against MODE...: starts such a server, tries it, and leaves the output in $T/tried; without
# "finished" at its end something was found that should not be.
against() {
	start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" "$@" || return
	timeout 50 "$try" "${options[@]}" "$(uri bad)" >"$T/tried" 2>&1 && echo finished >>"$T/tried"
	end_bad
}

end_bad() {
	{
		kill -KILL "${server_pids[bad]}"
		wait "${server_pids[bad]}"
		unset "server_pids[bad]"
	} 2>/dev/null
}

# tells NAME MODE LINE...: it met each of these, and no other error.
tells() {
	local name=$1 mode=$2 line missing=

	shift 2
	# shellcheck disable=SC2086
	against $mode
	for line in "$@"; do
		grep -qE "^$line" "$T/tried" || missing="$missing [$line]"
		sed -i -E "/^$line/d" "$T/tried"
	done
	grep -qx finished "$T/tried" || missing="$missing [finished]"
	if [ -n "$missing" ] || grep -vE '^([a-zA-Z]+: 0|finished)$' "$T/tried" >"$T/more"; then
		result 1 "$name"
		diag "missing:$missing"
		diag "more: $(cat "$T/more")"
	else
		result 0 "$name"
	fi
}

lost=('write: ENOTCONN' 'FUA: ENOTCONN' 'flush: ENOTCONN' 'extents: ENOTCONN')

replies() {
	tells "nothing wrong" good "read: 0" "write: 0" "FUA: 0" "flush: 0" "extents: 0"
	tells "noise for a handshake" garbage "open: [A-Z]+: "
	tells "noise for a reply" garbage-replies "read: E(NOTCONN|IO)" "${lost[@]}"
	tells "a size beyond all bounds" huge "open: EPROTO: .*size"
	tells "no size" empty "read: EINVAL" "write: ENOSPC" "FUA: ENOSPC" "extents: EINVAL"
	tells "block sizes that are none" "blocks 3 4096 65536" "read: 0"
	tells "a largest block below the smallest" "blocks 4096 4096 512" "(read|open): "
	tells "blocks of one size" "blocks 4096 4096 4096" "read: 0" "write: 0" "FUA: 0"
	tells "huge blocks" "blocks 2147483648 2147483648 4294967295" "(read|open): "
	tells "a read with a gap" gap "read: EPROTO"
	tells "a read with a part twice" twice "read: EPROTO"
	tells "a read beyond what was asked" beyond "read: E(NOTCONN|IO)" "${lost[@]}"
	tells "an unstructured reply" simple "read: E(NOTCONN|IO)" "${lost[@]}"
	tells "a reply to nothing" stranger "read: E(NOTCONN|IO)" "${lost[@]}"
	tells "extents without end" extents "extents: EPROTO"
	tells "extents beyond the end" overrun "extents: 0"
	tells "extents of a byte each" tiny "extents: 0"
	tells "a hundred thousand of them at once" crumbs "extents: 0"
	tells "a size that changes" shrink "open: [A-Z]+: .*size has changed"
	tells "read-only" readonly "write: EROFS" "FUA: EROFS"
	tells "no flush" noflush "flush: EOPNOTSUPP"
	tells "no FUA" nofua "FUA: 0"
}

replies_with_a_key() {
	options=(-k "$key")
	make_luks2 "$T/luks" 20M --sector-size 4096
	tells "with a key: nothing wrong" "good $T/luks" "read: 0" "write: 0" "FUA: 0" "flush: 0"
	tells "with a key: noise for a reply" "garbage-replies $T/luks" "open: [A-Z]+: .*header"
	tells "with a key: a read with a gap" "gap $T/luks" "(open|read): E"
	tells "with a key: no export" "empty $T/luks" "open: EINVAL: .*not a LUKS"
	options=()
}

# By a server that tells of a byte at a time, or of a hundred thousand such extents at once, nobody is
# held: what ends inside of a block is taken for data.
crumbs() {
	local mode

	for mode in tiny crumbs; do
		start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" $mode "$T/luks" || return
		ok "$mode: copy" timeout 60 "$NDIO_BUILD/ndio" copy "$(uri bad)" "$T/copied"
		ok "$mode: copies all" cmp "$T/luks" "$T/copied"
		is "$mode: map" "$(timeout 60 "$NDIO_BUILD/ndio" map "$(uri bad)" | wc -l)" 1
		ok "$mode: compare" timeout 60 "$NDIO_BUILD/ndio" compare "$(uri bad)" "$T/luks"
		is "$mode: it was asked few questions" "$(awk '$2 == 7 { n++ }
			END { print (n > 0 && n < 1000) }' "$T/bad.log")" 1
		end_bad
		rm "$T/copied"
	done
}

# The connection ends after any number of bytes. Every attempt ends, in an error or not, and
# names the server: ndio-try sees to that.
closes() {
	local limits=({0..60..3} {61..140} {150..400..10} {500..3000..500} {16000..200000..20000})

	options=(-c 1 -n "${#limits[@]}")
	against close "${limits[@]}"
	is "closes after any number of bytes" "$(tail -n 1 "$T/tried")" finished
	ok "in the handshake" grep -q '^open: E' "$T/tried"
	ok "and later, which is told in words" \
		grep -q '^read: ENOTCONN: .*: the connection to the server is lost$' "$T/tried"
	options=(-c 1 -n 20 -k "$key")
	against close {130..400..60} {1000..400000..30000} "$T/luks"
	is "closes after any number of bytes, with a key" "$(tail -n 1 "$T/tried")" finished
	ok "in the header" grep -q '^open: E.*header' "$T/tried"
	options=()
}

# A gateway in front of such a server doesn't start, or hands the error on.
gateways() {
	local mode

	for mode in garbage huge garbage-replies empty; do
		start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" $mode "$T/luks" || return
		ok "gateway: $mode" refused "bad.sock: " uri="$(uri bad)" passphrase=+"$key"
		end_bad
	done
	for mode in gap twice beyond simple stranger; do
		start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" $mode || return
		start_door gate uri="$(uri bad)" reconnect=0
		ok "gateway: $mode" py gate 'fails("EIO", h.pread, 65536, 0)'
		ok "gateway: $mode: it ends cleanly" stop_server gate
		end_bad
	done
}

make_luks2 "$T/luks" 20M --sector-size 4096
replies
replies_with_a_key
crumbs
closes
gateways
done_testing
