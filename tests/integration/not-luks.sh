#!/bin/bash
# A disk that once was LUKS2 and is something else now, with an old second header left: by what
# cryptsetup makes of it, it isn't taken for LUKS, and never edited. That takes signatures at the
# very end of the disk, too. Without one, the second header alone is enough.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"

disk=$T/disk

put() { # OFFSET BYTES, as printf takes them
	# shellcheck disable=SC2059
	printf "$2" | dd of="$disk" bs=64K oflag=seek_bytes seek="$1" conv=notrunc status=none
}

zero() { # OFFSET COUNT
	head -c "$2" /dev/zero | dd of="$disk" bs=64K oflag=seek_bytes seek="$1" conv=notrunc status=none
}

# Each leaves the second header, at 16 KiB, as it is.
as_ext4() { put 1080 '\x53\xef' && put 1024 '\0\1\0\0\0\4\0\0' && put 1100 '\1\0\0\0'; }
as_btrfs() { put $((65536 + 64)) _BHRfS_M; }

# An array's member, by the metadata of version 0.90: 64 to 128 KiB before the end.
as_raid_at_the_end() { put $((SIZE - 65536)) '\xfc\x4e\x2b\xa9\0\0\0\0\x5a\0\0\0'; }

# Of version 1.0, which says where it is, in sectors: 8 KiB before the end.
as_raid_1.0() {
	put $((SIZE - 8192)) '\xfc\x4e\x2b\xa9\1\0\0\0' &&
		put $((SIZE - 8192 + 144)) "$(printf '\\x%02x\\x%02x\\x%02x\\x%02x' \
			$((at = (SIZE - 8192) / 512, at & 255)) $((at >> 8 & 255)) $((at >> 16 & 255)) 0)"
}

# Its magic ends the first page; before that come the version and how many pages there are.
as_swap() { put 4086 SWAPSPACE2 && put 1024 '\1\0\0\0\377\0\0\0'; }

as_xfs() {
	/usr/bin/python3 - "$disk" $((SIZE / 4096)) <<'PYTHON'
import struct, sys

blocks = int(sys.argv[2])
head = struct.pack(">4sIQQQ16sQQQQIIIIIHHHH12s8B", b"XFSB", 4096, blocks, 0, 0, b"u" * 16, 4, 128, 129, 130,
                   1, blocks // 4, 4, 0, 855, 0xb4a5, 512, 512, 8, b"", 12, 9, 9, 3, 12, 0, 0, 25)
with open(sys.argv[1], "r+b") as disk:
    disk.write(head)
PYTHON
}

# A partition table of which only the backup is left, in the last sector.
as_gpt_at_the_end() {
	/usr/bin/python3 - "$disk" $((SIZE / 512)) <<'PYTHON'
import struct, sys, zlib

name, sectors = sys.argv[1], int(sys.argv[2])
entries = struct.pack("<16s16sQQQ72s", b"t" * 16, b"u" * 16, 2048, 4095, 0, b"").ljust(128 * 128, b"\0")
head = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, sectors - 1, 1, 34,
                   sectors - 34, b"g" * 16, sectors - 33, 128, 128, zlib.crc32(entries))
head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
with open(name, "r+b") as disk:
    disk.seek(446) # what protects it: one partition, of all
    disk.write(struct.pack("<4B4BII", 0, 0, 2, 0, 0xee, 255, 255, 255, 1, sectors - 1))
    disk.seek(510)
    disk.write(b"\x55\xaa")
    disk.seek((sectors - 33) * 512)
    disk.write(entries + head.ljust(512, b"\0"))
PYTHON
}

# What cryptsetup says of it: refuses it, or not.
cryptsetup_refuses() {
	not cryptsetup luksDump "$disk"
}

refused_everywhere() { # NAME
	local before

	before=$(sha256sum "$disk")
	ok "$1: cryptsetup refuses it" cryptsetup_refuses
	ok "$1: the plugin" refused "$disk: not a LUKS volume any more: something else is there" \
		"$disk" keyfile="$T/pass"
	like "$1: info" "$("$ndio" info "$disk")" "kind: +raw"
	for action in add remove change; do
		key=()
		[ $action = remove ] || key=(--new-key-file "$T/new")
		ok "$1: key $action" fails "$disk: not a LUKS volume" "$ndio" key $action \
			--key-file "$T/pass" "${key[@]}" "$disk"
	done
	ok "$1: key list" fails "$disk: not a LUKS volume" "$ndio" key list "$disk"
	is "$1: nothing changed" "$(sha256sum "$disk")" "$before"
}

SIZE=$((40 << 20))
make_luks2 "$T/good" $SIZE
fresh() {
	cp --sparse=always "$T/good" "$disk"
}

for kind in ext4 btrfs xfs swap raid_at_the_end raid_1.0 gpt_at_the_end; do
	fresh
	zero 0 4096
	ok "$kind: is made" as_$kind
	is "$kind: libblkid sees it" "$(blkid -p "$disk" >/dev/null; echo $?)" 0
	refused_everywhere "$kind"
done

echo "# nothing else is there"
fresh
zero 0 4096
ok "the second header is enough, to open" start_door disk "$disk" \
	keyfile="$T/pass" && stop_server disk
ok "and to edit" "$ndio" key add "${cheap[@]}" --key-file "$T/pass" --new-key-file "$T/new" "$disk"
ok "which repairs the first" [ "$(head -c 4 "$disk")" = LUKS ]

echo "# something else is there as well, at the end"
fresh
as_raid_at_the_end
ok "with a whole header it is LUKS, as for cryptsetup" cryptsetup luksDump "$disk"
ok "the plugin" start_door disk "$disk" keyfile="$T/pass" && stop_server disk
put 5000 XXXX
ok "with a damaged one it isn't: cryptsetup" cryptsetup_refuses
ok "the plugin" refused "$disk: the LUKS header is damaged, and something else is on the disk" \
	"$disk" keyfile="$T/pass"
before=$(sha256sum "$disk")
ok "key add" fails "$disk: the LUKS header is damaged, and something else" "$ndio" key add \
	--key-file "$T/pass" --new-key-file "$T/new" "$disk"
is "nothing changed" "$(sha256sum "$disk")" "$before"
done_testing
