#!/bin/bash
# Servers are killed in the middle of a copy, with what they hadn't flushed, and come back, or not; or
# another disk does.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/tls.sh"
. "$(dirname "$0")/../lib/command.sh"
. "$(dirname "$0")/../lib/survive.sh"
. "$(dirname "$0")/../lib/gate.sh"

serve_at plain --unix "$T/disk.sock" direct=off
both_ways through "our server"

# ---- encrypted here, and compared ----

serve_at plain --unix "$T/disk.sock" direct=off
make_luks2 "$T/disk" $((SIZE + (16 << 20)))
start_gated "$T/data"
start_disk
through "to a volume" copy --dst-key-file "$T/pass" "$(uri gated)" "$(uri disk)"
ok "compared: begun" begin compare --dst-key-file "$T/pass" "$(uri gated)" "$(uri disk)"
ok "compared: a restart" restart
rm "$T/gate-1" "$T/gate-2"
ok "compared: it ends well" ends 0
is "compared: the same" "$(cat "$T/printed")" "the same"
kill_disk

# ---- both sides at once ----

start_disk
ok "both sides: begun" begin copy --dst-key-file "$T/pass" "$(uri gated)" "$(uri disk)"
end_server gated
ok "both sides: one is restarted" restart
start_gated "$T/data"
rm "$T/gate-1" "$T/gate-2"
ok "both sides: it ends well" ends 0
is "both sides: told of each" "$(grep -c 'gated.sock: the server is back' "$T/said"), $(grep -c 'disk.sock: the server is back' "$T/said")" "1, 1"
ok "both sides: the same" "$ndio" compare --dst-key-file "$T/pass" "$T/data" "$(uri disk)"
kill_disk

# ---- it doesn't come back ----

# lost WORDS OPTION...: it ends within seconds, and says so.
lost() {
	local before

	start_disk
	ok "$*: begun" begin copy "${@:2}" "$(uri gated)" "$(uri disk)"
	kill_disk
	before=$SECONDS
	rm "$T/gate-1" "$T/gate-2"
	ok "$*: it fails" ends 1
	ok "$*: in words" said_so "^ndio: .*disk.sock: write at [0-9]+: $1$"
	ok "$*: and where it stopped" said_so "stopped at [0-9]+ bytes of $SIZE"
	ok "$*: in time" test $((SECONDS - before)) -lt 20
}

truncate -s 0 "$T/disk"
truncate -s $SIZE "$T/disk"
lost "the connection to the server is lost" --reconnect 0
ok "without waiting nothing is told of it" not grep -q "waiting" "$T/said"
lost "the server has been away for 2 seconds" --reconnect 2 --progress=json
ok "the progress says that it waits" said_so '"state":"waiting"'
ok "nobody there at first: said at once" timeout 10 bash -c '! "$1" copy "$2" null: 2>"$3"' - \
	"$ndio" "$(uri disk)" "$T/said"
ok "in words" said_so "disk.sock: connecting: No such file"

# ---- another disk ----

start_disk
ok "a smaller disk: begun" begin copy "$(uri gated)" "$(uri disk)"
kill_disk
head -c $((SIZE / 2)) "$T/data" >"$T/small"
start_server disk "${nbdkit[@]}" file "$T/small"
rm "$T/gate-1" "$T/gate-2"
ok "a smaller disk: it fails" ends 1
ok "a smaller disk: in words" said_so "disk.sock: write at [0-9]+: the server has another disk now"
is "a smaller disk: it is as it was" "$(cmp -n $((SIZE / 2)) "$T/small" "$T/data" && stat -c %s "$T/small")" \
	$((SIZE / 2))
kill_disk

# ---- on a terminal ----

start_disk
close_gates
terminal "MiB, waiting for the server => ^C" "$ndio" copy -p "$(uri gated)" "$(uri disk)" >"$T/said" 2>&1 &
copying=$!
ok "on a terminal: begun" at_gate 1
sleep 0.5 # mostly there is a bar by now
kill_disk
before=$SECONDS
ok "interrupted: it dies of that" ends 130
ok "at once" test $((SECONDS - before)) -lt 20
# The terminal's \r are gone: the bar, if there was one, ends in one of these and is wiped by the other.
ok "what is told has a line of its own" said_so \
	$'(^|\033\\[K\033\\[K)ndio: .*disk.sock: the connection is lost .*60 seconds at the most$'
ok "the bar says that it waits" said_so "[0-9]+%  .* of 24 MiB, waiting for the server"
ok "it says where it stopped" said_so "stopped by signal 2"
rm -f "$T/gate-1" "$T/gate-2"
done_testing
