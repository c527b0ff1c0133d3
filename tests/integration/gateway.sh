#!/bin/bash
# A gateway: another NBD server's export, encrypted and decrypted on the way. Stock
# clients read and write it, the server behind it sees ciphertext alone, and what goes wrong
# behind it is told, never hung on.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/tls.sh"

pass=passphrase=+$T/pass
nobody_reads="the quick brown plaintext jumps over the lazy cipher "
size=$((16 << 20)) # of a volume with its header

# What the clients write: noise, with text in it that must not be seen behind the gateway.
yes "$nobody_reads" | head -c 3M >"$T/plain"
random "$T/noise" 3M
cat "$T/noise" >>"$T/plain"
make_luks1 "$T/fresh" $size # which qemu reads as well

# gateway NAME ARG...: in front of the server named inner.
gateway() {
	local name=$1

	shift
	start_door "$name" "$@"
}

# qemu_reads FILE: an independent reader opens the volume and finds what was written.
qemu_reads() {
	qemu-img convert -U --image-opts --object "secret,id=key,file=$T/pass" -O raw \
		"driver=luks,key-secret=key,file.filename=$1" "$T/qemu" &&
		cmp -n "$(stat -c %s "$T/plain")" "$T/qemu" "$T/plain"
}

fio_verifies() {
	(cd "$T" && fio --name=gate --ioengine=nbd --uri="$(uri gate)" --rw=randrw --bs=512-64k \
		--bs_unaligned=0 --offset=8m --size=2m --io_size=4m --verify=crc32c --iodepth=16 \
		--verify_fatal=1 --verify_state_save=0)
}

# stacked NAME BACKING URI: clients on a gateway in front of that server, which keeps its bytes in
# the file BACKING, if in any.
stacked() {
	local name=$1 backing=$2 uri=$3

	if ! gateway gate uri="$uri" "$pass" connections=3; then
		result 1 "$name: the gateway starts"
		return
	fi
	ok "$name: nbdcopy writes" fill gate "$T/plain"
	ok "$name: nbdcopy reads" bash -c 'rm -f "$2" && nbdcopy "$1" "$2" && cmp -n "$4" "$2" "$3"' \
		- "$(uri gate)" "$T/copy" "$T/plain" "$(stat -c %s "$T/plain")"
	ok "$name: qemu-img writes at odd places" \
		qemu-io -f raw -c 'write -P 0x61 7000001 130001' -c 'read -P 0x61 7000001 130001' \
		-c 'write -z 7040003 4099' -c 'read -P 0 7040003 4099' -c flush "$(uri gate)"
	ok "$name: fio verifies" fio_verifies
	ok "$name: the gateway ends cleanly" stop_server gate
	[ -n "$backing" ] || return
	ok "$name: an independent reader agrees" qemu_reads "$backing"
	ok "$name: the server has no plaintext" not grep -qaF "$nobody_reads" "$backing"
}

stacks() {
	cp --sparse=always "$T/fresh" "$T/disk"
	start_door inner "$T/disk" &&
		stacked "ours" "$T/disk" "$(uri inner)"
	ok "ours ends cleanly" stop_server inner

	cp --sparse=always "$T/fresh" "$T/disk"
	start_qemu_nbd inner --format raw "$T/disk" && stacked "qemu-nbd" "$T/disk" "$(uri inner)"
	ok "qemu-nbd ends cleanly" stop_server inner

	start_stock inner memory $size && fill inner "$T/fresh" &&
		stacked "nbdkit memory" "" "$(uri inner)"
	ok "nbdkit memory ends cleanly" stop_server inner

	cp --sparse=always "$T/fresh" "$T/disk"
	start_stock inner --filter=blocksize-policy file "$T/disk" blocksize-error-policy=error \
		blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=64k &&
		stacked "small requests alone" "$T/disk" "$(uri inner)"
	ok "small requests alone: the server ends cleanly" stop_server inner
}

