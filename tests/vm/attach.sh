#!/bin/bash
# `ndio attach` makes a server's disk a disk of this machine, decrypted by a key that only this
# machine has: file systems work and are there again after a new attach, several disks go side by
# side, options do what they say, and the gateway behind the device is one that the kernel may
# depend on. The server has nothing but ciphertext.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-tree.sh
. "$(dirname "$0")/lib-tree.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"

MIB=$((1 << 20))

boot_ndio 2 mkfs.ext4 e2fsck perl
tree_in_guest

# The disks: one that the guest formats, one from the host.
truncate -s 48M "$T/volume"
serve disk "$T/volume" || exit 1
disk=$(locator disk)
make_luks2 "$T/second" 20M --sector-size 512
serve second "$T/second" || exit 1
second=$(locator second)

lists() { # NAME
	local now since

	like "$1: ndio list" "$(guest ndio list)" \
		"^DEVICE +SIZE +STATE +SINCE +READ +WRITTEN +SURVIVES +LOST +UNFLUSHED +INTEGRITY +LOCATOR"$'\n'"nbd0 +32 MiB +attached +20[-0-9]+T[:0-9]+Z .* $disk$"
	is "$1: ndio list --json" \
		"$(listed /dev/nbd0 locator state size read_only timeout connections)" \
		"$disk attached $((32 * MIB)) False 90 4"
	since=$(listed /dev/nbd0 since)
	now=$(guest date -u +%Y-%m-%dT%H:%M:%SZ)
	ok "$1: since $since, not after $now" [ ! "$since" '>' "$now" -a "$since" '>' 2020 ]
}

counts() {
	local before after

	# Who opens it first looks for partitions.
	guest "dd if=/dev/nbd0 of=/dev/null count=1"
	read -ra before <<<"$(listed /dev/nbd0 reads read_bytes writes written_bytes)"
	ok "the counters: some I/O" guest "
		dd if=/dev/zero of=/dev/nbd0 bs=64k count=3 oflag=direct &&
		dd if=/dev/nbd0 of=/dev/null bs=64k count=5 iflag=direct"
	read -ra after <<<"$(listed /dev/nbd0 reads read_bytes writes written_bytes)"
	is "the counters: grew by all that was read and written" \
		"$((after[1] - before[1])) $((after[3] - before[3]))" $((5 << 16))" $((3 << 16))"
	ok "the counters: so did the numbers of requests" \
		[ $((after[0] - before[0])) -ge 5 -a $((after[2] - before[2])) -ge 3 ]
}

first_attach() {
	ok "the guest formats the disk" guest "ndio format --key-file /run/pass --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 --sector-size 4096 $disk"
	is "nothing is listed" "$(guest ndio list --json | tr -d ' \n')" "[]"
	guest rmmod nbd
	is "attach loads the module, and prints the device" "$(ndio_attach "$disk")" /dev/nbd0
	is "its blocks are the volume's sectors" \
		"$(guest cat /sys/block/nbd0/queue/logical_block_size)" 4096
	lists "attached"
	counts
	ok "mkfs, mount, write, fsck" guest write_file_system /dev/nbd0 4096
	ok "mount once more" guest "mount /dev/nbd0 /mnt"
	guest_refuses "detach while it is mounted" "/dev/nbd0.* in use" ndio detach nbd0
	ok "it is still there" guest same_tree
	is "and listed" "$(listed /dev/nbd0 state)" attached
	ok "unmount" guest "umount /mnt; sleep 1000 </dev/nbd0 & pid=\$!"
	guest_refuses "detach while it is open" "/dev/nbd0 is in use: process [0-9]+" ndio detach nbd0
	guest "kill \$pid; wait \$pid"
	# O_PATH, which needs no permission.
	guest "/bin/setpriv --reuid 1000 --regid 1000 --clear-groups \
		perl -e 'sysopen(F, \"/dev/nbd0\", 010000000) or die; sleep 1000' & pid=\$!; sleep 1"
	ok "somebody has its name, not the device" guest "kill -0 \$pid &&
		ls -l /proc/\$pid/fd | grep /dev/nbd0"
	is "detach says nothing" "$(guest ndio detach nbd0; echo "status $?")" "status 0"
	guest "kill \$pid"
	ok "nothing is left" guest nothing_left
}

