#!/bin/bash
# The plugin asks for no memory for a request: what it asks for while it serves doesn't grow with
# their number. So a gateway that the kernel writes dirty memory through doesn't need any for that.
. "$(dirname "$0")/../lib/lib.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "a sanitizer has its own malloc"
load=$NDIO_BUILD/tests/clients/load
counted=$NDIO_BUILD/tests/preload/count-allocations.so
depth=8

# counts NAME: sets count, so far.
counts() {
	local before deadline=$((SECONDS + 20))

	before=$(grep -c '^allocations: ' "$T/$1.log")
	kill -URG "${server_pids[$1]}"
	until [ "$(grep -c '^allocations: ' "$T/$1.log")" -gt "$before" ] ||
		[ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	count=$(sed -n 's/^allocations: //p' "$T/$1.log" | tail -n 1)
}

some_load() { # NAME REQUESTS SIZE
	"$load" -d $depth -w 50 -r -n "$2" -s "$3" "$(uri "$1")" >/dev/null
}

# The first count only finds where the plugin's code is.
serves_without() { # NAME
	local name=$1 first last

	ok "$name: requests" some_load "$name" 10 4096
	counts "$name"
	ok "$name: a few, small and large" some_load "$name" 100 300000
	counts "$name"
	first=$count
	ok "$name: many more" some_load "$name" 10000 5000
	ok "$name: large ones too" some_load "$name" 500 300000
	counts "$name"
	last=$count
	# A request is kept for the next when it is done: as many are made as run at once.
	ok "$name: $((last - first)) allocations" [ $((last - first)) -le $((2 * depth)) ]
	ok "$name: ends well" stop_server "$name"
}

make_luks2 "$T/volume" 40M
start_server file env LD_PRELOAD="$counted" nbdkit --foreground --exit-with-parent \
	--unix "$T/file.sock" --pidfile "$T/file.pid" "$NDIO_PLUGIN" "$T/volume" passphrase=+"$T/pass"
serves_without file

start_stock inner file "$T/volume"
start_server gateway env LD_PRELOAD="$counted" nbdkit --foreground --exit-with-parent \
	--unix "$T/gateway.sock" --pidfile "$T/gateway.pid" "$NDIO_PLUGIN" uri="$(uri inner)" \
	passphrase=+"$T/pass" lock=off
serves_without gateway
done_testing
