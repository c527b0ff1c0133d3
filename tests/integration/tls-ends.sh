#!/bin/bash
# A connection with TLS that ends, breaks or stands still while data pass: what wasn't done is an
# error, what was done is right, nothing waits for ever, and a signal still ends it.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/tls.sh"

records=$NDIO_BUILD/tests/clients/ndio-records
size=$((4 << 20))

# breaks NAME OPTION...: reads and writes, through one connection and several.
breaks() {
	local name=$1 what connections

	shift
	start_tls_server bad backend -k "$psk" "$@"
	for connections in 1 4; do
		for what in read write; do
			timeout 30 "$records" -c $connections $what "$(with_psk bad)" $([ $what = read ] || \
				echo "$T/numbers") >"$T/said" 2>&1
			is "$name: $what, $connections" "$?:$(tail -n 1 "$T/said")" \
				"1:$(grep -E '^[0-9]+ records, [1-9][0-9]* failed, 0 wrong' "$T/said")"
			[ $what = read ] || ok "$name: what was acknowledged" \
				"$records" verify "$T/disk" "$T/numbers"
		done
	done
	end_server bad
}

# says NAME REGEX [PARAMETER] -- OPTION...: why a copy fails.
says() {
	local name=$1 regex=$2 parameter=

	[ "$3" = -- ] || parameter=$3
	while [ "$1" != -- ]; do shift; done
	shift
	start_tcp_tls_server bad backend -k "$psk" "$@" # where there are resets
	timeout 30 "$ndio" copy --reconnect 0 "$(tcp_with_psk bad)$parameter" null: >"$T/said" 2>&1
	is "$name: a copy fails" $? 1
	like "$name: and says why" "$(cat "$T/said")" "$regex"
	end_server bad
}

# In mid-transfer: reads and writes send other amounts to us. The answers to 465 writes are
# 7440 bytes or more, so at least one of four connections has more than 1000.
breaking() {
	local what

	for what in garbage cut reset end notify; do
		breaks "$what" -x $what@done+1000
	done
	says garbage "changed on its way|makes no sense as TLS" -- -x garbage@done+300000
	says cut "in the middle of a record" -- -x cut@done+300000
	says reset "reset" -- -x reset@done+300000
	says end "without TLS's close_notify" -- -x end@done+300000
	says notify "the server closed the connection" -- -x notify@done+300000
	says renegotiation "renegotiation" "&tls-version=1.2" -- -V 1.2 -n 5
}

# It refuses what we send and says nothing more, but doesn't close the connection.
deaf() {
	start_tls_server bad backend -k "$psk" -x deaf@done+1000000
	timeout 30 "$records" -c 1 read "$(with_psk bad)" >"$T/said" 2>&1
	is "a server that takes nothing more" $? 1
	end_server bad
}

# What it takes from the processor while a server says nothing any more, and that it can be
# interrupted.
stalls() {
	local pid start ticks

	start_tls_server bad backend -k "$psk" -x stall@done+300000
	"$ndio" copy --reconnect 0 "$(with_psk bad)" null: >"$T/said" 2>&1 &
	pid=$!
	sleep 2
	ok "a server that says nothing more is waited for" kill -0 $pid
	ticks=$(awk '{ print $14 + $15 }' /proc/$pid/stat)
	sleep 1
	ticks=$(($(awk '{ print $14 + $15 }' /proc/$pid/stat) - ticks))
	ok "without work ($ticks ticks)" [ "$ticks" -le 5 ]
	kill -TERM $pid
	ok "and given up at a signal" timeout 10 tail --pid=$pid -f /dev/null
	kill -KILL $pid 2>/dev/null
	wait $pid 2>/dev/null
	end_server bad
}

make_psk "$psk" alice
truncate -s $size "$T/disk"
"$records" write "$T/disk" >/dev/null
start_stock backend --threads 1 file "$T/disk"
breaking
deaf
stalls
ok "the server behind it ends cleanly" stop_server backend
done_testing
