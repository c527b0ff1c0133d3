# Helpers for tests that look at what passes between a client and a server: `. tests/lib/record.sh`
# after lib.sh.
# shellcheck shell=bash

# start_recorded ARG...: nbdkit, named inner, and in front of it a relay, which writes what passes
# to $T/record.
start_recorded() {
	rm -f "$T/record"
	start_stock inner "$@" &&
		start_server relay /usr/bin/python3 "$root/tests/tools/record.py" "$T/relay.sock" \
			"$T/inner.sock" "$T/record"
}

stop_recorded() {
	{
		kill -KILL "${server_pids[relay]}"
		wait "${server_pids[relay]}"
		unset "server_pids[relay]"
	} 2>/dev/null
	stop_server inner
}

# seen PLAIN FILE: how many of some pieces of the plaintext, 32 bytes each, are in the file.
seen() {
	/usr/bin/python3 - "$1" "$2" <<'PY'
import sys
plain, data = (open(name, "rb").read() for name in sys.argv[1:3])
step = max(len(plain) // 150, 4096) + 13
pieces = [plain[at:at + 32] for at in range(0, len(plain) - 32, step)]
# Zeroes say nothing.
pieces = [piece for piece in pieces if len(set(piece)) > 4]
assert len(pieces) > 20, len(pieces)
print(sum(piece in data for piece in pieces))
PY
}
