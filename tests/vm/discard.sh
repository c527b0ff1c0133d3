#!/bin/bash
# Discards of the guest free space in the host's file with discard=on, and harm nothing else; with
# discard=off the guest is told that there are none. What is served without a key can always be
# trimmed.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

boot 2 mkfs.ext4 e2fsck
MIB=$((1 << 20))

allocated() { # FILE: in MiB
	echo $(($(stat -c '%b * %B' "$1") / MIB))
}

# All of the device but its first MiB and its last.
blkdiscard_frees() { # NAME FILE
	local name=$1 file=$2 before after ends size

	size=$(guest blockdev --getsize64 /dev/nbd0)
	before=$(allocated "$file")
	ends=$(ends)
	ok "$name: blkdiscard" guest "blkdiscard -o $MIB -l $((size - 2 * MIB)) /dev/nbd0"
	after=$(allocated "$file")
	ok "$name: it frees space on the host, from $before MiB to $after" \
		test $((before - after)) -ge $((size / MIB - 3))
	is "$name: what wasn't discarded is still there" "$(ends)" "$ends"
}

ends() {
	guest "forget_caches
		head -c $MIB /dev/nbd0 | sha256sum; tail -c $MIB /dev/nbd0 | sha256sum"
}

fstrim_frees() { # NAME FILE
	local name=$1 file=$2 before after

	ok "$name: a file system with two files" guest "
		mkfs.ext4 -q -E nodiscard /dev/nbd0 && mount /dev/nbd0 /mnt &&
		head -c 4m /dev/urandom >/mnt/stays && yes | head -c 12m >/mnt/goes &&
		sync && sha256sum /mnt/stays >/run/sums && rm /mnt/goes && sync"
	before=$(allocated "$file")
	ok "$name: fstrim" guest fstrim -v /mnt
	after=$(allocated "$file")
	ok "$name: it frees space on the host, from $before MiB to $after" \
		test $((before - after)) -ge 11
	ok "$name: the other file is still there" guest "forget_caches; sha256sum -c /run/sums"
	ok "$name: the file system is sound" guest "umount /mnt && e2fsck -fn /dev/nbd0"
}

# serve_full NAME ARG...: attached, with no hole in the file.
serve_full() {
	local name=$1

	shift
	ok "$name: is served" serve disk "$@" || return
	ok "$name: is filled on the host" fill_all
	ok "$name: attach" guest attach "${ports[disk]}" /dev/nbd0
}

fill_all() {
	random "$T/random" "$(nbdinfo --size "$(tcp_uri disk)")" &&
		nbdcopy --flush "$T/random" "$(tcp_uri disk)"
}

trims() { # NAME FILE ARG...
	local name=$1 file=$2

	shift
	serve_full "$name" "$@" || return
	blkdiscard_frees "$name" "$file"
	fstrim_frees "$name" "$file"
	ok "$name: detach" guest detach /dev/nbd0
	ok "$name: the server ends well" stop_server disk
}

refuses() { # NAME FILE ARG...
	local name=$1 file=$2 before

	shift
	serve_full "$name" "$@" || return
	before=$(allocated "$file")
	is "$name: the guest sees no discards" \
		"$(guest cat /sys/block/nbd0/queue/discard_max_bytes)" 0
	like "$name: blkdiscard fails" "$(guest blkdiscard /dev/nbd0; echo "status $?")" \
		"not supported.*status 1"
	ok "$name: a file system" guest "mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt"
	like "$name: fstrim fails" "$(guest fstrim /mnt; echo "status $?")" \
		"not supported.*status 1"
	ok "$name: unmount, detach" guest "umount /mnt && detach /dev/nbd0"
	is "$name: nothing was freed" "$(allocated "$file")" "$before"
	ok "$name: the server ends well" stop_server disk
}

make_luks2 "$T/volume" 48M
trims "discard=on" "$T/volume" "$key" discard=on
refuses "discard=off" "$T/volume" "$key" discard=off
refuses "no discard=" "$T/volume" "$key"
truncate -s 32M "$T/raw"
trims "raw" "$T/raw"
make_luks2 "$T/large" 48M --sector-size 4096
trims "discard=on, sectors of 4096" "$T/large" "$key" discard=on
sound_kernel 'I/O error|timed out'
done_testing
