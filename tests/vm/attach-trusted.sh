#!/bin/bash
# A disk with integrity and a trust file below a file system of the kernel's, written through the journal or directly:
# what was written is there when it is attached again, and what was synced, when the guest was killed; without a
# false alarm. That its server may not change it is attach-attacked.sh's.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-tree.sh
. "$(dirname "$0")/lib-tree.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"
# shellcheck source=lib-trusted.sh
. "$(dirname "$0")/lib-trusted.sh"

ok "two disks are made" make_disks direct journal || exit 1
boot_trusted
trusted_in_guest
ok "the disks have an address" serve_trusted || exit 1

killed() {
	local acknowledged

	attached "killed"
	guest "mount /dev/nbd0 /mnt
	write_files() {
		local i=0

		while head -c \$((i % 9 * 5003 + 1)) /run/random >/mnt/new.\$i && sync /mnt/new.\$i; do
			echo \$i >>/run/acknowledged
			dd if=/run/random of=/mnt/room bs=7000 count=9 seek=\$i conv=notrunc 2>/dev/null
			i=\$((i + 1))
		done
	}

	acknowledged() { # COUNT
		[ \$(wc -l </run/acknowledged) -ge \$1 ]
	}
	: >/run/acknowledged
	write_files >/dev/null 2>&1 &"
	guest "await 60 acknowledged 15"
	acknowledged=$(guest "wc -l </run/acknowledged")
	sound_kernel
	kill_guest
	ok "killed, after $acknowledged files" [ "$acknowledged" -ge 15 ]
	boot_trusted
	attached "after that"
	ok "after that: the journal recovers" guest "mount /dev/nbd0 /mnt && dmesg | grep 'nbd0): recovery complete'"
	ok "after that: what was synced is there" guest "for i in \$(seq 0 $((acknowledged - 1))); do
			head -c \$((i % 9 * 5003 + 1)) /keep/random | cmp - /mnt/new.\$i || return
		done"
	ok "after that: all can be read, and fsck is content" guest "umount /mnt && e2fsck -fn /dev/nbd0 &&
		cat /dev/nbd0 >/dev/null"
	found_is "after that" 0 0 0
	detached "after that"
	attached "once more"
	ok "once more: fsck" guest "e2fsck -fn /dev/nbd0"
	found_is "once more" 0 0 0
	detached "once more"
	ok "nothing is left" guest nothing_left
}

way=direct
ok "$way: is served" serve_disk $way || exit 1
filled
written_anew
kill_disk
way=journal
ok "$way: is served" serve_disk $way || exit 1
filled
killed
sound_kernel
done_testing
