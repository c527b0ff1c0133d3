#!/bin/bash
# What `ndio attach` has made survives its server: while files are unpacked and fio verifies what it
# wrote, the server is killed and started again, as one that had everything on its disk or as one that
# forgets what wasn't flushed. Nothing fails, nothing is lost. A server that stays away for too long is
# an error, and nothing hangs; a device goes while its server is away, if nothing waits for it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-load.sh
. "$(dirname "$0")/lib-load.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"
# shellcheck source=../lib/survive.sh
. "$root/tests/lib/survive.sh"
trap tear_down EXIT

RESTARTS=20
SLACK=20 # seconds that a busy machine may need besides

boot_ndio 2 fio mkfs.ext4 e2fsck
load_in_guest

# The network's port stays the same, whoever serves behind it.
make_luks2 "$T/disk" 96M
serve=(nbdkit --foreground --exit-with-parent --pidfile "$T/disk.pid" --unix "$T/disk.sock"
	"$NDIO_PLUGIN" "$T/disk")
ok "the disk is served" start_disk || exit 1
ok "at an address" start_network || exit 1
ports[disk]=$(cat "$T/network.port")
disk=$(locator disk)

# ---- restarts ----

guest 'unpack() { # NUMBER
	mkdir /mnt/$1 && tar -xf /run/tree.tar -C /mnt/$1 && sync && echo $1 >>/run/synced &&
		echo 1 >/proc/sys/vm/drop_caches &&
		(cd /mnt/$1 && sha256sum -c /run/tree.sums >/run/checked) || return
	[ $1 = 0 ] || rm -r /mnt/$(($1 - 1))
}

# Until it is told to stop. Each that is written is in /run/synced, or also right in /run/unpacked.
unpack_all() {
	local i=0

	until [ -e /run/stop ]; do
		unpack $i || { echo $i >/run/failed; return; }
		echo $i >>/run/unpacked
		i=$((i + 1))
	done
}

# Each read is verified as soon as some are written.
fio_all() {
	until [ -e /run/stop ]; do
		fio --output=/run/fio.log --name=survive --directory=/mnt --ioengine=libaio --direct=1 \
			--iodepth=8 --rw=randwrite --bsrange=4k-64k --size=1m --fsync=16 \
			--verify=crc32c-intel --do_verify=1 --verify_backlog=32 --verify_fatal=1 ||
			{ echo fio >/run/failed; return; }
		echo >>/run/verified
	done
}

count() { # FILE
	wc -l <$1
}

grew() { # FILE COUNT
	[ -e /run/failed ] || [ $(count $1) -gt $2 ]
}'
ok "a tree to unpack" guest "mkdir -p /run/tree/a/b && cp /bin/busybox /run/tree/a/ &&
	for i in \$(seq 40); do head -c \$((i * 999)) /run/random >/run/tree/a/b/\$i; done &&
	(cd /run/tree && find . -type f -exec sha256sum {} + >/run/tree.sums && tar -cf /run/tree.tar .)"
is "attach" "$(ndio_attach "$disk" nbd0)" /dev/nbd0
ok "a file system" guest "mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt"
guest ": >/run/synced; : >/run/unpacked; : >/run/verified; unpack_all >/dev/null 2>&1 & fio_all >/dev/null 2>&1 &"

# restart KEEPS: when something has gone through since the last time.
restart() {
	guest "await 100 grew /run/synced \$(count /run/synced)" || return
	kill_disk
	disk_preload=$1
	start_disk
}

restarts() {
	local i

	for ((i = 0; i < RESTARTS; i += 2)); do
		restart "$volatile" && restart '' || return
	done
	guest "await 100 grew /run/unpacked \$(count /run/unpacked); cat /run/failed; [ ! -e /run/failed ]"
}

