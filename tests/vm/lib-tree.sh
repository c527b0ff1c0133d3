# For tests that write files in the guest and read them back, there and on the host:
# `. tests/vm/lib-tree.sh` after lib.sh.
# shellcheck shell=bash disable=SC2154

marker="nobody reads this on the host"

# Once it has booted.
tree_in_guest() {
	ok "some data" guest "head -c 2m /dev/urandom >/run/random"

	# A tree with a bit of everything below /mnt; what its files hold is in /run/sums.
	guest "write_tree() {
		(mkdir -p /mnt/a/b/c && cd /mnt &&
			yes '$marker' | head -c 1000000 >a/marker &&
			cp /run/random a/b/random &&
			dd if=/run/random of=a/b/sparse bs=5001 count=3 seek=200 2>&1 &&
			cp /bin/busybox a/b/c/ && ln -s b/random a/link && : >empty &&
			for i in \$(seq 100); do echo \"\$i $marker\" >a/b/c/\$i; done &&
			find . -type f -exec sha256sum {} + >/run/sums)
	}

	write_file_system() { # DEVICE BLOCK-SIZE
		mkfs.ext4 -q -b \$2 \$1 && mount \$1 /mnt && write_tree &&
			umount /mnt && e2fsck -fn \$1
	}

	same_tree() {
		(cd /mnt && sha256sum -c /run/sums >/run/checked) ||
			{ grep -v OK\$ /run/checked; return 1; }
		[ \$(wc -l </run/checked) = 105 ]
	}

	read_file_system() { # DEVICE
		mount -o ro \$1 /mnt || return
		same_tree
		status=\$?
		umount /mnt && return \$status
	}"
}

# sealed VOLUME: after same_on_host.
sealed() {
	if grep -qaF "$marker" "$1"; then
		echo "there is plaintext in $1"
		return 1
	fi
	grep -qaF "$marker" "$T/plain"
}
