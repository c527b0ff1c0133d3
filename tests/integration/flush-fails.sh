#!/bin/bash
# Once a flush or a FUA write has failed none succeeds any more, whoever asks: what was written may
# be lost, and the kernel, or a server, tells it once.

# Mounts of its own, which end with the test however it ends.
if [ -z "${OWN_MOUNTS:-}" ] && unshare --mount --propagation private true 2>/dev/null; then
	OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
fi
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

hostile=$root/tests/tools/hostile.py
key=passphrase=+$T/pass
loop=
end_loop() {
	[ -z "$loop" ] || losetup --detach "$loop"
	loop=
}
trap 'end_loop; unmount_all; clean_up' EXIT

# Every way to sync, by one client and by another, fails with this error.
none_succeeds='
def none_succeeds(error, clients):
    for c in clients:
        fails(error, c.flush)
        fails(error, c.pwrite, data(4096), 0, nbd.CMD_FLAG_FUA)
        fails(error, c.pwrite, data(700), 5, nbd.CMD_FLAG_FUA)
        fails(error, c.zero, 8192, 4096, nbd.CMD_FLAG_FUA)
        if c.can_trim():
            fails(error, c.trim, 8192, 4096, nbd.CMD_FLAG_FUA)
        c.pwrite(data(4096, 7), 0)
        same(c.pread(4096, 0), data(4096, 7))
'

# A disk whose writeback fails: a loop device on a file system that is full.
lost_in_the_page_cache() { # NAME ARG...
	local name=$1

	shift
	ok "$name: starts" start_door disk "$loop" direct=off "$@" || return
	head -c 64M /dev/zero >"$T/small/ballast" 2>/dev/null
	ok "$name: what is lost is told to all clients, and again, when the disk is well" py disk "
$none_succeeds
other = nbd.NBD()
other.connect_uri('$(uri disk)')
h.pwrite(data(8 << 20), 1 << 20)
try:
    other.flush()
    assert False, 'the flush succeeded'
except nbd.Error as e:
    error = e.errno
os.unlink('$T/small/ballast')
none_succeeds(error, [h, other])
third = nbd.NBD()
third.connect_uri('$(uri disk)')
none_succeeds(error, [third])"
	ok "$name: it says what that means" said disk \
		"flush .*; written data may be lost"
	ok "$name: ends well" stop_server disk
	ok "$name: opened anew" start_door disk "$loop" direct=off "$@" || return
	ok "$name: it is as new" py disk "
h.pwrite(data(8 << 20, 1), 1 << 20)
h.flush()
h.pwrite(data(4096), 0, nbd.CMD_FLAG_FUA)"
	ok "$name: ends well again" stop_server disk
}

if [ -n "${OWN_MOUNTS:-}" ] && mount_here tmpfs "$T/small" size=44m; then
	truncate -s 40M "$T/small/image"
	if loop=$(losetup --find --show "$T/small/image" 2>/dev/null); then
		lost_in_the_page_cache "raw"
		end_loop
		rm "$T/small/image"
		make_luks2 "$T/small/image" 40M
		loop=$(losetup --find --show "$T/small/image")
		lost_in_the_page_cache "LUKS" "$key"
		end_loop
	else
		skip "no loop devices here" 12
	fi
else
	skip "can't mount here" 12
fi

# A server that fails once.
gateway() { # MODE...
	start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" "$@" &&
		start_door gateway uri="$(uri bad)" connections=3 reconnect=0
}

end_gateway() {
	ok "$1: the gateway ends well" stop_server gateway
	{
		kill -KILL "${server_pids[bad]}"
		wait "${server_pids[bad]}"
		unset "server_pids[bad]"
	} 2>/dev/null
}

ok "server, flush: starts" gateway flush-fails
ok "server, flush: one failed, and so does every later one" py gateway "
$none_succeeds
other = nbd.NBD()
other.connect_uri('$(uri gateway)')
fails('EIO', h.flush)
none_succeeds('EIO', [h, other])"
end_gateway "server, flush"

ok "server, FUA: starts" gateway fua-fails
ok "server, FUA: one failed, and so does every later one" py gateway "
$none_succeeds
other = nbd.NBD()
other.connect_uri('$(uri gateway)')
h.flush()
fails('EIO', h.pwrite, data(4096), 4096, nbd.CMD_FLAG_FUA)
none_succeeds('EIO', [h, other])"
end_gateway "server, FUA"

# The failure is seen last: until then the other flush doesn't say that all is well.
ok "server, race: starts" gateway flush-fails "$T/go"
ok "server, race: a flush waits for one that may have been told of its loss" py gateway "
import time
other = nbd.NBD()
other.connect_uri('$(uri gateway)')
h.pwrite(data(4096), 0)
errors = []
def flush(c):
    c.aio_flush(completion=lambda error: errors.append(error.value) or 1)
# One of them the server keeps, the other succeeds.
flush(h)
flush(other)
end = time.time() + 1
while not errors and time.time() < end:
    h.poll(10)
    other.poll(10)
open('$T/go', 'w').close()
while len(errors) < 2:
    h.poll(10)
    other.poll(10)
assert errors == [5, 5], errors"
end_gateway "server, race"

# The library.
start_server bad /usr/bin/python3 "$hostile" "$T/bad.sock" fua-fails
timeout 50 "$NDIO_BUILD/tests/clients/ndio-try" -c 2 "$(uri bad)" >"$T/tried" 2>&1
ok "library: a FUA write fails" grep -q "^FUA: EIO: .*written data may be lost" "$T/tried"
ok "library: and the flush behind it" grep -q "^flush: EIO: .*written data may be lost" "$T/tried"
kill -KILL "${server_pids[bad]}" && wait "${server_pids[bad]}" 2>/dev/null
unset "server_pids[bad]"

done_testing
