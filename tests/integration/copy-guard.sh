#!/bin/bash
# ndio copy: what a destination holds isn't destroyed by oversight, and what is moved is named: ciphertext,
# and a partition table that nobody will find.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

key=$T/pass
mib=1048576

# partitions FILE SECTOR [gpt]: one, of all but the first MiB.
partitions() {
	python3 - "$@" <<-'PYTHON'
		import os, struct, sys
		path, sector = sys.argv[1], int(sys.argv[2])
		sectors = os.path.getsize(path) // sector
		first = 1048576 // sector
		gpt = len(sys.argv) > 3
		with open(path, "r+b") as f:
		    f.seek(446)
		    f.write(struct.pack("<B3sB3sII48xH", 0, b"", 0xee if gpt else 0x83, b"",
		                        1 if gpt else first, sectors - (1 if gpt else first), 0xaa55))
		    if gpt:
		        f.seek(sector)
		        f.write(b"EFI PART")
	PYTHON
}

# windows FILE: NTFS as Windows makes it: what it is known by lies far behind its boot sector.
windows() {
	python3 - "$1" <<-'PYTHON'
		import struct, sys
		mft = 3 << 30
		boot = bytearray(512)
		boot[:11] = b"\xeb\x52\x90NTFS    "
		struct.pack_into("<HB7xB", boot, 11, 512, 8, 0xf8)
		struct.pack_into("<QQQbxxxb", boot, 40, (8 << 30) // 512 - 1, mft // 4096, 2, -10, 1)
		boot[510:] = b"\x55\xaa"
		record = bytearray(1024)
		record[:4] = b"FILE"
		struct.pack_into("<HH", record, 4, 48, 3)
		struct.pack_into("<H", record, 20, 56)
		record[56:60] = b"\xff" * 4
		struct.pack_into("<II", record, 24, 64, 1024)
		with open(sys.argv[1], "r+b") as f:
		    f.truncate(8 << 30)
		    f.write(boot)
		    f.seek(mft)
		    f.write(record * 4)
	PYTHON
}

# The same each time: others might begin with what is recognized.
/usr/bin/python3 -c "import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes(8 << 20))" >"$T/data"
cp "$T/data" "$T/image"
mkdir "$T/held"
make_luks2 "$T/held/luks2" 8M --luks2-keyslots-size 1M --offset 4096 >/dev/null 2>&1
make_luks1 "$T/held/luks1" 8M
truncate -s 8M "$T/held/swap" "$T/held/table"
mkswap "$T/held/swap" >/dev/null 2>&1
partitions "$T/held/table" 512
partitions "$T/image" 512

# A copy of what is held, as each kind of destination. Sets dst.
place() { # WHAT KIND
	cp "$T/held/$1" "$T/dst"
	dst=$T/dst
	case $2 in
	export) start_stock dst file "$T/dst" && dst=$(uri dst) ;;
	plugin) start_nbdkit dst "$NDIO_PLUGIN" "$T/dst" && dst=$(uri dst) ;;
	device) dst=$(losetup --find --show "$T/dst" 2>/dev/null) ;;
	esac
}

leave() { # KIND
	case $1 in
	export | plugin) ok "$1: its server ends cleanly" stop_server dst ;;
	device) losetup --detach "$dst" ;;
	esac
}

kinds=(file export plugin)
if device=$(losetup --find --show "$T/data" 2>/dev/null); then
	losetup --detach "$device"
	kinds+=(device)
else
	skip "no block device to be had"
fi

refuses() { # WHAT COMMAND...: in one line, and nothing changes
	fails "dst: it holds .* that .* has nothing in place of.*--overwrite|loop[0-9]*: it holds .*--overwrite|dst.sock: it holds .*--overwrite" "${@:2}" &&
		cmp "$T/dst" "$T/held/$1"
}

piped() { # DST
	"$ndio" copy - "$1" < <(cat "$T/image")
}

declare -A luks=([file]=luks2 [export]=luks1 [plugin]=luks2 [device]=luks1)
declare -A other=([file]=swap [export]=table [plugin]=swap [device]=table)
for kind in "${kinds[@]}"; do
	what=${luks[$kind]}
	place "$what" "$kind"
	ok "$kind: an image isn't written over a $what volume" \
		refuses "$what" "$ndio" copy "$T/image" "$dst"
	ok "$kind: nor by a pipe" refuses "$what" piped "$dst"
	ok "$kind: nor what was decrypted" refuses "$what" \
		"$ndio" copy --src-key-file "$key" "$T/held/luks2" "$dst"
	leave "$kind"
	place luks1 "$kind"
	ok "$kind: with --overwrite it is" "$ndio" copy --overwrite "$T/image" "$dst"
	leave "$kind"
	ok "$kind: all of it" cmp "$T/image" "$T/dst"
	place luks1 "$kind"
	ok "$kind: and ciphertext over ciphertext" "$ndio" copy "$T/held/luks2" "$dst"
	like "$kind: which is said" "$(cat "$T/ok.out")" \
		"^ndio: $T/held/luks2: a LUKS volume; without a key it is copied as it is, encrypted$"
	leave "$kind"
	what=${other[$kind]}
	place "$what" "$kind"
	ok "$kind: data aren't written over a $what" refuses "$what" "$ndio" copy "$T/data" "$dst"
	ok "$kind: an image with partitions is" "$ndio" copy "$T/image" "$dst"
	is "$kind: without a word" "$(cat "$T/ok.out")" ""
	leave "$kind"
