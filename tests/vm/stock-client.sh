#!/bin/bash
# A stock nbd-client attaches an encrypted volume through the plugin and through `ndio serve`: file
# systems work, in all block sizes, over one connection and over several; the host's disk has
# ciphertext alone; what was written by the one is there by the other, in the guest and on the host.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-tree.sh
. "$(dirname "$0")/lib-tree.sh"

boot 4 mkfs.ext4 e2fsck
tree_in_guest

# served NAME VOLUME DOOR
served() {
	DOOR=$3
	ok "$1: is served at the door of $DOOR" serve disk "$2" "$key"
}

# rounds NAME VOLUME BLOCK-SIZE DOOR OTHER-DOOR: written at the one, by 1 connection and then by 4, and
# read at the other, by 4 and then by 1.
rounds() {
	local name=$1 volume=$2 size=$3 first=$4 other=$5 connections

	for connections in 1 4; do
		name="$1, $connections connections, blocks of $size"
		served "$name" "$volume" "$first" || return
		ok "$name: attach" guest attach "${ports[disk]}" /dev/nbd0 -C $connections -b "$size"
		is "$name: the block size" \
			"$(guest cat /sys/block/nbd0/queue/logical_block_size)" "$size"
		ok "$name: mkfs, mount, write, unmount, fsck" guest \
			write_file_system /dev/nbd0 $((size > 1024 ? size : 1024))
		ok "$name: detach" guest detach /dev/nbd0
		ok "$name: that server ends well" stop_server disk
		served "$name" "$volume" "$other" || return
		ok "$name: attach again" guest attach "${ports[disk]}" /dev/nbd0 \
			-C $((5 - connections)) -b "$size"
		ok "$name: every file is as it was written" guest read_file_system /dev/nbd0
		ok "$name: detach" guest detach /dev/nbd0
		ok "$name: the server ends well" stop_server disk
		ok "$name: the host's plaintext has the same files" same_on_host "$volume"
		ok "$name: and its disk has only ciphertext" sealed "$volume"
	done
}

make_luks2 "$T/512" 48M --sector-size 512
make_luks2 "$T/4096" 48M --sector-size 4096
rounds "sectors of 512" "$T/512" 512 nbdkit serve
rounds "sectors of 4096" "$T/4096" 1024 serve nbdkit
rounds "sectors of 4096" "$T/4096" 4096 serve nbdkit
sound_kernel 'I/O error|timed out'
done_testing
