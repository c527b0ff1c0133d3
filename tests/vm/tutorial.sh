#!/bin/bash
# The commands of ndio-tutorial(7) that need a device of the kernel's work as they stand there, but
# for the server's port: a disk that is encrypted here, over TLS, becomes a file system.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"
# shellcheck source=../lib/tutorial.sh
. "$root/tests/lib/tutorial.sh"

# step NAME: in the guest, up to the first command that fails.
step() {
	local commands

	commands=$(tutorial_commands "$1" | sed "s|server\.example/|server.example:${ports[disk]}/|")
	[ -n "$commands" ] || { echo "no step $1"; return 1; }
	guest "set -x; ${commands//$'\n'/ && }; status=\$?; set +x; (exit \$status)"
}

boot_ndio 2 mkfs.ext4 e2fsck
make_luks2 "$T/volume" 80M
ok "a key for TLS" "$NDIO_BUILD/ndio" psk "$T/tls.psk" alice
DOOR=serve
ok "the server" serve disk --tls-psk="$T/tls.psk" "$T/volume"
ok "both keys are at the client" guest "umask 077; mkdir /etc/ndio
	echo '$(cat "$T/tls.psk")' >/etc/ndio/tls.psk
	cp /run/pass /etc/ndio/disk.key
	echo '10.0.2.2 server.example' >/etc/hosts"

ok "the client sees the disk" step look
like "over TLS" "$(cat "$T/ok.out")" "with TLS"
for name in "${tutorial_guest[@]}"; do
	ok "step $name" step "$name"
	case $name in
	attach)
		like "which names the device" "$(cat "$T/ok.out")" "^/dev/nbd0|"$'\n'"/dev/nbd0"
		;;
	mount)
		like "which lists it" "$(cat "$T/ok.out")" "nbd0 .* attached .* nbds://alice@server"
		ok "a file" guest "cp /bin/busybox /mnt && sync"
		;;
	esac
done
ok "nothing is left" guest nothing_left

ok "attach again" ndio_attach '"$disk"' nbd0
ok "mount again" guest "mount /dev/nbd0 /mnt && cmp /bin/busybox /mnt/busybox"
ok "step detach" step detach
ok "the server ends well" stop_server disk
sound_kernel
done_testing
