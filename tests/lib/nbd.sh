# More helpers, for tests that talk NBD and look at how nbdkit starts: `. tests/lib/nbd.sh` after
# lib.sh.
# shellcheck shell=bash

# The program of this name takes whichever python3 comes first in PATH; libnbd's module is
# Debian's.
nbdsh() {
	/usr/bin/python3 -m nbd "$@"
}

# aborts_on_leave: nbdkit before 1.34 does, whatever the plugin, when a client leaves while two of
# its threads still answer it (connections.c: raw_send_socket: Assertion `sock >= 0'). One thread
# a connection, --threads=1, is safe there.
aborts_on_leave() {
	local major minor

	IFS=' .' read -r _ major minor _ < <(nbdkit --version)
	[ "$major" = 1 ] && [ "$minor" -lt 34 ]
}

# What every piece of Python below can use.
prelude='
import os, random

# The same bytes for the same seed.
def data(count, seed=0):
    return random.Random(seed).randbytes(count)

# The call fails with this error.
def fails(error, call, *args, **named):
    try:
        call(*args, **named)
    except nbd.Error as e:
        assert e.errno == error, f"{e.errno} and not {error}: {e}"
    else:
        assert False, f"it succeeded, and should have failed with {error}"

def same(got, wanted):
    if got != wanted:
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), "the end")
        assert False, f"{len(got)} and {len(wanted)} bytes differ at {at}"

# How many of these succeed, and how many fail, which they may with EIO alone.
def outcomes(h, cookies):
    good = errors = 0
    for cookie in cookies:
        while True:
            try:
                if h.aio_command_completed(cookie):
                    good += 1
                    break
            except nbd.Error as e:
                assert e.errno == "EIO", e
                errors += 1
                break
            h.poll(10000)
    return good, errors
'

# py SERVER CODE: runs Python against a server; h is the connection.
py() {
	nbdsh --uri "$(uri "$1")" -c "$prelude" -c "$2"
}

# py_within SECONDS SERVER CODE: the same, or it fails.
py_within() {
	timeout "$1" /usr/bin/python3 -m nbd --uri "$(uri "$2")" -c "$prelude" -c "$3"
}

# random FILE BYTES
random() {
	head -c "$2" /dev/urandom >"$1"
}

# holds SERVER FILE: the export's bytes are those of the file.
holds() {
	rm -f "$T/export"
	nbdcopy "$(uri "$1")" "$T/export" && cmp "$T/export" "$2"
}

# fill SERVER FILE: the file goes to the export's start, and to the disk.
fill() {
	nbdcopy --flush "$2" "$(uri "$1")"
}

# said SERVER REGEX: its output so far has such a line.
said() {
	grep -qE "$2" "$T/$1.log" || {
		echo "$1 didn't say '$2', but:"
		cat "$T/$1.log"
		return 1
	}
}

# refused REGEX ARG...: nbdkit ndio, told to go into the background, fails instead, says why,
# and no process stays; or so does `ndio serve`, as $DOOR says. Nor does it tell the passphrase of
# $T/pass.
refused() {
	local regex=$1 status

	shift
	rm -f "$T/refused.pid"
	door_command --unix "$T/refused.sock" --pidfile "$T/refused.pid" "$@"
	[ "$DOOR" = nbdkit ] || door+=(--run :)
	timeout 20 env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}" >"$T/refused.log" 2>&1 </dev/null
	status=$?
	cat "$T/refused.log"
	if [ "$status" = 0 ] && [ "$DOOR" = serve ]; then
		echo "it started"
		return 1
	fi
	if [ "$status" = 0 ]; then
		while [ ! -s "$T/refused.pid" ]; do sleep 0.02; done
		kill "$(cat "$T/refused.pid")"
		echo "it started"
		return 1
	fi
	printf %s "$T/refused.sock" >"$T/pattern"
	if grep -lzFf "$T/pattern" /proc/[0-9]*/cmdline 2>/dev/null; then
		echo "that process stayed"
		return 1
	fi
	if grep -qF "$(cat "$T/pass")" "$T/refused.log"; then
		echo "it told the passphrase"
		return 1
	fi
	if [ "$status" != 1 ]; then
		echo "status $status"
		return 1
	fi
	grep -qE "$regex" "$T/refused.log" || {
		echo "it didn't say '$regex'"
		return 1
	}
}

# nobody[@] COMMAND...: as a user who isn't root, has no capabilities, owns no file, and shares
# no limit with another test's. The sanitizer of leaks doesn't work there: it can't trace a
# process that turned core dumps off.
nobody=(setpriv --reuid $((100000 + $$)) --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all
	env ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0")

# allow_nobody: from here nobody may use $T, copies of our servers in it, and what is preloaded.
nobody_preload=
allow_nobody() {
	local file

	chmod 1777 "$T" && install -m 755 "$NDIO_PLUGIN" "$T/plugin.so" &&
		install -m 755 "$NDIO_BUILD/ndio-serve" "$T" || return
	for file in $NDIO_PRELOAD; do
		case $file in
		/usr/*) ;;
		*) install -m 755 "$file" "$T" && file=$T/${file##*/} ;;
		esac
		nobody_preload="$nobody_preload${nobody_preload:+ }$file"
	done
}

# start_nobody NAME ARG...: as start_door, as that user, who may be given limits by $limits.
# --exit-with-parent is lost when a user changes.
limits=()
start_nobody() {
	local name=$1

	shift
	NDIO_PLUGIN=$T/plugin.so NDIO_BUILD=$T door_command --foreground --unix "$T/$name.sock" \
		--pidfile "$T/$name.pid" "$@"
	start_server "$name" "${limits[@]}" "${nobody[@]}" LD_PRELOAD="$nobody_preload" "${door[@]}"
}

# mount_here TYPE DIR [OPTIONS]: until the test ends.
mounts=()
mount_here() {
	mkdir -p "$2" && mount -t "$1" -o "${3:-rw}" none "$2" && mounts+=("$2")
}

unmount_all() {
	local dir

	for dir in "${mounts[@]}"; do
		umount --lazy "$dir"
	done
}
trap 'unmount_all; clean_up' EXIT
