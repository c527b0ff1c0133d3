#!/bin/bash
# Who else has to do with a device of `ndio attach`: those that only look at it for a moment are
# waited for; whoever has mounted it or a partition of it, or has made something of it, is named, and
# keeps it; the unit unmounts partitions, too.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"

boot_ndio 2 mkfs.ext4 dmsetup umount
make_luks2 "$T/volume" 32M --sector-size 512
serve disk "$T/volume" || exit 1
disk=$(locator disk)
attach="ndio attach --key-file /run/pass --connections 1"

# Like udev, for some seconds, which are over when it lets go.
looks() {
	guest "sleep 3 </dev/nbd0 & pid=\$!"
	is "who looks at a free device: is waited for" "$(guest "$attach $disk nbd0")" /dev/nbd0
	ok "who looks at a free device: has let go by then" guest "! kill -0 \$pid; wait \$pid"
	# nbd-client itself doesn't wait, so that the device is still the looker's.
	guest "sleep 4 </dev/nbd0 & pid=\$!; nbd-client -d /dev/nbd0; kill -9 \$(running /bin/ndio-serve)"
	is "who looks at one that goes: is waited for" "$(guest "$attach $disk nbd0")" /dev/nbd0
	ok "who looks at one that goes: detach" guest "wait \$pid; ndio detach nbd0 && nothing_left"
	guest "sleep 1000 </dev/nbd0 & pid=\$!"
	like "who stays: is named" "$(guest "$attach $disk nbd0; echo status \$?")" \
		"^ndio: .*/dev/nbd0 is in use: process [0-9]+ has it open.*status 1$"
	ok "who stays: nothing else is left" guest "kill \$pid; wait \$pid; nothing_left"
}

users() {
	ok "attach" guest "$attach $disk nbd0"
	ok "a file system" guest "mkfs.ext4 -q /dev/nbd0 && mount /dev/nbd0 /mnt"
	guest_refuses "detach: a mount" "/dev/nbd0 is in use: nbd0 is mounted on /mnt" ndio detach nbd0
	guest_refuses "format: a mount" "/dev/nbd0 is in use: nbd0 is mounted on /mnt" \
		ndio format --yes --key-file /run/pass /dev/nbd0
	ok "device-mapper" guest "umount /mnt && modprobe dm-mod &&
		dmsetup create --noudevsync some-name --table '0 2048 linear /dev/nbd0 0'"
	guest_refuses "detach: device-mapper" "/dev/nbd0 is in use: dm-0 .some-name. is made of nbd0" \
		ndio detach nbd0
	guest_refuses "attach: device-mapper" "/dev/nbd0 is in use: dm-0 .some-name. is made of nbd0" \
		$attach /dev/nbd0
	ok "partitions" guest "dmsetup remove --noudevsync some-name &&
		dd if=/dev/zero of=/dev/nbd0 bs=64k count=1 conv=fsync &&
		printf 'n\np\n1\n\n+8M\nn\np\n2\n\n\nw\n' | fdisk /dev/nbd0; await 10 [ -b /dev/nbd0p2 ] &&
		mkfs.ext4 -q /dev/nbd0p2 && mount /dev/nbd0p2 /mnt"
	guest_refuses "detach: a partition" "/dev/nbd0 is in use: nbd0p2 is mounted on /mnt" \
		ndio detach nbd0
	ok "the second one is still there" guest "echo text >/mnt/file && sync"
}

# A server that lets in one client, and ends when it goes.
one_shot() { # NAME COMMAND...
	local name="a one-shot server: $1"

	shift
	serve_stock disk --filter=exitlast --filter=limit file "$T/volume" limit=1
	disk=$(locator disk)
	like "$name: attach" "$(guest "echo nbd0 $disk none >/run/tab; $*")" "/dev/nbd0$" || {
		stop_server disk # it would wait for its client
		return
	}
	is "$name: in the volume's sectors" \
		"$(guest cat /sys/block/nbd0/queue/logical_block_size)" 512
	ok "$name: detach" guest "ndio detach nbd0 && nothing_left"
	wait "${server_pids[disk]}"
	is "$name: has ended" $? 0
	unset "server_pids[disk]"
}

one_shots() {
	stop_server disk
	# shellcheck disable=SC2016
	one_shot "a key file" 'ndio attach --key-file /run/pass $(cut -d " " -f 2 /run/tab) nbd0'
	guest "cat >/run/bin/systemd-ask-password <<'EOF'
#!/bin/sh
[ -e /run/asked ] && cat /run/pass || echo wrong
: >/run/asked
EOF
chmod 755 /run/bin/systemd-ask-password"
	one_shot "asked twice" PATH=/run/bin:/bin ndio attach --tab-file /run/tab nbd0
}

# As systemd would run it.
unit() {
	local stop

	stop=$(sed -n "/^ExecStop=/,/[^\\\\]\$/{ s/^ExecStop=//; s/%i/nbd0/g; s/\\\$\\\$/\$/g
		s/\\\\\$//; p }" "$NDIO_BUILD/client/attach/ndio-attach@.service" | tr '\n' ' ' |
		sed "s,[^ ]*/ndio detach,ndio detach,; s,do umount,do /bin/umount,")
	like "the unit: what it runs when it is stopped" "$stop" "^/bin/sh -c .*ndio detach nbd0"
	ok "the unit: unmounts a partition and detaches" guest "$stop && nothing_left"
	is "the unit: what was written is there" "$(guest "$attach $disk nbd0 >/dev/null &&
		await 10 [ -b /dev/nbd0p2 ] && mount /dev/nbd0p2 /mnt && cat /mnt/file
		umount /mnt && ndio detach nbd0")" text
	ok "the unit: nothing is left" guest nothing_left
}

looks
users
unit
one_shots
sound_kernel
done_testing
