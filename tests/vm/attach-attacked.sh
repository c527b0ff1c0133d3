#!/bin/bash
# The server of an attached disk with integrity, whose guest has a trust file, changes what it stores, or hands back
# an older one, below a mounted file system: programs get errors and never other bytes, just there; the kernel's log
# and the gateway's name the place, it is counted and listed; nothing hangs, and what is put right is right again.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-tree.sh
. "$(dirname "$0")/lib-tree.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"
# shellcheck source=lib-trusted.sh
. "$(dirname "$0")/lib-trusted.sh"
# shellcheck source=../lib/damage.sh
. "$root/tests/lib/damage.sh"

AREA=$((16 << 20)) # bytes of data

ok "a disk is made" make_disks journal || exit 1
boot_trusted
trusted_in_guest
ok "it has an address" serve_trusted || exit 1
way=journal
guest "found_in_log() { # TEXT
	grep -F \"\$1\" /run/messages || { cat /run/messages; return 1; }
}

counted() { # NAME
	wget -qO- http://127.0.0.1:$METRICS/metrics | awk -v name=\"ndio_\$1_total{\" 'index(\$0, name) == 1 { print \$NF }'
}

# Which block of the disk is that of a file?
block_of() { # FILE NUMBER
	sync
	debugfs -R \"bmap \$1 \$2\" /dev/nbd0 2>/dev/null
}

# In time.
cannot_read() { # FILE
	! timeout 60 cat \$1 >/run/got 2>/run/error && grep 'Input/output error' /run/error
}

# A block of a file, or the rest of it: past the page cache's reading ahead.
is_right() { # FILE WANTED DD-OPTION...
	local file=\$1 wanted=\$2

	shift 2
	dd if=\$wanted of=/run/wanted bs=4096 \"\$@\" 2>/dev/null
	dd if=\$file of=/run/got bs=4096 \"\$@\" && cmp /run/wanted /run/got
}

