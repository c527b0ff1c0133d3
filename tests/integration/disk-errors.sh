#!/bin/bash
# Errors of the disk reach the client as what they are, in the middle of large requests too;
# the server lives on, other data are unharmed, and all works again when the cause is gone.

# Mounts of its own, which end with the test however it ends.
if [ -z "${OWN_MOUNTS:-}" ] && unshare --mount --propagation private true 2>/dev/null; then
	OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
fi
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

MIB=$((1 << 20))
key=passphrase=+$T/pass

# Beyond the end. The client library is told not to check first.
beyond() { # NAME ARG...
	local name=$1

	shift
	ok "$name: starts" start_door disk "$@" || return
	ok "$name: requests beyond the end fail, and only they" py disk "
h.set_strict_mode(0)
size = h.get_size()
h.pwrite(data(4096), size - 4096)
for offset, count in [(size, 1), (size - 1, 2), (size - 4096, 8192), (size + (1 << 40), 512),
                      ((1 << 63) - 512, 512), ((1 << 63) - 1, 4096), (size - 1, 32 << 20)]:
    fails('EINVAL', h.pread, count, offset)
    fails('ENOSPC', h.pwrite, bytes(count), offset)
    fails('ENOSPC', h.zero, count, offset)
    if h.can_trim():
        fails('EINVAL', h.trim, count, offset)
same(h.pread(4096, size - 4096), data(4096))"
	ok "$name: a request of no bytes does no harm" py disk "
h.set_strict_mode(0)
for call in [lambda: h.pread(0, 0), lambda: h.pwrite(b'', 0), lambda: h.zero(0, 0)]:
    try:
        call()
    except nbd.Error:
        pass
same(h.pread(4096, h.get_size() - 4096), data(4096))"
	ok "$name: one that is too large does none either" py disk "
h.set_strict_mode(0)
try:
    h.pread((64 << 20) + 1, 0)
except nbd.Error:
    pass"
	ok "$name: the server goes on" py disk "same(h.pread(4096, h.get_size() - 4096), data(4096))"
	ok "$name: and ends well" stop_server disk
}

# A file that becomes shorter, and longer again.
shrinks() { # NAME FILE START-OF-DATA ARG...
	local name=$1 file=$2 start=$3 size

	shift 3
	size=$(stat -c %s "$file")
	ok "$name: starts" start_door disk "$file" "$@" || return
	ok "$name: is filled" py disk "h.pwrite(data(2 << 20), 0); h.flush()"
	truncate -s $((start + MIB)) "$file"
	ok "$name: what was cut off can't be read" py disk "
fails('EIO', h.pread, 4096, 1 << 20)
fails('EIO', h.pread, 2 << 20, 0)
same(h.pread(1 << 20, 0), data(2 << 20)[:1 << 20])"
	truncate -s "$size" "$file"
	ok "$name: the rest works when the file is long again" py disk "
h.pwrite(data(2 << 20, 1), 0)
same(h.pread(2 << 20, 0), data(2 << 20, 1))"
	ok "$name: and the server ends well" stop_server disk
}

random "$T/raw" $((4 * MIB))
make_luks2 "$T/luks" 20M
beyond "raw" "$T/raw"
beyond "raw, buffered" "$T/raw" direct=off
beyond "LUKS" "$T/luks" "$key"
beyond "LUKS with discard=on" "$T/luks" "$key" discard=on
shrinks "raw file that shrinks" "$T/raw" 0
shrinks "raw file that shrinks, buffered" "$T/raw" 0 direct=off
shrinks "LUKS in a file that shrinks" "$T/luks" $((16 * MIB)) "$key"

