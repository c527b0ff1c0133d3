#!/bin/bash
# A kernel that can ask for gigabytes of zeroes in one request (Linux 6.12): of a device of `ndio
# attach` it writes them, piece by piece, so that a server for which the whole would take longer than
# the timeout loses nothing.
kernel=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/build/vm/kernel-6.12
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"

MIB=$((1 << 20))

boot_ndio 2 blkdiscard
queue=/sys/block/nbd0/queue
make_luks2 "$T/volume" 80M --sector-size 4096
# 4 MiB a second: for 60 MiB that is half as long again as the timeout.
serve_stock slow --filter=rate file "$T/volume" rate=32M || exit 1
serve_stock plain memory 64M || exit 1

is "the kernel" "$(guest uname -r | cut -d. -f1,2)" 6.12
ok "an export that takes requests for zeroes: attach it" guest "attach ${ports[plain]} /dev/nbd1"
ok "an export that takes requests for zeroes: the kernel would make large ones" guest "
	[ \$(cat /sys/block/nbd1/queue/write_zeroes_max_bytes) -gt $((1024 * MIB)) ] && detach /dev/nbd1"
stop_server plain
is "attach" "$(ndio_attach --timeout 10 --reconnect 0 --connections 1 "$(locator slow)" nbd0)" /dev/nbd0
is "none are asked for" "$(guest cat $queue/write_zeroes_max_bytes)" 0
# As many as the server takes within the timeout; 128 requests of a mebibyte would be too many for
# it, whatever they hold.
ok "60 MiB of zeroes" guest "echo 16 >$queue/nr_requests &&
	dd if=/dev/urandom of=/dev/nbd0 bs=4k count=3 conv=fsync &&
	/bin/blkdiscard --zeroout --length $((60 * MIB)) /dev/nbd0 && sync"
ok "they are there" guest "forget_caches; head -c ${MIB} /dev/nbd0 | cmp -n ${MIB} - /dev/zero"
is "the device is well" "$(listed /dev/nbd0 state)" attached
ok "detach" guest "ndio detach nbd0 && nothing_left"
sound_kernel 'I/O error|timed out'
done_testing
