#!/bin/bash
# With nbds: nothing that is copied can be read on the wire: no data, no name of an export, no key.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/tls.sh"
. "$(dirname "$0")/../lib/record.sh"

name=the-name-of-this-export

# captured NAME URI: copies in and out while all is recorded.
captured() {
	ok "$1: a copy" "$ndio" copy "$T/plain" "$2"
	ok "$1: and back" "$ndio" copy "$2" "$T/back"
	ok "$1: arrives" cmp "$T/plain" "$T/back"
	ok "$1: all of it was recorded" test "$(stat -c %s "$T/record")" -gt $((12 << 20))
}

sealed() { # NAME
	is "$1: no data on the wire" "$(seen "$T/plain" "$T/record")" 0
	ok "$1: nor the export's name" not grep -qaF "$name" "$T/record"
	ok "$1: the server ends cleanly" stop_recorded
}

no_key() {
	/usr/bin/python3 - "$psk" "$T/record" <<'PY'
import sys
record = open(sys.argv[2], "rb").read()
for line in open(sys.argv[1]):
    key = line.rstrip().split(":")[1]
    assert key.encode() not in record and bytes.fromhex(key) not in record
PY
}

random "$T/plain" 6M
make_tls

# That the test sees what there is to see.
start_recorded --tls=off memory 6M
captured "without TLS" "$(uri relay "$name")"
like "without TLS: it is all there" "$(seen "$T/plain" "$T/record")" '^[1-9]'
ok "without TLS: the name too" grep -qaF "$name" "$T/record"
stop_recorded

start_recorded --tls=require --tls-psk="$psk" memory 6M
captured "key" "$(with_psk relay "$name")"
ok "key: it isn't on the wire" no_key
sealed "key"

start_recorded --tls=require --tls-certificates="$tls" memory 6M
captured "certificates" "$(with_certificates relay "$name")"
sealed "certificates"
done_testing
