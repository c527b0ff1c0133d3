#!/bin/bash
# The library while a server goes away and comes back: what becomes of it is told, once each, in order;
# requests wait, and end well, or with an error that says how it is.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/tls.sh"
. "$(dirname "$0")/../lib/survive.sh"

survive_limit=20
survives=$NDIO_BUILD/tests/clients/ndio-survives
truncate -s 8M "$T/disk"

serve_ours() {
	serve_at plain --unix "$T/disk.sock"
}

serve_stock() {
	serve=(nbdkit --foreground --exit-with-parent --unix "$T/disk.sock" --pidfile "$T/disk.pid" "$@")
}

# open_it OPTION...: locator, or else the plain disk.
locator=
open_it() {
	rm -f "$T/client.said"
	start_talker client "$survives" "$@" "${locator:-$(uri disk)}"
	hear client '^open'
}

# does LINE REGEX: the client answers so.
does() {
	say client "$1"
	hear client '^(ok|E[A-Z]+:)' && tail -n 1 "$T/client.said" | grep -qE "$2" || {
		tail -n 5 "$T/client.said"
		return 1
	}
}

event() { # STATE REGEX
	hear client "^event $1: .*${2-}"
}

# events: all that there were, in a line.
events() {
	sed -n 's/^event \([^:]*\):.*/\1/p' "$T/client.said" | paste -sd,
}

end_it() {
	say client end
	end_talker client
}

close_it() { # [wait|cancel]
	does "close ${1:-cancel}" '^ok' && end_it
}

# ---- it comes back ----

# comes_back NAME FENCE
comes_back() {
	local i

	ok "$1: opened" open_it
	ok "$1: with its grade" does info "^ok 60 seconds, $2$"
	ok "$1: up" does state '^ok up, here, lost 0 times'
	for i in 1 2 3; do
		ok "$1: written, round $i" does "write $i" '^ok'
		kill_disk
		ok "$1: it is told that it is away" event away "disk.sock: the connection is lost \(.*60 seconds"
		ok "$1: which can be asked" does state "^ok away, away, lost $i times, not flushed"
		ok "$1: requests are made" does "start 1$i" '^ok'
		start_disk
		ok "$1: it is told that it is back" event up 'disk.sock: the server is back after'
		ok "$1: they end well" does finish '^ok well 32$'
		ok "$1: and are there" does "read 1$i" '^ok'
	done
	ok "$1: a flush" does flush '^ok'
	ok "$1: nothing is kept" does state '^ok up, here, lost 3 times, flushed'
	is "$1: each event once" "$(events)" away,up,away,up,away,up
	ok "$1: closed" close_it wait
	is "$1: nothing else is on the disk" "$({
		head -c 2M | tr -d '\015'
		tr -d '\0'
	} <"$T/disk" | wc -c)" 0
}

serve_ours
start_disk
comes_back "our plugin" fences
kill_disk
serve_stock file "$T/disk"
start_disk
comes_back "nbdkit file" "no fence"
kill_disk

# ---- it doesn't, for too long ----

serve_ours
start_disk
away='the server has been away for 1 second'
ok "given up: opened" open_it -r 1
ok "written" does "write 1" '^ok'
ok "and flushed" does flush '^ok'
kill_disk
ok "away" event away 'waiting for the server, 1 second at the most'
ok "requests are made" does "start 2" '^ok'
ok "it is told that it is given up" event "given up" "$away"
ok "all of them fail" does finish '^ok ETIMEDOUT 32$'
ok "others fail at once, in words" does "read 1" "^ETIMEDOUT: .*disk.sock: read at 0: $away"
ok "it is known" does state '^ok given up, away, lost 1 times, flushed'
start_disk
ok "it comes back all the same" event up 'the server is back'
ok "and goes on" does "write 3" '^ok'
ok "flush" does flush '^ok'
ok "read" does "read 3" '^ok'
is "each event once" "$(events)" "away,given up,up"
ok "closed" close_it

