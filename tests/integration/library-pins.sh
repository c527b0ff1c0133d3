#!/bin/bash
# The library's NDIO_PIN and registered regions: every page fault is the caller's, what is pinned
# is unpinned, and what can't be pinned leaves nothing behind.
. "$(dirname "$0")/../lib/lib.sh"

pins=$NDIO_BUILD/tests/clients/ndio-pins

# seen NAME COMMAND...: skipped where the program says that it can't be seen here.
seen() {
	local name=$1 status

	shift
	"$@" >"$T/seen.out" 2>&1
	status=$?
	if [ $status = 77 ]; then
		skip "$(cat "$T/seen.out")"
		return
	fi
	result $status "$name" || diag "status $status of: $*: $(tail -n 40 "$T/seen.out")"
}

all() { # NAME LOCATOR OPTION...
	local name=$1 locator=$2 what

	shift 2
	for what in faults regions shared maps limits; do
		seen "$name: $what" timeout 60 "$pins" "$@" $what "$locator"
	done
}

truncate -s 8M "$T/raw"
make_luks2 "$T/luks" 24M --sector-size 4096
all "LUKS2 file" "$T/luks" -k "$T/pass"
start_stock disk file "$T/raw"
all "NBD" "$(uri disk)"
ok "the server ends cleanly" stop_server disk
start_stock disk file "$T/luks"
all "NBD with a key" "$(uri disk)" -k "$T/pass"
ok "the server ends cleanly" stop_server disk
done_testing
