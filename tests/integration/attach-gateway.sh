#!/bin/bash
# The gateway of `ndio attach`, up to where the kernel would get it: what it keeps of its caller,
# and that nothing of it is left when attach fails, is interrupted or killed. In place of
# nbd-client and modprobe, which need the kernel's module, are programs that look and then fail.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/damage.sh
. "$root/tests/lib/damage.sh"

[ "$(id -u)" = 0 ] || skip_all "only root can attach"

export NDIO_RUN_DIR=$T/run T
mkdir "$T/bin"
export PATH=$T/bin:$PATH

# imitate PROGRAM SCRIPT
imitate() {
	printf '#!/bin/bash\n%s\n' "$2" >"$T/bin/$1.new"
	chmod 755 "$T/bin/$1.new"
	mv "$T/bin/$1.new" "$T/bin/$1"
}

# The server that the command finds is the one beside it.
imitate modprobe 'exit 0'
imitate ndio-serve "exec \"$NDIO_BUILD/ndio-serve\" \"\$@\""
cp "$ndio" "$T/bin/ndio"
ndio=$T/bin/ndio

gateways() {
	pgrep -f "^[^ ]*ndio-serve --background --socket $T/run/" || true
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

# attach ARG...: with what it says in $said, but for what depends on the machine.
attach() {
	said=$(timeout 100 "$ndio" attach "$@" 2>&1 | grep -v -e "--lock: the server can't" | without_limits)
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
gateway=$(pgrep -f "^[^ ]*ndio-serve --background --socket $2 ")
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
ok "(it was looked at)" grep -q eventpoll "$T/files"

# ---- what it tells of its server ----

# While the server is stopped a read would wait for it.
imitate nbd-client "
list() {
	\"$ndio\" list --json | tr -d ' \n' | sed 's/.*\"server\"://' >>$T/listed
	echo >>$T/listed
}

list_until() {
	local deadline=\$((SECONDS + 60))

	until list; tail -n 1 $T/listed | grep \$1 || [ \$SECONDS -gt \$deadline ]; do
		:
	done
}

list
kill -KILL ${server_pids[disk]}
list_until waiting
\"$ndio\" list >$T/table
list_until given
exit 1"
attach --key-file "$T/pass" --reconnect 6 "$disk"
is "the server is up" "$(head -n 1 "$T/listed")" \
	'{"state":"up","away":0,"times_lost":0,"unflushed":0,"survives":"fenced"}}]'
like "the server is waited for" "$(grep -m 1 waiting "$T/listed")" \
	'^."state":"waiting","away":[0-6],"times_lost":1,"unflushed":0,"survives":"fenced"...'
like "the server is given up" "$(grep given "$T/listed")" \
	'^."state":"givenup","away":[0-9]+,"times_lost":1,"unflushed":0,"survives":"fenced"...$'
like "for people" "$(cat "$T/table")" \
	"SURVIVES +LOST +UNFLUSHED +INTEGRITY +LOCATOR"$'\n'"nbd0 .* fenced +1 +0 bytes +- +nbd\+unix:.*/disk.sock$"
{
	wait "${server_pids[disk]}"
	unset "server_pids[disk]"
} 2>/dev/null
start_nbdkit disk "$NDIO_PLUGIN" "$T/volume" || exit 1
imitate nbd-client "\"$ndio\" list --json >$T/listed; echo 'Error: no such luck' >&2; exit 1"
attach --key-file "$T/pass" --reconnect 0 "$disk"
is "one that isn't waited for: nothing is told" "$(grep -c server "$T/listed")" 0
imitate nbd-client 'echo "Error: no such luck" >&2; exit 1'

# ---- what it tells of a disk with integrity ----

# found NAME DISK ATTACH-OPTION...: what is listed of it, before and after its blocks at 1 MiB were read; and, without a
# word of what changes, what is listed for people.
found() {
	local name=$1 disk=$2

	shift 2
	rm -f "$T/found" "$T/table"
	attach --key-file "$T/pass" "$@" "$disk"
	like "$name: is attached, up to the kernel" "$said" "no such luck$"
	sed 's/.*"integrity": *{\([^}]*\)}.*/\1/; s/ //g' "$T/found" >"$T/found.short"
}

imitate nbd-client "
list() {
	\"$ndio\" list --json | tr -d '\n' | tr -s ' ' >>$T/found
	echo >>$T/found
}

list
for n in 0 1 2; do
	/usr/bin/python3 -m nbd -u \"nbd+unix:///?socket=\$2\" -c \"h.pread(4096, (1 << 20) + \$n * 4096)\"
done 2>/dev/null
list
\"$ndio\" list >$T/table
echo 'Error: no such luck' >&2
exit 1"
make_tagged() { # FORMAT-OPTION...
	rm -f "$T/tagged" "$T/trust"
	"$ndio" format --size 22M --integrity aead --key-file "$T/pass" "${cheap[@]}" "$@" "$T/tagged"
}

ok "a disk with integrity" make_tagged --trust "$T/trust"
cp "$T/tagged" "$T/tagged.old"
found "nothing found" "$T/tagged" --trust "$T/trust"
is "nothing found" "$(cat "$T/found.short")" '"trusted":true,"bad_blocks":0,"bad_reads":0,"stale_areas":0
"trusted":true,"bad_blocks":0,"bad_reads":0,"stale_areas":0'
like "nothing found, for people" "$(cat "$T/table")" "UNFLUSHED +INTEGRITY +LOCATOR"$'\n'"nbd0 .* - +good +$T/tagged$"
flip "$T/tagged" $((1 << 20))
flip "$T/tagged" $(((1 << 20) + 8192))
found "two blocks" "$T/tagged"
is "two blocks, without a trust file" "$(cat "$T/found.short")" '"trusted":false,"bad_blocks":0,"bad_reads":0,"stale_areas":0
"trusted":false,"bad_blocks":2,"bad_reads":2,"stale_areas":0'
like "two blocks, for people" "$(cat "$T/table")" "nbd0 .* 2 bad blocks +$T/tagged$"
flip "$T/tagged" 0
found "the first block" "$T/tagged" --trust "$T/trust"
like "the first block: a warning" "$said" "^ndio: warning: the disk's first block can't be read: it was changed, or never written"
like "the first block: is listed" "$(cat "$T/found.short")" '"bad_blocks":1,"bad_reads":2,.*"bad_blocks":3,"bad_reads":5,'
like "the first block: for people" "$(cat "$T/table")" "nbd0 .* 3 bad blocks "
ok "one that is never wiped" make_tagged --integrity-no-wipe
found "never wiped" "$T/tagged"
like "never wiped: a warning" "$said" "^ndio: warning: the disk's first block can't be read: it was changed, or never written"
ok "and a trusted one" make_tagged --trust "$T/trust"
cp "$T/tagged" "$T/tagged.old"
random "$T/data" 70000
ok "is written to" "$ndio" copy --overwrite --dst-key-file "$T/pass" --dst-trust "$T/trust" "$T/data" "$T/tagged"
dd if="$T/tagged.old" of="$T/tagged" bs=1M skip=16 seek=16 conv=notrunc status=none
attach --key-file "$T/pass" --trust "$T/trust" "$T/tagged"
like "an older disk isn't attached" "$said" \
	"^ndio: starting the gateway: the disk is an older one, or was changed without the trust file; its log"
ok "an older disk: nothing is left" nothing_left
imitate nbd-client 'echo "Error: no such luck" >&2; exit 1'

# ---- what it tells of itself ----

imitate nbd-client '
curl -sS --max-time 20 --unix-socket $T/stats http://localhost/metrics |
	grep ^ndio_waiting >$T/statistics
echo "Error: no such luck" >&2
exit 1'
statistics() { # NAME ATTACH-ARG...
	rm -f "$T/statistics"
	attach "${@:2}"
	is "$1: its server is there" "$(cat "$T/statistics")" "ndio_waiting{export=\"$disk\"} 0"
}

# Where attaching fails the gateway is killed, and its socket is left for the next one to replace.
statistics "statistics" --key-file "$T/pass" --metrics "$T/stats" "$disk"
echo "nbd0 $disk $T/pass metrics=$T/stats" >"$T/tab"
statistics "statistics of a line" --tab-file "$T/tab" nbd0
attach --key-file "$T/pass" --metrics "$T/none/stats" "$disk"
like "statistics that can't be told" "$said" \
	"^ndio: starting the gateway: metrics: $T/none/stats: can't listen: No such file"
imitate nbd-client 'echo "Error: no such luck" >&2; exit 1'

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
"$ndio" key dump --force --key-file "$T/pass" "$T/volume" "$T/volume.key"
imitate nbd-client '
gateway=$(pgrep -f "^[^ ]*ndio-serve --background --socket $2 ")
tr "\0" " " </proc/$gateway/cmdline >$T/command
qemu-img dd -f raw -O raw bs=1M count=1 "if=nbd+unix:///?socket=$2" "of=$T/first" >&2
echo "Error: no such luck" >&2
exit 1'
attach --volume-key-file "$T/volume.key" "$disk"
like "the volume key opens it" "$said" "no such luck$"
is "to the same plaintext" "$(cksum <"$T/first")" "$("$ndio" copy --src-key-file "$T/pass" "$disk" - 2>/dev/null |
	head -c 1M | cksum)"
ok "it isn't seen by ps" grep -q -- "--volume-key-file=/proc/self/fd/" "$T/command"
imitate nbd-client 'echo "Error: no such luck" >&2; exit 1'
attach --volume-key-file "$T/pass" "$disk"
like "a passphrase isn't one" "$said" "starting the gateway: .*this isn't its volume key"
"$ndio" attach --key-file "$T/pass" "$disk" 2>"$T/err" <&- >&-
like "without standard input and output" "$(cat "$T/err")" "no such luck$"

# ---- a passphrase that is typed ----

# types LINES ARG...: attach, on a terminal; $said is what it says, and its status.
types() {
	said=$(
		terminal "$1" "$ndio" attach "${@:2}" | grep -v -e "--lock: the server can't"
		echo "status ${PIPESTATUS[0]}"
	)
}

# Ends when its first client leaves: whoever looks first has nobody left to attach.
one_shot() { # FILE
	start_server one qemu-nbd --socket "$T/one.sock" --pid-file "$T/one.pid" -f raw "$1"
}

# It has been connected to, and has ended by itself.
has_ended() {
	await not kill -0 "${server_pids[one]}" && wait "${server_pids[one]}"
	unset "server_pids[one]"
}

tries() { # NAME REGEX TYPED...
	local name=$1 regex=$2 pass lines=''

	shift 2
	for pass; do
		lines+="noecho Passphrase for $one: => $pass"$'\n'
	done
	one_shot "$T/copy"
	types "$lines" "$one"
	like "$name" "$said" "$regex"
	ok "$name: the one-shot server ends" has_ended
	ok "$name: nothing is left" nothing_left
}

one="nbd+unix:///?socket=$T/one.sock"
pass=$(cat "$T/pass")
cp "$T/volume" "$T/copy"
again='no key slot opens with this passphrase: try again'
tries "typed right" "deriving the key.*no such luck" "$pass"
tries "typed wrong twice" "($again.*){2}no such luck" wrong "wrong, too" "$pass"
tries "typed wrong three times" "$again.*$again.*no key slot opens with this passphrase"$'\n'"status 1" \
	wrong "wrong, too" wrong
tries "typed nothing" "no key slot opens with an empty passphrase: try again.*no such luck" "" "$pass"
tries "interrupted at the prompt" "ndio: interrupted"$'\n'"status 130" ^C
tries "interrupted at the second one" "$again.*ndio: interrupted"$'\n'"status 130" wrong ^C
cp "$T/copy" "$T/slow"
/usr/bin/python3 "$root/tests/tools/edit-luks2.py" "$T/slow" \
	"json['keyslots']['0']['kdf']['iterations'] = (1 << 31) - 1"
one_shot "$T/slow"
types "Passphrase for $one: => $pass"$'\n'"deriving keys may take 2147 seconds => ^C" \
	--max-kdf-time 4000 "$one"
like "what takes long is told, and interrupted" "$said" "ndio: interrupted"$'\n'"status 130"
ok "what takes long: the one-shot server ends" has_ended
ok "what takes long: nothing is left" nothing_left
truncate -s 1M "$T/empty.disk"
one_shot "$T/empty.disk"
types "" "$one"
like "no LUKS: nothing is asked" "$said" "^ndio: starting the gateway: [^"$'\n'"]*not a LUKS volume"$'\n'"status 1"
ok "no LUKS: the one-shot server ends" has_ended
types "" "$one"
like "no server: nothing is asked" "$said" "^ndio: starting the gateway: [^"$'\n'"]*No such file"
freeze "${server_pids[disk]}"
types "" --answer-timeout 1 "$disk"
like "a silent server: nothing is asked" "$said" "^ndio: starting the gateway: [^"$'\n'"]*answer"
"$ndio" attach "$disk" >"$T/out" 2>&1 &
pid=$!
ok "a silent server: the gateway is looking" await pgrep -f "^[^ ]*ndio-serve --background --socket $T/run/"
before=$SECONDS
kill -TERM $pid
wait $pid
is "a silent server: interrupted: status, of the signal" $? 143
ok "a silent server: interrupted: at once" test $((SECONDS - before)) -lt 20
kill -CONT "${server_pids[disk]}"
ok "a silent server: nothing is left" nothing_left
said=$(setsid "$ndio" attach "$disk" 2>&1)
like "no terminal" "$said" "^ndio: no terminal to ask for the key at"
types "noecho Passphrase for $T/copy: => $pass" "$T/copy"
like "typed for a file" "$said" "no such luck"

# ---- a server that isn't there yet ----

# A line of the table is for the boot, where it may come later than we do.
late="nbd+unix:///?socket=$T/late.sock"
waits="late.sock: .*: waiting for the server, [0-9]+ seconds? at the most"
await_said() {
	await grep -qsE "$waits" "$T/out"
}

echo "nbd0 $late $T/pass reconnect=60" >"$T/tab"
"$ndio" attach --tab-file "$T/tab" nbd0 >"$T/out" 2>&1 &
pid=$!
ok "no server at boot: it is waited for, which is told" await_said
start_nbdkit late "$NDIO_PLUGIN" "$T/volume" lock-image=off
wait $pid
like "no server at boot: it comes" "$(cat "$T/out")" "no such luck$"
is "no server at boot: it was told once" "$(grep -cE "$waits" "$T/out")" 1
stop_server late
echo "nbd0 $late $T/pass reconnect=1" >"$T/tab"
attach --tab-file "$T/tab" nbd0
like "no server at boot, nor later" "$said" "$waits"$'\n'"ndio: starting the gateway: .*late.sock: "
echo "nbd0 $late $T/pass" >"$T/tab"
rm "$T/out" # what it said before would do
"$ndio" attach --tab-file "$T/tab" nbd0 >"$T/out" 2>&1 &
pid=$!
ok "no server at boot: it is waited for again" await_said
kill -TERM $pid
wait $pid
is "no server at boot: interrupted" $? 143
echo "nbd0 $late $T/pass reconnect=0" >"$T/tab"
attach --tab-file "$T/tab" nbd0
like "no server at boot, and reconnect=0" "$said" "^ndio: starting the gateway: [^"$'\n'"]*late.sock: "
ok "no server at boot: nothing is left" nothing_left

# ---- interrupts ----

# From its start on the server answers nothing, to nobody.
imitate ndio-serve "$(declare -f freeze)
\"$NDIO_BUILD/ndio-serve\" \"\$@\"
status=\$?
freeze ${server_pids[disk]}
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

imitate ndio-serve "exec \"$NDIO_BUILD/ndio-serve\" \"\$@\""
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
