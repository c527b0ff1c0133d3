#!/bin/bash
# ndio serve: what other programs write by it is what they, and others, read; and it starts, runs and
# ends as it should.
# shellcheck disable=SC2154
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

serve=$NDIO_BUILD/ndio-serve
load=$NDIO_BUILD/tests/clients/load
key=(--key-file "$T/pass")

# ---- other programs ----

round_trip() { # FROM-PROGRAM... writes $T/sent to the server; it is read back
	"$@" && nbdcopy "$(uri disk)" "$T/back" && cmp -n "$(stat -c %s "$T/sent")" "$T/back" "$T/sent"
}

qemu_io() {
	qemu-io -f raw -c 'write -P 0x5a 1000 300000' -c 'read -P 0x5a 1000 300000' \
		-c 'write -z 100000 100000' -c 'read -P 0 100000 100000' \
		-c 'aio_write -P 0x11 1m 3m' -c 'aio_write -P 0x22 5m 64k' -c aio_flush \
		-c 'read -P 0x11 1m 3m' -c 'read -P 0x22 5m 64k' -c 'discard 5m 1m' -c flush \
		"$(uri disk)" | tee "$T/qemu-io" && ! grep -qi 'fail\|error' "$T/qemu-io"
}

qemu_convert() {
	qemu-img convert -n -f raw -O raw "$T/sent" "$(uri disk)" &&
		qemu-img compare -f raw -F raw "$T/sent" "$(uri disk)"
}

verified() { # FIO-OPTION...
	timeout 60 fio --name=verify --thread --ioengine=nbd --uri="$(uri disk)" --rw=randwrite \
		--iodepth=16 --size=3000K --offset_increment=3073500 --numjobs=4 --verify=crc32c \
		--verify_fatal=1 --verify_state_save=0 --group_reporting "$@"
}

# Any length at any place, many at once, each checked by what a model says.
requests='
size = h.get_size()
model = bytearray(h.pread(size // 2, 0)) + bytearray(h.pread(size - size // 2, size // 2))
for i in range(2):
    at = 0
    cookies, reads = [], []
    while at < size - (9 << 20):  # side by side, so that the order of their ends is all the same
        count = random.choice([1, 511, 4096, 5000, 70000, 300001, 2 << 20, (4 << 20) + 3, 9 << 20])
        kind = random.random()
        if kind < 0.4:
            bytes_ = random.randbytes(count)
            model[at:at + count] = bytes_
            cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(bytes_)), at,
                                        flags=random.choice([0, 0, nbd.CMD_FLAG_FUA])))
        elif kind < 0.5 and h.can_zero():
            model[at:at + count] = bytes(count)
            cookies.append(h.aio_zero(count, at))
        else:
            buffer = nbd.Buffer(count)
            cookies.append(h.aio_pread(buffer, at))
            reads.append((buffer, at, count))
        if random.random() < 0.1:
            cookies.append(h.aio_flush())
        at += count + random.choice([0, 0, 1, 4096])
    for cookie in cookies:
        while not h.aio_command_completed(cookie):
            h.poll(10000)
    for buffer, at, count in reads:
        same(buffer.to_bytearray(), model[at:at + count])
same(bytearray(h.pread(32 << 20, 0)), model[:32 << 20])
'

simple() { # CODE: without structured replies
	timeout 60 /usr/bin/python3 -m nbd -c "$prelude" -c "
h.set_request_structured_replies(False)
h.connect_uri('$(uri disk)')
assert not h.get_structured_replies_negotiated()" -c "$1"
}

two_ways() { # NAME
	local name=$1

	random "$T/sent" 20971520
	ok "$name: nbdcopy, from and to" round_trip nbdcopy "$T/sent" "$(uri disk)"
	random "$T/sent" 20971520
	truncate -s "$(nbdinfo --size "$(uri disk)")" "$T/sent"
	ok "$name: qemu-img converts and compares" qemu_convert
	ok "$name: qemu-io" qemu_io
	ok "$name: requests of all sizes at odd places" py disk "random.seed(1)$requests"
	ok "$name: and with simple replies" simple "random.seed(2)$requests"
	if command -v fio >/dev/null && fio --enghelp=nbd >/dev/null 2>&1; then
		ok "$name: four jobs of fio at odd places" verified --bssplit=500/25:1500/25:4500/25:70000/25
		ok "$name: and with flushes" verified --bs=4000 --size=600K --fsync=16
	else
		skip "no fio with the nbd engine here" 2
	fi
	ok "$name: it ends cleanly" stop_server disk
}

