#!/bin/bash
# A LUKS header that is damaged, impossible or beyond what the plugin can do is refused, and
# the message names the file and the reason. One good copy of a LUKS2 header is enough, and no
# byte of the image changes, whatever libcryptsetup would like to repair.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

disk=$T/disk
key=passphrase=+$T/pass
COPY=16384 # bytes of one copy of the header
JSON=4200  # a byte of the metadata in it

# fresh: $disk is a good volume again, of 2 MiB behind a header of 2 MiB.
fresh() {
	cp --sparse=always "$T/good" "$disk"
}

fresh_luks1() {
	cp --sparse=always "$T/good1" "$disk"
}

# poke OFFSET BYTES: as printf takes them.
poke() {
	# shellcheck disable=SC2059
	printf "$2" | dd of="$disk" bs=64K oflag=seek_bytes seek="$1" conv=notrunc status=none
}

garbage() { # OFFSET COUNT
	head -c "$2" /dev/urandom | dd of="$disk" bs=64K oflag=seek_bytes seek="$1" \
		conv=notrunc status=none
}

edit() { # CODE [COPY...]
	/usr/bin/python3 "$root/tests/tools/edit-luks2.py" "$disk" "$@"
}

# cryptsetup makes a header in a file where it is called; only root may use its locks.
reencrypt() {
	(cd "$T" && cryptsetup reencrypt --disable-locks "$@")
}

# unchanged COMMAND...: by it the image doesn't change.
unchanged() {
	local before status

	before=$(sha256sum "$disk")
	"$@"
	status=$?
	[ "$(sha256sum "$disk")" = "$before" ] || {
		echo "the image changed"
		return 1
	}
	return "$status"
}

refused_unchanged() { # REGEX
	unchanged refused "$disk: $1" "$disk" "$key"
}

# edited NAME CODE REGEX: after an edit of the metadata the volume is refused.
edited() {
	fresh
	ok "$1" edit "$2" && ok "$1: refused" refused_unchanged "$3"
}

# Opens, reads, and ends. $1 is the size that it should have, the data those of $T/plain.
opens_read_only() {
	start_door disk --readonly "$disk" "$key" &&
		holds disk "$T/plain" && stop_server disk
}

# Opens for writing, too, and reads the same; not even that changes the header.
opens() {
	start_door disk "$disk" "$key" && holds disk "$T/plain" &&
		stop_server disk
}

make_luks2 "$T/good" 4M --sector-size 512 --offset 4096 --luks2-keyslots-size 1M >"$T/make.log" 2>&1 || exit 1
make_luks1 "$T/good1" 3M || exit 1
random "$T/plain" $((2 << 20))
fresh
start_door disk "$T/good" "$key" && fill disk "$T/plain" &&
	stop_server disk || exit 1

fresh
ok "the good one opens" unchanged opens

# Damage.
garbage 0 $COPY
ok "first copy of the header lost: opens, and isn't repaired" unchanged opens
fresh
poke $JSON '!!!'
ok "first copy's checksum wrong: opens, and isn't repaired" unchanged opens
ok "read-only too" unchanged opens_read_only
fresh
garbage $COPY $COPY
ok "second copy lost: opens, and isn't repaired" unchanged opens
fresh
poke $((COPY + JSON)) '!!!'
ok "second copy's checksum wrong: opens, and isn't repaired" unchanged opens
fresh
poke $JSON '!!!'
poke $((COPY + JSON)) '!!!'
ok "both copies' checksums wrong" refused_unchanged "the LUKS header is damaged beyond repair"
fresh
garbage 0 $((2 * COPY))
ok "both copies lost" refused_unchanged "not a LUKS volume"
fresh
poke 6 '\0\7'
poke $((COPY + 6)) '\0\7'
ok "a version that doesn't exist" refused_unchanged ".*(damaged|version|not a LUKS)"
fresh
garbage $((2 * COPY)) $(((2 << 20) - 2 * COPY))
ok "key slots lost" refused_unchanged "no key slot opens with this passphrase"
for size in 6 511 1024 4096 8192 $COPY; do
	fresh
	truncate -s "$size" "$disk"
	ok "cut off after $size bytes" refused_unchanged "the LUKS header is damaged beyond repair"
