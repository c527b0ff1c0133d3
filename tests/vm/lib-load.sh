# For tests that take a disk away under load: `. tests/vm/lib-load.sh` after lib.sh. The disk is
# the guest's /dev/nbd0.
# shellcheck shell=bash disable=SC2154

# The guest leaves while the server still answers it.
# shellcheck disable=SC2034
! aborts_on_leave || nbdkit_options=(--threads=1)

# Once it has booted.
load_in_guest() {
	ok "some data" guest "head -c 1m /dev/urandom >/run/random"

	# Files are written one by one, and the device is read, until either fails. Each file that
	# is on the disk is in /run/acknowledged.
	guest "write_files() {
		local i=0

		while dd if=/run/random of=/mnt/\$i bs=\$((i * 499 + 1)) count=1 conv=fsync; do
			echo \$i >>/run/acknowledged
			i=\$((i + 1))
		done
		seconds >/run/writer-ended
	}

	read_device() {
		while dd if=/dev/nbd0 of=/dev/null bs=64k count=100 iflag=direct; do
			:
		done
		seconds >/run/reader-ended
	}

	acknowledged() { # COUNT
		[ \$(wc -l </run/acknowledged) -ge \$1 ]
	}

	start_load() {
		rm -f /run/acknowledged /run/*-ended
		: >/run/acknowledged
		mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt || return
		write_files >/dev/null 2>&1 &
		read_device >/dev/null 2>&1 &
		await 60 acknowledged 15
	}

	stop_load() {
		wait
		timeout 20 umount /mnt
	}

	none_hang() {
		! ps -o stat,comm | grep ^D
	}

	same_files() {
		while read -r i; do
			head -c \$((i * 499 + 1)) /run/random | cmp - /mnt/\$i || return 1
		done </run/acknowledged
	}

	# What was acknowledged is in /run/sums afterwards.
	recovers() {
		dmesg -c >/dev/null
		mount /dev/nbd0 /mnt && dmesg | grep 'nbd0): recovery complete' &&
			same_files && (cd /mnt && sha256sum \$(cat /run/acknowledged) >/run/sums)
	}"
}

# errors_within SECONDS: from now.
errors_within() {
	guest "start=\$(seconds)
		await $(($1 + 30)) test -e /run/writer-ended -a -e /run/reader-ended || return
		echo \$((\$(seconds) - start)) seconds
		[ \$((\$(seconds) - start)) -le $1 ]"
}
