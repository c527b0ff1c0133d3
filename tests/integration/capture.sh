#!/bin/bash
# With the key on the client's side, neither what crosses the socket nor what the server keeps
# holds a piece of the plaintext, the passphrase or the volume key.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/record.sh"

key=$T/pass
requests=150
[ -z "$NDIO_SANITIZE" ] || requests=50

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
start_recorded file "$T/raw"
"$NDIO_BUILD/tests/clients/ndio-model" -n $requests -o "$T/model" "$(uri relay)" >/dev/null
stop_recorded
like "without a key the record has it" "$(seen "$T/model" "$T/record")" '^[1-9]'
like "without a key the file has it" "$(seen "$T/model" "$T/raw")" '^[1-9]'

make_luks2 "$T/luks" 24M --sector-size 4096
start_recorded file "$T/luks"
ok "the library writes and reads" "$NDIO_BUILD/tests/clients/ndio-model" -n $requests -k "$key" \
	-o "$T/model" "$(uri relay)"
ok "the server ends cleanly" stop_recorded
sealed "the library" "$T/model" "$T/luks"

make_luks1 "$T/luks" 24M
start_recorded file "$T/luks"
start_door gate uri="$(uri relay)" passphrase=+"$key"
ok "the gateway writes" fill gate "$T/plain"
ok "and reads" bash -c 'nbdcopy "$1" "$2" && cmp -n 6291456 "$2" "$3"' - "$(uri gate)" \
	"$T/copy" "$T/plain"
ok "the gateway ends cleanly" stop_server gate
ok "its server ends cleanly" stop_recorded
sealed "the gateway" "$T/plain" "$T/luks"
done_testing
