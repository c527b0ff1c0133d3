# A copy in the middle of which servers are killed, with what they hadn't flushed: `. tests/lib/gate.sh`
# after lib.sh, tls.sh, command.sh and survive.sh.
#
# The other side is a server that stops at a gate, so that the middle is known.
# shellcheck shell=bash disable=SC2034,SC2154

survive_limit=60
nbdkit=(nbdkit --foreground --exit-with-parent --unix "$T/disk.sock" --pidfile "$T/disk.pid")
SIZE=$((24 << 20)) # with gates at thirds
head -c $SIZE /dev/urandom >"$T/data"

# ---- the side with the gates ----

# Writes and reads behind a gate wait as long as it is there, and say so.
cat >"$T/gate" <<EOT
for i in 1 2; do
	while [ \$(((\$4 + \$3) * 3 / $SIZE)) -ge \$i ] && [ -e "$T/gate-\$i" ]; do
		: >"$T/at-\$i"
		sleep 0.02
	done
done
EOT

start_gated() { # FILE
	start_stock gated eval get_size="echo $SIZE" thread_model='echo parallel' \
		can_write='exit 0' can_flush='exit 0' flush=: \
		pread=". $T/gate; dd if=$1 skip=\$4 count=\$3 iflag=skip_bytes,count_bytes status=none" \
		pwrite=". $T/gate; dd of=$1 seek=\$4 oflag=seek_bytes conv=notrunc status=none"
}

close_gates() {
	rm -f "$T"/at-*
	: >"$T/gate-1"
	: >"$T/gate-2"
}

# at_gate N: something waits there.
at_gate() {
	local deadline=$((SECONDS + survive_limit))

	until [ -e "$T/at-$1" ]; do
		[ $SECONDS -lt $deadline ] || return
		sleep 0.02
	done
}

open_gate() {
	rm "$T/gate-$1"
}

# ---- what is copied ----

# begin COMMAND...: in the background, up to the first gate.
copying=
begin() {
	local small=()

	[ "$1" = compare ] || small=(--request-size 512K --requests 2)
	close_gates
	timeout 100 "$ndio" "$@" "${small[@]}" >"$T/printed" 2>"$T/said" &
	copying=$!
	at_gate 1
}

# ends STATUS: the copy does.
ends() {
	wait "$copying"
	is_status $? "$1"
}

is_status() {
	[ "$1" = "$2" ] && return
	echo "status $1 and not $2: $(cat "$T/said" "$T/printed")"
	return 1
}

said_so() { # REGEX
	grep -qE "$1" "$T/said" && return
	cat "$T/said"
	return 1
}

restart() {
	kill_disk
	start_disk
}

# is_back COUNT: so often in all, by now.
is_back() {
	local deadline=$((SECONDS + survive_limit))

	until [ "$(grep -c 'disk.sock: the server is back' "$T/said")" -ge "$1" ]; do
		[ $SECONDS -lt $deadline ] || return
		sleep 0.02
	done
}

# told_of_each NAME TIMES: the loss and the return, at least so often.
told_of_each() {
	local lost

	lost=$(grep -c 'disk.sock: the connection is lost' "$T/said")
	ok "$1: it told of that" test "$lost" -ge "$2"
	is "$1: and of each return" "$(grep -c 'disk.sock: the server is back' "$T/said")" "$lost"
}

# through NAME ARG...: a copy, with a restart of the server at the first gate, and two at the second.
through() {
	ok "$1: begun" begin "${@:2}"
	ok "$1: a restart" restart
	ok "$1: which it sees" is_back 1
	open_gate 1
	ok "$1: it goes on" at_gate 2
	ok "$1: another" restart
	ok "$1: and at once one more" restart
	open_gate 2
	ok "$1: it ends well" ends 0
	told_of_each "$1" 2
}

# once NAME ARG...: a copy with one restart of the server.
once() {
	ok "$1: begun" begin "${@:2}"
	ok "$1: a restart" restart
	rm "$T/gate-1" "$T/gate-2"
	ok "$1: it ends well" ends 0
	told_of_each "$1" 1
}

same() {
	is "$1: every byte" "$(cmp "$T/data" "$2" && echo same)" same
}

# both_ways HOW NAME: through or once, with the server that $serve says, of $T/disk.
both_ways() {
	local how=$1

	shift
	truncate -s 0 "$T/disk"
	truncate -s $SIZE "$T/disk"
	start_gated "$T/data"
	start_disk
	$how "$1, written" copy "$(uri gated)" "$(uri disk)"
	kill_disk
	same "$1, written and killed" "$T/disk"
	end_server gated

	truncate -s $SIZE "$T/copy"
	start_gated "$T/copy"
	start_disk
	$how "$1, read" copy "$(uri disk)" "$(uri gated)"
	same "$1, read" "$T/copy"
	kill_disk
	end_server gated
	rm "$T/copy"
}
