# For tests of disks with integrity and a trust file, attached in the guest: `. tests/vm/lib-trusted.sh` after
# lib-attach.sh. The trust files are on a disk of the guest's own, which survives it.
# shellcheck shell=bash disable=SC2034,SC2154

# shellcheck source=../lib/survive.sh
. "$root/tests/lib/survive.sh"
trap tear_down EXIT

export GUEST_MODULES=virtio_blk
ELSEWHERE=$((33 << 20)) # behind the file system, which has the first two
METRICS=9101
disk_preload= # what is served is kept

# make_disks WAY...: $T/journal and $T/direct are written in that way.
make_disks() {
	local options way

	mkdir "$T/keep"
	for way; do
		options=()
		[ "$way" = journal ] || options=(--integrity-no-journal)
		"$NDIO_BUILD/ndio" format --key-file "$T/pass" --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --size 68M \
			--integrity aead "${options[@]}" --trust "$T/keep/$way.trust" "$T/$way" || return
	done
	mke2fs -q -t ext4 -d "$T/keep" "$T/keep.img" 24M
}

# As often as it is killed.
boot_trusted() {
	machine_options=(-drive "if=none,id=keep,format=raw,file=$T/keep.img" -device "virtio-blk-pci,drive=keep")
	boot_ndio 2 mkfs.ext4 e2fsck debugfs
	ok "a disk of its own" guest "mkdir /keep && mount /dev/vda /keep"
}

# serve_disk FILE: a copy of it, as $disk.
serve_disk() {
	cp --sparse=always "$T/$1" "$T/disk" && start_disk
}

# The address stays, whoever serves there.
serve_trusted() {
	serve_at tcp --unix "$T/disk.sock"
	start_network || return
	ports[disk]=$(cat "$T/network.port")
	disk=$(locator disk)
}

# Once it has booted.
trusted_in_guest() {
	tree_in_guest
	guest "cp /run/random /keep && sync
	head -c 81920 /run/random >/run/old
	tail -c 81920 /run/random >/run/new

	# Behind the file system, in an area of its own.
	elsewhere() { # WHAT
		dd if=\$1 bs=4096 count=20 conv=notrunc,fsync oflag=direct of=/dev/nbd0 seek=$((ELSEWHERE / 4096)) 2>&1
	}

	is_elsewhere() { # WHAT
		dd if=/dev/nbd0 bs=4096 count=20 iflag=direct skip=$((ELSEWHERE / 4096)) | cmp - \$1
	}"
}

# attach_it: as $way has it: by arguments, or by a line of the table.
attach_it() {
	local trust=/keep/$way.trust

	if [ "$way" = journal ]; then
		ndio_attach --trust "$trust" --metrics $METRICS "$disk" nbd0
	else
		guest "echo 'nbd0 $disk /run/pass trust=$trust,metrics=$METRICS' >/run/tab &&
			ndio attach --tab-file /run/tab nbd0"
	fi
}

# attached NAME: as nbd0, whose statistics are at a port of the guest's. found_is and detached likewise.
attached() {
	is "$way: $1: attach" "$(attach_it | tail -n 1)" /dev/nbd0
}

found_is() { # NAME BAD-BLOCKS BAD-READS STALE
	is "$way: $1: is listed" "$(listed /dev/nbd0 state integrity)" \
		"attached {'trusted': True, 'bad_blocks': $2, 'bad_reads': $3, 'stale_areas': $4}"
}

detached() { # NAME
	is "$way: $1: detach" "$(guest ndio detach nbd0; echo "status $?")" "status 0"
}

# A file system and a bit elsewhere; and it is detached. $T/old is that.
filled() {
	attached "filled"
	ok "$way: mkfs, mount, write, fsck" guest "mkfs.ext4 -q -b 4096 /dev/nbd0 8192 && mount /dev/nbd0 /mnt &&
		write_tree && cp /run/old /mnt/anew && fallocate -l 8m /mnt/room && umount /mnt && e2fsck -fn /dev/nbd0"
	ok "$way: written elsewhere" guest elsewhere /run/old
	found_is "filled" 0 0 0
	like "$way: for people" "$(guest ndio list)" "INTEGRITY +LOCATOR"$'\n'"nbd0 +.* attached .* good +$disk$"
	detached "filled"
	cp --sparse=always "$T/disk" "$T/old"
}

# Attached again, all is there, and some of it is written anew.
written_anew() {
	attached "again"
	ok "$way: all is as it was written" guest "read_file_system /dev/nbd0 && is_elsewhere /run/old"
	ok "$way: and written anew" guest "mount /dev/nbd0 /mnt && dd if=/run/new of=/mnt/anew conv=notrunc &&
		umount /mnt && elsewhere /run/new && e2fsck -fn /dev/nbd0"
	found_is "again" 0 0 0
	detached "again"
}
