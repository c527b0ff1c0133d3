#!/bin/bash
# `ndio attach` that fails says at which step, and undoes the steps before, as it does when it is
# interrupted: no gateway, no folder, a free device. What it can't undo because it was killed, the
# next one clears away.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=lib-attach.sh
. "$(dirname "$0")/lib-attach.sh"

boot_ndio 2 strace
make_luks2 "$T/volume" 20M --sector-size 4096
serve disk "$T/volume" || exit 1
disk=$(locator disk)
# One connection is the fastest; that of several some aren't read, has a test of its own below.
attach_one="ndio attach --key-file /run/pass --connections 1"
attach="$attach_one $disk"
nobody="/bin/setpriv --reuid 1000 --regid 1000 --clear-groups"

# without FILE: it can't be found in the guest until `guest with` brings it back.
guest 'without() {
	hidden=$1
	mv $1 /run/hidden
}

with() {
	mv /run/hidden $hidden
}'

missing() { # NAME FILE REGEX
	guest without "$2"
	undone "$1" "$3" "$attach"
	guest with
}

mistaken() { # NAME ARG...
	local name=$1

	shift
	like "$name: status 2" "$(guest "ndio $*; echo \"status \$?\"")" "ndio.*status 2$"
}

command_line() {
	mistaken "no locator" attach
	mistaken "too many arguments" attach a nbd0 c
	mistaken "no such device" attach "$disk" sda
	mistaken "a leading zero" attach "$disk" nbd00
	mistaken "--connections 0" attach --connections 0 "$disk"
	mistaken "--connections 65" attach --connections 65 "$disk"
	mistaken "--timeout 4" attach --timeout 4 "$disk"
	mistaken "--block-size 513" attach --block-size 513 "$disk"
	mistaken "two keys" attach --key-file /run/pass --key-fd 0 "$disk"
	mistaken "a table and more" attach --tab --read-only nbd0
	mistaken "detach nothing" detach
	mistaken "list something" list nbd0
}

not_root() {
	undone "attach: not root" "only root" "$nobody $attach"
	guest_refuses "detach: not root" "only root" "$nobody ndio detach nbd0"
	guest_refuses "list: not root" "only root" "$nobody ndio list"
	guest_refuses "detach: nothing there" "/dev/nbd0" ndio detach nbd0
}

programs() {
	missing "no server" /bin/ndio-serve "ndio-serve: the server isn't installed"
	missing "no nbd-client" /bin/nbd-client "nbd-client isn't installed"
	guest rmmod nbd
	missing "no module" /lib/modules "no nbd module"
	ok "the module is back" guest modprobe nbd
}

disks() {
	serve_stock raw memory 1M || exit 1
	undone "no LUKS" "starting the gateway: .*LUKS" ndio attach --key-file /run/pass "$(locator raw)"
	stop_server raw
	undone "no server" "starting the gateway: .*refused" \
		ndio attach --key-file /run/pass "$(locator raw)"
	undone "no file" "starting the gateway: .*No such file" \
		ndio attach --key-file /run/pass /run/none
	undone "no header" "starting the gateway: .*No such file" "$attach --header /run/none"
	undone "no key file" "/run/none: No such file" ndio attach --key-file /run/none "$disk"
	guest "printf wrong >/run/wrong"
	undone "a wrong key" "starting the gateway: .*no key slot" \
		ndio attach --key-file /run/wrong "$disk"
	undone "an empty key" "starting the gateway: .*" "ndio attach --key-fd 0 $disk </dev/null"
}