truncate -s 33M "$T/raw"
start_serve disk "$T/raw" && two_ways raw
make_luks2 "$T/luks" 49M --sector-size 4096
start_serve disk "${key[@]}" "$T/luks" && two_ways LUKS2
start_serve behind "$T/luks" &&
	start_serve disk "${key[@]}" --threads 1 "$(uri behind)" && two_ways "LUKS2 on another server"
ok "which ends cleanly too" stop_server behind

# ---- what it offers ----

# The same as by our plugin, byte by byte.
same_map() { # FILE
	start_nbdkit plugin -r "$NDIO_PLUGIN" "$1" || return
	nbdinfo --map "$(uri plugin)" >"$T/map.plugin" && nbdinfo --map "$(uri disk)" >"$T/map.serve" &&
		stop_server plugin && diff "$T/map.plugin" "$T/map.serve" &&
		[ "$(wc -l <"$T/map.serve")" -gt 100 ]
}

truncate -s 64M "$T/sparse"
for ((i = 0; i < 300; i++)); do
	dd if=/dev/zero bs=4096 count=$((1 + i % 5)) seek=$((i * 53)) conv=notrunc of="$T/sparse"
done 2>/dev/null
start_serve disk --read-only "$T/sparse"
ok "its map is the plugin's" same_map "$T/sparse"
ok "it ends cleanly" stop_server disk
start_serve disk "$T/sparse"
ok "flush, FUA, trim, zeroes: fast, and without holes" py disk '
assert h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_multi_conn()
h.pwrite(data(1 << 20), 0, flags=nbd.CMD_FLAG_FUA)
h.trim(65536, 65536, flags=nbd.CMD_FLAG_FUA)
h.zero(65536, 131072, flags=nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
if h.can_fast_zero():
    h.zero(65536, 262144, flags=nbd.CMD_FLAG_FAST_ZERO)
    same(h.pread(65536, 262144), bytearray(65536))
h.flush()
wanted = bytearray(data(1 << 20))
wanted[131072:196608] = bytes(65536)
same(h.pread(65536, 0), wanted[:65536])
same(h.pread(131072, 131072)[:65536], bytes(65536))'
ok "one extent, if one is wanted" timeout 60 /usr/bin/python3 -m nbd -c "$prelude" -c "
h.add_meta_context('base:allocation')
h.connect_uri('$(uri disk)')
for flags, enough in (nbd.CMD_FLAG_REQ_ONE, lambda n: n == 1), (0, lambda n: n > 100):
    got = []
    h.block_status(64 << 20, 0, lambda context, offset, entries, error: got.extend(entries), flags)
    assert enough(len(got) // 2), got"
ok "what is out of place is refused, and nothing else" py disk '
h.set_strict_mode(0)
size = h.get_size()
fails("EINVAL", h.pread, 4096, size - 1)
fails("ENOSPC", h.pwrite, bytes(4096), size - 1)
fails("ENOSPC", h.pwrite, bytes(1 << 20), size + 4096)
same(h.pread(100, size - 100), bytearray(100))'
ok "it ends cleanly" stop_server disk

start_serve disk --read-only --export "a ?name" "$T/sparse"
ok "read-only: nothing can be written" timeout 60 /usr/bin/python3 -m nbd -c "$prelude" -c "
h.set_export_name('a ?name')
h.connect_unix('$T/disk.sock')
h.set_strict_mode(0)
assert h.is_read_only()
for call in [lambda: h.pwrite(bytes(512), 0), lambda: h.zero(512, 0), lambda: h.trim(512, 0)]:
    fails('EPERM', call)
h.pread(512, 0)"
ok "another name is unknown" not nbdinfo "$(uri disk other)"
ok "it ends cleanly" stop_server disk

# ---- what it refuses ----

refuses() { # NAME REGEX ARG...
	local name=$1 regex=$2

	shift 2
	timeout 30 "$serve" "$@" >"$T/refused" 2>&1 </dev/null
	is "$name: status" $? 1
	like "$name: the message" "$(without_limits "$T/refused")" "$regex"
}

printf wrong >"$T/wrong"
chmod 600 "$T/wrong"
refuses "a wrong key" "^ndio serve: $T/luks: " --key-file "$T/wrong" --socket "$T/x.sock" "$T/luks"
refuses "a missing key file" "^ndio serve: key file $T/none: " --key-file "$T/none" \
	--socket "$T/x.sock" "$T/luks"
refuses "a key file that is a folder" "^ndio serve: key file $T: .*Is a directory" --key-file "$T" \
	--socket "$T/x.sock" "$T/luks"
if [ "$(id -u)" = 0 ]; then
	skip "root may read everything" 2
else
	printf x >"$T/closed"
	chmod 000 "$T/closed"
	refuses "a key file that may not be read" "^ndio serve: key file $T/closed: Permission denied" \
		--key-file "$T/closed" --socket "$T/x.sock" "$T/luks"
fi
refuses "a key that is on the disk" "the key file would be overwritten" --key-file "$T/luks" \
	--socket "$T/x.sock" "$T/luks"
"$NDIO_BUILD/ndio-serve" --key-file "$T/key" --keyfile-size 9M "$T/luks" >"$T/said" 2>&1
is "more of a key than there may be: status" $? 2
ok "more of a key than there may be: it is said" \
	grep -q '^ndio serve: --keyfile-size takes from 1 byte to 8M, not "9M"' "$T/said"
start_serve ciphertext "$T/luks"
ok "without its key: it is said" grep -q "a LUKS volume; without a key it is served as it is" \
	"$T/ciphertext.log"
stop_server ciphertext
refuses "a missing disk" "^ndio serve: $T/none: .*No such file" --socket "$T/x.sock" "$T/none"
refuses "a socket in no folder" "^ndio serve: $T/none/x.sock: can't listen: No such file" \
	--socket "$T/none/x.sock" "$T/raw"
ok "none of them leaves a socket" test ! -e "$T/x.sock"

start_serve disk --listen 127.0.0.1:0 "$T/raw"
port=$(port_of disk)
refuses "a port in use" "^ndio serve: 127.0.0.1:$port: can't listen: Address already in use" \
	--no-lock-image --listen "127.0.0.1:$port" "$T/sparse"
refuses "a socket that is taken" "^ndio serve: $T/disk.sock: can't listen: Address already in use" \
	--no-lock-image --socket "$T/disk.sock" "$T/sparse"
refuses "a disk that another writes" "^ndio serve: $T/raw: " --socket "$T/x.sock" "$T/raw"
ok "by the port as by the socket" nbdinfo --size "nbd://127.0.0.1:$port"
{
	kill -KILL "${server_pids[disk]}"
	wait "${server_pids[disk]}"
} 2>/dev/null
unset "server_pids[disk]"
ok "a socket that a killed one left is none" start_serve disk "$T/raw"
ok "it ends cleanly" stop_server disk
ok "its socket is gone" test ! -e "$T/disk.sock"

# ---- a command of its own ----

run() { # COMMAND ARG...
	timeout 30 "$serve" --socket "$T/run.sock" --run "$@" >"$T/run.out" 2>&1
}

# shellcheck disable=SC2016
{
	run 'nbdinfo --size "$uri"' "$T/raw"
	is "a command: its status is 0" $? 0
	like "and it has reached the disk" "$(cat "$T/run.out")" "$(stat -c %s "$T/raw")"
	run 'nbdinfo --size "$uri"' --export 'a&b ?#' "$T/raw"
	is "by a name that a URI can't have as it is" $? 0
	run 'nbdinfo --size "$uri" >/dev/null; exit 17' "$T/raw"
	is "a command's status is its own" $? 17
	run '{ until grep -q "State:.T" /proc/$$/status; do sleep 0.02; done; kill -CONT $$; } &
		kill -STOP $$; nbdinfo --size "$uri"' "$T/raw"
	is "one that is stopped and goes on hasn't ended" $? 0
}
ok "no socket is left" test ! -e "$T/run.sock"

# ---- the end ----

# What was acknowledged before it was told to end is there.
ends_under_load() { # NAME FILE ARG...
	local name=$1 file=$2 loads=() i

	shift 2
	start_serve disk "$@" "$file" || return
	for i in 1 2 3; do
		"$load" -c 2 -d 8 -s 1000003 -r -w 70 "$(uri disk)" 2>/dev/null &
		loads+=($!)
	done
	timeout 60 /usr/bin/python3 -m nbd --uri "$(uri disk)" -c '
import sys
for i in range(100000):
    at = 4096 * (i % 1000)
    try:
        h.pwrite(i.to_bytes(4, "big") * 1024, at)
    except nbd.Error:
        break
    print(i, flush=True)' >"$T/acknowledged" 2>/dev/null &
	loads+=($!)
	until [ -s "$T/acknowledged" ] && [ "$(wc -l <"$T/acknowledged")" -gt 100 ]; do
		sleep 0.02
	done
	ok "$name: it ends when asked under load" stop_server disk
	wait "${loads[@]}" 2>/dev/null
	ok "$name: and its clients were told" test "$(wc -l <"$T/acknowledged")" -gt 100
}
make_luks2 "$T/other" 64M --sector-size 512
ends_under_load LUKS2 "$T/other" "${key[@]}"

done_testing