done
fresh
truncate -s $((2 * COPY)) "$disk"
ok "cut off before the key slots" refused_unchanged ".*(no key slot|damaged|too small|short)"
fresh
truncate -s 2M "$disk"
ok "cut off before the data" refused_unchanged "too small for its LUKS header"
fresh
truncate -s 1M "$disk"
ok "cut off long before the data" refused_unchanged \
	".*(too small for its LUKS header|damaged beyond repair)"

# LUKS1.
fresh_luks1
ok "LUKS1 opens" unchanged start_door disk "$disk" "$key" && stop_server disk
poke 6 '\0\3'
ok "LUKS1: a version that doesn't exist" refused_unchanged ".*(damaged|version|not a LUKS)"
fresh_luks1
poke 0 'LUSK'
ok "LUKS1: no magic" refused_unchanged "not a LUKS volume"
fresh_luks1
poke 112 '\1\2\3\4'
ok "LUKS1: another digest" refused_unchanged "no key slot opens with this passphrase"
fresh_luks1
garbage 4096 $((2 << 20))
ok "LUKS1: key slots lost" refused_unchanged "no key slot opens with this passphrase"
fresh_luks1
poke 208 '\0\0\xde\xad'
ok "LUKS1: no key slot in use" refused_unchanged ".*(no key slot|damaged)"
fresh_luks1
poke 104 '\x7f\xff\xff\xff'
ok "LUKS1: the data would start far behind the end" refused_unchanged \
	".*(too small for its LUKS header|damaged)"
fresh_luks1
poke 104 '\0\0\0\2'
ok "LUKS1: the data would start in the header" refused_unchanged ".*(damaged|key slot)"
fresh_luks1
poke 108 '\0\0\0\0'
ok "LUKS1: no key length" refused_unchanged ".*(damaged|key)"
fresh_luks1
poke 108 '\x7f\0\0\0'
ok "LUKS1: a key of 2 GiB" refused_unchanged ".*(damaged|key|memory)"
fresh_luks1
poke 8 'camellia\0'
ok "LUKS1: another cipher" refused_unchanged ".*camellia-xts-plain64.* not supported"
fresh_luks1
poke 40 'xts-plain\0'
ok "LUKS1: IVs of 32 bits" refused_unchanged ".*aes-xts-plain .*not supported"
fresh_luks1
head -c 32 /dev/zero | tr '\0' 'x' | dd of="$disk" bs=1 seek=8 conv=notrunc status=none
ok "LUKS1: a cipher's name without an end" refused_unchanged ".*(damaged|not supported)"
fresh_luks1
truncate -s 100 "$disk"
ok "LUKS1: cut off" refused_unchanged ".*(damaged|not a LUKS)"

# Good headers of what is not supported.
edited "another cipher" 'segment["encryption"] = "serpent-xts-plain64"' \
	"cipher serpent-xts-plain64 is not supported"
edited "another mode" 'segment["encryption"] = "aes-xts-plain"' \
	"cipher aes-xts-plain is not supported"
edited "no cipher" 'segment["encryption"] = "cipher_null-ecb"' \
	"cipher cipher_null-ecb is not supported"
edited "integrity of another kind" 'segment["integrity"] = { "type": "hmac(sha1)",
	"journal_encryption": "none", "journal_integrity": "none" }' \
	"cipher aes-xts-plain64 hmac.sha1. is not supported"
edited "AEGIS" 'segment["encryption"] = "aegis128-random"; segment["integrity"] = { "type": "aead",
	"journal_encryption": "none", "journal_integrity": "none" }' \
	"cipher aegis128-random aead is not supported"
edited "integrity whose journal is encrypted" 'segment["integrity"] = { "type": "hmac(sha256)",
	"journal_encryption": "ctr(aes)", "journal_integrity": "none" }' \
	"integrity with journal_encryption ctr.aes. is not supported"
edited "tags in the disk itself" \
	'json["config"]["requirements"] = { "mandatory": ["inline-hw-tags"] }' \
	"requirement \"inline-hw-tags\" is not supported"
