#!/bin/bash
# Block devices (loop devices here), of 512-byte and 4096-byte sectors, raw and with LUKS: data,
# sizes, trims, zeroes.

# Mounts of its own, which end with the test however it ends.
if [ -z "${OWN_MOUNTS:-}" ] && unshare --mount --propagation private true 2>/dev/null; then
	OWN_MOUNTS=1 exec unshare --mount --propagation private bash "$0" "$@"
fi
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

key=passphrase=+$T/pass
loops=()
free_loops() {
	local loop

	for loop in "${loops[@]}"; do
		losetup --detach "$loop"
	done
}
trap 'unmount_all; free_loops; clean_up' EXIT

# attach FILE [OPTION...]: sets loop.
attach() {
	local file=$1

	shift
	loop=$(losetup --find --show "$@" "$file") && loops+=("$loop")
}

detach() {
	local i

	for i in "${!loops[@]}"; do
		[ "${loops[i]}" != "$1" ] || unset "loops[i]"
	done
	losetup --detach "$1"
}

# Bytes that the file has on its disk.
used() {
	sync "$1"
	echo $(($(stat -c %b "$1") * 512))
}

# Requests of every sort of edge, by one connection and then by several.
verify() { # SERVER
	py "$1" "
want = bytearray(data(9 << 20))
h.pwrite(data(9 << 20), 0)
def write(count, offset, flags=0):
    want[offset:offset + count] = data(count, offset)
    h.pwrite(data(count, offset), offset, flags)
def zero(count, offset, flags=0):
    want[offset:offset + count] = bytes(count)
    h.zero(count, offset, flags)
write(1, 511)
write(512, 512, nbd.CMD_FLAG_FUA)
write(513, 4095)
write(300001, 1234567, nbd.CMD_FLAG_FUA)
zero(4096, 65536)
zero(777, 100001)
zero(200000, 2000001, nbd.CMD_FLAG_FUA)
zero(1 << 20, 4 << 20, nbd.CMD_FLAG_NO_HOLE)
zero(1000003, (6 << 20) + 5, nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE)
h.flush()
same(h.pread(9 << 20, 0), bytes(want))
same(h.pread(99999, 54321), bytes(want[54321:54321 + 99999]))
open('$T/want', 'wb').write(want)" &&
		nbdcopy --connections=4 "$(uri "$1")" "$T/export" &&
		cmp -n $((9 << 20)) "$T/export" "$T/want"
}

raw() { # NAME FILE LOOP
	ok "$1: starts" start_door disk "$3" || return
	is "$1: it has the device's size" "$(nbdinfo --size "$(uri disk)")" \
		"$(blockdev --getsize64 "$3")"
	is "$1: nothing to say" "$(notices disk | without_limits)" ""
	ok "$1: the data are right" verify disk
	ok "$1: and it ends well" stop_server disk
	ok "$1: the device has them" cmp -n $((9 << 20)) "$3" "$T/want"
	sync "$2"
	ok "$1: and so has the file below it" cmp -n $((9 << 20)) "$2" "$T/want"
}

trims() { # NAME FILE LOOP ARG...
	local name=$1 file=$2 device=$3 before

	shift 3
	ok "$name: starts" start_door disk "$device" "$@" || return
	if ! nbdinfo --can trim "$(uri disk)"; then
		skip "$device can't be trimmed" 4
		stop_server disk
		return
	fi
	py disk "h.pwrite(data(8 << 20), 0); h.flush()"
	before=$(used "$file")
	ok "$name: trims" py disk "
h.trim(4 << 20, 1 << 20)
h.trim(1 << 20, (6 << 20) + 777, nbd.CMD_FLAG_FUA)
h.trim(100, 5)
h.flush()"
	ok "$name: the file below is smaller" [ $((before - $(used "$file"))) -gt $((4 << 20)) ]
	ok "$name: what wasn't trimmed is as it was" py disk "
want = data(8 << 20)
for start, end in [(0, 1 << 20), (5 << 20, (6 << 20) + 777), ((7 << 20) + 777, 8 << 20)]:
    same(h.pread(end - start, start), want[start:end])"
	ok "$name: and it ends well" stop_server disk
}

# A fast zero is fast or isn't done.
fast_zero() { # NAME LOOP
	ok "$1: starts" start_door disk "$2" || return
	ok "$1: a zero that has to be fast, or fail" py disk "
h.pwrite(data(2 << 20), 0)
if h.can_fast_zero():
    for flags in [0, nbd.CMD_FLAG_NO_HOLE]:
        try:
            h.zero(1 << 20, 4096, flags | nbd.CMD_FLAG_FAST_ZERO)
        except nbd.Error as e:
            assert e.errno in ('ENOTSUP', 'EOPNOTSUPP'), e
            same(h.pread(2 << 20, 0), data(2 << 20))
        else:
            same(h.pread(2 << 20, 0),
                 data(2 << 20)[:4096] + bytes(1 << 20) + data(2 << 20)[4096 + (1 << 20):])
            h.pwrite(data(2 << 20), 0)"
	ok "$1: and it ends well" stop_server disk
}

[ "$(id -u)" = 0 ] || skip_all "needs root, for loop devices"
truncate -s 12M "$T/raw"
attach "$T/raw" 2>"$T/losetup.log" || skip_all "no loop devices here: $(cat "$T/losetup.log")"
raw "raw" "$T/raw" "$loop"
trims "raw, trim" "$T/raw" "$loop"
fast_zero "raw, fast zero" "$loop"
detach "$loop"

