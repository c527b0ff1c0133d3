# The commands of doc/engines.md, run in $T: `. tests/lib/engines.sh` after lib.sh, command.sh and
# document.sh.
# shellcheck shell=bash disable=SC2034,SC2154

document=$root/doc/engines.md
nobody_reads="nobody reads this in the engine"

mkdir "$T/etc"
(umask 077 && cp "$T/pass" "$T/etc/disk.key")
{ head -c 9M /dev/urandom && yes "$nobody_reads" | head -c 1M; } >"$T/image.raw"
cd "$T" || exit

# step NAME [SED-SCRIPT]: the page's folders are in $T, and its disks are small.
step() {
	run_document "$1" "s|/etc/ndio/|$T/etc/|g; s|/run/|$T/|g; s|/srv/|$T/|g; s|20G|64M|g; ${2:-}"
}

# must NAME COMMAND...: as ok; what follows rests on it.
must() {
	ok "$@" && return
	done_testing
	exit 1
}

# socket_name ARG...: what stands before .sock after --socket or --unix: the server's name in tests.
socket_name() {
	local name

	while [ "$1" != --socket ] && [ "$1" != --unix ]; do shift; done
	name=${2##*/}
	echo "${name%.sock}"
}

# The programs that the page starts: in the foreground, as children of the shell, and what was built.

qemu-nbd() {
	[ "$1" = --fork ] || { command qemu-nbd "$@" && return; }
	# By env, the program and not this function, in a shell that a signal would end alone.
	start_server "$(socket_name "$@")" env qemu-nbd "${@:2}"
}

ndio() {
	case "$1 $2" in
	"serve --background") start_server "$(socket_name "$@")" "$NDIO_BUILD/ndio-serve" "${@:3}" ;;
	format\ *) "$ndio" format "${cheap[@]}" "${@:2}" ;;
	*) "$ndio" "$@" ;;
	esac
}

nbdkit() {
	local args=() arg

	for arg; do
		[ "$arg" != ndio ] || arg=$NDIO_PLUGIN
		args+=("$arg")
	done
	start_server "$(socket_name "$@")" env LD_PRELOAD="$(preload_for "${args[@]}")" nbdkit --foreground \
		--exit-with-parent "${args[@]}"
}

same_back() {
	cmp -n "$(stat -c %s "$T/image.raw")" "$T/image.raw" "${1:-$T/back.raw}"
}

# kill_server NAME: at once.
kill_server() {
	{
		kill -KILL "${server_pids[$1]}"
		wait "${server_pids[$1]}"
	} 2>/dev/null
	unset "server_pids[$1]"
	rm -f "$T/$1.sock"
}

# soon COMMAND...: once it succeeds, within two minutes.
soon() {
	local deadline=$((SECONDS + 120))

	until "$@" >"$T/soon.out" 2>&1; do
		[ $SECONDS -lt $deadline ] || { cat "$T/soon.out"; return 1; }
		sleep 0.1
	done
}

# Load: fio writes and reads back what it wrote, time and again, until it is told.

start_load() { # NAME
	rm -f "$T/enough" "$T/failed"
	: >"$T/rounds"
	load_rounds "$1" &
	load=$!
}

load_rounds() {
	until [ -e "$T/enough" ]; do
		fio --name=verify --thread --ioengine=nbd --uri="$(uri "$1")" --rw=randrw \
			--bssplit=4k/60:12k/20:64k/20 --iodepth=16 --offset=16m --size=4m --verify=crc32c \
			--verify_fatal=1 --verify_state_save=0 >"$T/fio.out" 2>&1 || break
		echo >>"$T/rounds"
	done
	[ -e "$T/enough" ] || : >"$T/failed"
}

# load_goes_on [ROUNDS=1]: so many whole ones, begun from here on.
load_goes_on() {
	local now

	now=$(wc -l <"$T/rounds")
	soon load_has $((now + 1 + ${1:-1}))
}

load_has() {
	[ ! -e "$T/failed" ] || { cat "$T/fio.out"; return 0; }
	[ "$(wc -l <"$T/rounds")" -ge "$1" ]
}

end_load() {
	: >"$T/enough"
	wait "$load"
	[ ! -e "$T/failed" ] || { cat "$T/fio.out"; return 1; }
}
