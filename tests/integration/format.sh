#!/bin/bash
# ndio format: volumes that cryptsetup and our plugin open, on files and servers; what looks used
# isn't destroyed unasked; a crash leaves nothing that opens as something else.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/command.sh"

format() {
	"$ndio" format --key-file "$T/pass" "${cheap[@]}" "$@"
}

# dump FILE FIELD: what luksDump says of it.
dump() {
	cryptsetup luksDump "$1" | sed -n "s/^\s*$2:\s*//p" | head -n 1
}

defaults() {
	ok "creates a file" "$ndio" format --key-file "$T/pass" --pbkdf-memory 64 \
		--pbkdf-force-iterations 4 --size 20M "$T/disk"
	ok "that cryptsetup opens" opens "$T/disk" "$T/pass"
	is "its size" "$(stat -c %s "$T/disk")" $((20 << 20))
	is "its mode" "$(stat -c %a "$T/disk")" 600
	is "LUKS2" "$(dump "$T/disk" Version)" 2
	is "cipher" "$(dump "$T/disk" cipher)" aes-xts-plain64
	is "sector" "$(dump "$T/disk" sector)" "4096 [bytes]"
	is "key" "$(dump "$T/disk" Key)" "512 bits"
	is "key derivation" "$(dump "$T/disk" PBKDF)" argon2id
	is "its memory" "$(dump "$T/disk" Memory)" 64
	ok "a file that is there isn't created" fails "$T/disk: it exists" format --size 20M "$T/disk"
	format --size 40G "$T/large"
	ok "a large file is sparse" test "$(stat -c %b "$T/large")" -lt 65536
}

choices() {
	local uuid=01234567-89ab-cdef-0123-456789abcdef

	ok "label, UUID, cipher, sector" format --size 20M --label 'a label' --uuid $uuid \
		--cipher aes-cbc-essiv:sha256 --sector-size 2048 "$T/chosen"
	is "label" "$(dump "$T/chosen" Label)" "a label"
	is "UUID" "$(dump "$T/chosen" UUID)" $uuid
	is "cipher" "$(dump "$T/chosen" cipher)" aes-cbc-essiv:sha256
	is "sector" "$(dump "$T/chosen" sector)" "2048 [bytes]"
	is "key" "$(dump "$T/chosen" Key)" "256 bits"
	ok "LUKS1" format --type luks1 --size 3M "$T/one"
	is "is version 1" "$(dump "$T/one" Version)" 1
	ok "that cryptsetup opens" opens "$T/one" "$T/pass"
	truncate -s $(((20 << 20) + 512)) "$T/odd"
	ok "a size that is no multiple of 4096" format "$T/odd"
	is "gets sectors of 512" "$(dump "$T/odd" sector)" "512 [bytes]"
	ok "or is refused" fails "$T/odd: its size, .* is no multiple" format --yes \
		--sector-size 4096 "$T/odd"
	ok "detached header" format --size 1M --header "$T/header" "$T/data"
	ok "opens" opens "$T/data" "$T/pass" --header "$T/header"
	ok "the data are only data" cmp -n $((1 << 20)) "$T/data" /dev/zero
	ok "detached header, LUKS1, data that are there" format --type luks1 \
		--header "$T/header1" "$T/data"
	ok "opens" opens "$T/data" "$T/pass" --header "$T/header1"
}

# The plugin serves it with the key, and its client sees so many bytes.
plugin_opens() { # FILE BYTES [NBDKIT-ARG...]
	start_nbdkit check "$NDIO_PLUGIN" "$1" "passphrase=+$T/pass" "${@:3}" || return
	[ "$(nbdinfo --size "$(uri check)")" = "$2" ]
	local status=$?
	stop_server check
	return $status
}

servers() {
	start_nbdkit memory memory 20M
	ok "nbdkit memory" format "$(uri memory)"
	nbdcopy "$(uri memory)" "$T/copy"
	ok "nbdkit memory: opens" opens "$T/copy" "$T/pass"
	ok "our plugin opens it" plugin_opens "$T/copy" $((4 << 20))
	stop_server memory
	truncate -s 20M "$T/file"
	start_nbdkit file file "$T/file"
	ok "nbdkit file, LUKS1" format --type luks1 "$(uri file)"
	stop_server file
	ok "nbdkit file: opens" opens "$T/file" "$T/pass"
	truncate -s 0 "$T/file"
	truncate -s 20M "$T/file"
	start_qemu_nbd qemu --format raw "$T/file"
	ok "qemu-nbd" format "$(uri qemu)"
	stop_server qemu
	ok "qemu-nbd: opens" opens "$T/file" "$T/pass"
	truncate -s 0 "$T/file"
	truncate -s 20M "$T/file"
	start_nbdkit plugin "$NDIO_PLUGIN" "$T/file"
	ok "our plugin without a key" format "$(uri plugin)"
	stop_server plugin
	ok "our plugin: opens" opens "$T/file" "$T/pass"
	start_nbdkit readonly --readonly memory 20M
	ok "a read-only server" fails "sock: it can only be read" format "$(uri readonly)"
	stop_server readonly
	start_nbdkit errors --filter=error memory 20M error-pwrite-rate=1 error-zero-rate=1
	ok "a server that fails" fails "sock: wiping what was there: " format "$(uri errors)"
	stop_server errors
}

