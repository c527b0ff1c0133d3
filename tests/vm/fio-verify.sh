#!/bin/bash
# fio verifies what it wrote, in the guest: with direct I/O, and through a page cache that holds
# far more than the server has memory. Nothing is mixed up, and nothing hangs.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

boot 4 fio mkfs.ext4 e2fsck
fio="fio --output=/run/fio.log --randseed=7 --verify_fatal=1"

# What fio said is only worth showing if it failed.
run_fio() { # ARG...
	guest "timeout 100 $fio $* || { status=\$?; tail -n 30 /run/fio.log; (exit \$status); }"
}

peak() { # SERVER: the most memory that it had, in MiB
	echo $(($(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/${server_pids[$1]}/status") / 1024))
}

# Requests of all sizes, in places that one job shares with no other.
direct() { # NAME
	ok "$1: direct" run_fio --name=direct --filename=/dev/nbd0 --ioengine=libaio --direct=1 \
		--iodepth=16 --rw=randwrite --bsrange=4k-128k --bs_unaligned=0 \
		--numjobs=2 --size=12m --offset_increment=12m \
		--verify=crc32c-intel --do_verify=1
}

# The most dirty pages that the guest ever has while fio writes, in MiB, go to /run/peak.
# shellcheck disable=SC2016
guest 'watch_dirty() {
	local peak=0 dirty

	while [ ! -e /run/written ]; do
		dirty=$(awk "/^(Dirty|Writeback):/ { n += \$2 } END { print int(n / 1024) }" /proc/meminfo)
		[ "$dirty" -le $peak ] || peak=$dirty
		echo $peak >/run/peak
		sleep 0.3
	done
}'

# The pages are kept back until they are many, however long that takes, and written out at once.
buffered() { # NAME
	local name=$1 dirty server
	local job="--name=buffered --directory=/mnt --ioengine=psync --bs=256k --size=112m \
		--verify=pattern --verify_pattern=%o"

	ok "$name: a file system" guest "mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt &&
		cd /proc/sys/vm && echo 300000000 >dirty_bytes && echo 250000000 >dirty_background_bytes
		echo 0 >dirty_writeback_centisecs && echo 1000000 >dirty_expire_centisecs
		cd /"
	guest "watch_dirty &"
	ok "$name: buffered writes" run_fio "$job" --rw=write --do_verify=0 --fallocate=none
	ok "$name: go to the server" guest forget_caches
	guest "touch /run/written; wait"
	dirty=$(guest cat /run/peak)
	server=$(peak disk)
	ok "$name: the guest had $dirty MiB of dirty pages, the server $server MiB of memory" \
		test "$dirty" -gt $((2 * server))
	ok "$name: and are verified" run_fio "$job" --rw=read --do_verify=1
	ok "$name: unmount, fsck" guest "umount /mnt && e2fsck -fn /dev/nbd0"
}

make_luks2 "$T/volume" 256M --sector-size 4096
ok "is served" serve disk "$T/volume" "$key" || exit 1
ok "attach" guest attach "${ports[disk]}" /dev/nbd0 -C 4 -b 4096
direct "sectors of 4096"
buffered "sectors of 4096"
ok "detach" guest detach /dev/nbd0
ok "the server ends well" stop_server disk

DOOR=serve
ok "is served by ndio serve" serve disk "$T/volume" "$key" || exit 1
ok "ndio serve: attach" guest attach "${ports[disk]}" /dev/nbd0 -C 4 -b 4096
direct "ndio serve"
ok "ndio serve: detach" guest detach /dev/nbd0
ok "ndio serve: it ends well" stop_server disk
sound_kernel 'I/O error|timed out'
done_testing
