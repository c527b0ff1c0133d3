#!/bin/bash
# With the key on the client's side, neither what crosses the socket nor what the server keeps
# holds a piece of the plaintext, the passphrase or the volume key.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../nbd.sh"

record="$(dirname "$0")/../record.py"
key=$T/pass
requests=150
[ -z "$NDIO_SANITIZE" ] || requests=50

# A server with a volume, and a relay in front of it that records.
start_recorded() { # FILE
	rm -f "$T/record"
	start_stock inner file "$1" &&
		start_server relay /usr/bin/python3 "$record" "$T/relay.sock" "$T/inner.sock" \
			"$T/record"
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

no_volume_key() { # FILE
	rm -f "$T/volume-key"
	cryptsetup luksDump --batch-mode --dump-volume-key --volume-key-file "$T/volume-key" \
		--key-file "$key" "$1" &&
		/usr/bin/python3 - "$T/volume-key" "$T/record" "$1" <<'PY'
import sys
key, *files = (open(name, "rb").read() for name in sys.argv[1:])
assert len(key) in (32, 64)
assert not any(half in file for half in (key[:16], key[-16:]) for file in files)
PY
}

sealed() { # NAME PLAIN FILE
	is "$1: the record has no plaintext" "$(seen "$2" "$T/record")" 0
	is "$1: the server's file has none" "$(seen "$2" "$3")" 0
	ok "$1: nor the passphrase" not grep -qaFf "$key" "$T/record" "$3"
	ok "$1: nor the volume key" no_volume_key "$3"
	ok "$1: something was recorded" test "$(stat -c %s "$T/record")" -gt "$(stat -c %s "$2")"
}

random "$T/plain" 6M

# That the test sees plaintext where there is some.
truncate -s 8M "$T/raw"
start_recorded "$T/raw"
"$NDIO_BUILD/tests/clients/ndio-model" -n $requests -o "$T/model" "$(uri relay)" >/dev/null
stop_recorded
like "without a key the record has it" "$(seen "$T/model" "$T/record")" '^[1-9]'
like "without a key the file has it" "$(seen "$T/model" "$T/raw")" '^[1-9]'

make_luks2 "$T/luks" 24M --sector-size 4096
start_recorded "$T/luks"
ok "the library writes and reads" "$NDIO_BUILD/tests/clients/ndio-model" -n $requests -k "$key" \
	-o "$T/model" "$(uri relay)"
ok "the server ends cleanly" stop_recorded
sealed "the library" "$T/model" "$T/luks"

make_luks1 "$T/luks" 24M
start_recorded "$T/luks"
start_nbdkit gate "$NDIO_PLUGIN" uri="$(uri relay)" passphrase=+"$key"
ok "the gateway writes" fill gate "$T/plain"
ok "and reads" bash -c 'nbdcopy "$1" "$2" && cmp -n 6291456 "$2" "$3"' - "$(uri gate)" \
	"$T/copy" "$T/plain"
ok "the gateway ends cleanly" stop_server gate
ok "its server ends cleanly" stop_recorded
sealed "the gateway" "$T/plain" "$T/luks"
done_testing
