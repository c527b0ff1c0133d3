#!/bin/bash
# The library's calls with arguments that make no sense: an error with a message, never a crash, and
# nothing was done.
. "$(dirname "$0")/../lib/lib.sh"

arguments=$NDIO_BUILD/tests/clients/ndio-arguments

truncate -s 1M "$T/raw"
make_luks2 "$T/luks" 17M --sector-size 4096
ok "file" timeout 30 "$arguments" "$T/raw"
ok "file with a key" timeout 30 "$arguments" -k "$T/pass" "$T/luks"
start_stock disk file "$T/raw"
ok "NBD" timeout 30 "$arguments" "$(uri disk)"
ok "the server ends cleanly" stop_server disk
done_testing