edited "a flag of the segment" 'segment["flags"] = ["in-reencryption"]' \
	".*(in-reencryption|reencryption is under way|damaged)"
edited "a requirement nobody knows" \
	'json["config"]["requirements"] = { "mandatory": ["time-travel"] }' \
	"requirement \"time-travel\" is not supported"
edited "an offline reencryption" \
	'json["config"]["requirements"] = { "mandatory": ["offline-reencrypt"] }' \
	"a reencryption is under way .requirement \"offline-reencrypt\""
fresh
ok "a reencryption is begun" reencrypt --init-only --batch-mode \
	--key-file "$T/pass" --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$disk"
ok "a reencryption that is begun" refused_unchanged \
	"a reencryption is under way .requirement \"online-reencrypt"
cp "$T/plain" "$disk"
truncate -s +32M "$disk"
ok "an encryption is begun" reencrypt --encrypt --init-only --batch-mode \
	--reduce-device-size 32M --key-file "$T/pass" --pbkdf pbkdf2 \
	--pbkdf-force-iterations 1000 "$disk"
ok "an encryption that is begun" refused_unchanged \
	"a reencryption is under way .requirement \"online-reencrypt"
fresh
ok "all key slots are erased" cryptsetup erase --batch-mode "$disk"
ok "no key slot" refused_unchanged "the LUKS header has no key slot that is in use"

# Impossible metadata under right checksums.
edited "sectors of 8192" 'segment["sector_size"] = 8192' ".*(sector size|damaged)"
edited "sectors of 777" 'segment["sector_size"] = 777' ".*(sector size|damaged)"
edited "sectors of none" 'segment["sector_size"] = 0' ".*(sector size|damaged)"
edited "data that start between sectors" 'segment["offset"] = str((2 << 20) + 100)' \
	".*(sector of 512|damaged)"
edited "data before the start" 'segment["offset"] = "-512"' ".*(offset|damaged)"
edited "data in the header" 'segment["offset"] = "4096"' ".*(offset|damaged|header)"
edited "data far behind the end" 'segment["offset"] = str(1 << 62)' \
	".*(too small for its LUKS header|damaged)"
edited "data as long as numbers go" 'segment["size"] = str((1 << 63) - 512)' \
	".*(too small for its LUKS header|beyond any device|damaged)"
edited "data longer than the image" 'segment["size"] = str((2 << 20) + 512)' \
	"too small for its LUKS header: it has 4194304 bytes, and the data end at byte 4194816"
edited "data of no bytes" 'segment["size"] = "0"' ".*(no data|damaged)"
edited "data of half a sector" 'segment["size"] = "1000"' ".*(sector of 512|damaged)"
edited "a size that is no number" 'segment["size"] = "4096 bytes"' ".*(size|damaged)"
edited "no size" 'del segment["size"]' ".*(size|damaged)"
edited "an IV that is no number" 'segment["iv_tweak"] = "x"' ".*(iv_tweak|damaged)"
edited "no segment" 'json["segments"] = {}' ".*(segments|damaged|key slot)"
edited "two segments" 'json["segments"]["1"] = dict(segment, offset=str(3 << 20))
segment["size"] = str(1 << 20)' ".*(2 data segments|damaged)"
edited "a segment that isn't encrypted" 'segment["type"] = "linear"' ".*(linear|damaged|key slot)"
edited "segments that are a list" 'json["segments"] = []' ".*damaged"
edited "no key slots at all" 'json["keyslots"] = {}' ".*(key slot|damaged)"
edited "a key slot outside of the header" \
	'json["keyslots"]["0"]["area"]["offset"] = str(1 << 50)' ".*(damaged|key slot)"
edited "a key of no bytes" 'json["keyslots"]["0"]["key_size"] = 0' ".*(damaged|key)"

# A fixed length that is right.
fresh
ok "data of a fixed length" edit 'segment["size"] = str(1 << 20)'
head -c 1M "$T/plain" >"$T/first"
mv "$T/first" "$T/plain"
ok "are exported in that length" unchanged opens
done_testing