# In the background, as users start it: what was opened before the fork works after it.
in_background() {
	local deadline=$((SECONDS + 30))

	start_stock inner memory $size && fill inner "$T/fresh"
	LD_PRELOAD=$NDIO_PRELOAD nbdkit --unix "$T/back.sock" --pidfile "$T/back.pid" \
		"$NDIO_PLUGIN" uri="$(uri inner)" "$pass" >"$T/back.log" 2>&1 </dev/null
	until [ -s "$T/back.pid" ] || [ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	ok "in the background: it serves" fill back "$T/plain"
	kill "$(cat "$T/back.pid")"
	while kill -0 "$(cat "$T/back.pid")" 2>/dev/null && [ $SECONDS -le $deadline ]; do
		sleep 0.02
	done
	ok "in the background: it ends" not kill -0 "$(cat "$T/back.pid")"
	ok "in the background: the server ends cleanly" stop_server inner
}

# nbdkit goes to / there, and nobody is at its stderr. What is said goes to syslog.
paths_and_notices() {
	local deadline=$((SECONDS + 30))

	start_server inner /usr/bin/python3 "$root/tests/tools/hostile.py" "$T/inner.sock" multi
	(cd "$T" && SYSLOG_FILE=$T/syslog \
		LD_PRELOAD="${NDIO_PRELOAD:+$NDIO_PRELOAD }$NDIO_BUILD/tests/preload/syslog-to-file.so" \
		nbdkit --unix "$T/later.sock" --pidfile "$T/later.pid" "$NDIO_PLUGIN" \
		uri="nbd+unix:///?socket=inner.sock" reconnect=0 >"$T/later.log" 2>&1 </dev/null)
	ok "in the background, with a relative path: it starts" test $? = 0
	until [ -s "$T/later.pid" ] || [ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	ok "and serves" py later 'h.pread(512, 0)'
	kill -USR1 "${server_pids[inner]}"
	until grep -qs "dialling again" "$T/syslog" || [ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	ok "a lost connection is told to the log" \
		grep -q "inner.sock: 1 of its 4 connections is lost: dialling again" "$T/syslog"
	until grep -q "^4 0" "$T/inner.log" || [ $SECONDS -gt $deadline ]; do
		# Many at once: one after the other may go by the same connection each time.
		py later '
cookies = [h.aio_pread(nbd.Buffer(512), i * 512) for i in range(64)]
while h.aio_in_flight() > 0:
    h.poll(20000)
assert all([h.aio_command_completed(cookie) for cookie in cookies])'
	done
	ok "and made again, by the relative path" grep -q "^4 0" "$T/inner.log"
	end_server inner
	ok "its end too is an error for clients" py later 'fails("EIO", h.pread, 512, 0)'
	ok "which is in the log" grep -q "read of 512 bytes at 0: the connection to the server is lost" \
		"$T/syslog"
	kill "$(cat "$T/later.pid")"
}

await_in_log() { # WORDS
	local deadline=$((SECONDS + 60))

	until grep -qs "$1" "$T/syslog" || [ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	grep -o "inner.sock: .*$1.*" "$T/syslog"
}

# In the background, too, the log has when the server went, why, when it was back, and nothing else.
away_and_back() {
	truncate -s 1M "$T/small"
	start_door inner "$T/small"
	: >"$T/syslog"
	rm -f "$T/later.pid"
	SYSLOG_FILE=$T/syslog \
		LD_PRELOAD="${NDIO_PRELOAD:+$NDIO_PRELOAD }$NDIO_BUILD/tests/preload/syslog-to-file.so" \
		nbdkit --unix "$T/away.sock" --pidfile "$T/later.pid" "$NDIO_PLUGIN" uri="$(uri inner)" \
		reconnect=60 >"$T/later.log" 2>&1 </dev/null
	ok "in the background, waiting for its server: it serves" py away 'h.pwrite(b"x" * 512, 0)'
	{
		kill -KILL "${server_pids[inner]}"
		wait "${server_pids[inner]}"
		unset "server_pids[inner]"
	} 2>/dev/null
	like "the log says why it waits" "$(await_in_log "connection is lost")" \
		"^inner.sock: the connection is lost \(.+\): waiting for the server, 60 seconds at the most$"
	rm -f "$T/inner.sock"
	start_door inner "$T/small"
	like "and for how long that was" "$(await_in_log "server is back")" \
		"^inner.sock: the server is back after [0-9]+\.[0-9] seconds: sent again: .* 1 that weren't flushed$"
	ok "it goes on" py away 'assert h.pread(512, 0) == b"x" * 512'
	is "once each" "$(wc -l <"$T/syslog")" 2
	ok "and not as if they were errors" not grep -i error "$T/syslog"
	kill "$(cat "$T/later.pid")"
	stop_server inner
}

# one_shot NAME NBDKIT-ARG...: one that ends with its first client. Who it is must not take opening it.
one_shot() {
	local name=$1

	start_nbdkit inner --filter=exitlast "${@:2}"
	ok "a gateway to $name" gateway gate uri="$(uri inner)" reconnect=60
	ok "$name: is read" py gate 'h.pread(512, 0)'
	ok "$name: the gateway ends" stop_server gate
	wait "${server_pids[inner]}"
	is "$name: and so does the server" $? 0
	unset "server_pids[inner]"
}

one_shots() {
	truncate -s 1M "$T/small"
	one_shot "a one-shot server" memory 1M
	one_shot "one of ours" "$NDIO_PLUGIN" "$T/small"
}

# In a folder whose name is longer than a socket's address may be.
long_path() {
	local dir

	dir=$T/$(printf '%0120d' 0)
	mkdir "$dir"
	start_stock inner memory 1M
	mv "$T/inner.sock" "$dir/s"
	ok "a long path of a socket" bash -c 'cd "$1" && "$2" copy "nbd+unix:///?socket=s" null:' - \
		"$dir" "$NDIO_BUILD/ndio"
	end_server inner
}

capabilities() {
	start_stock inner --filter=noextents --filter=nozero memory $size
	gateway gate uri="$(uri inner)"
	ok "a server without zero and extents" py gate '
assert not h.can_meta_context("base:allocation")
h.pwrite(b"x" * 10000, 100)
h.zero(9000, 300)
same(h.pread(10000, 100), b"x" * 200 + bytes(9000) + b"x" * 800)
h.flush()'
	stop_server gate
	stop_server inner

	# shellcheck disable=SC2016
	start_stock inner eval get_size="echo $size" pread='dd if=/dev/zero count=$3 iflag=count_bytes' \
		pwrite='cat >/dev/null'
	gateway gate uri="$(uri inner)"
	ok "a server without flush, FUA, trim" py gate '
assert not h.can_flush() and not h.can_fua() and not h.can_trim()
h.pwrite(b"x" * 512, 0)
same(h.pread(512, 0), bytes(512))'
	stop_server gate
	stop_server inner

	start_stock inner --readonly memory $size
	gateway gate uri="$(uri inner)" reconnect=0
	ok "a server that is read-only" py gate '
assert h.is_read_only()
h.pread(512, 0)'
	stop_server gate
	stop_server inner
}

errors() {
	start_stock inner --filter=error memory 8M error-pwrite=ENOSPC error-pwrite-rate=100% \
		error-pread=EIO error-pread-file="$T/inject" error-pread-rate=100%
	gateway gate uri="$(uri inner)" reconnect=0
	ok "errors of the server reach the client" py gate '
h.pread(4096, 0)
fails("ENOSPC", h.pwrite, bytes(4096), 0)'
	: >"$T/inject"
	ok "as they are" py gate 'fails("EIO", h.pread, 4096, 0)'
	rm "$T/inject"
	ok "and afterwards it works again" py gate 'h.pread(4096, 0)'
	end_server inner
	ok "a server that is gone" py gate 'fails("EIO", h.pread, 4096, 0)'
	ok "is told of in words" grep -q "read of .* at 0: the connection to the server is lost$" \
		"$T/gate.log"
	stop_server gate
}

# The server behind is killed while clients read: they get EIO, soon, and the gateway ends.
server_dies() {
	local pid

	start_stock inner --filter=delay memory 8M rdelay=20ms
	pid=${server_pids[inner]}
	gateway gate uri="$(uri inner)" connections=2 reconnect=0
	ok "the server dies: clients get EIO and nothing hangs" py_within 30 gate "
bufs = [nbd.Buffer(65536) for _ in range(64)]
cookies = [h.aio_pread(buf, i * 65536) for i, buf in enumerate(bufs)]
os.kill($pid, 9)
good, errors = outcomes(h, cookies)
assert errors > 32, errors
fails('EIO', h.pread, 512, 0)
fails('EIO', h.pwrite, bytes(512), 0)
fails('EIO', h.flush)"
	{ wait "$pid"; } 2>/dev/null
	unset "server_pids[inner]"
	ok "the server dies: the gateway says so" said gate "inner.sock: .*read of 65536 bytes at"
	ok "the server dies: the gateway ends cleanly" stop_server gate
}

bad_starts() {
	ok "no server there" refused "gone.sock: .*No such file" \
		uri="nbd+unix:///?socket=$T/gone.sock" "$pass"
	if [ "$DOOR" = nbdkit ]; then
		ok "no URI" refused "not an NBD URI" uri=http://example.com/
		ok "an unknown URI" refused "nbdx://" uri=nbdx://example.com/
	fi
	start_stock inner file "$T/fresh"
	printf 'not it' >"$T/wrong"
	ok "a wrong passphrase" refused "inner.sock: no key slot opens" uri="$(uri inner)" \
		passphrase=+"$T/wrong"
	stop_server inner
	start_qemu_nbd inner --format raw "$T/fresh"
	ok "an export that isn't there" refused "nothing.*inner.sock: .*" uri="$(uri inner nothing)"
	stop_server inner
	start_stock inner memory 8M
	ok "no LUKS there" refused "inner.sock: not a LUKS volume" uri="$(uri inner)" "$pass"
	stop_server inner
	make_luks2 "$T/fresh" 24M
	head -c 16M "$T/fresh" >"$T/short"
	start_stock inner file "$T/short"
	ok "too small for its header" refused "inner.sock: .*too small" uri="$(uri inner)" "$pass"
	stop_server inner
}

stacks
if [ "$DOOR" = nbdkit ]; then
	in_background
	paths_and_notices
	away_and_back
fi
one_shots
long_path
capabilities
errors
server_dies
bad_starts
done_testing
