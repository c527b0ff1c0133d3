#!/bin/bash
# The gateway of `ndio attach`, up to where the kernel would get it: what it keeps of its caller,
# and that nothing of it is left when attach fails, is interrupted or killed. In place of
# nbd-client and modprobe, which need the kernel's module, are programs that look and then fail.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
ndio=$NDIO_BUILD/ndio

[ "$(id -u)" = 0 ] || skip_all "only root can attach"

export NDIO_RUN_DIR=$T/run T NDIO_PRELOAD
real_path=$PATH
mkdir "$T/bin"
export PATH=$T/bin:$PATH

# imitate PROGRAM SCRIPT
imitate() {
	printf '#!/bin/bash\n%s\n' "$2" >"$T/bin/$1.new"
	chmod 755 "$T/bin/$1.new"
	mv "$T/bin/$1.new" "$T/bin/$1"
}

imitate modprobe 'exit 0'
# Only the gateway has the plugin, which the sanitizer has to come before.
imitate nbdkit "exec env PATH=$real_path LD_PRELOAD=\"\$NDIO_PRELOAD\" nbdkit \"\$@\""

gateways() {
	pgrep -f "^[^ ]*nbdkit --unix $T/run/" || true
}

nothing_left() {
	gateways
	ls "$T/run"
	[ -z "$(gateways)" ] && [ -z "$(ls "$T/run")" ]
}

stop_gateways() {
	local pid

	for pid in $(gateways); do
		kill -KILL "$pid"
	done
	clean_up
}
trap stop_gateways EXIT

# attach ARG...: with what it says in $said, on one line, and $status.
attach() {
	said=$(timeout 100 "$ndio" attach "$@" 2>&1 | grep -v "lock=on: the server can't")
	status=${PIPESTATUS[0]}
}

# Ready for a signal, or not: but for at most a minute.
await() {
	local deadline=$((SECONDS + 60))

	until "$@"; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.05
	done
}

make_luks2 "$T/volume" 20M
start_nbdkit disk "$NDIO_PLUGIN" "$T/volume" || exit 1
disk=$(uri disk)

# ---- what it keeps ----

imitate nbd-client '
gateway=$(pgrep -f "^[^ ]*nbdkit --unix $2 ")
ps -o sid= -p $PPID >$T/our.session
ps -o sid= -p "$gateway" >$T/session
readlink /proc/$gateway/fd/* >$T/files
readlink /proc/$gateway/cwd >>$T/files
echo "Error: no such luck" >&2
echo Exiting.
exit 1'
exec {lock}>"$T/lockfile"
said=$("$ndio" attach --key-fd 9 "$disk" 2>&1 9<"$T/pass")
exec {lock}>&-
like "nbd-client's error is the reason" "$said" \
	"/dev/nbd0: connecting the kernel \(nbd-client\): no such luck$"
ok "leaves nothing" nothing_left
ok "the gateway has a session of its own" not cmp "$T/session" "$T/our.session"
is "and nothing of ours is open" "$(grep "^$T/" "$T/files" | grep -v "^$T/run/nbd0/socket")" ""
ok "(it was looked at)" grep -q memfd:ndio-key "$T/files"

# ---- keys ----

: >"$T/empty"
attach --key-file "$T/empty" "$disk"
like "an empty key is a wrong one" "$said" "^ndio: starting the gateway: .*no key slot opens with"
ok "an empty key: leaves nothing" nothing_left
attach --key-file "$T/pass" --slot 0 "$disk"
like "a key slot that opens" "$said" "no such luck$"
attach --key-file "$T/pass" --slot 3 "$disk"
like "a key slot that isn't in use" "$said" "starting the gateway: .*key slot 3 is not in use"
printf '%s\n' "nbd0 $disk $T/pass slot=2" >"$T/tab"
attach --tab-file "$T/tab" nbd0
like "a line's key slot" "$said" "starting the gateway: .*key slot 2 is not in use"
make_luks2 "$T/data" 2M --header "$T/header"
attach --key-file "$T/pass" "$T/header"
like "a detached header is no disk" "$said" "starting the gateway: .*its data are elsewhere"
"$ndio" attach --key-file "$T/pass" "$disk" 2>"$T/err" <&- >&-
like "without standard input and output" "$(cat "$T/err")" "no such luck$"

# ---- interrupts ----

# From its start on the server answers nothing, to nobody.
imitate nbdkit "env PATH=$real_path LD_PRELOAD=\"\$NDIO_PRELOAD\" nbdkit \"\$@\"
status=\$?
kill -STOP ${server_pids[disk]}
: >$T/started
exit \$status"
"$ndio" attach --key-file "$T/pass" "$disk" >"$T/out" 2>&1 &
pid=$!
ok "the gateway starts, and doesn't answer" await test -e "$T/started"
sleep 0.5
before=$SECONDS
kill -TERM $pid
wait $pid
is "interrupted: status, of the signal" $? 143
kill -CONT "${server_pids[disk]}"
like "interrupted: message" "$(cat "$T/out")" "starting the gateway: interrupted"
ok "interrupted: at once" test $((SECONDS - before)) -lt 20
ok "interrupted: leaves nothing" nothing_left

# ---- killed ----

imitate nbdkit "exec env PATH=$real_path LD_PRELOAD=\"\$NDIO_PRELOAD\" nbdkit \"\$@\""
imitate nbd-client 'kill -KILL $PPID; sleep 100'
(timeout 100 "$ndio" attach --key-file "$T/pass" "$disk" nbd5; :) >/dev/null 2>&1
is "killed: the gateway is left" "$(gateways | wc -l)" 1
ok "detach clears it away" "$ndio" detach nbd5
ok "killed: nothing is left then" nothing_left
(timeout 100 "$ndio" attach --key-file "$T/pass" "$disk" nbd5; :) >/dev/null 2>&1
is "killed again: the gateway is left" "$(gateways | wc -l)" 1
imitate nbd-client 'exit 1'
attach --key-file "$T/pass" "$disk" nbd5
ok "so does the next attach" nothing_left

# ---- two at once ----

imitate nbd-client ': >$T/held; until [ -e $T/go ]; do sleep 0.05; done; exit 1'
"$ndio" attach --key-file "$T/pass" "$disk" nbd0 >"$T/out" 2>&1 &
pid=$!
ok "one is at work" await test -e "$T/held"
attach --key-file "$T/pass" "$disk" nbd0
like "a second one isn't let in" "$said" "nbd0: another command is at work on it"
said=$("$ndio" detach nbd0 2>&1)
like "nor is detach" "$said" "nbd0: another command is at work on it"
said=$("$ndio" detach --force nbd0 2>&1)
like "nor by force" "$said" "nbd0: another command is at work on it"
is "its gateway lives" "$(gateways | wc -l)" 1
: >"$T/go"
attach --key-file "$T/pass" "$disk"
like "without a name the next device is taken" "$said" "/dev/nbd[01]: connecting the kernel"
wait $pid
ok "two: nothing is left" nothing_left
done_testing
