#!/bin/bash
# Volumes with integrity are the kernel's own: dm-crypt over dm-integrity reads and writes what ndio made
# and wrote, and the other way round; and each finds what was changed.
export GUEST_MODULES="dm-integrity algif_aead algif_skcipher gcm ctr chacha20poly1305 authenc \
	chacha_generic poly1305_generic sha512_generic"
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

volume=$T/volume
tool=$NDIO_BUILD/tests/images/integrity-journal
boot 1 cryptsetup
ok "a key and some data" guest "printf %s '$(cat "$T/pass")' >/run/pass &&
	head -c 2m /dev/urandom >/run/random"

open_in_guest() { # CRYPTSETUP-OPTION...
	guest "attach ${ports[disk]} /dev/nbd0 -C 2 &&
		cryptsetup open --key-file /run/pass $* /dev/nbd0 volume"
}

close_in_guest() {
	guest "cryptsetup close volume && detach /dev/nbd0"
}

# At both ends, across the border of two chunks of tags, and a sector in the midst.
write_in_guest() { # SECTOR-SIZE SIZE
	guest "write() {
			dd if=/run/random of=/dev/mapper/volume conv=notrunc,fsync oflag=direct \"\$@\" 2>&1
		}
		write bs=$1 count=3 seek=7 && write bs=1M count=1 seek=1 &&
		write bs=$1 count=1 seek=$(($2 / $1 - 1)) && forget_caches"
}

# guest_reads NAME FILE: all of it, and then closes it.
guest_reads() {
	is "$1: the guest reads that" "$(guest checksum /dev/mapper/volume)" "$(checksum "$2")"
}

# ndio's volume in the guest; $T/data is in it.
ours_there() { # NAME SECTOR-SIZE SIZE CRYPTSETUP-OPTION...
	local name=$1 sector=$2 size=$3 written

	shift 3
	ok "$name: is served without its key" serve disk "$volume" || return
	ok "$name: the guest opens it" open_in_guest "$@" || return
	guest_reads "$name" "$T/data"
	ok "$name: the guest writes" write_in_guest "$sector" "$size"
	written=$(guest checksum /dev/mapper/volume)
	ok "$name: the guest closes it" close_in_guest
	ok "$name: the server ends well" stop_server disk
	ok "$name: ndio reads it" plaintext "$volume" "$T/plain"
	is "$name: and it is what the guest wrote" "$(checksum "$T/plain")" "$written"
	ok "$name: which isn't what it was before" not cmp -s "$T/plain" "$T/data"
}

# ours NAME SECTOR-SIZE OPEN-OPTION FORMAT-OPTION...
ours() {
	local name="made by ndio, $1" sector=$2 option=$3 size

	shift 3
	rm -f "$volume"
	ok "$name: it is made" "$NDIO_BUILD/ndio" format --key-file "$T/pass" --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 --sector-size "$sector" --size 21M "$@" "$volume" || return
	start_nbdkit writer "$NDIO_PLUGIN" "$volume" "$key" || exit 1
	size=$(nbdinfo --size "$(uri writer)")
	random "$T/data" "$size"
	ok "$name: is written" fill writer "$T/data"
	ok "$name: the writer ends well" stop_server writer
	# shellcheck disable=SC2086
	ours_there "$name" "$sector" "$size" $option
}

# theirs NAME SECTOR-SIZE OPEN-OPTION FORMAT-OPTION...
theirs() {
	local name="made by cryptsetup, $1" sector=$2 option=$3 size written

	shift 3
	rm -f "$volume"
	truncate -s 21M "$volume"
	ok "$name: is served" serve disk "$volume" || return
	ok "$name: it is made" guest "attach ${ports[disk]} /dev/nbd0 -C 2 &&
		cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
			--key-file /run/pass --sector-size $sector $* /dev/nbd0 &&
		cryptsetup open --key-file /run/pass $option /dev/nbd0 volume" || return
	size=$(guest blockdev --getsize64 /dev/mapper/volume)
	ok "$name: the guest writes" write_in_guest "$sector" "$size"
	written=$(guest checksum /dev/mapper/volume)
	ok "$name: the guest closes it" close_in_guest
	ok "$name: the server ends well" stop_server disk
	ok "$name: ndio reads it" plaintext "$volume" "$T/plain"
	is "$name: and it is what the guest wrote" "$(checksum "$T/plain")" "$written"
	random "$T/data" "$size"
	start_nbdkit writer "$NDIO_PLUGIN" "$volume" "$key" || exit 1
	ok "$name: is written by ndio" fill writer "$T/data"
	ok "$name: the writer ends well" stop_server writer
	ours_there "$name" "$sector" "$size" "$option"
}

