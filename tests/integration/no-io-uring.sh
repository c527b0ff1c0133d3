#!/bin/bash
# Where io_uring is refused, as containers do, or only its registered files, all works without
# it, and the server says so once.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

refuse=$root/tests/tools/refuse.py
/usr/bin/python3 "$refuse" io_uring_setup ENOSYS true || skip_all "can't set seccomp filters here"

# without CALL ERROR FILE [ARG...]
without() {
	local call=$1 error=$2

	shift 2
	door_command --foreground --exit-with-parent --unix "$T/disk.sock" --pidfile "$T/disk.pid" \
		-D ndio.stats=1 "$@"
	start_server disk /usr/bin/python3 "$refuse" "$call" "$error" \
		env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}"
}

# Large and small requests, whole blocks and parts, several at once, with and without FUA.
verify() {
	py disk "
size = 33 << 20
want = bytearray(data(32 << 20) + bytes(size - (32 << 20)))
h.pwrite(data(32 << 20), 0)
h.zero(1 << 20, 32 << 20)
def write(count, offset, flags=0):
    want[offset:offset + count] = data(count, offset)
    h.pwrite(data(count, offset), offset, flags)
write(1, 0)
write(511, 1, nbd.CMD_FLAG_FUA)
write(700, 4000)
write(300001, 1234567, nbd.CMD_FLAG_FUA)
write(4096, 8192)
write(5, size - 5)
want[70001:90001] = bytes(20000)
h.zero(20000, 70001)
h.flush()
cookies, buffers = [], []
for i in range(33):
    buffers.append(nbd.Buffer(1 << 20))
    cookies.append(h.aio_pread(buffers[-1], i << 20))
while h.aio_in_flight():
    h.poll(-1)
for cookie in cookies:
    assert h.aio_command_completed(cookie)
same(b''.join(bytes(b.to_bytearray()) for b in buffers), bytes(want))
same(h.pread(32 << 20, 12345), bytes(want[12345:12345 + (32 << 20)]))
open('$T/want', 'wb').write(want)"
}

check() { # NAME CALL ERROR WHY FILE [ARG...]
	local name=$1 call=$2 error=$3 why=$4

	shift 4
	ok "$name: starts" without "$call" "$error" "$@" || return
	if grep -q "refuses direct I/O" "$T/disk.log"; then
		skip "the file system here refuses direct I/O, so no ring is asked for" 2
	else
		ok "$name: says so" said disk "$1: io_uring is refused .$why.: using preadv and pwritev"
		is "$name: once" "$(grep -c "io_uring is refused" "$T/disk.log")" 1
	fi
	ok "$name: the data are right" verify
	ok "$name: by 4 connections, too" nbdcopy --connections=4 "$(uri disk)" "$T/export"
	is "$name: which get the same" "$(sha256sum <"$T/export")" "$(sha256sum <"$T/want")"
	ok "$name: the server ends well" stop_server disk
	[ "$DOOR" = serve ] || ok "$name: no request is left over" said disk "ndio.stats.in_flight=0"
}

truncate -s 33M "$T/raw"
make_luks2 "$T/luks" 49M --sector-size 4096
check "raw, ENOSYS" io_uring_setup ENOSYS "Function not implemented" "$T/raw"
check "raw, EPERM" io_uring_setup EPERM "Operation not permitted" "$T/raw"
check "LUKS, ENOSYS" io_uring_setup ENOSYS "Function not implemented" "$T/luks" \
	passphrase=+"$T/pass"
check "LUKS, EPERM" io_uring_setup EPERM "Operation not permitted" "$T/luks" \
	passphrase=+"$T/pass"
if has_io_uring; then
	check "LUKS, no registering" io_uring_register EACCES "Permission denied" "$T/luks" \
		passphrase=+"$T/pass"
else
	skip "io_uring is refused here from the first" 8
fi
ok "buffered I/O asks for no ring" without io_uring_setup ENOSYS "$T/raw" direct=off
is "and has nothing to say" "$(notices disk)" ""
stop_server disk
done_testing