folders() {
	local long

	long=/run/$(printf '%091d' 0)
	undone "too long a path" "the path of a socket has at most 107" \
		"NDIO_RUN_DIR=$long $attach"
	undone "too long a path, by far" "the path of a socket has at most 107" \
		"NDIO_RUN_DIR=/run/$(printf '%05000d' 0) $attach"
	undone "a relative path" "NDIO_RUN_DIR=other is not an absolute path" \
		"NDIO_RUN_DIR=other $attach"
	undone "a file is in the way" "/run/pass.*Not a directory" "NDIO_RUN_DIR=/run/pass $attach"
	guest "mkdir /run/ndio/nbd0 && chmod 777 /run/ndio/nbd0"
	guest_refuses "a folder that all may enter" "/run/ndio/nbd0: not a folder" "$attach nbd0"
	guest "chmod 700 /run/ndio/nbd0 && chown 1000 /run/ndio/nbd0"
	guest_refuses "somebody else's folder" "/run/ndio/nbd0: not a folder" "$attach nbd0"
	ok "an empty one of root's is fine" guest "chown 0 /run/ndio/nbd0 && $attach nbd0"
	ok "detach" guest "ndio detach nbd0 && nothing_left"
	is "another folder" "$(guest "NDIO_RUN_DIR=/run/other/ $attach; ls /run/other/nbd0")" \
		/dev/nbd0$'\n'"socket"$'\n'"state.json"
	is "is another list" "$(guest "ndio list; NDIO_RUN_DIR=/run/other ndio list | wc -l")" 2
	ok "and detach" guest "NDIO_RUN_DIR=/run//other ndio detach nbd0 && nothing_left"
}

# imitate PROGRAM SCRIPT: while PATH is $imitated, this is what is run in its place.
imitated=/run/bin:/bin
imitate() {
	guest "cat >/run/bin/$1 <<'EOF'
#!/bin/sh
$2
EOF
chmod 755 /run/bin/$1"
}

# It waits for /run/go before it does anything.
hold() { # PROGRAM
	imitate "$1" "[ \"\$1\" != -d ] || exec /bin/$1 \"\$@\"
: >/run/held
while [ ! -e /run/go ]; do sleep 0.1; done
exec /bin/$1 \"\$@\""
}

# The command finds the server beside itself.
hold_gateway() {
	guest "cp /bin/ndio /run/bin/ndio"
	hold ndio-serve
}

# The kernel has the device for some seconds when nbd-client hasn't ended yet.
hold_end() {
	imitate nbd-client "[ \"\$1\" != -d ] || exec /bin/nbd-client \"\$@\"
exec strace -D -o /dev/null -e trace=exit_group -e inject=exit_group:delay_enter=5000000 \
	/bin/nbd-client \"\$@\""
}

# start_held [COMMAND]: attaches in the background, until it is held; COMMAND comes at once then.
held=/run/held
start_held() {
	guest "rm -f /run/held /run/go
		PATH=$imitated $attach nbd0 >/run/attach.out 2>&1 &
		pid=\$!
		await 60 eval '[ -e $held ] || ! kill -0 \$pid' && [ -e $held ] && { ${1:-true}; }"
}

# What attach said, and its status. The guest's shell may say as well what it died of.
end_held() {
	guest "wait \$pid; status=\$?; cat /run/attach.out; echo status \$status" | grep -vx Terminated
}