# All but one.
others_are_right() { # PATH
	(cd /mnt && sha256sum -c /run/sums 2>/dev/null | grep -v OK\$ >/run/wrong)
	cat /run/wrong
	[ \"\$(cat /run/wrong)\" = \"\$1: FAILED\" ]
}

# Where attaching is refused, nothing is read at all.
reads_no_older() { # LOCATOR BLOCK
	ndio attach --key-file /run/pass --trust /keep/journal.trust \$1 nbd0 || return 0
	dd if=/dev/nbd0 of=/run/got bs=4096 skip=\$2 count=20 iflag=direct
	ndio detach nbd0 && { ! [ -s /run/got ] || cmp -n 4096 /run/got /run/new; }
}

# Also what the file system holds while it is mounted.
forget_disk() {
	forget_caches
	blockdev --flushbufs /dev/nbd0
	forget_caches
}"

# ---- one that hands back an area as it was ----

# put FILE: the area of the file is the disk's, for who has it open, too.
put() {
	local from to

	from=$(($(place_of "$T/disk" $((ELSEWHERE / AREA * AREA - 1))) + 1)) # its tags
	to=$(($(place_of "$T/disk" $((ELSEWHERE / AREA * AREA))) + AREA))
	dd if="$T/$1" of="$T/disk" iflag=skip_bytes,count_bytes,fullblock oflag=seek_bytes bs=64k \
		skip="$from" seek="$from" count=$((to - from)) conv=notrunc status=none
}

older_area() {
	local first=$((ELSEWHERE / AREA * AREA))

	cp --sparse=always "$T/disk" "$T/newest"
	ok "$way: an area is handed back as it was" put old
	ok "$way: an older area: it can't be read" guest "! is_elsewhere /run/old 2>/run/error &&
		grep 'Input/output error' /run/error"
	ok "$way: an older area: nor is it written" guest "! elsewhere /run/new"
	ok "$way: an older area: all others can be read" guest "same_tree && cmp /run/new /mnt/anew"
	ok "$way: an older area: the log names it" guest found_in_log \
		"'integrity: bytes $first to $((first + AREA - 1)) aren'\''t what they were'"
	is "$way: an older area: it is counted" "$(guest counted stale_areas)" 1
	found_is "an older area" 0 0 1
	like "$way: an older area: for people" "$(guest ndio list)" " 1 stale area +$disk$"
	ok "$way: the newest is put back" put newest
}

# ---- one that changes what it has ----

changed_data() {
	local block counted

	block=$(guest block_of /a/b/random 100)
	changed+=($((block * 4096 + 77)))
	guest "forget_disk; dmesg -c >/dev/null"
	ok "$way: a block of a file is changed" flip "$T/disk" "${changed[-1]}"
	ok "$way: changed: its file can't be read" guest cannot_read /mnt/a/b/random
	ok "$way: changed: but before it" guest is_right /mnt/a/b/random /run/random count=100
	ok "$way: changed: and behind it" guest is_right /mnt/a/b/random /run/random skip=101
	ok "$way: changed: all others can" guest others_are_right ./a/b/random
	ok "$way: changed: the kernel names the place" guest "dmesg |
		grep 'I/O error, dev nbd0, sector $((block * 8)) '"
	ok "$way: changed: so does the gateway" guest found_in_log "'integrity: byte $((block * 4096)), which is at \
$(place_of "$T/disk" $((block * 4096))) here, isn'\''t what was written there'"
	ok "$way: changed: and what failed" guest found_in_log "'read of 4096 bytes at $((block * 4096)): '"
	counted=$(guest counted bad_blocks)
	ok "$way: changed: it is counted: $counted" [ "$counted" -ge 1 ]
	found_is "changed" 1 "$counted" 1
	like "$way: changed: for people" "$(guest ndio list)" " 1 bad block, 1 stale area +$disk$"
}

changed_metadata() {
	local block

	block=$(guest block_of /a/b/c 0)
	changed+=($((block * 4096 + 1000)))
	guest forget_disk
	ok "$way: a block of a directory is changed" flip "$T/disk" "${changed[-1]}"
	ok "$way: a directory: its files can't be found" guest cannot_read /mnt/a/b/c/7
	ok "$way: a directory: the file system says so" guest "dmesg | grep 'EXT4-fs error (device nbd0): .*comm cat'"
	ok "$way: a directory: and is read-only" guest "! touch /mnt/new 2>/run/error &&
		grep 'Read-only file system' /run/error"
	ok "$way: a directory: other folders can be read" guest "cmp -n 8192 /mnt/a/b/random /run/random"
	ok "$way: a directory: the log has the place" guest found_in_log "'integrity: byte $((block * 4096)), '"
}

# attacked ATTACK...: while it is mounted. Then all is as it was, but for what the file system made of it.
attacked() {
	local attack byte

	changed=()
	attached "attacked"
	ok "$way: attacked: mount" guest "mount -o errors=remount-ro /dev/nbd0 /mnt"
	for attack; do
		$attack
	done
	ok "$way: attacked: unmount; nothing hangs" guest "timeout 60 umount /mnt && ! ps -o stat,comm | grep ^D"
	detached "attacked"
	for byte in "${changed[@]}"; do
		ok "$way: what was changed is as it was" flip "$T/disk" "$byte"
	done
	attached "as it was"
	ok "$way: as it was: e2fsck clears the file system's own mark" guest "e2fsck -fy /dev/nbd0; [ \$? -le 1 ]"
	ok "$way: as it was: every file is there" guest "mount -o ro /dev/nbd0 /mnt && same_tree &&
		cmp /run/new /mnt/anew && is_elsewhere /run/new"
	found_is "as it was" 0 0 0
}

# ---- one that hands back an older disk ----

# It is mounted, and nothing is on its way, nor will be: on a device that can be written, ext4 notes errors also if it
# is mounted read-only, and then the disk as it was before is an older one.
older_disk() {
	local block

	block=$(guest block_of /anew 0)
	guest "blockdev --setro /dev/nbd0; forget_disk"
	kill_disk
	cp --sparse=always "$T/disk" "$T/newest"
	ok "$way: an older disk is served instead" serve_disk old
	ok "$way: an older disk: the file can't be read" guest cannot_read /mnt/anew
	ok "$way: an older disk: unmount" guest "timeout 60 umount /mnt"
	detached "an older disk"
	# What the gateway still had to write is there now, in the midst of the older one.
	ok "$way: an older disk, written to: nothing older is read" guest reads_no_older "$disk" "$block"
	kill_disk
	ok "$way: an older disk is served anew" serve_disk old
	undone "$way: an older disk: attach" "an older one, or was changed without the trust file" \
		ndio attach --key-file /run/pass --trust "/keep/$way.trust" "$disk" nbd0
	ok "$way: an older disk: the log names it" guest found_in_log \
		"'integrity: bytes 0 to $((AREA - 1)) aren'\''t what they were'"
	kill_disk
	ok "$way: the newest is served again" serve_disk newest
	attached "the newest"
	ok "$way: the newest: every file is there" guest "mount /dev/nbd0 /mnt && same_tree &&
		cmp /run/new /mnt/anew && is_elsewhere /run/new"
	found_is "the newest" 0 0 0
}

ok "it is served" serve_disk $way || exit 1
filled
written_anew
attacked older_area changed_data changed_metadata
older_disk
ok "unmount, fsck" guest "umount /mnt && e2fsck -fn /dev/nbd0"
detached "the newest"
sound_kernel
done_testing
