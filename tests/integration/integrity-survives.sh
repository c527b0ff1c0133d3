#!/bin/bash
# A disk with integrity whose server is killed and started again, at any time, also just after a write, when its
# gateway is about to bring what was written to its place, by one of its connections while the others rest: it
# goes on within some seconds, and nothing is lost.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"
# shellcheck source=../lib/survive.sh
. "$root/tests/lib/survive.sh"

# shellcheck disable=SC2034
disk_preload= # what it has written stays
serve_at tcp --unix "$T/disk.sock"

# When nothing was to be done for a second, the journal is emptied: pauses around that.
cat >"$T/use.py" <<'END'
import os, subprocess, sys, time

def block(n):
    return bytes([n]) * 8192

for n, pause in enumerate((0, 0.3, 0.9, 1.0, 1.1, 1.5, 0), 1):
    h.pwrite(block(n), n << 20)
    h.pwrite(block(n), 40 << 20)
    h.flush()
    time.sleep(pause)
    print("restart", flush=True)
    sys.stdin.readline()
    for m in range(1, n + 1):
        assert h.pread(8192, m << 20) == block(m), f"block {m} after {n}"
    assert h.pread(8192, 40 << 20) == block(n), f"the last one after {n}"
print("end", flush=True)
END

restart_when_told() {
	local line

	while hear use '^(restart|end)'; do
		line=$(tail -n 1 "$T/use.said")
		[ "$line" != end ] || return 0
		kill_disk
		start_disk && say use go || return
	done
	return 1
}

# survives_restarts NAME FORMAT-OPTION...
survives_restarts() {
	local name=$1 before

	shift
	rm -f "$T/disk" "$T/trust" "$T/use.said"
	ok "$name: a disk" "$ndio" format --size 68M --integrity aead "$@" --key-file "$T/pass" "${cheap[@]}" \
		--trust "$T/trust" "$T/disk" || return
	ok "$name: is served" start_disk
	ok "$name: a gateway" start_serve gateway --reconnect 60 --trust "$T/trust" --key-file "$T/pass" \
		"nbd+unix:///?socket=$T/disk.sock"
	before=$SECONDS
	start_talker use /usr/bin/python3 -m nbd -u "$(uri gateway)" -c "exec(open('$T/use.py').read())"
	ok "$name: nothing is lost" restart_when_told || diag "$(cat "$T/use.err")"
	wait "${server_pids[use]}"
	unset "server_pids[use]"
	ok "$name: nor waited for until it is given up: $((SECONDS - before)) seconds" not said gateway "has been away for"
	ok "$name: the gateway ends well" stop_server gateway
	kill_disk
	ok "$name: all of it can be read" "$ndio" copy --src-key-file "$T/pass" --src-trust "$T/trust" "$T/disk" null:
}

survives_restarts "with a journal"
survives_restarts "without one" --integrity-no-journal
done_testing