imitations() {
	imitate nbd-client "[ \"\$1\" = -d ] || echo 'no such luck' >&2; exit 1"
	undone "nbd-client fails" "connecting the kernel .*no such luck" "PATH=$imitated $attach"
	imitate nbd-client "[ \"\$1\" = -d ] || /bin/nbd-client 10.0.2.2 ${ports[disk]} /dev/nbd0
exec /bin/nbd-client \"\$@\""
	guest_refuses "somebody else is faster" "connecting the kernel .*Failed to setup device" \
		"PATH=$imitated $attach nbd0"
	ok "somebody else is faster: and keeps the device" guest "
		head -c 6 /dev/nbd0 | grep LUKS && detach /dev/nbd0 && nothing_left"
	imitate nbd-client "exit 0"
	undone "nbd-client does nothing" "the kernel doesn't show it" "PATH=$imitated $attach"
	# As when the kernel reads only one of them.
	imitate nbd-client "[ \"\$1\" != -d ] || exec /bin/nbd-client \"\$@\"
echo >>/run/attempts
[ \$(wc -l </run/attempts) -gt 1 ] || set -- \$(echo \"\$@\" | sed 's/-connections 4/-connections 1/')
exec /bin/nbd-client \"\$@\""
	like "connections that aren't read: attached once more, at least" \
		"$(guest "PATH=$imitated $attach --connections 4; wc -l </run/attempts")" \
		^/dev/nbd0$'\n'[2-5]$
	ok "connections that aren't read: all are in the end" guest "
		[ \$(cat /proc/[0-9]*/comm 2>/dev/null | grep -c '+nbd0-recv') = 4 ] &&
		ndio detach nbd0 && nothing_left"
	guest "rm /run/bin/*"
}

# The server stops to answer, or goes, before the gateway has looked.
server_goes() {
	hold_gateway
	ok "the server stops: the gateway is about to start" start_held
	freeze "${server_pids[disk]}"
	guest "touch /run/go; sleep 2; kill -TERM \$pid"
	like "the server stops: attach can be interrupted" "$(end_held)" \
		"^ndio: .*interrupted.*status 143$"
	ok "the server stops: leaves nothing" guest nothing_left
	kill -CONT "${server_pids[disk]}"
	ok "the server goes: the gateway is about to start" start_held
	stop_server disk
	guest "touch /run/go"
	like "the server goes: says so" "$(end_held)" \
		"^ndio: starting the gateway: .*refused.*status 1$"
	ok "the server goes: leaves nothing" guest nothing_left
	serve disk "$T/volume" || exit 1
	disk=$(locator disk)
	attach="$attach_one $disk"
}

# interrupted NAME: attach is held by what hold has said.
interrupted() {
	ok "interrupted $1: gets there" start_held "kill -TERM \$pid"
	like "interrupted $1: ends" "$(end_held)" "^ndio: .*interrupted.*status 143$"
	ok "interrupted $1: leaves nothing" guest nothing_left
}

# killed NAME STATE: as what it is listed afterwards.
killed() {
	ok "killed $1: gets there" start_held "kill -KILL \$pid"
	like "killed $1: ends" "$(end_held)" "status 137$"
	is "killed $1: is listed as $2" "$(listed /dev/nbd0 state)" "$2"
}

# What was left is cleared away.
attaches_anew() { # NAME
	is "$1: a new attach" "$(guest "$attach nbd0")" /dev/nbd0
	is "$1: a single gateway" "$(guest "running /bin/ndio-serve | wc -l")" 1
	ok "$1: reads" guest "head -c 64k /dev/nbd0 >/dev/null"
	detaches "$1"
}

detaches() { # NAME
	ok "$1: detach" guest "ndio detach nbd0"
	ok "$1: nothing is left" guest nothing_left
}

leftovers() {
	hold_gateway
	interrupted "before the gateway"
	killed "before the gateway" detached
	attaches_anew "killed before the gateway"
	guest "rm /run/bin/*"
	hold nbd-client
	interrupted "before the kernel"
	killed "before the kernel" detached
	attaches_anew "killed before the kernel"
	killed "before the kernel" detached
	detaches "killed before the kernel"
	hold_end
	held=/sys/block/nbd0/pid
	interrupted "when the kernel has it"
	killed "when the kernel has it" attached
	detaches "killed when the kernel has it"
	guest "rm /run/bin/*"
	held=/run/held
}

# Whenever it happens to be.
killed_sometime() {
	local seconds

	for seconds in 0.1 0.4 0.9; do
		ok "killed after $seconds seconds: a new one works" guest "
			$attach nbd0 >/run/attach.out 2>&1 &
			pid=\$!
			sleep $seconds
			kill -KILL \$pid
			wait \$pid
			[ ! -e /sys/block/nbd0/pid ] || ndio detach nbd0 || return
			$attach nbd0 && ndio detach nbd0 && nothing_left"
	done
}

# Two that want the same device, and two that want any.
at_once() {
	hold_gateway
	ok "two at once: one is at work" start_held
	guest_refuses "two at once: the other" "nbd0: another command" "$attach nbd0"
	guest_refuses "two at once: detach" "nbd0: another command" ndio detach nbd0
	is "two at once: or gets another device" "$(guest "$attach")" /dev/nbd1
	guest "touch /run/go"
	is "two at once: the first one goes on" "$(end_held)" /dev/nbd0$'\n'"status 0"
	ok "two at once: both go" guest "ndio detach nbd0 && ndio detach nbd1 && nothing_left"
	guest "rm /run/bin/*"
}

command_line
not_root
programs
disks
folders
imitations
server_goes
leftovers
killed_sometime
at_once
ok "the server ends well" stop_server disk
sound_kernel
done_testing
