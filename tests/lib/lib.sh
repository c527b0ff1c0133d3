# Helpers for tests that are shell programs: `. tests/lib/lib.sh` first. They print TAP.
#
# A private folder, $T, and every server that was started here go away with the shell. Call
# the helpers in the test's own shell, not in $(...) or a pipe: a server that was started
# there ends there. `make check` sets the NDIO_ variables; run by hand, build/ is taken.
# shellcheck shell=bash
set -u
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
: "${NDIO_BUILD:=$root/build}" "${NDIO_SANITIZE:=}" "${NDIO_PRELOAD:=}"
: "${NDIO_PLUGIN:=$NDIO_BUILD/nbdkit-ndio-plugin.so}"

T=$(mktemp -d "${TMPDIR:-/tmp}/ndio-test.XXXXXX") || exit 1
declare -A server_pids=()
test_count=0
test_failures=0

# The passphrase of every volume made here; no newline, so its file is a key file as well.
(umask 077 && printf 'correct horse battery staple' >"$T/pass")

clean_up() {
	local pid

	{
		for pid in "${server_pids[@]}"; do
			kill -KILL "$pid"
		done
		wait
	} 2>/dev/null
	rm -rf --one-file-system "$T"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# TAP

# plan COUNT, first; or done_testing, last.
plan() {
	echo "1..$1"
}

done_testing() {
	echo "1..$test_count"
}

# skip_all REASON: ends the test.
skip_all() {
	echo "1..0 # SKIP $1"
	exit 0
}

diag() {
	printf '%s\n' "$*" | sed 's/^/# /' >&2
}

result() { # STATUS NAME
	test_count=$((test_count + 1))
	[ "$1" = 0 ] || {
		test_failures=$((test_failures + 1))
		printf 'not '
	}
	echo "ok $test_count - $2"
	return "$1"
}

# ok NAME COMMAND...: the command succeeds. What it printed is shown if it doesn't.
ok() {
	local name=$1 status

	shift
	"$@" >"$T/ok.out" 2>&1
	status=$?
	result "$status" "$name" || {
		diag "status $status of: $*"
		diag "$(tail -n 40 "$T/ok.out")"
		return 1
	}
}

# not COMMAND...: for ok, where the command has to fail, but not by a sanitizer's finding
# (99), a timeout or a signal; nor grep or cmp because they couldn't read it (2).
not() {
	local status most=98

	"$@"
	status=$?
	case $1 in
	grep | cmp) most=1 ;;
	esac
	[ "$status" -gt 0 ] && [ "$status" -le "$most" ]
}

# is NAME GOT WANTED
is() {
	if [ "$2" = "$3" ]; then
		result 0 "$1"
	else
		result 1 "$1"
		diag "got:    $2"
		diag "wanted: $3"
		return 1
	fi
}

# like NAME GOT REGEX
like() {
	if [[ $2 =~ $3 ]]; then
		result 0 "$1"
	else
		result 1 "$1"
		diag "got:          $2"
		diag "wanted match: $3"
		return 1
	fi
}

# skip REASON [COUNT]: instead of COUNT tests.
skip() {
	local i

	for ((i = 0; i < ${2:-1}; i++)); do
		test_count=$((test_count + 1))
		echo "ok $test_count # SKIP $1"
	done
}

# What this machine has

# has_io_uring: it is refused in most containers, for instance.
has_io_uring() {
	/usr/bin/python3 -c '
import ctypes, sys
io_uring_setup, params = 425, ctypes.create_string_buffer(120)
sys.exit(ctypes.CDLL(None).syscall(io_uring_setup, 1, params) < 0)'
}

# without_limits [-i] [FILE]: sed that leaves out what ndio says where little memory may be locked,
# which goes for most users, or where io_uring is refused.
without_limits() {
	sed -e "/buffers can't be locked in memory/d" -e '/: io_uring is refused (/d' "$@"
}

# Servers

# start_server NAME COMMAND...: for a server in the foreground that writes $T/NAME.pid once it
# listens on $T/NAME.sock. Its output goes to $T/NAME.log, which is shown if it doesn't start;
# the status is its own then.
start_server() {
	local name=$1 pid status deadline=$((SECONDS + 60))

	shift
	rm -f "$T/$name.pid" "$T/$name.sock"
	"$@" >"$T/$name.log" 2>&1 </dev/null &
	pid=$!
	server_pids[$name]=$pid
	until [ -s "$T/$name.pid" ]; do
		if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then
			kill -KILL "$pid" 2>/dev/null
			wait "$pid" 2>/dev/null
			status=$?
			unset "server_pids[$name]"
			diag "$name didn't start: $(tail -n 40 "$T/$name.log")"
			[ "$status" != 0 ] || status=100
			return "$status"
		fi
		sleep 0.02
	done
}

