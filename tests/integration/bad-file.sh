#!/bin/bash
# What can't be served is refused by name; what can be served only in part, or not with direct
# I/O, is served and said so.

# Mounts of its own, which end with the test however it ends.
if [ -z "${OWN_MOUNTS:-}" ] && unshare --mount --propagation private true 2>/dev/null; then
	OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
fi
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

size() { # SERVER
	nbdinfo --size "$(uri "$1")"
}

# Files of other kinds.
mkdir "$T/folder"
mkfifo "$T/fifo"
ln -s loop "$T/loop"
/usr/bin/python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('$T/socket')"
if [ "$DOOR" = nbdkit ]; then
	ok "no file given" refused "you must give the disk"
	ok "two files given" refused "file= can be given only once" "$T/fifo" file="$T/fifo"
	ok "an empty name" refused "an empty name" file=
fi
ok "missing" refused "$T/missing: No such file or directory" "$T/missing"
ok "in a missing folder" refused "$T/missing/disk: No such file or directory" "$T/missing/disk"
ok "a folder" refused "$T/folder: " "$T/folder"
ok "a character device" refused "/dev/null: not a regular file or block device" /dev/null
ok "a fifo" refused "$T/fifo: not a regular file or block device" "$T/fifo"
ok "a socket" refused "$T/socket: " "$T/socket"
ok "a symbolic link to itself" refused "$T/loop: Too many levels of symbolic links" "$T/loop"

# A fifo that nobody writes: whoever waits for one waits forever.
make_luks2 "$T/luks" 20M
ok "a fifo as header" refused "$T/fifo: not a regular file" "$T/luks" \
	header="$T/fifo" passphrase=+"$T/pass"

# Nothing in it.
: >"$T/empty"
ok "an empty file is served" start_door disk "$T/empty"
is "with no bytes" "$(size disk)" 0
ok "which can be copied" nbdcopy "$(uri disk)" "$T/empty.copy"
ok "and no more" py disk "
h.set_strict_mode(0)
fails('EINVAL', h.pread, 1, 0)
fails('ENOSPC', h.pwrite, b'x', 0)"
ok "and the server ends well" stop_server disk

