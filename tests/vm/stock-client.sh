#!/bin/bash
# A stock nbd-client attaches an encrypted volume through the plugin: file systems work, in all
# block sizes, over one connection and over several; the host's disk has ciphertext alone; what
# was written is there after a new attach, in the guest and on the host.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-tree.sh
. "$(dirname "$0")/lib-tree.sh"

boot 4 mkfs.ext4 e2fsck
tree_in_guest
# rounds NAME VOLUME BLOCK-SIZE
rounds() {
	local name=$1 volume=$2 size=$3 connections

	for connections in 1 4; do
		name="$1, $connections connections, blocks of $size"
		ok "$name: is served" serve disk "$volume" "$key" || return
		ok "$name: attach" guest attach "${ports[disk]}" /dev/nbd0 -C $connections -b "$size"
		is "$name: the block size" \
			"$(guest cat /sys/block/nbd0/queue/logical_block_size)" "$size"
		ok "$name: mkfs, mount, write, unmount, fsck" guest \
			write_file_system /dev/nbd0 $((size > 1024 ? size : 1024))
		ok "$name: detach" guest detach /dev/nbd0
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
rounds "sectors of 512" "$T/512" 512
rounds "sectors of 4096" "$T/4096" 1024
rounds "sectors of 4096" "$T/4096" 4096
sound_kernel 'I/O error|timed out'
done_testing
