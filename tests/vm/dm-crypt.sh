#!/bin/bash
# The format is the kernel's own: on a volume exported without its key, the guest's dm-crypt reads
# byte for byte what was written through the plugin, and the plugin what dm-crypt wrote.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

boot 1 cryptsetup
ok "a key and some data" guest "printf %s '$(cat "$T/pass")' >/run/pass &&
	head -c 2m /dev/urandom >/run/random"

open_in_guest() {
	guest "attach ${ports[disk]} /dev/nbd0 -C 2 &&
		cryptsetup open --key-file /run/pass /dev/nbd0 volume &&
		blockdev --getss /dev/mapper/volume"
}

close_in_guest() {
	guest "cryptsetup close volume && detach /dev/nbd0"
}

# In several places and lengths, the last sector among them: past the page cache, and through it.
write_in_guest() { # SECTOR-SIZE SIZE
	guest "write() {
			dd if=/run/random of=/dev/mapper/volume conv=notrunc,fsync \"\$@\" 2>&1
		}
		write bs=$1 count=3 seek=7 oflag=direct &&
		write bs=1M count=2 seek=1 oflag=direct &&
		write bs=$1 count=1 seek=$(($2 / $1 - 1)) oflag=direct &&
		write bs=1000 count=300 seek=3001 &&
		forget_caches"
}

# both_ways NAME SECTOR-SIZE TYPE CRYPTSETUP-OPTION...
both_ways() {
	local name=$1 sector=$2 type=$3 volume=$T/volume size written

	shift 3
	rm -f "$volume"
	if [ "$type" = luks1 ]; then
		make_luks1 "$volume" 6M "$@"
	else
		make_luks2 "$volume" 20M --sector-size "$sector" "$@"
	fi || exit 1
	start_nbdkit writer "$NDIO_PLUGIN" "$volume" "$key" || exit 1
	size=$(nbdinfo --size "$(uri writer)")
	random "$T/data" "$size"
	ok "$name: is written through the plugin" fill writer "$T/data"
	stop_server writer
	ok "$name: is served without its key" serve disk "$volume" || return
	ok "$name: the guest opens it" open_in_guest || return
	is "$name: the guest reads what the plugin wrote" \
		"$(guest checksum /dev/mapper/volume)" "$(checksum "$T/data")"
	ok "$name: the guest writes" write_in_guest "$sector" "$size"
	written=$(guest checksum /dev/mapper/volume)
	ok "$name: the guest closes it" close_in_guest
	ok "$name: the server ends well" stop_server disk
	ok "$name: the plugin reads it" plaintext "$volume" "$T/plain"
	is "$name: and it is what the guest wrote" "$(checksum "$T/plain")" "$written"
	ok "$name: which isn't what it was before" not cmp -s "$T/plain" "$T/data"
}

xts="--cipher aes-xts-plain64" essiv="--cipher aes-cbc-essiv:sha256"
# shellcheck disable=SC2086
{
	both_ways "LUKS1, XTS, 256 bits" 512 luks1 $xts --key-size 256
	both_ways "LUKS1, XTS, 512 bits" 512 luks1 $xts --key-size 512
	both_ways "LUKS1, CBC-ESSIV" 512 luks1 $essiv --key-size 256
	both_ways "LUKS1, CBC, plain IVs" 512 luks1 --cipher aes-cbc-plain --key-size 256
	both_ways "LUKS2, XTS, 256 bits" 512 luks2 $xts --key-size 256
	both_ways "LUKS2, XTS, 512 bits, sectors of 4096" 4096 luks2 $xts --key-size 512
	both_ways "LUKS2, XTS, 512 bits" 512 luks2 $xts --key-size 512
	both_ways "LUKS2, CBC-ESSIV" 512 luks2 $essiv --key-size 256
	both_ways "LUKS2, CBC-ESSIV, 128 bits, sectors of 4096" 4096 luks2 $essiv --key-size 128
}
sound_kernel 'I/O error|timed out'
done_testing