ok "given up with what isn't flushed: opened" open_it -r 1
ok "written" does "write 4" '^ok'
kill_disk
ok "given up" event "given up" "$away"
sum=$(sha256sum <"$T/disk")
start_disk
ok "it comes back, and that is the end" event ended "disk.sock: .*has lost what it had acknowledged"
ok "reads fail, in words" does "read 4" "^ESTALE: .*disk.sock: read at 0: .*opened anew"
ok "writes too" does "write 5" '^ESTALE: '
ok "and flushes" does flush '^ESTALE: '
ok "it is known" does state '^ok ended, away, lost 1 times'
is "nothing was written" "$(sha256sum <"$T/disk")" "$sum"
is "each event once" "$(events)" "away,given up,ended"
ok "closed" close_it wait

# ---- another disk ----

# stranger NAME SERVE...: behind the same address.
stranger() {
	ok "$1: opened" open_it
	ok "$1: written" does "write 6" '^ok'
	kill_disk
	event away
	ok "$1: requests are made" does "start 7" '^ok'
	cp "$T/other" "$T/other.before"
	"${@:2}"
	start_disk
	ok "$1: that is the end" event ended "disk.sock: .*the server has another disk now"
	ok "$1: all fail" does finish '^ok ESTALE 32$'
	is "$1: nothing was written" "$(cmp "$T/other" "$T/other.before" && echo same)" same
	is "$1: each event once" "$(events)" away,ended
	ok "$1: closed" close_it
	kill_disk
}

truncate -s 4M "$T/other"
stranger "a smaller disk" serve_stock file "$T/other"
truncate -s 8M "$T/other"
serve_stock file "$T/disk"
start_disk
stranger "one that can't be written" serve_stock --readonly file "$T/other"

# ---- by TLS ----

# serve_tls KEYS
serve_tls() {
	psk=$1 serve_at tls --unix "$T/disk.sock"
}

# A server that is ended while it shakes hands with one client.
hang_up() {
	timeout 20 python3 - "$T/disk.sock" <<-'PYTHON'
		import os, socket, struct, sys

		listener = socket.socket(socket.AF_UNIX)
		listener.bind(sys.argv[1])
		listener.listen(1)
		peer = listener.accept()[0]
		listener.close()
		os.unlink(sys.argv[1])
		peer.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
		peer.recv(20, socket.MSG_WAITALL)
		peer.sendall(struct.pack(">QIII", 0x3E889045565A9, 5, 1, 0))
		sys.exit(not peer.recv(65536))
	PYTHON
}

make_psk "$psk" alice
make_psk "$T/other.psk" alice
locator="nbds+unix://alice@/?socket=$T/disk.sock&tls-psk-file=$psk"
serve_tls "$psk"
start_disk
ok "TLS: opened" open_it
ok "written" does "write 1" '^ok'
kill_disk
ok "away" event away
ok "another server ends while it shakes hands" hang_up
start_disk
ok "which refuses no key: it is back" event up 'disk.sock.*the server is back'
ok "with what was written" does "read 1" '^ok'
kill_disk
event away
serve_tls "$T/other.psk"
start_disk
ok "one that refuses the key is the end" event ended "the server is given up: .*the key (is )?wrong"
ok "all fails" does "read 1" '^EACCES: '
is "each event once" "$(events)" away,up,away,ended
ok "closed" close_it
kill_disk
locator=

# ---- while it is away ----

serve_ours
start_disk
ok "closing while it is away: opened" open_it -r 600
kill_disk
event away
ok "requests are made" does "start 8" '^ok'
before=$SECONDS
ok "closed" does "close cancel" '^ok'
ok "soon" test $((SECONDS - before)) -lt 10
ok "all were cancelled" does finish '^ok ECANCELED 32$'
end_it
is "nothing more was told" "$(events)" away

start_disk
ok "closing waits: opened" open_it -r 2
kill_disk
event away
ok "requests are made" does "start 9" '^ok'
ok "closed" does "close wait" '^ok'
ok "when it was given up" does finish '^ok ETIMEDOUT 32$'
end_it

# ---- without ----

start_disk
ok "without: opened" open_it -R
ok "it isn't waited for" does info '^ok 0 seconds'
ok "written" does "write 1" '^ok'
kill_disk
ok "it is lost" does "read 1" '^ENOTCONN: .*disk.sock: read at 0: the connection to the server is lost'
ok "which isn't told" does state '^ok up, here, lost 0 times, flushed'
is "nor is any event" "$(events)" ""
close_it
ok "nobody there at the start: said at once" not timeout 10 "$survives" "$(uri disk)"
done_testing
