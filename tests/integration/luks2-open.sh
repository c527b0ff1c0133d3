#!/bin/bash
# LUKS2 volumes that cryptsetup made open, and hold what they should: cryptsetup's own
# encryption of a plain file is the reference, and needs no kernel.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

SIZE=$((2 * 1024 * 1024))
options=(--type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --batch-mode)
key=(--key-file "$T/pass")

# cryptsetup makes the header in a file where it is called; only root may use its locks.
reencrypt() {
	(cd "$T" && cryptsetup reencrypt --disable-locks "${options[@]}" "${key[@]}" "$@")
}

# encrypt FILE OPTION...: the file, which holds $T/plain, becomes a volume. cryptsetup moves
# the data out of the header's way, and needs room for it at the end.
encrypt() {
	local file=$1

	shift
	cp "$T/plain" "$file" && truncate -s +32M "$file" &&
		reencrypt --encrypt --reduce-device-size 32M "$@" "$file"
}

starts_with() { # SERVER FILE
	nbdcopy "$(uri "$1")" "$T/export" && cmp -n "$(stat -c %s "$2")" "$T/export" "$2"
}

opens() { # NAME CRYPTSETUP-OPTION...
	local name=$1 disk=$T/disk.luks

	shift
	ok "$name: cryptsetup encrypts a plain file" encrypt "$disk" "$@" || return
	ok "$name: the plugin opens it" start_door disk "$disk" \
		passphrase=+"$T/pass" || return
	is "$name: all but the header is exported" "$(nbdinfo --size "$(uri disk)")" \
		$((SIZE + (16 << 20)))
	ok "$name: every byte of the plain file is there" starts_with disk "$T/plain"
	ok "$name: the server ends well" stop_server disk
}

detached() { # SECTOR-SIZE
	local name="detached header, sectors of $1" disk=$T/detached.disk

	cp "$T/plain" "$disk"
	rm -f "$T/detached.header"
	ok "$name: cryptsetup encrypts a plain file" reencrypt --encrypt --header "$T/detached.header" \
		--sector-size "$1" "$disk" || return
	ok "$name: which is plain no more" not cmp -s "$disk" "$T/plain"
	ok "$name: the plugin opens it" start_door disk "$disk" \
		header="$T/detached.header" passphrase=+"$T/pass" || return
	ok "$name: every byte is there, and no more" holds disk "$T/plain"
	ok "$name: the server ends well" stop_server disk
}

# Opens with a key file that has every sort of byte, and with it alone.
key_file() {
	local name="binary key file" file=$T/keyed.luks keyfile=$T/binary.key

	printf 'one\ntwo\r\n\0three\xff\xfe\n\n' >"$keyfile"
	truncate -s 20M "$file"
	ok "$name: cryptsetup makes a volume" cryptsetup luksFormat "${options[@]}" \
		--key-file "$keyfile" "$file" || return
	ok "$name: it opens" start_door disk "$file" keyfile="$keyfile" &&
		stop_server disk
	head -c -1 "$keyfile" >"$keyfile.short"
	ok "$name: not without its last byte" refused "$file: no key slot opens" "$file" \
		keyfile="$keyfile.short"
	head -c 3 "$keyfile" >"$keyfile.short"
	ok "$name: not with its first line" refused "$file: no key slot opens" "$file" \
		keyfile="$keyfile.short"
	[ "$DOOR" = serve ] || ok "$name: nor as a passphrase" refused "$file: no key slot opens" "$file" \
		passphrase=+"$keyfile"
}

# Any slot opens, and so does the second of two passphrases.
second_slot() {
	make_luks2 "$T/slots.luks" 20M
	printf 'the other one' >"$T/other"
	ok "a second key slot" cryptsetup luksAddKey --batch-mode "${key[@]}" \
		--pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$T/slots.luks" "$T/other"
	ok "it opens with the second passphrase" start_door disk \
		"$T/slots.luks" passphrase=+"$T/other" && stop_server disk
	cryptsetup luksKillSlot --batch-mode --key-file "$T/other" "$T/slots.luks" 0
	ok "and when the first slot is gone" start_door disk \
		"$T/slots.luks" passphrase=+"$T/other" && stop_server disk
	ok "but not with the first passphrase any more" refused "no key slot opens" \
		"$T/slots.luks" passphrase=+"$T/pass"
}

random "$T/plain" $SIZE
opens "xts, 512-bit key, sectors of 512" --key-size 512 --sector-size 512
opens "xts, 512-bit key, sectors of 1024" --key-size 512 --sector-size 1024
opens "xts, 512-bit key, sectors of 2048" --key-size 512 --sector-size 2048
opens "xts, 512-bit key, sectors of 4096" --key-size 512 --sector-size 4096
opens "xts, 256-bit key, sectors of 512" --key-size 256 --sector-size 512
opens "xts, 256-bit key, sectors of 4096" --key-size 256 --sector-size 4096
opens "cbc-essiv, 256-bit key" --cipher aes-cbc-essiv:sha256 --key-size 256
opens "cbc-essiv, 128-bit key" --cipher aes-cbc-essiv:sha256 --key-size 128
opens "cbc-plain64, 192-bit key" --cipher aes-cbc-plain64 --key-size 192
opens "cbc-plain64, sectors of 4096" --cipher aes-cbc-plain64 --key-size 256 --sector-size 4096
opens "cbc-plain" --cipher aes-cbc-plain --key-size 256
opens "cbc-essiv, sectors of 4096" --cipher aes-cbc-essiv:sha256 --key-size 256 --sector-size 4096
opens "a key slot of argon2id" --pbkdf argon2id --pbkdf-memory 64 --pbkdf-force-iterations 4
detached 512
detached 4096
key_file
second_slot
done_testing
