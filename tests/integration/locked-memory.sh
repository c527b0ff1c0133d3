#!/bin/bash
# With too low a locked-memory limit, what can do without does, and says so; keys, pin=on and
# lock=on can't, and are refused before the server goes into the background. With enough, the
# running server has its key and bounce memory locked.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

[ "$(id -u)" = 0 ] || skip_all "needs root, to become someone else with other limits"
# shellcheck disable=SC2016
"${nobody[@]}" sh -c '[ "$(awk "\$1 == \"CapEff:\" { print \$2 }" /proc/self/status)" = 0000000000000000 ]' ||
	skip_all "can't drop all capabilities here"

allow_nobody
truncate -s 12M "$T/raw"
make_luks2 "$T/luks" 28M
chmod 666 "$T/raw" "$T/luks"
chmod 444 "$T/pass"
key=passphrase=+$T/pass
dump=$(LD_PRELOAD=$NDIO_PRELOAD nbdkit --dump-plugin "$NDIO_PLUGIN")
bounce_large=$(($(sed -n 's/^ndio_bounce_memory=//p' <<<"$dump") / 1024))
bounce=$(($(sed -n 's/^ndio_bounce_memory_min=//p' <<<"$dump") / 1024))
like "the plugin tells how much bounce memory it uses" "$bounce_large" '^[1-9][0-9]+$'
like "and with how little it makes do" "$bounce" '^[1-9][0-9]+$'
# A key and the passphrase that opens it have a page each; the latter until it has opened.
page=$(($(getconf PAGE_SIZE) / 1024))

limit() { # KIB
	limits=(prlimit --memlock="$(($1 * 1024)):$(($1 * 1024))")
}

# kilobytes SERVER: that are locked, once it answers: it writes its pid file a little before it
# has locked all.
kilobytes() {
	nbdinfo --size "$(uri "$1")" >"$T/size" &&
		awk '$1 == "VmLck:" { print $2 }' "/proc/$(cat "$T/$1.pid")/status"
}

# locks KIB SERVER: that many, and the pages of OpenSSL's heap where its copies of the key lie.
locks() {
	local now keys=1024
	[ -z "$NDIO_SANITIZE" ] || keys=8192 # whose heap has everything far apart
	now=$(kilobytes "$2")
	echo "# $now KiB"
	[ "$now" -ge "$1" ] && [ "$now" -le $(($1 + keys)) ]
}

# Large, small and odd requests, by several connections.
verify() { # SERVER
	chmod 777 "$T/$1.sock"
	py "$1" "
h.pwrite(data(9 << 20), 0)
h.pwrite(data(7000, 1), (10 << 20) + 3)
h.zero(5000, 1000)
h.flush()
want = data(9 << 20)
want = want[:1000] + bytes(5000) + want[6000:]
same(h.pread(9 << 20, 0), want)
same(h.pread(7000, (10 << 20) + 3), data(7000, 1))" &&
		nbdcopy --connections=4 --requests=16 "$(uri "$1")" "$T/export"
}

nobody_refused() { # REGEX ARG...
	local regex=$1 status

	shift
	timeout 20 "${limits[@]}" "${nobody[@]}" LD_PRELOAD="$nobody_preload" nbdkit \
		--unix "$T/refused.sock" --pidfile "$T/refused.pid" "$T/plugin.so" "$@" \
		>"$T/refused.log" 2>&1 </dev/null
	status=$?
	cat "$T/refused.log"
	[ "$status" != 0 ] || kill "$(cat "$T/refused.pid")"
	[ "$status" = 1 ] && grep -qE "$regex" "$T/refused.log"
}

LOCKED="warning: buffers can't be locked in memory, the limit .* is too low: .* swap"

# too_low KIB NAME ARG...: it serves, and says that bounce memory isn't locked.
too_low() {
	local name="$2, a limit of $1 KiB"

	limit "$1"
	shift 2
	ok "$name: starts" start_nobody disk "$@" || return
	ok "$name: says that bounce memory isn't locked" said disk "$LOCKED"
	is "$name: once" "$(grep -cE "$LOCKED" "$T/disk.log")" 1
	ok "$name: and stays below the limit" [ "$(($(kilobytes disk) * 1024))" -le \
		"${limits[1]##*:}" ]
	ok "$name: the data are right" verify disk
	ok "$name: and it ends well" stop_server disk
}

too_low 0 "raw" "$T/raw"
too_low 64 "raw" "$T/raw"
too_low 64 "LUKS" "$T/luks" "$key"
too_low $((bounce - page)) "LUKS, all but a page" "$T/luks" "$key"
limit 64
truncate -s 28M "$T/served"
cp "$T/luks" "$T/served"
start_stock inner file "$T/served"
chmod 777 "$T/inner.sock"
too_low 64 "a server's LUKS" uri="$(uri inner)" "$key"
start_nobody disk uri="$(uri inner)"
is "a server's bytes as they are pass through none of it" "$(grep -cE "$LOCKED" "$T/disk.log")" 0
stop_server disk
stop_server inner
start_nobody disk "$T/luks" "$key"
ok "the key is locked all the same" [ "$(kilobytes disk)" -ge "$page" ]
is "and nothing is said but that" "$(without_limits "$T/disk.log")" ""
stop_server disk

limit 0
ok "no limit for a key at all" nobody_refused \
	"cannot lock memory for the key: the locked-memory limit is 0 bytes" "$T/luks" "$key"
