# For tests that damage a volume with integrity where it is stored: `. tests/lib/damage.sh` after lib.sh.
# shellcheck shell=bash

# place_of IMAGE BYTE: where that byte of its data lies, in a LUKS2 volume's image whose segment begins at 16 MiB, as
# usual.
place_of() {
	python3 - "$@" <<'PYTHON'
import struct, sys

SEGMENT = 16 << 20
with open(sys.argv[1], "rb") as image:
    image.seek(SEGMENT)
    magic, _, log2_area, tag, sections, _, flags, log2_block = struct.unpack("<8sBBHIQIB", image.read(29))
assert magic == b"integrt\0", f"{sys.argv[1]}: no superblock"
round_up = lambda n, to: -(-n // to) * to
sectors = 1 << log2_block
entries = 504 // round_up(8 + 8 * sectors + tag, 8) * 8
first_area = 4096 + sections * (8 + entries * sectors) * 512
tags = round_up((1 << log2_area) // sectors * tag, 4096 if flags & 8 else 131072)
area = int(sys.argv[2]) // 512 >> log2_area
print(SEGMENT + first_area + (area + 1) * tags + int(sys.argv[2]))
PYTHON
}

# flip IMAGE BYTE: a bit of that byte of its data, in the ciphertext.
flip() {
	local at

	at=$(place_of "$1" "$2") || return
	printf "\\x$(printf %x $(($(od -An -tu1 -j "$at" -N 1 "$1") ^ 4)))" |
		dd of="$1" bs=1 seek="$at" conv=notrunc status=none
}