# preload_for NBDKIT-ARG...: what nbdkit has to load first.
preload_for() {
	# A server that doesn't load our plugin has only its own leaks to tell of.
	case " $* " in
	*" $NDIO_PLUGIN "*) echo "$NDIO_PRELOAD" ;;
	esac
}

# start_nbdkit NAME ARG...: for instance start_nbdkit disk "$NDIO_PLUGIN" "$T/disk.luks"
start_nbdkit() {
	local name=$1

	shift
	start_server "$name" env LD_PRELOAD="$(preload_for "$@")" nbdkit --foreground \
		--exit-with-parent --unix "$T/$name.sock" --pidfile "$T/$name.pid" "$@"
}

# start_stock NAME ARG...: nbdkit without a plugin of ours, and so without a sanitizer.
start_stock() {
	NDIO_PRELOAD='' start_nbdkit "$@"
}

# start_serve NAME ARG...: for instance start_serve disk --key-file "$T/pass" "$T/disk.luks"
start_serve() {
	local name=$1

	shift
	start_server "$name" "$NDIO_BUILD/ndio-serve" --socket "$T/$name.sock" \
		--pid-file "$T/$name.pid" "$@"
}

# The two doors: nbdkit with our plugin, and `ndio serve`. What holds for a server, whichever it is, is
# tested at that which $DOOR says.
: "${DOOR:=nbdkit}"

# door_command NBDKIT-ARG...: sets $door to a command that serves. The arguments are those of nbdkit with
# the plugin, also for `ndio serve`. A passphrase's file has no newline there.
door_command() {
	door=(nbdkit "$NDIO_PLUGIN" "$@")
	[ "$DOOR" = serve ] || return 0
	door=("$NDIO_BUILD/ndio-serve")
	while [ $# -gt 0 ]; do
		case $1 in
		-f | --foreground | --exit-with-parent | --threads=* | --tls=require | discard=off) ;;
		-D | --threads) shift ;;
		--unix) door+=(--socket) ;;
		--pidfile) door+=(--pid-file) ;;
		--ipaddr) door+=(--listen "$2:$4") && shift 3 ;;
		--readonly) door+=(--read-only) ;;
		file=* | uri=*) door+=("${1#*=}") ;;
		passphrase=+*) door+=(--key-file "${1#*+}") ;;
		keyfile=*) door+=(--key-file "${1#*=}") ;;
		answer=*) door+=(--answer-timeout "${1#*=}") ;;
		discard=on) door+=(--discard) ;;
		lock-image=off) door+=(--no-lock-image) ;;
		[a-z]*=*) door+=("--$1") ;;
		*) door+=("$1") ;;
		esac
		shift
	done
}

# start_door NAME ARG...: for instance start_door disk "$T/disk.luks" passphrase=+"$T/pass"
start_door() {
	local name=$1

	shift
	door_command --foreground --exit-with-parent --unix "$T/$name.sock" --pidfile "$T/$name.pid" "$@"
	start_server "$name" env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}"
}

# notices NAME: what a server has said, but for where it listens, and for a report of which there are no findings.
notices() {
	local log=$T/$1.log report='/^=\{40,\}$/d; /ERROR: LeakSanitizer/,/^SUMMARY: /d'

	[ -z "$(findings "$log")" ] || report=
	sed "/: listening on /d; $report" "$log"
}

# start_qemu_nbd NAME ARG...
start_qemu_nbd() {
	local name=$1

	shift
	start_server "$name" qemu-nbd --persistent --shared 0 --socket "$T/$name.sock" \
		--pid-file "$T/$name.pid" "$@"
}

# start_nbd_server NAME FILE [LINE...]: the file is the export "disk"; lines are of its section,
# those of $nbd_server of the server's. It only serves many connections as a daemon, which is none
# of the shell's children.
nbd_server=()
start_nbd_server() {
	local name=$1 deadline=$((SECONDS + 20))

	rm -f "$T/$name.sock" "$T/$name.pid"
	printf '%s\n' '[generic]' "unixsock = $T/$name.sock" "user = $(id -un)" "group = $(id -gn)" \
		"${nbd_server[@]}" '[disk]' "exportname = $2" "${@:3}" >"$T/$name.conf"
	nbd-server -C "$T/$name.conf" -p "$T/$name.pid" >"$T/$name.log" 2>&1
	until [ -s "$T/$name.pid" ] && [ -S "$T/$name.sock" ]; do
		[ $SECONDS -le $deadline ] || return
		sleep 0.02
	done
	server_pids[$name]=$(cat "$T/$name.pid")
}

