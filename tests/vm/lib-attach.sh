# For tests of `ndio attach` in the guest: `. tests/vm/lib-attach.sh` after lib.sh.
# shellcheck shell=bash disable=SC2154

# boot_ndio CPUS [PROGRAM...]: with the command, the server beside it, and the key, which the servers on
# the host aren't given.
boot_ndio() {
	local cpus=$1

	shift
	[ -z "$NDIO_SANITIZE" ] || skip_all "the guest is too small and slow for a sanitizer"
	boot "$cpus" "$NDIO_BUILD/ndio=/bin/ndio" "$NDIO_BUILD/ndio-serve=/bin/ndio-serve" setpriv "$@"
	guest "umask 077
	printf %s '$(cat "$T/pass")' >/run/pass
	umask 022
	mkdir /run/bin
	syslogd -O /run/messages

	# The processes that run this program, but for those that have ended.
	running() { # PROGRAM
		ls -l /proc/[0-9]*/exe 2>/dev/null | sed -n \"s,.* /proc/\\([0-9]*\\)/exe -> \$1\$,\\1,p\"
	}

	# Of all attached disks. What there is, is told and cleared away, so that it fails one test
	# and not the next.
	nothing_left() {
		local left=\"\$(ls -d /run/ndio/* /sys/block/nbd*/pid 2>/dev/null; running /bin/ndio-serve)\"
		local device

		[ \"\$left\" ] || return 0
		echo \"\$left\"
		kill -9 \$(running /bin/ndio-serve)
		for device in \$(ls -d /sys/block/nbd*/pid | cut -d/ -f4); do
			detach /dev/\$device
		done
		rm -rf /run/ndio
		return 1
	}"
}

# locator NAME: of what serve serves, for the guest.
locator() {
	echo "nbd://10.0.2.2:${ports[$1]}"
}

# ndio_attach ARG...: prints the device.
ndio_attach() {
	guest "ndio attach --key-file /run/pass $*"
}

# listed DEVICE FIELD...: what `ndio list --json` says of it, separated by blanks. Fails if that
# isn't listed.
listed() {
	guest ndio list --json >"$T/list" && python3 - "$T/list" "$@" <<'PYTHON'
import json, sys

with open(sys.argv[1]) as file:
    devices = {row["device"]: row for row in json.load(file)}
row = devices.get(sys.argv[2])
if row is None:
    sys.exit(f"{sys.argv[2]} isn't among {list(devices)}")
print(*[row[name] for name in sys.argv[3:]])
PYTHON
}

# guest_refuses NAME REGEX COMMAND...: fails with status 1 in the guest, and its only line matches.
guest_refuses() {
	local name=$1 regex=$2 said

	shift 2
	said=$(guest "$@"; echo "status $?")
	like "$name: is refused, and says why" "$said" "^ndio: [^"$'\n'"]*$regex[^"$'\n'"]*"$'\n'"status 1$"
}

# undone NAME REGEX COMMAND...: and leaves nothing behind.
undone() {
	guest_refuses "$@"
	ok "$1: leaves nothing" guest nothing_left
}