used() {
	truncate -s 20M "$T/ext"
	mke2fs -q "$T/ext"
	cp "$T/ext" "$T/ext.before"
	ok "a file system isn't destroyed unasked" fails "$T/ext: it holds ext2 .*--yes" \
		format "$T/ext"
	ok "and is untouched" cmp "$T/ext" "$T/ext.before"
	like "the answer no" "$(terminal "Type YES to go on: => yes" "$ndio" format "${cheap[@]}" \
		--key-file "$T/pass" "$T/ext")" "holds ext2 \(filesystem\).*left as it is"
	ok "and is untouched" cmp "$T/ext" "$T/ext.before"
	ok "the answer YES, and a passphrase" terminal "Type YES to go on: => YES
noecho New passphrase for $T/ext: => new key
noecho again: => new key" "$ndio" format "${cheap[@]}" "$T/ext"
	ok "opens" opens "$T/ext" "$T/new"
	ok "a LUKS volume isn't destroyed unasked" fails "it holds a LUKS volume" format "$T/ext"
	ok "--yes does" format --yes "$T/ext"
	ok "opens" opens "$T/ext" "$T/pass"
	truncate -s 20M "$T/bytes"
	printf x | dd of="$T/bytes" bs=1 seek=$(((20 << 20) - 1)) conv=notrunc status=none
	ok "one byte at the end isn't destroyed unasked" fails "data that are not zero" \
		format "$T/bytes"
	# A signature at the very end would be found instead of ours.
	truncate -s 20M "$T/raid"
	printf '\xfc\x4e\x2b\xa9\x01\0\0\0' |
		dd of="$T/raid" bs=1 seek=$(((20 << 20) - 8192)) conv=notrunc status=none
	format --yes "$T/raid"
	is "what made the end look used is gone" "$(blkid -p -o value -s TYPE "$T/raid")" crypto_LUKS
}

