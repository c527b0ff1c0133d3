#!/bin/bash
# What `ndio attach` has made goes away under load: the gateway or the server is killed, or stops
# to answer. Programs get their errors within the timeout, nothing hangs, `ndio list` tells what
# is wrong, `ndio detach --force` clears it away, and after a new attach the file system's
# journal recovers all that was acknowledged. A short stop isn't even noticed. With --reconnect 0:
# that a server is waited for is attach-survives.sh's.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-load.sh
. "$(dirname "$0")/lib-load.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"

# For each of the connections, which the kernel tries one after the other.
TIMEOUT=5
SLACK=5

boot_ndio 2 mkfs.ext4 e2fsck
load_in_guest

# loaded NAME CONNECTIONS: a new disk, attached, and busy.
loaded() {
	local name=$1

	make_luks2 "$T/volume" 64M
	ok "$name: is served" serve disk "$T/volume" || return
	ok "$name: attach" ndio_attach --timeout $TIMEOUT --reconnect 0 --connections "$2" \
		"$(locator disk)" nbd0 || return
	ok "$name: load" guest start_load
	gateway=$(listed /dev/nbd0 gateway_pid)
}

# strike VICTIM SIGNAL
strike() {
	case $1 in
	gateway) guest "kill -$2 $gateway" ;;
	server) kill "-$2" "${server_pids[disk]}" ;;
	esac
}

server_ends() {
	if kill -CONT "${server_pids[disk]}" 2>/dev/null; then
		stop_server disk
	else
		wait "${server_pids[disk]}" 2>/dev/null
		unset "server_pids[disk]"
	fi
}

lists_within() { # SECONDS STATE
	guest "start=\$(seconds)
		ndio list >/run/list
		cat /run/list
		[ \$((\$(seconds) - start)) -le $1 ] && grep '^nbd0 .* $2 ' /run/list"
}

# Attached anew, the disk has all that was acknowledged, and so has the host.
comes_back() { # NAME
	ok "$1: a new server" serve disk "$T/volume" || return
	ok "$1: attach again" ndio_attach "$(locator disk)" nbd0
	ok "$1: the journal recovers, and all acknowledged files are whole" guest recovers
	ok "$1: unmount, fsck, detach" guest \
		"umount /mnt && e2fsck -fn /dev/nbd0 && ndio detach nbd0 && nothing_left"
	ok "$1: the server ends well" stop_server disk
	ok "$1: the host sees the same files" same_on_host "$T/volume"
	rm "$T/volume"
}

# under_load NAME VICTIM SIGNAL CONNECTIONS SECONDS STATE
under_load() {
	local name=$1 victim=$2 signal=$3 limit=$5 state=$6

	loaded "$name" "$4" || return
	strike "$victim" "$signal"
	ok "$name: errors come within $limit seconds" errors_within "$limit"
	ok "$name: is listed as $state, soon" lists_within 20 "$state"
	[ "$victim $signal" != "server KILL" ] ||
		ok "$name: the gateway's log says what failed" guest \
			"grep 'ndio-serve.*: \(read\|write\) of .*: ' /run/messages"
	guest_refuses "$name: detach while it is mounted" "/dev/nbd0.* in use" ndio detach nbd0
	ok "$name: unmount; nothing hangs" guest "stop_load && none_hang"
	guest_refuses "$name: detach, unmounted" "flushing it: .*--force" ndio detach nbd0
	ok "$name: detach --force" guest "timeout 60 ndio detach --force nbd0"
	ok "$name: leaves nothing" guest "nothing_left && none_hang"
	ok "$name: the server ends when it may go on" server_ends
	comes_back "$name"
}

# stopped_shortly VICTIM
stopped_shortly() {
	local name="$1 stopped for a moment"

	strike "$1" STOP
	guest "count=\$(wc -l </run/acknowledged); sleep 2"
	strike "$1" CONT
	ok "$name: writing goes on" guest "await 20 acknowledged \$((count + 10))"
	ok "$name: no error" guest "[ ! -e /run/writer-ended -a ! -e /run/reader-ended ]"
}

# Then it is healthy, but goes all the same.
forced_while_mounted() {
	local name="forced"

	loaded "$name" 2 || return
	stopped_shortly gateway
	stopped_shortly server
	is "$name: is listed as attached" "$(listed /dev/nbd0 state)" attached
	like "$name: detach --force under load" "$(guest "timeout 60 ndio detach --force nbd0")" \
		"^ndio: /dev/nbd0 is disconnected, but still open somewhere"
	ok "$name: errors come at once" errors_within $SLACK
	guest_refuses "$name: nobody else gets it before it is unmounted" \
		"/dev/nbd0 is attached already" \
		"ndio attach --key-file /run/pass $(locator disk) nbd0"
	ok "$name: unmount; nothing hangs" guest "stop_load && none_hang"
	ok "$name: leaves nothing" guest nothing_left
	ok "$name: the server ends well" stop_server disk
	comes_back "$name"
}

under_load "gateway killed" gateway KILL 4 $((TIMEOUT + SLACK)) "no gateway"
under_load "gateway stopped" gateway STOP 2 $((2 * TIMEOUT + SLACK)) "not answering"
under_load "server killed" server KILL 4 $((TIMEOUT + SLACK)) "failing"
under_load "server stopped" server STOP 1 $((TIMEOUT + SLACK)) "not answering"
forced_while_mounted
sound_kernel
done_testing
