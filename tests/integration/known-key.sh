#!/bin/bash
# What the plugin writes is what the standards say, on sectors beyond any 32-bit number too:
# volumes of known keys, and ciphertext that is computed here from AES alone (by openssl enc).
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

reference='
import hashlib, subprocess

def aes(key, blocks, *options):
    return subprocess.run(["openssl", "enc", f"-aes-{len(key) * 8}-" + (options[0] if options else "ecb"),
                           "-nopad", "-K", key.hex(), *options[1:]],
                          input=blocks, stdout=subprocess.PIPE, check=True).stdout

# IEEE 1619: two keys, the tweak is the encrypted sector number, times x for each block.
def xts(key, unit, plain):
    half = len(key) // 2
    tweak = int.from_bytes(aes(key[half:], unit.to_bytes(16, "little")), "little")
    tweaks = b""
    for _ in range(len(plain) // 16):
        tweaks += tweak.to_bytes(16, "little")
        tweak <<= 1
        if tweak >> 128:
            tweak ^= (1 << 128) | 0x87
    xor = lambda a, b: bytes(x ^ y for x, y in zip(a, b))
    return xor(aes(key[:half], xor(plain, tweaks)), tweaks)

def cbc(key, iv, plain):
    return aes(key, plain, "cbc", "-iv", iv.hex())

def essiv(key, unit, plain):
    salt = hashlib.sha256(key).digest()
    return cbc(key, aes(salt, unit.to_bytes(16, "little")), plain)

def plain64(key, unit, plain):
    return cbc(key, unit.to_bytes(16, "little"), plain)

def plain32(key, unit, data):
    return plain64(key, unit & 0xffffffff, data)
'

# What is added to the number of a 512-byte unit, by the header.
tweak=0

# check CIPHER SECTOR DATA-OFFSET FILE KEY: writes at the start, at the end, and around where
# the number of the 512-byte unit takes more than 32 bits.
check() {
	py disk "$reference
cipher, sector, data_offset = $1, $2, $3
key = open('$5', 'rb').read()
size = h.get_size()
places = [0, 7 * sector, size - sector]
if size > 1 << 41:
    places += [(1 << 41) - sector, 1 << 41, (1 << 41) + 123 * sector]
for place in places:
    h.pwrite(data(sector, place), place)
h.pwrite(b'part', 7 * sector + 11)
h.flush()
with open('$4', 'rb') as disk:
    for place in places:
        plain = data(sector, place)
        if place == 7 * sector:
            plain = plain[:11] + b'part' + plain[15:]
        disk.seek(data_offset + place)
        got = disk.read(sector)
        assert got != plain
        assert got == cipher(key, place // 512 + $tweak, plain), f'wrong at {place}'
"
}

known() { # NAME CIPHER SECTOR SIZE KEY-BYTES CRYPTSETUP-OPTION...
	local name=$1 cipher=$2 sector=$3 size=$4 bytes=$5 file=$T/disk.luks offset

	shift 5
	rm -f "$file"
	random "$T/key" "$bytes"
	if ! truncate -s "$size" "$file" 2>"$T/truncate.log"; then
		skip "$name: $(cat "$T/truncate.log")" 4
		return
	fi
	ok "$name: a volume" make_luks luks2 "$file" "$size" --key-size $((bytes * 8)) \
		--volume-key-file "$T/key" "$@" || return
	[ $tweak = 0 ] || ok "$name: tweaked" /usr/bin/python3 "$root/tests/tools/edit-luks2.py" "$file" \
		"segment['iv_tweak'] = '$tweak'"
	offset=$(cryptsetup luksDump "$file" | awk '$1 == "offset:" { print $2; exit }')
	ok "$name: it opens" start_door disk "$file" passphrase=+"$T/pass" ||
		return
	ok "$name: the ciphertext is right" check "$cipher" "$sector" "$offset" "$file" "$T/key"
	ok "$name: the server ends well" stop_server disk
}

known "xts, 512-bit key, 3 TiB, sectors of 512" xts 512 3T 64 --sector-size 512
known "xts, 512-bit key, 3 TiB, sectors of 4096" xts 4096 3T 64 --sector-size 4096
known "xts, 256-bit key, sectors of 2048" xts 2048 20M 32 --sector-size 2048
known "xts, 256-bit key, sectors of 512" xts 512 20M 32 --sector-size 512
known "cbc-essiv, 3 TiB" essiv 512 3T 32 --cipher aes-cbc-essiv:sha256 --sector-size 512
known "cbc-essiv, 128-bit key, sectors of 4096" essiv 4096 20M 16 --cipher aes-cbc-essiv:sha256 \
	--sector-size 4096
known "cbc-plain64, 3 TiB" plain64 512 3T 24 --cipher aes-cbc-plain64 --sector-size 512
known "cbc-plain, 3 TiB" plain32 512 3T 32 --cipher aes-cbc-plain --sector-size 512
known "cbc-plain, 3 TiB, sectors of 4096" plain32 4096 3T 16 --cipher aes-cbc-plain \
	--sector-size 4096
tweak=$(((1 << 40) + 8))
known "xts, IVs that start far from 0, sectors of 512" xts 512 20M 64 --sector-size 512
known "xts, IVs that start far from 0, sectors of 4096" xts 4096 20M 64 --sector-size 4096
done_testing
