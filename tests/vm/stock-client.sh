#!/bin/bash
# A stock nbd-client attaches an encrypted volume through the plugin: file systems work, in all
# block sizes, over one connection and over several; the host's disk has ciphertext alone; what
# was written is there after a new attach, in the guest and on the host.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

boot 4 mkfs.ext4 e2fsck
ok "some data" guest "head -c 2m /dev/urandom >/run/random"
marker="nobody reads this on the host"

# A tree with a bit of everything; what its files hold is in /run/sums.
write_tree() {
	guest "mkdir -p /mnt/a/b/c && cd /mnt &&
		yes '$marker' | head -c 1000000 >a/marker &&
		cp /run/random a/b/random &&
		dd if=/run/random of=a/b/sparse bs=5001 count=3 seek=200 2>&1 &&
		cp /bin/busybox a/b/c/ && ln -s b/random a/link && : >empty &&
		for i in \$(seq 100); do echo \"\$i $marker\" >a/b/c/\$i; done &&
		find . -type f -exec sha256sum {} + >/run/sums; cd /"
}

write_file_system() { # BLOCK-SIZE
	guest "mkfs.ext4 -q -b $1 /dev/nbd0 && mount /dev/nbd0 /mnt" &&
		write_tree &&
		guest "umount /mnt && e2fsck -fn /dev/nbd0"
}

read_file_system() {
	guest "mount -o ro /dev/nbd0 /mnt && cd /mnt && sha256sum -c /run/sums >/run/checked
		status=\$?
		cd / && umount /mnt && grep -v ': OK' /run/checked
		[ \$status = 0 ] && [ \$(wc -l </run/checked) = 105 ]"
}

# The same files out of the plaintext on the host, without mounting it.
read_on_host() { # VOLUME
	plaintext "$1" "$T/plain" && e2fsck -fn "$T/plain" || return
	rm -rf "$T/tree"
	mkdir "$T/tree"
	debugfs -R "rdump / $T/tree" "$T/plain" && guest cat /run/sums >"$T/sums" &&
		(cd "$T/tree" && sha256sum -c "$T/sums")
}

sealed() { # VOLUME
	if grep -qaF "$marker" "$1"; then
		echo "there is plaintext in $1"
		return 1
	fi
	grep -qaF "$marker" "$T/plain"
}

# rounds NAME VOLUME BLOCK-SIZE
rounds() {
	local name=$1 volume=$2 size=$3 connections

	for connections in 1 4; do
		name="$1, $connections connections, blocks of $size"
		ok "$name: is served" serve disk "$volume" "$key" || return
		ok "$name: attach" guest attach "${ports[disk]}" /dev/nbd0 -C $connections -b "$size"
		is "$name: the block size" \
			"$(guest cat /sys/block/nbd0/queue/logical_block_size)" "$size"
		ok "$name: mkfs, mount, write, unmount, fsck" write_file_system \
			$((size > 1024 ? size : 1024))
		ok "$name: detach" guest detach /dev/nbd0
		ok "$name: attach again" guest attach "${ports[disk]}" /dev/nbd0 \
			-C $((5 - connections)) -b "$size"
		ok "$name: every file is as it was written" read_file_system
		ok "$name: detach" guest detach /dev/nbd0
		ok "$name: the server ends well" stop_server disk
		ok "$name: the host's plaintext has the same files" read_on_host "$volume"
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