# end_nbd_server NAME: returns when it has removed its process number, as it does at its end: that of
# another server would have the same name.
end_nbd_server() {
	local deadline=$((SECONDS + 60))

	kill "${server_pids[$1]}"
	unset "server_pids[$1]"
	while [ -e "$T/$1.pid" ] && [ "$SECONDS" -le "$deadline" ]; do
		sleep 0.02
	done
}

# What sanitizers said in a log, by paragraphs, but for memory that nbdkit's own code allocated:
# it leaks that of connections which it is stopped with.
findings() { # FILE
	awk -v RS= -v ORS='\n\n' '
		/(Direct|Indirect) leak of / {
			if ($0 !~ /\n *#1 [^\n]*\/nbdkit\+0x/)
				print
			next
		}
		/ERROR: AddressSanitizer|WARNING: ThreadSanitizer|runtime error:/ { print }
		/LeakSanitizer has encountered/ { print }' "$1"
}

# stop_server NAME: it ends when asked, with success, and no sanitizer found anything.
stop_server() {
	local name=$1 pid=${server_pids[$1]} log=$T/$1.log status deadline=$((SECONDS + 60))

	kill -TERM "$pid" 2>/dev/null
	while kill -0 "$pid" 2>/dev/null; do
		[ "$SECONDS" -le "$deadline" ] || kill -KILL "$pid"
		sleep 0.02
	done
	wait "$pid" 2>/dev/null
	status=$?
	unset "server_pids[$name]"
	if [ "$status" = 99 ] && grep -q 'detected memory leaks' "$log"; then
		status=0 # unless there are findings
	fi
	if [ "$status" != 0 ] || [ -n "$(findings "$log")" ]; then
		diag "$name ended with status $status: $(tail -n 80 "$log")"
		return 1
	fi
}

# freeze PID: returns when all its threads have stopped, each of which only does when it next runs: until
# then a server may answer. kill -CONT lets it go on.
freeze() {
	local deadline=$((SECONDS + 20))

	kill -STOP "$1" || return
	while grep -hs '^State:' "/proc/$1/task"/*/status | grep -qv 'T (stopped)'; do
		[ $SECONDS -lt $deadline ] || return
		sleep 0.01
	done
}

# port_of NAME: the TCP port that it listens on, over IPv4.
port_of() {
	local socket port

	for socket in "/proc/${server_pids[$1]}/fd"/*; do
		socket=$(readlink "$socket")
		[[ $socket = socket:* ]] || continue
		port=$(awk -v inode="${socket//[^0-9]/}" '$10 == inode && $4 == "0A" {
			print substr($2, index($2, ":") + 1) }' /proc/net/tcp)
		[ -z "$port" ] || { echo $((16#$port)) && return; }
	done
	return 1
}

# What a process has that holds keys is closed to all but root, also to who runs it: its descriptors,
# its maps and memory, its environment. Nothing that can't be seen may be taken for nothing.
may_look() { # PID
	[ -r "/proc/$1/fd" ]
}

# descriptors NAME [PORT]: how many a server has. Where only root may look, how many sockets it has at
# the path or port where it listens, which the kernel tells everybody.
descriptors() {
	local pid=${server_pids[$1]}

	if may_look "$pid"; then
		find "/proc/$pid/fd" -mindepth 1 | wc -l
	elif [ $# = 1 ]; then
		awk -v path="$T/$1.sock" '$8 == path { n++ } END { print n + 0; exit !n }' /proc/net/unix
	else
		awk -v port="$(printf ':%04X' "$2")" '$2 ~ port "$" && $10 > 0 { n++ }
			END { print n + 0; exit !n }' /proc/net/tcp
	fi
}

# uri NAME [EXPORT]
uri() {
	echo "nbd+unix:///${2:-}?socket=$T/$1.sock"
}

# Volumes, opened by $T/pass; key derivation is as cheap as cryptsetup lets it be.

# make_luks2 FILE SIZE [CRYPTSETUP-OPTION...]; make_luks1 likewise.
make_luks2() {
	make_luks luks2 "$@"
}

make_luks1() {
	make_luks luks1 "$@"
}

make_luks() {
	local type=$1 file=$2 size=$3

	shift 3
	truncate -s "$size" "$file" &&
		cryptsetup --batch-mode luksFormat --type "$type" --pbkdf pbkdf2 \
			--pbkdf-force-iterations 1000 "$@" "$file" "$T/pass"
}