truncate -s $(((12 << 20) + 512)) "$T/odd"
if attach "$T/odd"; then
	raw "an odd number of sectors" "$T/odd" "$loop"
	detach "$loop"
fi

truncate -s 12M "$T/raw4k"
if attach "$T/raw4k" --sector-size 4096 2>"$T/losetup.log"; then
	raw "raw, sectors of 4096" "$T/raw4k" "$loop"
	trims "raw, sectors of 4096, trim" "$T/raw4k" "$loop"
	fast_zero "raw, sectors of 4096, fast zero" "$loop"
	detach "$loop"
else
	skip "$(cat "$T/losetup.log")" 14
fi

# LUKS: on the device what is in the file, and the same as in the file without a device.
luks() { # NAME SECTOR LOOP-OPTION...
	local name=$1 sector=$2 file=$T/luks.$2

	shift 2
	make_luks2 "$file" 28M --sector-size "$sector" || return
	if ! attach "$file" "$@" 2>"$T/losetup.log"; then
		skip "$(cat "$T/losetup.log")" 11
		return
	fi
	ok "$name: starts" start_door disk "$loop" "$key" || return
	is "$name: its size" "$(nbdinfo --size "$(uri disk)")" $((12 << 20))
	is "$name: nothing to say" "$(notices disk | without_limits)" ""
	ok "$name: the data are right" verify disk
	ok "$name: and it ends well" stop_server disk
	sync "$file"
	ok "$name: the file below opens" start_door disk "$file" "$key" direct=off
	nbdcopy "$(uri disk)" "$T/export"
	ok "$name: and has the same data" cmp -n $((9 << 20)) "$T/export" "$T/want"
	stop_server disk
	trims "$name, discard=on" "$file" "$loop" "$key" discard=on
	detach "$loop"
}

luks "LUKS" 512
luks "LUKS, sectors of 4096 on a device of 512" 4096
luks "LUKS, sectors of 512 on a device of 4096" 512 --sector-size 4096

# Data that start between the device's sectors: through the page cache, on the device itself and in
# a file on it.
between() {
	local dir=$T/mounted

	make_luks2 "$T/between" 28M --sector-size 512
	/usr/bin/python3 "$root/tests/tools/edit-luks2.py" "$T/between" \
		"segment['offset'] = str((16 << 20) + 512)"
	attach "$T/between" --sector-size 4096 2>"$T/losetup.log" || {
		skip "$(cat "$T/losetup.log")" 11
		return
	}
	ok "data between a device's sectors: starts" start_door disk "$loop" \
		"$key" || return
	ok "data between a device's sectors: says so" said disk \
		"$loop: the data start at byte 16777728, .*multiple of 4096.*page cache"
	ok "data between a device's sectors: they are right" verify disk
	ok "data between a device's sectors: and it ends well" stop_server disk
	ok "data between a device's sectors: direct=on, refused" refused \
		"$loop: the data start at byte 16777728, .* multiple of 4096" "$loop" "$key" direct=on
	detach "$loop"
	truncate -s 64M "$T/ext4"
	if attach "$T/ext4" --sector-size 4096 && mke2fs -q -t ext4 "$loop" && mkdir "$dir" &&
		[ -n "${OWN_MOUNTS:-}" ] && mount "$loop" "$dir" 2>"$T/mount.log"; then
		mounts+=("$dir")
		cp --sparse=always "$T/between" "$dir/disk"
		ok "in a file on it: starts" start_door disk "$dir/disk" "$key" ||
			return
		ok "in a file on it: says that they are out of direct I/O's reach" said disk \
			"$dir/disk: the data start at byte 16777728, .*multiple of 4096.*page cache"
		is "in a file on it: all are exported" "$(nbdinfo --size "$(uri disk)")" \
			$(((12 << 20) - 512))
		ok "in a file on it: they are right" verify disk
		ok "in a file on it: and it ends well" stop_server disk
		ok "in a file on it: direct=on, refused" refused \
			"$dir/disk: the data start at byte 16777728, .*direct I/O" "$dir/disk" "$key" \
			direct=on
		umount --lazy "$dir"
		mounts=()
	else
		skip "can't mount here" 6
	fi
	detach "$loop"
}
between

# Read-only devices, and a header on one.
if attach "$T/raw" --read-only; then
	ok "a read-only device: starts" start_door disk "$loop"
	ok "a read-only device: a read-only export" nbdinfo --is read-only "$(uri disk)"
	ok "a read-only device: as it is" holds disk "$T/raw"
	stop_server disk
	detach "$loop"
fi
truncate -s 16M "$T/header"
truncate -s 12M "$T/data"
cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
	--header "$T/header" "$T/data" "$T/pass"
attach "$T/header" --read-only
header=$loop
attach "$T/data"
ok "a detached header on a device: starts" start_door disk "$loop" "$key" \
	header="$header"
is "a detached header on a device: all of the other is data" \
	"$(nbdinfo --size "$(uri disk)")" $((12 << 20))
ok "a detached header on a device: the data are right" verify disk
ok "a detached header on a device: and it ends well" stop_server disk
detach "$loop"
detach "$header"
done_testing
