#!/bin/bash
# Two programs don't write to one image, whichever they are: what ndio writes to it locks as qemu
# does, and heeds qemu's locks. Who only reads is let in, and told.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/command.sh"

busy="$T/disk: in use: another program "
told="$T/disk: another program has it open for writing"
busy_names=() busy_pids=()
loop=
trap '[ -z "$loop" ] || losetup --detach "$loop"; clean_up' EXIT

# told COMMAND...: it succeeds, and says once that another program writes.
told() {
	"$@" >"$T/out" 2>"$T/err" </dev/null || return
	is_one=$(grep -c "$told" "$T/err")
	[ "$is_one" = 1 ] || { cat "$T/err"; return 1; }
}

# busy NAME COMMAND...: it is refused, since another program writes to $T/disk. Those that were started
# wait side by side for that program to end, and are judged by all_busy.
busy() {
	busy_names+=("$1")
	(timeout 60 "${@:2}" >"$T/busy.${#busy_names[@]}" 2>&1 </dev/null
		echo "status $?" >>"$T/busy.${#busy_names[@]}") &
	busy_pids+=($!)
}

all_busy() {
	local i

	wait "${busy_pids[@]}"
	for i in "${!busy_names[@]}"; do
		like "${busy_names[i]}" "$(cat "$T/busy.$((i + 1))")" "$busy.*status [1-9][0-9]?$"
	done
	busy_names=() busy_pids=()
}

# busy_server NAME ARG...: so is a server of ours.
busy_server() {
	door_command --unix "$T/busy.sock" --pidfile "$T/busy.pid" "${@:2}" --run true
	busy "$1" env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}"
}

# writers NAME: nobody who writes gets in, and $T/disk stays as it is.
writers() {
	cp "$T/disk" "$T/before"
	busy_server "$1: our server doesn't start" "$T/disk" keyfile="$T/pass"
	busy_server "$1: nor without a key" "$T/disk"
	busy "$1: copy" "$ndio" copy --overwrite "$T/image" "$T/disk"
	busy "$1: copy from a pipe" bash -c 'cat "$1" | "$2" copy --overwrite - "$3"' - "$T/image" \
		"$ndio" "$T/disk"
	busy "$1: copy into the volume" "$ndio" copy --dst-key-file "$T/pass" "$T/image" "$T/disk"
	busy "$1: format" "$ndio" format --yes --key-file "$T/pass" "${cheap[@]}" "$T/disk"
	busy "$1: format of its header" "$ndio" format --yes --key-file "$T/pass" "${cheap[@]}" \
		--header "$T/disk" "$T/other"
	busy "$1: key add" "$ndio" key add --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" \
		"$T/disk"
	all_busy
	like "$1: the library" "$("$NDIO_BUILD/tests/clients/ndio-try" -k "$T/pass" "$T/disk")" \
		"open: EBUSY: $busy"
	ok "$1: nothing was written" cmp "$T/before" "$T/disk"
}

# qemu_reads FILE OPTION...
qemu_reads() {
	qemu-img convert -f raw -O raw "${@:2}" "$1" "$T/converted"
}

readers() {
	ok "$1: info" told "$ndio" info "$T/disk"
	ok "$1: key list" told "$ndio" key list "$T/disk"
	ok "$1: copy from the volume" told "$ndio" copy --src-key-file "$T/pass" "$T/disk" null:
	ok "$1: copy of the ciphertext" told "$ndio" copy "$T/disk" null:
	start_door reader -r "$T/disk" keyfile="$T/pass" || return
	ok "$1: a server with -r" said reader "$told"
	ok "$1: it serves" py reader 'assert h.is_read_only(); h.pread(512, 0)'
	ok "$1: it ends" stop_server reader
}

make_luks2 "$T/disk" 24M
head -c 1M /dev/urandom >"$T/image"
truncate -s 24M "$T/other"

# ---- beside qemu ----

start_qemu_nbd qemu --format raw "$T/disk"
writers "qemu-nbd serves it"
readers "qemu-nbd serves it"
ok "the key command writes where it is told that this is fine" "$ndio" key add --no-lock-image \
	--key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" "$T/disk"
ok "it did" opens "$T/disk" "$T/new"
ok "lock-image=off: our server starts" start_door second "$T/disk" lock-image=off
ok "and ends" stop_server second
ok "qemu-nbd ends" stop_server qemu

ok "then nobody is told anything" "$ndio" info "$T/disk"
is "really" "$(grep -c "another program" "$T/ok.out")" 0

