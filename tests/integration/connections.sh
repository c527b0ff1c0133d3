#!/bin/bash
# Several connections to a server: it may let in fewer, and any of them may be lost. What can go on
# goes on, over those that there are; what can't says so.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/command.sh"
. "$(dirname "$0")/../lib/tls.sh"

# LeakSanitizer (clang 14) crashes by itself in nbdkit where a thread that dialled has ended.
start_gate() { # ARG...
	local -x ASAN_OPTIONS=${ASAN_OPTIONS-}:detect_leaks=0

	start_door gate "$@"
}

try=$NDIO_BUILD/tests/clients/ndio-try
hostile=$root/tests/tools/hostile.py

# against MODE...
against() {
	start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" "$@"
}

# await COMMAND...: until it succeeds, or for half a minute.
await() {
	local deadline=$((SECONDS + 30))

	until "$@"; do
		[ $SECONDS -lt $deadline ] || return 1
		sleep 0.02
	done
}

said_quietly() {
	said "$@" >/dev/null
}

# ---- a server that lets in fewer ----

# goes_on_with COUNT NAME: the server, by a gateway and by the library, which both say so once.
goes_on_with() {
	local words="inner.sock: the server lets in $1 connections? and not 4: going on with th" before

	before=$SECONDS
	start_gate uri="$(uri inner disk)"
	ok "$2: a gateway serves" py gate 'same(len(h.pread(65536, 4096)), 65536)'
	ok "$2: it says so" said gate "$words"
	is "$2: once" "$(grep -c "lets in" "$T/gate.log")" 1
	stop_server gate
	ok "$2: a copy too" bash -c '"$1" copy --src-key-file "$3" "$2" null: 2>"$4"' - "$ndio" \
		"$(uri inner disk)" "$T/pass" "$T/said"
	like "$2: it says so" "$(cat "$T/said")" "^ndio: nbd.*$words"
	"$ndio" copy "$(uri inner disk)" null: 2>"$T/said"
	like "$2: without a key, too" "$(cat "$T/said")" "^ndio: nbd.*$words"
	ok "$2: without half a minute of waiting" test $((SECONDS - before)) -lt 25
}

make_luks2 "$T/disk" 20M
start_server inner qemu-nbd --persistent --shared 2 --export-name disk --socket "$T/inner.sock" \
	--pid-file "$T/inner.pid" --format raw "$T/disk" && goes_on_with 2 "qemu-nbd --shared=2"
stop_server inner
start_stock inner --filter=limit file "$T/disk" limit=3 && goes_on_with 3 "nbdkit's limit filter"
stop_server inner
start_server inner /usr/bin/python3 "$hostile" "$T/inner.sock" fewer 1 "$T/disk" &&
	goes_on_with 1 "a server that lets in one"
end_server inner

against flags
start_gate uri="$(uri bad)" 2>/dev/null
ok "connections that differ are no start" grep -q "what it can has changed" "$T/gate.log"
end_server bad

# ---- a server that lets in one client, once ----

# once NAME COMMAND...: qemu-nbd that ends with its first client.
once() {
	rm -f "$T/once.sock"
	qemu-nbd --socket "$T/once.sock" --format raw "$T/disk" 2>"$T/once.log" &
	server_pids[once]=$!
	await test -S "$T/once.sock"
	ok "$1" timeout 30 "${@:2}"
	wait "${server_pids[once]}"
	unset "server_pids[once]"
}

once "info with a key" "$ndio" info --key-file "$T/pass" "$(uri once)"
once "key add" "$ndio" key add --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" \
	"$(uri once)"
ok "did it" opens "$T/disk" "$T/new"
once "copy" "$ndio" copy --src-key-file "$T/pass" "$(uri once)" null:

# ---- one of them is lost ----

# commands CONNECTION: that it has had so far, but for the one that ends it.
commands() {
	grep -c "^$1 [^2]" "$T/bad.log"
}

has_commands() {
	[ "$(commands "$1")" -gt 0 ]
}

# reads COUNT: by a client of the gateway, each of which succeeds.
reads() {
	py gate "
for i in range($1):
    same(len(h.pread(4096, i % 1000 * 4096)), 4096)"
}

# Much at once, and by two clients, since each may stay with one of them: one request at a time goes where the
# last one went.
has_read() { # CONNECTION
	py gate "
other = nbd.NBD()
other.connect_uri('$(uri gate)')
clients = (h, other)
for i in range(5):
    begun = [[client.aio_pread(nbd.Buffer(4096), n * 4096) for n in range(16)] for client in clients]
    for client, cookies in zip(clients, begun):
        same(outcomes(client, cookies), (16, 0))" && has_commands "$1"
}

against multi
start_gate uri="$(uri bad)" reconnect=0
ok "all is well" reads 40
kill -USR1 "${server_pids[bad]}"
ok "one is lost: the others go on" reads 200
ok "it is made again, and used" await has_read 4
kill -USR1 "${server_pids[bad]}"
ok "another one, too" await has_read 5
ok "and it was told" said gate "bad.sock: 1 of its 4 connections is lost: dialling again$"
kill -USR2 "${server_pids[bad]}"
ok "all are lost: that is an error" py gate 'fails("EIO", h.pread, 4096, 0)'
sleep 1
ok "and stays one, since nobody knows what was lost" py gate 'fails("EIO", h.pread, 4096, 0)'
ok "the gateway ends" stop_server gate
end_server bad

