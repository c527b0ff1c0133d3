# Helpers for tests with a virtual machine: `. tests/vm/lib.sh` first, in place of tests/lib/lib.sh.
# The machine runs Debian's kernel in software emulation, needs no root, and sees the host's
# loopback as 10.0.2.2. A test boots it once and tells it what to do, from outside; init has
# the functions that run inside.
# shellcheck shell=bash

# shellcheck source=../lib/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
: "${kernel:=$root/build/vm/kernel}"

# Of what takes half as long init tells on the console where it hangs.
GUEST_TIMEOUT=120
declare -A ports=()
nbdkit_options=() # for all that is served
machine_options=() # of qemu
key=passphrase=+$T/pass

# boot CPUS [PROGRAM...]: with these beside nbd-client.
boot() {
	local cpus=$1

	shift
	[ "$(uname -m)" = x86_64 ] || skip_all "the guest is amd64, as is its kernel"
	[ -e "$kernel" ] || { diag "no $kernel: make check-vm fetches it"; exit 1; }
	: >"$T/console"
	"$root/tests/vm/make-initramfs" "$kernel" "$T/initramfs" nbd-client "$@" || exit 1
	mkfifo "$T/guest.in" "$T/guest.out"
	# Once qemu alone may write there, its end is the end of what is read.
	exec {to_guest}<>"$T/guest.in" {both}<>"$T/guest.out" {from_guest}<"$T/guest.out"
	# The kernel's own check of the timer fails where qemu doesn't get enough of a busy machine.
	start_server vm qemu-system-x86_64 -accel tcg -cpu max -smp "$cpus" -m 512M \
		-nodefaults -no-user-config -display none -no-reboot -pidfile "$T/vm.pid" \
		-kernel "$kernel/vmlinuz" -initrd "$T/initramfs" \
		-append "console=ttyS0 loglevel=6 panic=-1 random.trust_cpu=on no_timer_check \
			GUEST_TIMEOUT=$GUEST_TIMEOUT" \
		-serial "file:$T/console" \
		-netdev user,id=net -device virtio-net-pci,netdev=net,romfile= \
		-device virtio-serial-pci -chardev "pipe,id=guest,path=$T/guest" \
		-device virtserialport,chardev=guest "${machine_options[@]}" || exit 1
	exec {both}>&-
	ok "the machine boots" guest 'uname -r; grep MemTotal /proc/meminfo' || exit 1
	rm "$T/initramfs"
}

# guest COMMAND...: runs it in the guest, and prints what it prints. A guest that doesn't answer
# is stopped. Its line is read at once, not in parts: when the time of bash's read is up just as
# the newline comes, the newline is gone, and the read says that it has waited in vain.
guest() {
	local reply

	[ -n "${server_pids[vm]:-}" ] || { echo "there is no guest any more"; return 125; }
	printf '%s\n' "$(printf '%s' "$*" | base64 -w 0)" >&"$to_guest"
	IFS= read -r -t "$GUEST_TIMEOUT" -u "$from_guest" reply || {
		echo "no answer from the guest to: $*"
		{
			kill -KILL "${server_pids[vm]}"
			wait "${server_pids[vm]}"
		} 2>/dev/null
		unset "server_pids[vm]"
		return 124
	}
	base64 -d <<<"${reply#* }"
	return "${reply%% *}"
}

# kill_guest: as a power failure does. It may be booted again.
kill_guest() {
	{
		kill -KILL "${server_pids[vm]}"
		wait "${server_pids[vm]}"
	} 2>/dev/null
	unset "server_pids[vm]"
	exec {to_guest}>&- {from_guest}<&-
	rm "$T/guest.in" "$T/guest.out"
}

# sound_kernel [REGEX]: the guest's kernel never complained, nor said this.
sound_kernel() {
	ok "the guest's kernel found nothing wrong" not \
		grep -aE "BUG:|WARNING:|Oops|Call Trace|blocked for more than${1:+|$1}" "$T/console"
}

# serve NAME ARG...: at $DOOR, on a loopback port of the system's choice, ${ports[NAME]}.
serve() {
	local name=$1

	shift
	door_command --foreground --exit-with-parent --ipaddr 127.0.0.1 --port 0 \
		--pidfile "$T/$name.pid" "${nbdkit_options[@]}" "$@"
	start_server "$name" env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}" || return
	ports[$name]=$(port_of "$name")
}

# serve_stock NAME NBDKIT-ARG...: without a plugin of ours.
serve_stock() {
	local name=$1

	shift
	serve_preloaded "$name" "" "$@"
}

serve_preloaded() { # NAME PRELOAD NBDKIT-ARG...
	local name=$1 preload=$2

	shift 2
	start_server "$name" env LD_PRELOAD="$preload" nbdkit --foreground \
		--exit-with-parent --ipaddr 127.0.0.1 --port 0 --pidfile "$T/$name.pid" \
		"${nbdkit_options[@]}" "$@" || return
	ports[$name]=$(port_of "$name")
}

# tcp_uri NAME: of what serve serves, for clients on the host.
tcp_uri() {
	echo "nbd://127.0.0.1:${ports[$1]}"
}

# plaintext FILE OUTPUT: what a volume holds, through the plugin.
plaintext() {
	start_nbdkit reader "$NDIO_PLUGIN" "$1" "$key" && rm -f "$2" && nbdcopy "$(uri reader)" "$2" &&
		stop_server reader
}

# same_on_host VOLUME: the files of the guest's /run/sums, out of the volume's plaintext, without
# mounting it.
same_on_host() {
	plaintext "$1" "$T/plain" && e2fsck -fn "$T/plain" || return
	rm -rf "$T/tree"
	mkdir "$T/tree"
	debugfs -R "rdump / $T/tree" "$T/plain" && guest cat /run/sums >"$T/sums" &&
		(cd "$T/tree" && sha256sum -c "$T/sums")
}

checksum() { # FILE
	sha256sum <"$1" | cut -d' ' -f1
}

tear_down() {
	local status=$?

	if [ "$status" != 0 ] || [ "$test_failures" != 0 ]; then
		diag "The guest's console:"
		diag "$(tail -n 200 "$T/console" | tr -d '\r')"
	fi
	unmount_all
	clean_up
}
trap tear_down EXIT
