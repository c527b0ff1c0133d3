#!/bin/bash
# Where a server gives tickets, its later connections resume the first one's session. (nbdkit,
# qemu-nbd and nbd-server give none.)
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/tls.sh"

records=$NDIO_BUILD/tests/clients/ndio-records

sessions() { # KIND: how many
	grep -c "TLSv1.* $1" "$T/disk.log"
}

# resumes NAME URI OPTION...: through 4 connections, data are right.
resumes() {
	local name=$1 uri=$2

	shift 2
	start_tls_server disk backend "$@"
	ok "$name: it reads" timeout 60 "$records" -c 4 read "$uri"
}

make_tls
truncate -s 2M "$T/raw"
"$records" write "$T/raw" >/dev/null
start_stock backend file "$T/raw"

resumes "certificates" "$(with_certificates disk)" -d "$tls" -c -s 2
is "certificates: one new session" "$(sessions new)" 1
is "certificates: the others resume it" "$(sessions resumed)" 3
end_server disk

resumes "one ticket" "$(with_certificates disk)" -d "$tls" -s 1
is "one ticket: all connections are there" $(($(sessions new) + $(sessions resumed))) 4
end_server disk

resumes "a key" "$(with_psk disk)" -k "$psk" -s 2
is "a key: all connections are there" $(($(sessions psk) + $(sessions resumed))) 4
end_server disk

resumes "no tickets" "$(with_certificates disk)" -d "$tls"
is "no tickets: four new sessions" "$(sessions new)" 4
end_server disk

ok "the server behind it ends cleanly" stop_server backend
done_testing
