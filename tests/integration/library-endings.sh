#!/bin/bash
# Requests of the library whose volume is closed, or whose server is killed, while they are in
# flight: each completes once, with the right error, nothing hangs, and nothing touches their
# memory afterwards.
. "$(dirname "$0")/../lib/lib.sh"

endings=$NDIO_BUILD/tests/clients/ndio-endings
key=$T/pass

# end_server NAME: by force. nbdkit 1.32 may abort when a connection ends while it answers.
end_server() {
	{
		kill -KILL "${server_pids[$1]}"
		wait "${server_pids[$1]}"
		unset "server_pids[$1]"
	} 2>/dev/null
}

# ending NAME HOW SERVER OPTION...: on a server that keeps requests waiting.
# Where they are to be in flight still when the end comes, however long it takes to ask for all.
ending() {
	local name=$1 how=$2 server=$3 delay=20ms

	shift 3
	[ "$how" = wait ] || delay=1000ms
	# shellcheck disable=SC2086
	if start_stock disk --filter=delay $server rdelay=$delay wdelay=$delay 2>/dev/null; then
		ok "$name" timeout 60 "$endings" "$@" "$how" "$(uri disk)" "${server_pids[disk]}"
		end_server disk
	else
		result 1 "$name: the server starts"
	fi
}

truncate -s 8M "$T/raw"
make_luks2 "$T/luks" 24M --sector-size 4096
for how in wait cancel; do
	ok "$how, file" timeout 60 "$endings" $how "$T/raw"
	ok "$how, file with a key" timeout 60 "$endings" -k "$key" $how "$T/luks"
done
for how in wait cancel kill; do
	ending "$how, NBD" $how "memory 8M"
	ending "$how, NBD with a key" $how "file $T/luks" -k "$key"
	ending "$how, one connection" $how "file $T/luks" -k "$key" -c 1
done
done_testing