# Over an old volume: in every state that a crash can leave, cryptsetup sees the old header
# whole, the new one whole, or none.
crash() { # WHAT OLD-TYPE NEW-OPTION...
	local what=$1 state uuid old new bad=0 count=0

	truncate -s 0 "$T/crash"
	make_luks "$2" "$T/crash" 18M
	old=$(cryptsetup luksUUID "$T/crash")
	cp --sparse=always "$T/crash" "$T/before"
	start_recorder crash "$T/crash"
	ok "$what" "$ndio" format --yes "${cheap[@]}" --key-file "$T/new" "${@:3}" "$(uri crash)"
	stop_server crash
	new=$(cryptsetup luksUUID "$T/crash")
	crash_states crash "$T/before" "$T/states"
	for state in "$T/states"/*; do
		count=$((count + 1))
		uuid=$(cryptsetup luksUUID "$state" 2>/dev/null)
		case $uuid in
		"") continue ;;
		"$new") opens "$state" "$T/new" && ! opens "$state" "$T/pass" 2>/dev/null ;;
		"$old") opens "$state" "$T/pass" && ! opens "$state" "$T/new" 2>/dev/null ;;
		*) false ;;
		esac || {
			diag "$state is half one thing and half another: $uuid of $old and $new"
			bad=$((bad + 1))
		}
	done
	is "$what: none of $count states after a crash is half old, half new" "$bad" 0
	ok "$what: the last opens" opens "$state" "$T/new"
	rm -rf "$T/states"
}

payload_of() { # FILE [OPTION...]
	"$ndio" info --json --key-file "$T/pass" "${@:2}" "$1" | python3 -c 'import json, sys
print(json.load(sys.stdin)["luks"]["payload_size"])'
}

# payload SIZE BYTES [OPTION...]: the disk has that many, and as cryptsetup sees it, too.
payload() {
	local option=--payload-size name="${*:3} ${1##*/}"

	[[ $1 != /* && $1 != nbd* ]] || option=--like
	rm -f "$T/made"
	"$ndio" format "${cheap[@]}" --key-file "$T/pass" $option "$1" "${@:3}" "$T/made"
	is "$option $name" "$(payload_of "$T/made")" "$2"
	is "$option $name, by cryptsetup" $(($(stat -c %s "$T/made") - $(cryptsetup luksDump \
		"$T/made" | awk '/^\toffset:/ { print $2 } /^Payload offset:/ { print $3 * 512 }'))) "$2"
}

payloads() {
	payload 10MiB 10485760
	payload 10mb 10000384
	payload 1 512
	payload 5M 5242880 --type luks1
	payload 100000000000 100000000000
	payload 5000 8192 --sector-size 4096
	truncate -s 3000001 "$T/image"
	payload "$T/image" 3000320
	start_stock like memory 7M
	payload "$(uri like)" 7340032
	stop_server like
	rm -f "$T/made" "$T/header"
	ok "detached" "$ndio" format "${cheap[@]}" --key-file "$T/pass" --payload-size 3M \
		--header "$T/header" "$T/made"
	is "detached: its payload" "$(payload_of "$T/made" --header "$T/header")" 3145728
	is "detached: the file" "$(stat -c %s "$T/made")" 3145728
	ok "a file that is there" fails "made: it exists" "$ndio" format --payload-size 1M "$T/made"
	ok "like nothing" fails "nothing: No such file" "$ndio" format --like "$T/nothing" "$T/none"
	: >"$T/empty"
	ok "like something empty" fails "empty: it is empty" "$ndio" format --like "$T/empty" "$T/none"
	ok "larger than files are" fails "none: no file can be so large" "$ndio" format \
		--payload-size 9223372036854775807 "$T/none"
	ok "two sizes" usage "$ndio" format --size 20M --payload-size 20M "$T/none"
	ok "two of the others" usage "$ndio" format --like "$T/made" --payload-size 20M "$T/none"
	ok "a payload for an export" usage "$ndio" format --payload-size 20M nbd://localhost
	ok "nothing was made" [ ! -e "$T/none" ]
}

sizes() {
	local size

	for size in 20MiB 20M 20m 20480K 20480kib 20971520B 20971520; do
		rm -f "$T/made"
		"$ndio" format "${cheap[@]}" --key-file "$T/pass" --size $size "$T/made"
		is "$size" "$(stat -c %s "$T/made")" 20971520
	done
	rm "$T/made"
	"$ndio" format "${cheap[@]}" --key-file "$T/pass" --size 20MB "$T/made"
	is "20MB" "$(stat -c %s "$T/made")" 20000000
	for size in 20Mi 20MX 20iB M 20MBB '20 M' -1 9E 99999999999999999999; do
		ok "no size: $size" usage "$ndio" format --size "$size" "$T/none"
	done
}

refused() {
	truncate -s 3M "$T/small"
	ok "too small" fails "$T/small: too small: it has 3145728 bytes, and a LUKS2 volume needs at least 16781312 " \
		format "$T/small"
	ok "and is untouched" cmp -n 3145728 "$T/small" /dev/zero
	ok "too small, new" fails "$T/none: too small" format --size 16M "$T/none"
	ok "and isn't created" test ! -e "$T/none"
	ok "the smallest" format --size 16781312 "$T/smallest"
	ok "opens" plugin_opens "$T/smallest" 4096
	ok "the smallest LUKS1" format --type luks1 --size 2097664 "$T/smallest1"
	ok "opens" opens "$T/smallest1" "$T/pass"
	ok "no file" fails "$T/none: No such file" format "$T/none"
	ok "a folder" fails "$T: " format "$T"
	ok "no key file" fails "$T/nokey: No such file" "$ndio" format --key-file "$T/nokey" \
		--size 20M "$T/none"
	ok "and nothing is created" test ! -e "$T/none"
	ok "no folder for it" fails "$T/a/b: " format --size 20M "$T/a/b"
	ok "argon2 with LUKS1" fails "key derivation: LUKS1 has pbkdf2 only, and not argon2id" "$ndio" format --key-file "$T/pass" --type luks1 \
		--pbkdf argon2id --size 20M "$T/none"
	ok "memory with LUKS1" fails "LUKS1 has pbkdf2 only, which takes no memory" "$ndio" format \
		--key-file "$T/pass" --type luks1 --pbkdf-memory 64 --size 20M "$T/none"
	like "a memory that is too small" "$("$ndio" format --pbkdf-memory 1 "$T/none" 2>&1)" \
		"--pbkdf-memory takes a number of KiB, from 32 to 4194304"
	ok "an impossible UUID" fails "UUID" format --uuid x --size 20M "$T/none"
	for wrong in "" "a b" "--size 0 a" "--size 1X a" "--size 9999999999999T a" \
		"--size 1M nbd://localhost" "--type luks3 a" "--cipher serpent-xts-plain64 a" \
		"--cipher aes a" "--key-size 100 a" "--key-size 192 a" "--sector-size 8192 a" \
		"--sector-size 513 a" "--type luks1 --sector-size 4096 a" "--type luks1 --label x a" \
		"--key-file a --key-file b c" "--iter-time x a" "--pbkdf pbkdf2 --pbkdf-memory 64 a" \
		"--iter-time 1 --pbkdf-force-iterations 1000 a" "--nonsense a"; do
		# shellcheck disable=SC2086
		ok "a usage error: format $wrong" usage "$ndio" format $wrong
	done
}

defaults
choices
servers
used
crash "LUKS1 over LUKS2" luks2 --type luks1
crash "LUKS1 over LUKS1" luks1 --type luks1
crash "LUKS2 over LUKS2" luks2
payloads
sizes
refused
done_testing
