#!/bin/bash
# pin=on: requests' memory is locked while they run and not afterwards, and each pin is
# undone. lock=on: all of the server's memory is locked, after it went to the background; and with ndio
# serve --lock that of the other one.
. "$(dirname "$0")/../lib/lib.sh"

load=$NDIO_BUILD/tests/clients/load
requests=1500
[ -z "$NDIO_SANITIZE" ] || requests=300
ulimit -l unlimited 2>/dev/null

locked() { # PID: KiB
	awk '$1 == "VmLck:" { print $2 }' "/proc/$1/status"
}

stat_of() { # COUNTER: as the server printed it at its end
	sed -n "s/^ndio\.stats\.$1=//p" "$T/disk.log"
}

# under_load PID COMMAND...: sets most, the most KiB that were locked while the command ran.
under_load() {
	local server=$1 pid now

	shift
	most=0
	"$@" >"$T/load.log" 2>&1 &
	pid=$!
	while kill -0 $pid 2>/dev/null; do
		now=$(locked "$server")
		[ "$now" -le "$most" ] || most=$now
		sleep 0.01
	done
	wait $pid || diag "$(cat "$T/load.log")"
}

pinned() { # NAME FILE PLUGIN-OPTION...
	local name=$1 file=$2 before

	shift 2
	if ! start_nbdkit disk "$NDIO_PLUGIN" "$file" "$@" pin=on -D ndio.stats=1; then
		grep -q 'pin=on: can.t lock' "$T/disk.log" ||
			result 1 "$name: the server starts"
		skip "the locked-memory limit is too low" 7
		return
	fi
	"$load" -n 1 "$(uri disk)" >/dev/null # the file with its pid comes before it is ready
	before=$(locked "$(cat "$T/disk.pid")")
	under_load "$(cat "$T/disk.pid")" \
		"$load" -c 2 -d 6 -s 1000001 -r -n $requests -w 50 "$(uri disk)"
	diag "$name: $before KiB locked before the load, up to $most under it"
	ok "$name: requests' memory is locked" test "$most" -ge $((before + 900))
	is "$name: and not afterwards" "$(locked "$(cat "$T/disk.pid")")" "$before"

	# One that fails is counted, and its pin undone.
	truncate -s 0 "$file"
	ok "$name: a read from a file that has shrunk fails" not "$load" -n 1 -w 0 "$(uri disk)"
	ok "$name: the server ends cleanly" stop_server disk
	is "$name: each request was pinned" "$(stat_of pins)" $((requests + 2))
	is "$name: and unpinned, and none is left" "$(stat_of unpins) $(stat_of in_flight)" \
		"$((requests + 2)) 0"
	is "$name: one has failed" "$(stat_of errors)" 1
	rm -f "$file"
}

unpinned() {
	truncate -s 64M "$T/raw"
	start_nbdkit disk "$NDIO_PLUGIN" "$T/raw" -D ndio.stats=1 || return
	"$load" -n 10 "$(uri disk)" >/dev/null
	stop_server disk
	is "without pin=on nothing is pinned" "$(stat_of pins) $(stat_of unpins)" "0 0"
}

# Mappings that aren't locked, but for those that no process can lock (device and ring memory,
# the kernel's own pages).
mappings_not_locked() { # PID
	awk '/^[0-9a-f]+-[0-9a-f]+ / { mapping = $0 }
		$1 == "VmFlags:" && !/ lo/ && !/ (io|pf|de|mm)( |$)/ &&
		mapping !~ /\[(vvar|vdso|vsyscall|vvar_vclock)\]/ { print mapping }' "/proc/$1/smaps"
}

all_locked() { # NAME PID
	if may_look "$2"; then
		is "$1" "$(mappings_not_locked "$2")" ""
	else
		skip "only root may look into a process that has keys"
	fi
}

daemon_locked() {
	local pid deadline=$((SECONDS + 10))

	if [ -n "$NDIO_SANITIZE" ]; then
		skip "a sanitizer's shadow memory can't be locked" 4
		return
	fi
	make_luks2 "$T/luks" 80M
	if ! nbdkit --unix "$T/daemon.sock" --pidfile "$T/daemon.pid" "$NDIO_PLUGIN" "$T/luks" \
		passphrase=+"$T/pass" lock=on pin=on 2>"$T/daemon.log"; then
		grep -qE '(lock|pin)=on: can.t lock' "$T/daemon.log" ||
			result 1 "the server goes to the background: $(cat "$T/daemon.log")"
		skip "the locked-memory limit is too low" 4
		return
	fi
	until [ -s "$T/daemon.pid" ] || [ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	pid=$(cat "$T/daemon.pid")
	server_pids[daemon]=$pid
	"$load" -n 1 "$(uri daemon)" >/dev/null
	all_locked "lock=on: all is locked after the fork" "$pid"
	"$load" -c 2 -d 6 -s 1000001 -r -n 200 -w 50 "$(uri daemon)" >/dev/null
	all_locked "lock=on: all is locked after some load, and stays so when pins are undone" "$pid"
	ok "lock=on: what is resident is counted as locked" test "$(locked "$pid")" -ge \
		"$(awk '$1 == "VmRSS:" { print $2 }' "/proc/$pid/status")"
	kill -TERM "$pid"
	while kill -0 "$pid" 2>/dev/null && [ $SECONDS -le $((deadline + 20)) ]; do
		sleep 0.05
	done
	ok "lock=on: the server ends when asked" not kill -0 "$pid"
	unset "server_pids[daemon]"
}

serve_locked() {
	if [ -n "$NDIO_SANITIZE" ]; then
		skip "a sanitizer's shadow memory can't be locked" 2
		return
	fi
	if ! start_serve disk --lock --key-file "$T/pass" "$T/luks" 2>/dev/null; then
		like "serve --lock: it is refused where the limit is too low" "$(cat "$T/disk.log")" \
			"ndio serve: --lock: can't lock the server's memory"
		skip "the locked-memory limit is too low"
		return
	fi
	"$load" -c 2 -d 6 -s 1000001 -r -n 200 -w 50 "$(uri disk)" >/dev/null
	all_locked "serve --lock: all is locked after some load" "${server_pids[disk]}"
	ok "serve --lock: it ends cleanly" stop_server disk
}

truncate -s 64M "$T/raw"
pinned raw "$T/raw"
make_luks2 "$T/luks" 80M --sector-size 4096
pinned LUKS2 "$T/luks" passphrase=+"$T/pass"
unpinned
daemon_locked
serve_locked

done_testing