# A size that is no multiple of the block, nor perhaps of anything: all bytes are served, and the
# file keeps its size.
odd() { # NAME FILE SIZE ARG...: SIZE bytes are exported
	local name=$1 file=$2 size=$3 all

	shift 3
	all=$(stat -c %s "$file")
	ok "$name: starts" start_door disk "$file" "$@" || return
	is "$name: all is exported" "$(size disk)" "$size"
	ok "$name: up to the last byte, in pieces that lie across its edges" py disk "
size = $size
want = bytearray(data(size))
def write(count, offset, flags=0):
    offset = max(offset, 0)
    count = min(count, size - offset)
    want[offset:offset + count] = data(count, offset)
    h.pwrite(data(count, offset), offset, flags)
h.pwrite(bytes(want), 0)
same(h.pread(size, 0), bytes(want))
write(7, size - 7, nbd.CMD_FLAG_FUA)
write(1, size - 1)
write(5000, size - 5000)
write(100, size - 4200, nbd.CMD_FLAG_FUA)
write(300000, size - 300000)
count = min(9000, size)
h.zero(count // 2, size - count)
want[size - count:size - count + count // 2] = bytes(count // 2)
h.zero(3, size - 3, nbd.CMD_FLAG_FUA)
want[size - 3:] = bytes(3)
write(2, size - 3)
if h.can_trim():
    h.trim(min(5000, size), size - min(5000, size))
    want[size - min(5000, size):] = h.pread(min(5000, size), size - min(5000, size))
h.flush()
for count in [1, 2, 511, 512, 513, 4095, 4096, 4097, 10000, 262144 + 1, size]:
    count = min(count, size)
    same(h.pread(count, size - count), bytes(want[size - count:]))
h.set_strict_mode(0)
fails('EINVAL', h.pread, 2, size - 1)
fails('ENOSPC', h.pwrite, b'xx', size - 1)
if h.can_meta_context('base:allocation'):
    end = 0
    def told(context, offset, entries, error):
        global end
        end = offset + sum(entries[::2])
    h.block_status(min(size, 70000), size - min(size, 70000), told)
    assert end <= size, end
open('$T/want', 'wb').write(want)"
	ok "$name: the server ends well" stop_server disk
	is "$name: the file has the size that it had" "$(stat -c %s "$file")" "$all"
	ok "$name: opened anew" start_door disk "$file" "$@" direct=off
	ok "$name: the page cache has it all" holds disk "$T/want"
	stop_server disk
}

for tail in 100 512 $((7 * 512)) 4095; do
	random "$T/odd" $((1048576 + tail))
	odd "raw, $tail bytes more" "$T/odd" $((1048576 + tail))
	is "raw, $tail bytes more: nothing to say" "$(notices disk)" ""
	ok "raw, $tail bytes more: they are the file's" cmp "$T/odd" "$T/want"
done
random "$T/short" 300
odd "raw, 300 bytes" "$T/short" 300

make_luks2 "$T/odd.luks" $((18 * 1048576 + 7 * 512 + 100)) --sector-size 512
odd "LUKS" "$T/odd.luks" $((2 * 1048576 + 7 * 512)) passphrase=+"$T/pass"
ok "LUKS: what is no sector is left out, and told" said disk "the last 100 bytes .* of 512 "
make_luks2 "$T/odd4k.luks" $((18 * 1048576 + 1024)) --sector-size 512
/usr/bin/python3 "$root/tests/tools/edit-luks2.py" "$T/odd4k.luks" "segment['sector_size'] = 4096"
odd "LUKS, sectors of 4096" "$T/odd4k.luks" $((2 * 1048576)) passphrase=+"$T/pass"

# Permissions.
permissions() {
	random "$T/disk" 1048576
	chmod 600 "$T/disk"
	NDIO_PLUGIN=$T/plugin.so NDIO_BUILD=$T door_command --unix "$T/nobody.sock" "$T/disk"
	like "a file that may not be read" \
		"$("${nobody[@]}" LD_PRELOAD="$nobody_preload" "${door[@]}" 2>&1)" \
		"^(nbdkit: error|ndio serve): $T/disk: Permission denied\$"
	chmod 444 "$T/disk"
	ok "a file that may not be written is served" start_nobody disk "$T/disk" || return
	chmod 777 "$T/disk.sock"
	ok "read-only" nbdinfo --is read-only "$(uri disk)"
	ok "as it is" holds disk "$T/disk"
	ok "no write is let through" py disk "
h.set_strict_mode(0)
fails('EPERM', h.pwrite, b'x', 0)
fails('EPERM', h.zero, 512, 0)
fails('EPERM', h.trim, 512, 0)"
	ok "it is as it was" holds disk "$T/disk"
	ok "and the server ends well" stop_server disk
	cp "$T/luks" "$T/disk"
	chmod 444 "$T/disk"
	cp "$T/pass" "$T/pass.nobody"
	chmod 444 "$T/pass.nobody"
	ok "so is a LUKS volume" start_nobody disk "$T/disk" passphrase=+"$T/pass.nobody" || return
	ok "read-only too" nbdinfo --is read-only "$(uri disk)"
	ok "which ends well" stop_server disk
}
if [ "$(id -u)" = 0 ]; then
	allow_nobody
	permissions
else
	skip "needs root, to become someone else" 10
fi

# File systems that refuse direct I/O, or may.
verify() { # SERVER SIZE
	py "$1" "
h.pwrite(data($2), 0)
h.pwrite(b'odd', $2 - 5)
h.zero(1000, 12345)
h.flush()
want = bytearray(data($2))
want[-5:-2] = b'odd'
want[12345:13345] = bytes(1000)
same(h.pread($2, 0), bytes(want))"
}

refusing() {
	local dir=$T/ramfs

	ok "a file system that refuses direct I/O" mount_here ramfs "$dir" || return
	truncate -s 4M "$dir/disk"
	ok "direct=auto goes on without" start_door disk "$dir/disk"
	ok "and says so" said disk "$dir/disk: the file system refuses direct I/O"
	ok "its data are right" verify disk 3000001
	stop_server disk
	ok "direct=on refuses" refused "$dir/disk: the file system refuses direct I/O" \
		"$dir/disk" direct=on
	ok "direct=off starts" start_door disk "$dir/disk" direct=off
	is "and has nothing to say" "$(notices disk)" ""
	stop_server disk
	cp "$T/luks" "$dir/luks"
	ok "LUKS there opens" start_door disk "$dir/luks" passphrase=+"$T/pass"
	ok "its data are right, too" verify disk 3000001
	ok "and the server ends well" stop_server disk
}

in_memory() {
	local dir=$T/tmpfs try

	ok "tmpfs" mount_here tmpfs "$dir" size=64m || return
	truncate -s 4M "$dir/disk"
	ok "is served" start_door disk "$dir/disk"
	ok "with the right data" verify disk 3000001
	stop_server disk
	cp "$T/luks" "$dir/luks"
	ok "and so is LUKS there" start_door disk "$dir/luks" \
		passphrase=+"$T/pass"
	ok "with the right data, too" verify disk 3000001
	ok "and the server ends well" stop_server disk
	# A ring lets go of its file a little later than its process ends.
	for try in 1 2 3 4 5 6 7 8 9 10; do
		mount -o remount,ro "$dir" 2>"$T/remount.log" && break
		sleep "0.$try"
	done
	ok "a read-only file system" start_door disk "$dir/luks" \
		passphrase=+"$T/pass"
	ok "is a read-only export" nbdinfo --is read-only "$(uri disk)"
	ok "which ends well" stop_server disk
}

if [ -n "${OWN_MOUNTS:-}" ]; then
	refusing
	in_memory
else
	skip "can't mount here" 20
fi
done_testing