ok "$RESTARTS restarts" restarts
ok "all ends well" guest "touch /run/stop; wait; tail -n 5 /run/fio.log; count /run/unpacked
	count /run/verified; [ ! -e /run/failed ] && [ \$(count /run/verified) -gt 0 ]"
is "the server is back" "$(listed /dev/nbd0 state)" attached
python3 -c '
import json, sys
server = json.load(open(sys.argv[1]))[0]["server"]
print(server["state"], server["survives"], server["times_lost"])' "$T/list" >"$T/server"
like "and was lost as often" "$(cat "$T/server")" "^up fenced (2[0-9]|[3-9][0-9])$"
guest cat /run/messages >"$T/messages"
like "the log says each time why it waits" "$(grep -c 'ndio-serve.*connection is lost (.*): waiting for the server, 300 seconds' "$T/messages")" \
	"^(2[0-9]|[3-9][0-9])$"
like "and how long that took" "$(grep -cE 'ndio-serve.*the server is back after [0-9.]+ seconds: sent again: ' "$T/messages")" \
	"^(2[0-9]|[3-9][0-9])$"
sound_kernel 'I/O error|timed out|EXT4-fs (error|warning)'
ok "the tree is whole" guest "umount /mnt && e2fsck -fn /dev/nbd0 && mount /dev/nbd0 /mnt &&
	cd /mnt/* && sha256sum -c /run/tree.sums | grep -vc OK\$; cd / && umount /mnt"
ok "detach" guest "ndio detach nbd0 && nothing_left"

# ---- a server that stays away ----

lists() { # STATE
	guest "await 30 eval 'ndio list | grep \"^nbd0 .* $1 \"'"
}

# at_once COMMAND...: in the guest.
at_once() {
	guest "start=\$(seconds); $*; status=\$?; echo \$((\$(seconds) - start)) seconds
		[ \$((\$(seconds) - start)) -le 30 ] && return \$status"
}

ok "away, all flushed: attach, write" guest "ndio attach --key-file /run/pass --reconnect 80 $disk nbd0 &&
	dd if=/run/random of=/dev/nbd0 bs=64k conv=fsync"
kill_disk
ok "away, all flushed: it is waited for" lists waiting
ok "away, all flushed: detach" at_once ndio detach nbd0
ok "away, all flushed: nothing is left" guest nothing_left
ok "away for now: the server" start_disk
ok "away for now: attach, write" guest "ndio attach --key-file /run/pass --reconnect 80 $disk nbd0 &&
	dd if=/run/random of=/dev/nbd0 bs=64k count=1 oflag=direct"
kill_disk
ok "away for now: it is waited for" lists waiting
guest_refuses "away for now: detach" "server has been away for [0-9]+ seconds, and not all .*KiB in the gateway" \
	ndio detach nbd0
ok "away for now: it comes back" start_disk
ok "away for now: and is up again" lists attached
ok "away for now: detach" guest "ndio detach nbd0 && nothing_left"

is "away for too long: attach" "$(ndio_attach --reconnect 5 "$disk" nbd0)" /dev/nbd0
ok "away for too long: load" guest start_load
kill_disk
ok "away for too long: errors come, within $((5 + SLACK)) seconds" errors_within $((5 + SLACK))
ok "away for too long: is listed as given up" lists "given up"
ok "away for too long: unmount; nothing hangs" guest "stop_load && none_hang"
ok "away for too long: detach, by force if need be" at_once "ndio detach nbd0 || ndio detach --force nbd0"
ok "away for too long: nothing is left" guest "nothing_left && none_hang"
ok "away for too long: the server comes back" start_disk
is "away for too long: attach again" "$(ndio_attach "$disk" nbd0)" /dev/nbd0
ok "away for too long: the journal recovers, and all acknowledged files are whole" guest recovers
ok "away for too long: unmount, fsck, detach" guest \
	"umount /mnt && e2fsck -fn /dev/nbd0 && ndio detach nbd0 && nothing_left"
sound_kernel
done_testing