done

place luks2 plugin
like "a server of ciphertext says so" "$(cat "$T/dst.log")" \
	"ndio: $T/dst: a LUKS volume; without a key it is served as it is, encrypted"
leave plugin
start_nbdkit keyed "$NDIO_PLUGIN" "$T/held/luks2" "passphrase=+$T/pass"
is "not one that has the key" "$(grep -c encrypted "$T/keyed.log")" 0
ok "which ends cleanly" stop_server keyed
cp "$T/held/luks2" "$T/dst"
truncate -s 2M "$T/swap"
mkswap "$T/swap" >/dev/null 2>&1
"$ndio" copy --dst-key-file "$key" "$T/swap" "$T/dst"
ok "a volume's content is looked at, decrypted" fails "it holds swap .*--overwrite" \
	"$ndio" copy --dst-key-file "$key" <(head -c 1M "$T/data") "$T/dst"
ok "--overwrite" "$ndio" copy --overwrite --dst-key-file "$key" <(head -c 1M "$T/data") "$T/dst"

cp "$T/held/luks1" "$T/dst"
ok "at a terminal it asks" not terminal "(is --dst-key-file forgotten?), which would be lost. Type YES to go on: => no" "$ndio" copy "$T/image" "$T/dst"
ok "no is no" cmp "$T/held/luks1" "$T/dst"
ok "and YES" terminal "Type YES to go on: => YES" "$ndio" copy "$T/image" "$T/dst"
ok "is yes" cmp "$T/image" "$T/dst"

if [ "$(id -u)" = 0 ] && truncate -s 8M "$T/fs" && mkfs.ext4 -q "$T/fs" 2>/dev/null &&
	device=$(losetup --find --show "$T/fs" 2>/dev/null); then
	mkdir "$T/mnt"
	if mount "$device" "$T/mnt"; then
		ok "a device that is mounted isn't written" fails "$device is in use: .*mounted" \
			"$ndio" copy --overwrite "$T/image" "$device"
		umount "$T/mnt"
	else
		skip "may not mount"
	fi
	losetup --detach "$device"
else
	skip "no block device to be had, or no mkfs.ext4"
fi

# ---- known by what lies deep in it ----

: >"$T/windows"
windows "$T/windows"
like "libblkid knows this disk" "$(blkid -p "$T/windows")" 'TYPE="ntfs"'
ok "an image isn't written over NTFS" fails "windows: it holds ntfs .*--overwrite" \
	"$ndio" copy "$T/data" "$T/windows"
ok "nor formatted unasked" fails "windows: it holds ntfs .*--yes" \
	"$ndio" format --key-file "$key" "$T/windows"
ok "but where that is meant" "$ndio" format --yes --pbkdf pbkdf2 --key-file "$key" "$T/windows"
is "and then it is what was made of it" "$(blkid -p -s TYPE -o value "$T/windows")" crypto_LUKS

# ---- partition tables ----

warns() { # REGEX COMMAND...: succeeds, and says so; nothing for ""
	"${@:2}" >"$T/out" 2>&1 || {
		cat "$T/out"
		return 1
	}
	without_limits -i "$T/out"
	[ -z "$1" ] && [ ! -s "$T/out" ] && return
	[ -n "$1" ] && grep -q "$1" "$T/out"
}

for sector in 512 4096; do
	make_luks2 "$T/v$sector" 16M --luks2-keyslots-size 1M --offset 4096 \
		--sector-size $sector >/dev/null 2>&1
done
for type in "" gpt; do
	for sector in 512 4096; do
		truncate -s 0 "$T/table"
		truncate -s 8M "$T/table"
		partitions "$T/table" $sector $type
		for volume in 512 4096; do
			want="warning: .*table has a partition table for sectors of $sector bytes.*"
			want+="has $volume.*attach --block-size $sector; .*format --sector-size $sector"
			[ $sector != $volume ] || want=
			# An MBR for large sectors may as well be one for small ones, of half a disk.
			[ "$type" = gpt ] || [ $sector = 512 ] || want=
			ok "${type:-MBR} for $sector in sectors of $volume" warns "$want" "$ndio" copy \
				--dst-key-file "$key" "$T/table" "$T/v$volume"
			[ "$type" != gpt ] || ok "by a pipe" warns "${want/table has/standard input has}" \
				bash -c "cat '$T/table' | '$ndio' copy --overwrite --dst-key-file '$key' - '$T/v$volume'"
		done
	done
done
ok "a file system's first sector isn't one" warns "" "$ndio" copy --overwrite --dst-key-file "$key" "$T/swap" "$T/v4096"
done_testing