# No space: a sparse image of 96 MiB on a file system of 64.
no_space() { # NAME DIR FILE ARG...
	local name=$1 dir=$2 file=$3

	shift 3
	ok "$name: starts" start_door disk "$file" "$@" || return
	ok "$name: there is space at first" py disk "
h.pwrite(data(4 << 20), 0)
h.pwrite(data(5000, 1), (50 << 20) + 7)
h.flush()"
	head -c 100M /dev/zero >"$dir/ballast" 2>"$T/ballast.log"
	rm "$dir/ballast"
	head -c 40M /dev/zero >"$dir/ballast"
	ok "$name: a write of 32 MiB fails half-way, as ENOSPC" py disk "
fails('ENOSPC', h.pwrite, data(32 << 20, 2), 8 << 20)"
	ok "$name: and it fails again, in small pieces" py disk "
failed = 0
for place in range(8 << 20, 40 << 20, 1 << 20):
    try:
        h.pwrite(data(1 << 20, 3), place)
    except nbd.Error as e:
        assert e.errno == 'ENOSPC', e
        failed += 1
assert failed"
	ok "$name: other data are unharmed" py disk "
same(h.pread(4 << 20, 0), data(4 << 20))
same(h.pread(5000, (50 << 20) + 7), data(5000, 1))"
	ok "$name: what has its space can be written" py disk "h.pwrite(data(4 << 20, 4), 0)"
	rm "$dir/ballast"
	ok "$name: with space again all works" py disk "
h.pwrite(data(32 << 20, 5), 8 << 20)
h.flush()
same(h.pread(32 << 20, 8 << 20), data(32 << 20, 5))
same(h.pread(4 << 20, 0), data(4 << 20, 4))
same(h.pread(5000, (50 << 20) + 7), data(5000, 1))"
	ok "$name: and the server ends well" stop_server disk
	rm "$file"
}

if [ -n "${OWN_MOUNTS:-}" ] && mount_here tmpfs "$T/small" size=64m; then
	truncate -s 96M "$T/small/raw"
	no_space "raw, tmpfs" "$T/small" "$T/small/raw"
	truncate -s 96M "$T/small/raw"
	no_space "raw, tmpfs, buffered" "$T/small" "$T/small/raw" direct=off
	make_luks2 "$T/small/luks" 96M
	no_space "LUKS, tmpfs" "$T/small" "$T/small/luks" "$key"
else
	skip "can't mount here" 24
fi

# A disk with faults: nbdkit's error filter, as a file by nbdfuse, which FUSE shows without
# O_DIRECT's rules. $T/fault makes it fail.
fuse_mounted() {
	local i

	for ((i = 0; i < 500; i++)); do
		[ -s "$T/$1" ] && return
		sleep 0.02
	done
	return 1
}

make_faulty_disk() {
	: >"$T/faulty"
	nbdfuse "$T/faulty" --command nbdkit -s --exit-with-parent --filter=error memory 100M \
		error-file="$T/fault" error-rate="$1" error="$2" >"$T/fuse.log" 2>&1 &
	server_pids[fuse]=$!
	fuse_mounted faulty
}

end_faulty_disk() {
	umount --lazy "$T/faulty"
	wait "${server_pids[fuse]}"
	unset "server_pids[fuse]"
}

faults() { # NAME ARG...
	local name=$1

	shift
	ok "$name: starts" start_door disk "$T/faulty" "$@" || return
	ok "$name: is filled" py disk "
h.pwrite(data(32 << 20), 0)
h.pwrite(data(6000, 1), 64 << 20)
h.pwrite(data(5000, 2), (64 << 20) + 507)
h.flush()"
	: >"$T/fault"
	ok "$name: large requests fail as EIO" py disk "
fails('EIO', h.pwrite, data(32 << 20, 2), 0)
fails('EIO', h.pread, 32 << 20, 0)"
	ok "$name: small ones as well, or work" py disk "
failed = 0
for i in range(200):
    try:
        h.pwrite(data(700, i), i * 1000 + 3)
        h.flush()
    except nbd.Error as e:
        assert e.errno == 'EIO', e
        failed += 1
assert failed"
	rm "$T/fault"
	ok "$name: all works when the disk does" py disk "
h.pwrite(data(32 << 20, 3), 0)
h.flush()
same(h.pread(32 << 20, 0), data(32 << 20, 3))"
	ok "$name: other data are unharmed" py disk "
same(h.pread(6000, 64 << 20), data(6000, 1)[:507] + data(5000, 2) + data(6000, 1)[5507:])"
	ok "$name: the server told each" said disk "$T/faulty: .*Input/output error"
	ok "$name: and ends well" stop_server disk
}

if [ -z "${OWN_MOUNTS:-}" ] || [ ! -w /dev/fuse ]; then
	skip "can't mount FUSE file systems here" 24
elif make_faulty_disk 50% EIO; then
	faults "raw"
	faults "raw, buffered" direct=off
	dd if="$T/luks" of="$T/faulty" bs=1M conv=notrunc status=none
	faults "LUKS" "$key"
	end_faulty_disk
else
	result 1 "nbdfuse"
	diag "$(cat "$T/fuse.log")"
fi
done_testing
