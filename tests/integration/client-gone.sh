#!/bin/bash
# Clients that vanish, talk nonsense, or come and go by the hundred cost nobody else anything,
# and leave nothing behind in the server.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/nbd.sh"

clients=$NDIO_BUILD/tests/clients
vanishing=20 nonsense=210 quick=300
[ -z "$NDIO_SANITIZE" ] || vanishing=8 nonsense=70 quick=60
ulimit -l unlimited 2>/dev/null

# With one thread a connection, many requests at once are those of many connections.
threads=8 connections=3 depth=8
if [ "$DOOR" = nbdkit ] && aborts_on_leave; then
	threads=1 connections=20 depth=2
fi

stat_of() { # COUNTER: as the server printed it at its end
	sed -n "s/^ndio\.stats\.$1=//p" "$T/disk.log"
}

# Clients under load, killed after a moment, while a quieter one is served all along.
vanish() {
	local i pid

	for ((i = 0; i < vanishing; i++)); do
		"$clients/load" -c $connections -d $depth -s $((1 + RANDOM * 64)) -r -w 50 \
			"$(uri disk)" &
		pid=$!
		sleep "0.0$((RANDOM % 9 + 1))"
		kill -KILL $pid
		wait $pid
	done 2>/dev/null
	return 0
}

with_a_bystander() { # COMMAND...
	local bystander status

	"$clients/load" -d 2 -s 5000 -r -w 50 -n 100000000 "$(uri disk)" \
		>"$T/bystander.log" 2>&1 &
	bystander=$!
	"$@" >"$T/with.log" 2>&1
	status=$?
	[ $status = 0 ] || cat "$T/with.log"
	# Still at work: it stops at an error.
	if ! kill -0 $bystander 2>/dev/null; then
		status=1
		cat "$T/bystander.log"
	fi
	kill -KILL $bystander 2>/dev/null
	wait $bystander 2>/dev/null
	return $status
}

hundreds() {
	local i

	for ((i = 0; i < quick; i += 20)); do
		"$clients/load" -c 20 -n 20 -w 0 "$(uri disk)" || return
	done
}

# What is written afterwards is read again.
serves() {
	head -c 1000003 /dev/urandom >"$T/sent"
	truncate -s 1001472 "$T/sent" # nbdcopy writes whole sectors
	nbdcopy "$T/sent" "$(uri disk)" && nbdcopy "$(uri disk)" - | cmp -n 1001472 - "$T/sent"
}

gone() { # NAME FILE PLUGIN-OPTION...
	local name=$1 file=$2

	shift 2
	if ! start_door disk --threads $threads "$file" -D ndio.stats=1 "$@"; then
		grep -q 'pin=on: can.t lock' "$T/disk.log" ||
			result 1 "$name: the server starts"
		skip "the locked-memory limit is too low" 7
		return
	fi
	ok "$name: $vanishing clients vanish under load" with_a_bystander vanish
	ok "$name: $nonsense clients talk nonsense" \
		with_a_bystander "$clients/garbage" "$T/disk.sock" $nonsense
	ok "$name: $quick clients come and go" with_a_bystander hundreds
	ok "$name: the server serves as before" serves
	ok "$name: it ends cleanly" stop_server disk
	[ "$DOOR" = nbdkit ] || return # which tells no counters
	is "$name: no request is left" "$(stat_of in_flight)" 0
	is "$name: and each pin was undone" "$(stat_of pins)" "$(stat_of unpins)"
}

# Asked to end under load, a server ends soon, and with nothing in flight. nbdkit itself frees
# nothing of its connections then, so leaks aren't looked for.
ends_under_load() { # NAME FILE PLUGIN-OPTION...
	local name=$1 file=$2 loads=() started i
	local -x ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0

	shift 2
	start_door disk --threads $threads "$file" -D ndio.stats=1 "$@" || return
	for i in 1 2; do
		: >"$T/load.$i"
		"$clients/load" -o -c $connections -d $depth -s 1000003 -r -w 50 "$(uri disk)" 2>/dev/null >"$T/load.$i" &
		loads+=($!)
	done
	# nbdkit waits for those that it has let in, and who waits to be let in once more asks for nothing.
	for i in 1 2; do
		until grep -q connected "$T/load.$i" || ! kill -0 "${loads[i - 1]}" 2>/dev/null; do
			sleep 0.02
		done
	done
	sleep 0.5
	started=$SECONDS
	ok "$name: ends cleanly when asked under load" stop_server disk
	ok "$name: and does so in some seconds" test $((SECONDS - started)) -le 10
	kill -KILL "${loads[@]}" 2>/dev/null
	wait "${loads[@]}" 2>/dev/null
	[ "$DOOR" = serve ] || is "$name: with no request left" "$(stat_of in_flight)" 0
}

truncate -s 128M "$T/raw"
gone raw "$T/raw"
make_luks2 "$T/luks" 144M --sector-size 4096
gone LUKS2 "$T/luks" passphrase=+"$T/pass"
[ "$DOOR" = serve ] || gone "LUKS2, pin=on" "$T/luks" passphrase=+"$T/pass" pin=on
ends_under_load LUKS2 "$T/luks" passphrase=+"$T/pass"
ends_under_load "raw, direct=off" "$T/raw" direct=off

done_testing