limit $page
ok "nor for a key besides its passphrase" nobody_refused \
	"cannot lock memory for the key: the locked-memory limit is $((page * 1024)) bytes" \
	"$T/luks" "$key"

# The usual limit.
prlimit --memlock=8388608:8388608 true 2>/dev/null || {
	skip "can't have the usual locked-memory limit here" 31
	done_testing
	exit
}
limit 8192
ok "a limit of 8 MiB: starts" start_nobody disk "$T/luks" "$key"
is "a limit of 8 MiB: says nothing" "$(grep -v "io_uring is refused" "$T/disk.log")" ""
ok "a limit of 8 MiB: the key and bounce memory are locked" locks $((bounce + page)) disk
before=$(kilobytes disk)
ok "a limit of 8 MiB: the data are right" verify disk
is "a limit of 8 MiB: and still that much is locked" "$(kilobytes disk)" "$before"
stop_server disk
ok "pin=on needs more" nobody_refused "pin=on: can't lock a request of 64 MiB" "$T/luks" \
	"$key" pin=on
if [ -n "$NDIO_SANITIZE" ]; then
	skip "sanitizers turn mlockall off" 2
else
	ok "lock=on needs it unlimited" nobody_refused \
		"lock=on: can't lock the server's memory" "$T/luks" "$key" lock=on
	ok "without a key, too" nobody_refused \
		"lock=on: can't lock the server's memory" "$T/raw" lock=on
fi

# What all of it needs, but not what huge pages cost besides; and that, too.
for kib in $((bounce_large + 1024)) $((2 * bounce_large + 1024)); do
	limit "$kib"
	"${limits[@]}" true 2>/dev/null || {
		skip "can't have a locked-memory limit of $kib KiB here" 4
		continue
	}
	ok "a limit of $kib KiB: starts" start_nobody disk "$T/luks" "$key"
	is "a limit of $kib KiB: says nothing" "$(grep -v "io_uring is refused" "$T/disk.log")" ""
	ok "a limit of $kib KiB: all bounce memory is locked" locks $((bounce_large + page)) disk
	ok "a limit of $kib KiB: the data are right" verify disk
	stop_server disk
done
limit 8192

# Both sides of a copy have as much, which is more than the limit.
install -m 755 "$NDIO_BUILD/ndio" "$T/ndio"
mkdir -m 777 "$T/out"
make_luks2 "$T/second" 28M
chmod 666 "$T/second"
"${limits[@]}" "${nobody[@]}" LD_PRELOAD="$nobody_preload" "$T/ndio" copy --src-key-file "$T/pass" \
	--dst-key-file "$T/pass" "$T/luks" "$T/second" >"$T/copy.log" 2>&1
is "a copy with a limit of 8 MiB: is done" $? 0
is "a copy with a limit of 8 MiB: says once that buffers aren't locked" \
	"$(grep -cE "$LOCKED" "$T/copy.log") $(without_limits "$T/copy.log")" "1 "
"${limits[@]}" "${nobody[@]}" LD_PRELOAD="$nobody_preload" "$T/ndio" copy "$T/luks" "$T/out/plain" \
	>"$T/copy.log" 2>&1
is "a copy without a key: has nothing to say of buffers" "$(grep -cE "$LOCKED" "$T/copy.log")" 0

# In the background: a fork loses what is locked, so it is locked again.
ok "in the background" "${limits[@]}" "${nobody[@]}" LD_PRELOAD="$nobody_preload" nbdkit \
	--unix "$T/behind.sock" --pidfile "$T/behind.pid" "$T/plugin.so" "$T/luks" "$key"
until [ -s "$T/behind.pid" ]; do sleep 0.02; done
pid=$(cat "$T/behind.pid")
server_pids[behind]=$pid
ok "the key and bounce memory are locked in the background" locks $((bounce + page)) behind
ok "where the data are right" verify behind
kill "$pid"
unset "server_pids[behind]"

# Without a limit: root's, by a capability.
no_limit() {
	ok "pin=on, no limit: starts" start_nbdkit disk "$NDIO_PLUGIN" "$T/luks" "$key" pin=on
	ok "pin=on, no limit: the bounce memory is locked" locks $((bounce_large + page)) disk
	before=$(kilobytes disk)
	ok "pin=on, no limit: the data are right" verify disk
	is "pin=on, no limit: no request's memory stays locked" "$(kilobytes disk)" "$before"
	ok "pin=on, no limit: and it ends well" stop_server disk
	ok "lock=on, no limit: starts" start_nbdkit disk "$NDIO_PLUGIN" "$T/luks" "$key" lock=on
	if [ -n "$NDIO_SANITIZE" ]; then
		skip "sanitizers turn mlockall off"
	else
		ok "lock=on, no limit: more than the bounce memory is locked" \
			[ "$(kilobytes disk)" -gt $((bounce_large + 1024)) ]
	fi
	ok "lock=on, no limit: the data are right" verify disk
	ok "lock=on, no limit: and it ends well" stop_server disk
}

CAP_IPC_LOCK=14
if (((0x$(awk '$1 == "CapEff:" { print $2 }' /proc/self/status) >> CAP_IPC_LOCK) & 1)); then
	no_limit
else
	skip "root can't lock without a limit here" 9
fi
done_testing
