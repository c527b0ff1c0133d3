#!/bin/bash
# ndio serve --background: its caller goes on when clients can connect, or learns why they can't; the
# server is rid of all that was its caller's. And --wait and --no-zero, which are for such servers.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/command.sh"

serve=$NDIO_BUILD/ndio-serve
truncate -s 1M "$T/disk"
cd "$T" || exit 1

# Ready for a signal, or not: but for at most half a minute.
await() {
	local deadline=$((SECONDS + 30))

	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.02
	done
}

servers() {
	pgrep -f "^$serve .*--socket [^ ]*x.sock" || true
}

none_left() {
	[ -z "$(servers)" ]
}

end_servers() {
	local pid

	for pid in $(servers); do
		kill -KILL "$pid"
	done
	clean_up
}
trap end_servers EXIT

# background ARG...: what it says in $said, and $status.
background() {
	SYSLOG_FILE=$T/syslog \
		LD_PRELOAD="${NDIO_PRELOAD:+$NDIO_PRELOAD }$NDIO_BUILD/tests/preload/syslog-to-file.so" \
		"$serve" --background --socket x.sock "$@" >"$T/said" 2>&1 <"$T/disk"
	status=$?
	said=$(without_limits "$T/said")
}

# ---- one that serves ----

psk_of() {
	echo "nbds+unix://$1@/${2:-}?socket=$T/x.sock&tls-psk-file=$T/keys.psk"
}

"$ndio" psk keys.psk alice
background --pid-file x.pid --tls-psk keys.psk disk
is "it serves: the status" "$status" 0
is "it serves: where it does is told" "$said" "ndio serve: disk: listening on $T/x.sock"
pid=$(cat x.pid)
is "it serves: a single process" "$(servers)" "$pid"
ok "it serves: at once" shown "$(psk_of alice)"
is "its session is its own" "$(ps -o sid= -p "$pid" | tr -d ' ')" "$pid"
if [ "$(id -u)" = 0 ]; then
	is "its folder" "$(readlink "/proc/$pid/cwd")" /
	is "nothing is left of what its caller has" \
		"$(readlink "/proc/$pid/fd/0" "/proc/$pid/fd/1" "/proc/$pid/fd/2" | uniq -c | tr -s ' ')" \
		" 3 /dev/null"
else
	skip "only root may look into a process that has keys" 2
fi
ok "a key that is added" "$ndio" psk keys.psk bob
ok "it is found, by a path from the caller's folder" shown "$(psk_of bob)"
"$ndio" info "$(psk_of bob none)" >/dev/null 2>&1
ok "what a client does wrong is in the log" await grep -qs 'asks for "none"' syslog
cp keys.psk clients.psk
echo nonsense >>keys.psk
his=$(psk_of bob)
ok "a file of keys with a mistake in it: nobody is let in" not "$ndio" info "${his/keys.psk/clients.psk}"
ok "and the log says which" await grep -qs 'no TLS with it: .*keys.psk: line 3' syslog
cp clients.psk keys.psk
ok "as it was" shown "$his"
is "and nowhere else" "$(without_limits said)" "$said"
kill -TERM "$pid"
ok "it ends" await none_left
is "and leaves nothing" "$(ls x.sock x.pid 2>/dev/null)" ""

# ---- one that doesn't ----

background --key-file "$T/pass" disk
is "no LUKS: the status" "$status" 1
like "no LUKS: the reason, marked" "$said" "^ndio serve: error: disk: [^"$'\n'"]*not a LUKS volume$"
background --run true disk
is "with --run: the status" "$status" 2
background --listen 256.256.256.256 disk
is "no such address: the status" "$status" 1
like "no such address: the reason" "$said" "^ndio serve: error: 256.256.256.256: [^"$'\n'"]*$"
ok "nothing is left of them" none_left

# ---- a server that isn't there yet ----

late="nbd+unix:///?socket=$T/late.sock"
waits="late.sock: .*: waiting for the server, [0-9]+ seconds? at the most"
start_waiting() {
	rm -f said
	background --wait 60 "$late" &
	waiting=$!
	await grep -qsE "$waits" said
}

ok "another server: it is waited for, which is told" start_waiting
start_serve late disk
wait $waiting
is "another server: it comes" "$(servers | wc -l)" 1
like "another server: who waits for both is told" "$(tail -n 1 said)" "listening on $T/x.sock$"
ok "another server: is served" nbdinfo --size "nbd+unix:///?socket=$T/x.sock"
kill -TERM "$(servers)"
ok "it ends, too" await none_left
ok "the other ends" stop_server late
background --wait 1 "$late"
is "another server, never there: the status" "$status" 1
like "another server, never there: why" "$said" "$waits"$'\n'"ndio serve: error: .*late.sock: "
for signal in TERM KILL; do
	ok "SIG$signal: there are two processes" start_waiting
	kill -$signal "$(pgrep -o -f "^$serve .*--socket [^ ]*x.sock")"
	ok "SIG$signal of the caller's: the other ends, too" await none_left
	wait $waiting
done

# ---- zeroes ----

zeroes() { # ARG...
	start_serve zero "$@" disk
	py zero 'print(h.can_zero(), h.can_fast_zero())'
	py zero '
h.set_strict_mode(0)
try:
    h.zero(4096, 0)
    print("taken")
except nbd.Error as e:
    print(e.errno)'
	stop_server zero
}

is "requests for zeroes" "$(zeroes)" "True True"$'\n'"taken"
is "--no-zero: they aren't offered, nor taken" "$(zeroes --no-zero)" "False False"$'\n'"EINVAL"
done_testing
