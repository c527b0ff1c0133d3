#!/bin/bash
# What a program does in the library's callbacks: nothing hangs, nothing is told late, and what would
# wait there, for a request or a page of memory, is refused.
. "$(dirname "$0")/../lib/lib.sh"

callbacks=$NDIO_BUILD/tests/clients/ndio-callbacks

all() { # NAME LOCATOR OPTION...
	local name=$1 locator=$2 what

	shift 2
	for what in free told waits pins home close; do
		ok "$name: $what" timeout 120 "$callbacks" "$@" $what "$locator"
	done
}

truncate -s 1M "$T/raw"
make_luks2 "$T/luks" 17M --sector-size 4096
all "file" "$T/raw"
all "file with a key" "$T/luks" -k "$T/pass"
start_stock disk file "$T/raw"
all "NBD" "$(uri disk)"
all "NBD, one connection" "$(uri disk)" -c 1
ok "the server ends cleanly" stop_server disk
ok "notices" timeout 120 "$callbacks" notice "$T/raw"
done_testing