start_qemu_nbd qemu --read-only --format raw "$T/image"
ok "what qemu-nbd only reads isn't made shorter" fails "$T/image: in use" "$ndio" copy "$T/other" "$T/image"
is "it wasn't" "$(stat -c %s "$T/image")" 1048576
stop_server qemu

# ---- beside our own ----

start_door ours "$T/disk" keyfile="$T/pass"
writers "our server has it"
readers "our server has it"
ok "qemu-nbd doesn't start" not qemu-nbd --socket "$T/q.sock" --format raw "$T/disk"
like "it says why" "$(cat "$T/ok.out")" 'Failed to get .*lock'
ok "nor does qemu-img read" not qemu_reads "$T/disk"
like "it says why, too" "$(cat "$T/ok.out")" 'Failed to get .*lock'
ok "unless it is told to" qemu_reads "$T/disk" --force-share
ok "a client writes as ever" py ours 'h.pwrite(b"x" * 512, 0); h.flush()'
ok "our server ends" stop_server ours

start_door ours "$T/disk" keyfile="$T/pass" lock-image=off
ok "lock-image=off takes none" qemu_reads "$T/disk"
stop_server ours

# A server that is told to be read-only excludes nobody, however that is told.
flags=(-r --readonly -fr --read-onl)
[ "$DOOR" = nbdkit ] || flags=(-r --read-only)
for flag in "${flags[@]}"; do
	start_door ours $flag "$T/disk"
	ok "$flag excludes nobody" qemu_reads "$T/disk"
	ok "$flag: nor who writes" "$ndio" copy --overwrite "$T/image" "$T/disk"
	stop_server ours
done
# What only looks like it is locked when somebody comes who may write.
mistaken_for_read_only() {
	start_nbdkit ours "$NDIO_PLUGIN" "$T/disk" --exportname -r
	py ours 'h.pwrite(b"x" * 512, 0)'
	ok "a mistaken -r: who may write locks" not qemu_reads "$T/disk"
	ok "a mistaken -r: the server ends" stop_server ours
	start_nbdkit ours "$NDIO_PLUGIN" "$T/disk" --exportname -r
	start_qemu_nbd qemu --format raw "$T/disk"
	ok "or isn't let in" not py ours 'pass'
	ok "the server says why" said ours "$busy"
	stop_server qemu
	stop_server ours
}

# The process in the background has it, and gives it back.
in_the_background() {
	make_luks2 "$T/disk" 24M
	nbdkit_ours() { # for its end
		env LD_PRELOAD="$NDIO_PRELOAD" nbdkit --unix "$T/bg.sock" --pidfile "$T/bg.pid" "$@"
	}
	if nbdkit_ours "$NDIO_PLUGIN" "$T/disk" keyfile="$T/pass" >"$T/bg.log" 2>&1 </dev/null; then
		until [ -s "$T/bg.pid" ]; do sleep 0.02; done
		server_pids[bg]=$(cat "$T/bg.pid")
		ok "in the background: locked" fails "$busy" "$ndio" copy --overwrite "$T/image" "$T/disk"
		kill "${server_pids[bg]}"
		while kill -0 "${server_pids[bg]}" 2>/dev/null; do sleep 0.02; done
		unset 'server_pids[bg]'
		ok "ended: free" "$ndio" key add --key-file "$T/pass" --new-key-file "$T/new" \
			"${cheap[@]}" "$T/disk"
	else
		skip "no nbdkit in the background: $(tail -n 1 "$T/bg.log")" 2
	fi
}

[ "$DOOR" = serve ] || {
	mistaken_for_read_only
	in_the_background
}

# ---- a detached header, and a block device ----

truncate -s 16M "$T/header"
ok "a header apart" "$ndio" format --yes --key-file "$T/pass" "${cheap[@]}" --header "$T/header" \
	"$T/other"
start_door ours "$T/other" header="$T/header" keyfile="$T/pass"
ok "is only read: it can be edited" "$ndio" key add --header "$T/header" --key-file "$T/pass" \
	--new-key-file "$T/new" "${cheap[@]}" "$T/other"
stop_server ours

truncate -s 2M "$T/behind"
if [ "$(id -u)" = 0 ] && loop=$(losetup --find --show "$T/behind" 2>/dev/null); then
	start_door ours "$loop"
	ok "a block device: locked" fails "$loop: in use" "$ndio" copy "$T/image" "$loop"
	ok "a block device: for qemu, too" not qemu_reads "$loop"
	stop_server ours
	start_qemu_nbd qemu --format raw "$loop"
	ok "a block device: qemu's lock" refused "$loop: in use" "$loop"
	stop_server qemu
else
	skip "no loop device" 3
fi
done_testing