gateway_is_safe() {
	local pid socket="nbd+unix:///?socket=/run/ndio/nbd0/socket"

	pid=$(listed /dev/nbd0 gateway_pid)
	is "the gateway: the OOM killer spares it" "$(guest cat "/proc/$pid/oom_score_adj")" -1000
	# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE are 0x180000 together; the 9th field has the flags.
	ok "the gateway: is an I/O flusher in each thread" guest "
		cat /proc/$pid/task/*/stat | awk '{ sub(/.*[)] /, \"\") }
			and(\$7, 1572864) != 1572864 { bad = 1 }
			END { exit bad || NR < 5 }'"
	ok "the gateway: what it has in memory is locked, and isn't much besides what isn't flushed" guest "
		cat /proc/$pid/smaps_rollup
		awk '{ kb[\$1] = \$2 }
			END { exit !(kb[\"Locked:\"] > 0.95 * kb[\"Pss:\"] && kb[\"Rss:\"] > 65536 && kb[\"Rss:\"] < 65536 + 71680) }' \
			/proc/$pid/smaps_rollup"
	ok "the gateway: root reaches its socket" guest "ndio info '$socket' 2>&1 | grep 'not a LUKS volume'"
	like "the gateway: nobody else does" "$(guest "/bin/setpriv --reuid 1000 --regid 1000 \
		--clear-groups ndio info '$socket' 2>&1; echo status \$?")" "Permission denied.*status 1"
	is "the gateway: only root may enter its folder" \
		"$(guest "stat -c '%u %a' /run/ndio/nbd0")" "0 700"
	ok "the gateway: nothing tells the key" guest "
		! grep -F '$(cat "$T/pass")' /run/ndio/nbd0/s*.json /proc/$pid/cmdline \
			/proc/$pid/environ /run/messages &&
		for fd in /proc/$pid/fd/*; do
			case \$(readlink \$fd) in
			*memfd:*key*) ! grep -F '$(cat "$T/pass")' \$fd || return ;;
			esac
		done"
}

second_attach() {
	is "attach again" "$(ndio_attach "$disk" nbd0)" /dev/nbd0
	is "its counters begin anew" "$(listed /dev/nbd0 writes written_bytes)" "0 0"
	ok "every file is as it was written" guest read_file_system /dev/nbd0
	gateway_is_safe
	ok "detach" guest ndio detach /dev/nbd0
	ok "nothing is left" guest nothing_left
}

on_the_host() {
	ok "the server ends well" stop_server disk
	ok "the plugin on the host reads the same files" same_on_host "$T/volume"
	ok "and its disk has only ciphertext" sealed "$T/volume"
	ok "the server starts again" serve disk "$T/volume" || exit 1
	disk=$(locator disk)
}

# Device 0 is somebody else's at first.
side_by_side() {
	ok "two disks: an nbd-client's" guest "attach ${ports[second]} /dev/nbd0"
	is "two disks: the first free device is taken" "$(ndio_attach "$disk")" /dev/nbd1
	guest_refuses "two disks: one that is in use" "/dev/nbd0 is attached already" \
		"ndio attach --key-file /run/pass $second nbd0"
	guest_refuses "two disks: or is ndio's" "/dev/nbd1 is attached already" \
		"ndio attach --key-file /run/pass $second nbd1"
	guest_refuses "two disks: detach doesn't take somebody else's" "/dev/nbd0" ndio detach nbd0
	ok "two disks: which is still there" guest "head -c 6 /dev/nbd0 | grep LUKS &&
		detach /dev/nbd0"
	guest_refuses "two disks: the same one twice" "$disk is attached already, as /dev/nbd1" \
		"ndio attach --key-file /run/pass $disk"
	guest_refuses "two disks: a socket that others would look for elsewhere" "must be absolute" \
		"ndio attach --key-file /run/pass 'nbd+unix:///?socket=here'"
	is "two disks: the second one" "$(ndio_attach "$second" nbd0)" /dev/nbd0
	like "two disks: both are listed, in their order" "$(guest ndio list)" \
		"nbd0 .* $second"$'\n'"nbd1 .* $disk$"
	ok "two disks: each keeps its own" guest "
		head -c 2m /dev/urandom >/run/other
		dd if=/run/random of=/dev/nbd0 bs=256k conv=fsync 2>&1 &
		dd if=/run/other of=/dev/nbd1 bs=256k conv=fsync 2>&1
		wait
		forget_caches
		head -c 2m /dev/nbd0 | cmp - /run/random && head -c 2m /dev/nbd1 | cmp - /run/other"
	ok "two disks: one goes" guest ndio detach nbd0
	ok "two disks: the other doesn't mind" guest "forget_caches
		head -c 2m /dev/nbd1 | cmp - /run/other"
	ok "two disks: and goes as well" guest ndio detach nbd1
	ok "two disks: nothing is left" guest nothing_left
}

# How many connections of the guest's the server has.
connections() { # NAME
	guest netstat -tn | grep -c ":${ports[$1]} *ESTABLISHED"
}

options() {
	local queue=/sys/block/nbd0/queue

	# /run/random is what the second disk starts with.
	ok "--read-only" ndio_attach --read-only "$second"
	# Longer than the gateway holds a request: 90 and 30 and 300 seconds.
	is "the kernel waits for as long as the gateway, and longer" \
		"$(guest cat $queue/io_timeout)" 420000
	is "--read-only: is listed" "$(listed /dev/nbd0 read_only)" True
	ok "--read-only: reads" guest "head -c 2m /dev/nbd0 | cmp - /run/random"
	ok "--read-only: doesn't write" guest "! dd if=/dev/zero of=/dev/nbd0 count=1 conv=fsync"
	is "sectors of 512 make blocks of 512" "$(guest cat $queue/logical_block_size)" 512
	is "no discards" "$(guest cat $queue/discard_max_bytes)" 0
	is "4 connections" "$(connections second)" 4
	ok "--read-only: detach" guest ndio detach nbd0

	ok "--connections 1 --timeout 7 --reconnect 0 --discard --block-size 4096 --key-fd" guest "ndio attach \
		--key-fd 5 --connections 1 --timeout 7 --reconnect 0 --discard --block-size 4096 \
		$second 5</run/pass"
	is "--connections 1" "$(connections second) $(listed /dev/nbd0 connections)" "1 1"
	is "--timeout 7" "$(guest cat $queue/io_timeout) $(listed /dev/nbd0 timeout)" "7000 7"
	ok "--discard: some" guest "[ \$(cat $queue/discard_max_bytes) -gt 0 ] &&
		blkdiscard -o $MIB -l $MIB /dev/nbd0"
	block_size 4096
	ok "detach" guest ndio detach nbd0
	ok "--block-size 512" ndio_attach --block-size 512 "$disk"
	block_size 512
	ok "detach" guest ndio detach nbd0
}

# Larger than the disk's sectors, and smaller.
block_size() { # SIZE
	is "--block-size $1: the device's" \
		"$(guest cat /sys/block/nbd0/queue/logical_block_size)" "$1"
	ok "--block-size $1: reads and writes" guest "
		dd if=/run/random of=/dev/nbd0 bs=$1 count=9 seek=5 oflag=direct &&
		forget_caches &&
		dd if=/dev/nbd0 bs=$1 skip=5 count=9 | cmp -n $(($1 * 9)) - /run/random"
}

# A file instead of a server, with its header elsewhere.
local_file() {
	ok "a file: with a detached header" guest "
		truncate -s 4M /run/data && truncate -s 20M /run/header &&
		ndio format --key-file /run/pass --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
			--header /run/header /run/data"
	ok "a file: attach" guest "(cd /run && ndio attach --key-file pass --header header data)"
	is "a file: its path is listed" "$(listed /dev/nbd0 locator)" /run/data
	ok "a file: write, read, detach" guest "
		dd if=/run/random of=/dev/nbd0 bs=64k count=3 conv=fsync && forget_caches &&
		head -c 192k /dev/nbd0 | cmp -n 196608 - /run/random && ndio detach nbd0"
}

# A passphrase that isn't in a file is asked for, by systemd where there is no terminal. By itself
# the kernel shows nbd0 to nbd15.
tab() {
	ok "the table: is written" guest "mkdir -p /etc && cat >/etc/ndiotab <<EOF
# DEVICE LOCATOR KEYFILE OPTIONS
nbd3 $disk	/run/pass	read-only,connections=2,timeout=11,reconnect=9,unflushed=1M,metrics=/run/nbd3.prom

nbd16	$second none
EOF
cat >/run/bin/systemd-ask-password <<'EOF'
#!/bin/sh
echo \"\$*\" >/run/asked
cat /run/pass
EOF
chmod 755 /run/bin/*"
	is "the table: its lines are attached" \
		"$(guest "ndio attach --tab nbd3; PATH=/run/bin:/bin ndio attach --tab /dev/nbd16")" \
		/dev/nbd3$'\n'/dev/nbd16
	is "the table: with their options" \
		"$(listed /dev/nbd3 locator read_only connections timeout reconnect)" "$disk True 2 11 9"
	is "the table: and without any" \
		"$(listed /dev/nbd16 locator read_only connections timeout reconnect)" \
		"$second False 4 90 300"
	ok "the table: the one that the kernel didn't show" guest "
		dd if=/run/other of=/dev/nbd16 bs=64k conv=fsync && forget_caches &&
		head -c 2m /dev/nbd16 | cmp - /run/other"
	like "the table: the question names the disk" "$(guest cat /run/asked)" "$second"
	ok "the table: detach" guest "ndio detach nbd3 && ndio detach nbd16"
	ok "the table: statistics, up to the end" guest \
		"grep -q '^ndio_requests_total{.*kind=\"read\"} [1-9]' /run/nbd3.prom"
	guest "sed -i 's/read-only/read-onyl/' /etc/ndiotab && cp /etc/ndiotab /run/tab &&
		rm /etc/ndiotab"
	undone "the table: a mistake" "/run/tab:2: unknown option .*read-onyl" \
		ndio attach --tab-file /run/tab --tab nbd16
	undone "the table: none" "/etc/ndiotab: No such file" ndio attach --tab nbd3
}

many_devices() {
	ok "all that it shows are taken" guest "
		rmmod nbd && modprobe nbd nbds_max=1 && attach ${ports[second]} /dev/nbd0"
	is "all that it shows are taken: another one is made" "$(ndio_attach "$disk")" /dev/nbd1
	ok "all that it shows are taken: detach" guest "ndio detach nbd1 && detach /dev/nbd0"
	ok "nothing is left" guest nothing_left
}

# A file system in memory takes all that there is, and the largest process is the gateway. The
# kernel says a lot then.
no_memory() {
	local pid

	ok "no memory: attach" ndio_attach "$disk" nbd0
	pid=$(listed /dev/nbd0 gateway_pid)
	ok "no memory: a file system" guest "
		mkfs.ext4 -q -b 4096 /dev/nbd0 && mount /dev/nbd0 /mnt && mkdir /run/hog"
	# Most of it is taken by what nobody's end gives back, and the rest by a program, whose end does: the
	# guest's shell needs some to go on.
	guest "write_tree; free=\$(awk '/^MemAvailable:/ { print \$2 }' /proc/meminfo)
		mount -t tmpfs -o size=\$((free - 49152))k none /run/hog
		dd if=/dev/zero of=/run/hog/file bs=256k
		tail /dev/zero
		: >/run/hog/file" >/dev/null
	ok "no memory: somebody was killed" grep -a "Out of memory: Killed process" "$T/console"
	is "no memory: but not the gateway" "$(listed /dev/nbd0 gateway_pid state)" "$pid attached"
	ok "no memory: the file system is sound" guest "
		umount /run/hog && forget_caches && same_tree && umount /mnt &&
			e2fsck -fn /dev/nbd0"
	ok "no memory: detach" guest "ndio detach nbd0 && nothing_left"
}

first_attach
second_attach
on_the_host
side_by_side
options
local_file
tab
many_devices
sound_kernel 'I/O error|timed out'
no_memory
ok "the servers end well" eval 'stop_server disk && stop_server second'
done_testing