# The first block of data, of a volume with sectors of 4096 and the usual header and areas.
changed() {
	printf X | dd of="$volume" bs=1 seek=$((16777216 + (8 + 264 + 224) * 512 + 77)) conv=notrunc \
		status=none
	ok "a changed sector: it is served" serve disk "$volume" || return
	ok "a changed sector: the guest opens it" open_in_guest || return
	ok "a changed sector: the guest can't read it" not guest \
		"dd if=/dev/mapper/volume of=/dev/null bs=4096 count=1 iflag=direct"
	ok "but that behind it" guest \
		"dd if=/dev/mapper/volume of=/dev/null bs=4096 skip=1 count=1 iflag=direct"
	ok "it is closed" close_in_guest
	ok "the server ends well" stop_server disk
	start_nbdkit reader "$NDIO_PLUGIN" "$volume" "$key" || exit 1
	ok "nor does ndio" not nbdsh -u "$(uri reader)" -c 'h.pread(4096, 0)'
	ok "but that behind it" nbdsh -u "$(uri reader)" -c 'h.pread(4096, 4096)'
	ok "the server ends well" stop_server reader
}

# The guest's writes are in its journal, and its disk is gone before they are in their place. The kernel
# takes them there once half of the journal is used: this one has more sections than two flushes fill.
cut_off() {
	local name="cut off" written

	rm -f "$volume"
	truncate -s 128M "$volume"
	ok "$name: is served" serve disk "$volume" || return
	ok "$name: it is made" guest "attach ${ports[disk]} /dev/nbd0 -C 2 &&
		cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
			--key-file /run/pass --integrity aead --cipher aes-gcm-random \
			--integrity-no-wipe --sector-size 512 /dev/nbd0 &&
		cryptsetup open --key-file /run/pass /dev/nbd0 volume" || return
	ok "$name: the guest writes, and flushes" guest \
		"dd if=/run/random of=/dev/mapper/volume bs=10k count=1 seek=10 oflag=direct \
			conv=notrunc,fsync"
	kill -KILL "${server_pids[disk]}"
	wait "${server_pids[disk]}" 2>/dev/null
	unset "server_pids[disk]"
	like "$name: it is in the journal" "$("$tool" show "$volume" 16777216)" " take=[1-9]"
	ok "$name: which who only reads can't carry out" not "$NDIO_BUILD/ndio" copy \
		--src-key-file "$T/pass" "$volume" null:
	start_nbdkit reader "$NDIO_PLUGIN" "$volume" "$key" || exit 1
	ok "$name: ndio carries that out" nbdsh -u "$(uri reader)" \
		-c "open('$T/plain', 'wb').write(h.pread(10240, 102400))"
	ok "$name: the reader ends well" stop_server reader
	written=$(guest "head -c 10240 /run/random | sha256sum" | cut -d' ' -f1)
	is "$name: and has what was flushed" "$(checksum "$T/plain")" "$written"
}

ours "AES-GCM" 4096 "" --integrity aead
changed
ours "HMAC, sectors of 512, no journal" 512 "" --integrity hmac-sha256 --integrity-no-journal
ours "HMAC with random IVs" 4096 "" --integrity hmac-sha512 --cipher aes-xts-random
ours "ChaCha20, never wiped" 1024 "" --integrity poly1305 --integrity-no-wipe
theirs "AES-GCM, sectors of 512" 512 "" --integrity aead --cipher aes-gcm-random
theirs "HMAC, no journal" 4096 --integrity-no-journal --integrity hmac-sha256 \
	--cipher aes-xts-plain64
cut_off
done_testing
