#!/bin/bash
# Servers are killed in the middle of a copy, with what they hadn't flushed, and come back:
# servers that don't say who they are, and fence nothing.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/tls.sh"
. "$(dirname "$0")/../lib/command.sh"
. "$(dirname "$0")/../lib/survive.sh"
. "$(dirname "$0")/../lib/gate.sh"

serve=("${nbdkit[@]}" file "$T/disk")
both_ways once "nbdkit file"
serve=(qemu-nbd --persistent --shared 0 --socket "$T/disk.sock" --pid-file "$T/disk.pid"
	--format raw --cache writeback "$T/disk")
both_ways once "qemu-nbd"
done_testing