# Many at once while connections come and go: what was in flight on one fails, and nothing else does.
against multi
start_gate uri="$(uri bad)" reconnect=0
ok "what was in flight on it fails, the rest doesn't" py_within 60 gate "
import signal
errors = good = 0
for turn in range(2000):
    bufs = [nbd.Buffer(65536) for _ in range(16)]
    cookies = [h.aio_pread(buf, i * 65536) for i, buf in enumerate(bufs)]
    if turn == 20:
        os.kill(${server_pids[bad]}, signal.SIGUSR1)
    ended = outcomes(h, cookies)
    good += ended[0]
    errors += ended[1]
    if turn == 100:
        break
assert errors <= 16 and good > 1500, (errors, good)"
stop_server gate
end_server bad

# Nothing waits for a server that doesn't answer the next one.
against mute-later 4
start_gate uri="$(uri bad)" reconnect=0
reads 8
kill -USR1 "${server_pids[bad]}"
ok "the next one isn't answered: the others go on" reads 200
ok "it was told" await said_quietly gate "dialling again$"
before=$SECONDS
ok "and the gateway ends" stop_server gate
ok "soon" test $((SECONDS - before)) -lt 8
end_server bad

against grown-later 4
start_gate uri="$(uri bad)" reconnect=0
reads 8
kill -USR1 "${server_pids[bad]}"
ok "another export answers the next one: that is told" await said_quietly gate \
	"bad.sock: its size has changed"
ok "and it isn't used" reads 200
is "by no command" "$(commands 4)" 0
stop_server gate
end_server bad

# ---- the kernel watches over them ----

# keeps_alive PORT: every connection to it has the timer of keepalive running.
keeps_alive() {
	awk -v port="$(printf ':%04X$' "$1")" '$3 ~ port && $4 == "01" {
		n++
		if (substr($6, 1, 2) == "02") kept++
	} END { exit !(n > 0 && n == kept) }' /proc/net/tcp
}

start_tcp_nbdkit disk memory 1M
start_gate uri="nbd://localhost:$(cat "$T/disk.port")/" reconnect=0
py gate 'h.pread(512, 0)'
ok "keepalive, for routers on the way" await keeps_alive "$(cat "$T/disk.port")"
stop_server gate
end_server disk

# ---- the end, with a server that is silent ----

# ends_soon NAME: when it is asked, though the server would be waited for.
ends_soon() {
	local before=$SECONDS

	ok "$1: ends when it is asked" stop_server gate
	ok "$1: before the server is given up" test $((SECONDS - before)) -lt 15
}

for how in reconnect=0 "reconnect=0 answer=600" "reconnect=60 answer=600"; do
	start_stock inner --filter=delay memory 8M
	# shellcheck disable=SC2086 # words
	start_gate uri="$(uri inner)" $how
	freeze "${server_pids[inner]}"
	rm -f "$T/connected"
	py gate "
open('$T/connected', 'w').close()
h.pwrite(bytes(262144), 0)" >"$T/py" 2>&1 &
	client=$!
	await test -e "$T/connected"
	sleep 0.5
	ends_soon "a gateway whose server is silent, $how"
	wait $client
	like "and its client gets an error, $how" "$(cat "$T/py")" "pwrite|Transport|not connected|closed"
	kill -CONT "${server_pids[inner]}"
	end_server inner
done

# The connection is lost, and the next one, which is being made, isn't answered: it has no more time
# than the end has.
against mute-later 1
start_gate uri="$(uri bad)" reconnect=60
py gate "
open('$T/connected.again', 'w').close()
h.pread(512, 0)
while True:
    h.pread(512, 0)" >"$T/py" 2>&1 &
client=$!
await test -e "$T/connected.again"
kill -USR2 "${server_pids[bad]}"
ok "its connection is lost" await grep -q "waiting for the server" "$T/gate.log"
ends_soon "a gateway whose server says nothing to a new connection"
wait $client
end_server bad

# It says who it is, but not whether its disk is the same.
make_luks1 "$T/volume" 4M
against deaf-later 1 "$T/volume"
start_gate uri="$(uri bad)" reconnect=60 answer=600 passphrase=+"$T/pass"
kill -USR2 "${server_pids[bad]}"
ok "the connection of a volume is lost" await grep -q "waiting for the server" "$T/gate.log"
sleep 1
ends_soon "a gateway whose server doesn't hand out the header again"
end_server bad
against deaf-later 1 "$T/volume"
timeout 60 "$ndio" copy --answer-timeout 600 --src-key-file "$T/pass" "$(uri bad)" null: 2>"$T/err" &
client=$!
ok "a copy is under way" await grep -q '^0 0' "$T/bad.log"
sleep 3
kill -USR2 "${server_pids[bad]}"
ok "its connection is lost, too" await grep -q '^1 0' "$T/bad.log"
before=$SECONDS
kill -INT $client
wait $client
is "a copy whose server doesn't hand out the header again: interrupted" $? 130
ok "and soon" test $((SECONDS - before)) -lt 15
end_server bad
done_testing
