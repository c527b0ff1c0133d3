#!/bin/bash
# ndio serve: clients that vanish, talk nonsense, stall or come by the thousand, a disk and a server
# behind it that fail: nobody else is disturbed, and nothing is left of it.
#
# CUTS=COUNT: so many clients vanish, of each kind. SILENT=COUNT: so many say nothing, 10,000 for instance.
# shellcheck disable=SC2154 source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/tls.sh
. "$root/tests/lib/tls.sh"

clients=$NDIO_BUILD/tests/clients
load=$clients/load
key=(--key-file "$T/pass")
cut=${CUTS:-100} cut_tls=${CUTS:-60} silent=${SILENT:-1000} nonsense=210
[ -z "$NDIO_SANITIZE" ] || cut=${CUTS:-60} cut_tls=${CUTS:-30} silent=${SILENT:-300} nonsense=70

# Programs that talk to the server's socket without a library.
raw='
import os, socket, struct, sys, time
path = sys.argv[1]
def client():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s
def get(s, count):
    got = b""
    while len(got) < count:
        more = s.recv(count - len(got))
        assert more, "it has hung up"
        got += more
    return got
def ready(s, name=b""):  # by simple replies
    get(s, 18)
    s.sendall(struct.pack(">IQII", 3, 0x49484156454f5054, 1, len(name)) + name)
    return struct.unpack(">QH", get(s, 10))[0]
def request(kind, cookie, offset, count, flags=0):
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, count)
READ, WRITE, DISC, FLUSH = 0, 1, 2, 3
def silent(s):  # it has said nothing
    s.settimeout(0.1)
    try:
        s.recv(1)
        return False
    except socket.timeout:
        return True
    finally:
        s.settimeout(60)
def done(s, count=0):
    magic, error, cookie = struct.unpack(">IIQ", get(s, 16))
    assert magic == 0x67446698
    return cookie, error, get(s, count)
'
raw() { # CODE [ARG...]: argv[1] is the socket
	timeout 60 /usr/bin/python3 -c "$raw$1" "$T/disk.sock" "${@:2}"
}

resident() { # KiB
	sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/${server_pids[disk]}/status"
}

# come_back: what it holds is no more than when $was was taken, as soon as it has seen its clients go.
come_back() {
	local deadline=$((SECONDS + 20))

	until [ "$(descriptors disk)" -le "$was" ] && { [ -n "$NDIO_SANITIZE" ] ||
		[ "$(resident)" -le $((was_resident + 8192)) ]; }; do
		if [ $SECONDS -gt $deadline ]; then
			echo "descriptors $was, $(descriptors disk); KiB $was_resident, $(resident)"
			return 1
		fi
		sleep 0.02
	done
}

bystander_uri=$(uri disk)
with_a_bystander() { # COMMAND...: which goes on meanwhile, and makes no error
	local bystander status

	"$load" -o -d 2 -s 5000 -r -w 50 "$bystander_uri" >"$T/bystander.log" 2>&1 &
	bystander=$!
	until grep -q connected "$T/bystander.log" || ! kill -0 $bystander 2>/dev/null; do
		sleep 0.02
	done
	"$@" >"$T/with.log" 2>&1
	status=$?
	[ $status = 0 ] || cat "$T/with.log"
	kill -0 $bystander 2>/dev/null || {
		status=1
		cat "$T/bystander.log"
	}
	kill -KILL $bystander 2>/dev/null
	wait $bystander 2>/dev/null
	return $status
}

# vanish COUNT [CA-CERTIFICATE]: see vanish.py.
vanish() {
	timeout $((60 + $1 / 4)) /usr/bin/python3 "$root/tests/tools/vanish.py" "$T/disk.sock" "$@"
}

# are_cut_off NAME COUNT [CA-CERTIFICATE]: what the first of them needed stays for the next ones.
are_cut_off() {
	local name=$1

	shift
	vanish $(($1 / 4)) "${@:2}" && come_back
	was_resident=$(resident)
	ok "$name: $1 are cut off in the middle" with_a_bystander vanish "$@"
	ok "$name: nothing is left of them" come_back
	diag "$name: descriptors $was, then $(descriptors disk); KiB $was_resident, then $(resident)"
}

say_nothing() {
	raw '
import resource
count = int(sys.argv[2])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 64), hard))
slow = client()  # it has begun to speak, and those who say nothing go first
get(slow, 18)
slow.sendall(struct.pack(">I", 3))
mute = [client() for i in range(count)]
s = client()
assert ready(s) > 0
s.sendall(request(READ, 7, 0, 4096))
assert done(s, 4096)[:2] == (7, 0)
slow.sendall(struct.pack(">QII", 0x49484156454f5054, 1, 0))
assert len(get(slow, 10)) == 10' $silent
}

# One has more replies than its memory holds and takes none, and one has sent half of a write.
stall() {
	raw '
deaf, half, fair = client(), client(), client()
for s in deaf, half:
    ready(s)
deaf.setblocking(False)
try:
    while True:
        deaf.send(request(READ, 1, 0, 1 << 20))
except BlockingIOError:
    pass
half.sendall(request(WRITE, 1, 0, 300000) + bytes(200000))
ready(fair)
for i in range(300):
    fair.sendall(request(READ, 1, 4096 * i, 100000) + request(WRITE, 0, 8 << 20, 5000) + bytes(5000))
    for reply in 1, 2:
        magic, error, cookie = struct.unpack(">IIQ", get(fair, 16))
        assert error == 0
        get(fair, 100000 * cookie)'
}

# Replies of which each can be told from all others, at any depth, and never one in another.
long_replies() {
	raw '
s = client()
size = ready(s)
s.sendall(b"".join(request(WRITE, 1, at, 1 << 20) + struct.pack(">I", at >> 20) * (1 << 18)
                   for at in range(0, 16 << 20, 1 << 20)))
for i in range(16):
    assert done(s)[1] == 0
import random, threading
random.seed(2)
lengths = [random.choice([1 << 20, 3 << 20, 5 << 20]) for i in range(60)]
wanted = {i: ((i % 11) << 20, n) for i, n in enumerate(lengths)}
def send():
    for i, (at, n) in list(wanted.items()):
        s.sendall(request(READ, i, at, n) + request(FLUSH, 1000 + i, 0, 0) +
                  request(WRITE, 2000 + i, 20 << 20, 1 << 20) + bytes(1 << 20))
threading.Thread(target=send, daemon=True).start()
for i in range(3 * len(wanted)):
    magic, error, cookie = struct.unpack(">IIQ", get(s, 16))
    assert magic == 0x67446698 and error == 0, (hex(magic), error)
    if cookie < 1000:
        at, n = wanted.pop(cookie)
        data = get(s, n)
        for k in range(n >> 20):
            piece = struct.pack(">I", (at >> 20) + k) * (1 << 18)
            assert data[k << 20:(k + 1) << 20] == piece
assert not wanted'
}

# What is refused is so when its data have come, and what follows isn't taken for them.
refused() {
	raw '
s = client()
size = ready(s)
for n in 1, 4096, 1000000, 33 << 20:
    s.sendall(request(WRITE, n, size - n // 2, n) + b"\x25" * (n // 2))
    assert silent(s), "it answers before the data have come"
    s.sendall(b"\x25" * (n - n // 2) + request(READ, 5, 0, 10))
    assert done(s)[0] == n
    assert done(s, 10)[:2] == (5, 0)'
}

# A session comes back while its older connection has sent half of a write.
comes_back() {
	raw '
session = b";ndio-session=" + b"0123456789abcdef" * 2 + b"."
old = client()
ready(old, session + b"1")
old.sendall(request(WRITE, 1, 0, 100000) + bytes(50000))
new = client()
new.settimeout(5)
ready(new, session + b"2")
new.sendall(request(READ, 1, 0, 512))
assert done(new, 512)[:2] == (1, 0)
old.sendall(bytes(50000))
assert done(old)[1] == 108, "the old one is fenced"'
}

hostile() { # NAME ARG...
	local name=$1 was was_resident

	shift
	start_serve disk "$@" || return
	# All its threads have done something.
	"$load" -c 8 -d 8 -s 1000003 -r -w 50 -n 400 "$(uri disk)" >/dev/null
	was=$(descriptors disk) was_resident=$(resident)
	are_cut_off "$name" "$cut"
	ok "$name: $nonsense talk nonsense" with_a_bystander "$clients/garbage" "$T/disk.sock" $nonsense
	ok "$name: $silent say nothing" with_a_bystander say_nothing
	ok "$name: one takes no replies, another sends half" with_a_bystander stall
	ok "$name: long replies in one piece" long_replies
	ok "$name: what is refused" with_a_bystander refused
	ok "$name: a session comes back" with_a_bystander comes_back
	ok "$name: nothing is left of them either" come_back
	ok "$name: it ends cleanly" stop_server disk
}

truncate -s 64M "$T/raw"
hostile raw "$T/raw"
make_luks2 "$T/luks" 80M --sector-size 4096
hostile "LUKS2, one thread" --threads 1 "${key[@]}" "$T/luks"

# ---- by TLS ----

make_ca "$T/ca"
issue "$T/ca" "$tls" server
start_serve disk --tls-certificates "$tls" "${key[@]}" "$T/luks"
bystander_uri=$(with_certificates disk)
"$load" -c 8 -d 8 -s 1000003 -r -w 50 -n 400 "$bystander_uri" >/dev/null
was=$(descriptors disk) was_resident=$(resident)
are_cut_off TLS "$cut_tls" "$T/ca/ca-cert.pem"
ok "TLS: it ends cleanly" stop_server disk
bystander_uri=$(uri disk)

# ---- it is to end, and they don't let it ----

start_serve disk "$T/raw"
raw '
deaf, half = client(), client()
ready(deaf), ready(half), client()
deaf.setblocking(False)
try:
    while True:
        deaf.send(request(READ, 1, 0, 1 << 20))
except BlockingIOError:
    pass
half.sendall(request(WRITE, 1, 0, 300000) + bytes(200000))
print("stalled", flush=True)
time.sleep(50)' >"$T/stalled" 2>&1 &
stalled=$!
until [ -s "$T/stalled" ]; do
	sleep 0.02
done
started=$SECONDS
ok "it ends though clients stall" stop_server disk
ok "and in some seconds" test $((SECONDS - started)) -le 15
kill $stalled 2>/dev/null
wait $stalled 2>/dev/null

# ---- nothing is left to it ----

few_descriptors() {
	raw '
mute = []
for i in range(40):
    mute.append(client())
    ready(mute[-1]) if i < 5 else None
while "Too many open files" not in open(sys.argv[2]).read():
    time.sleep(0.02)
mute[0].sendall(request(READ, 1, 0, 512))
assert done(mute[0], 512)[:2] == (1, 0)
for s in mute[5:]:
    s.close()
s = client()
s.settimeout(20)
assert ready(s) > 0' "$T/disk.log"
}

start_server disk prlimit --nofile=40 "$NDIO_BUILD/ndio-serve" --threads 1 --socket "$T/disk.sock" \
	--pid-file "$T/disk.pid" "$T/raw"
ok "descriptors run out: who is there goes on, and others come in when there are some again" few_descriptors
ok "it ends cleanly" stop_server disk

# ---- places ----

# Whoever hasn't said what it wants takes nobody's place; and who has waits for one.
one_place() {
	raw '
mute = [client() for i in range(20)]
first = client()
for s in mute + [first]:
    s.settimeout(30)
assert ready(first) > 0
second = mute[3]  # it was here before
get(second, 18)
second.sendall(struct.pack(">IQII", 3, 0x49484156454f5054, 1, 0))
gone = mute[4]  # this one gives up while it waits
get(gone, 18)
gone.sendall(struct.pack(">IQII", 3, 0x49484156454f5054, 1, 0))
first.sendall(request(READ, 1, 0, 512))
assert done(first, 512)[:2] == (1, 0)
second.settimeout(0.2)
try:
    second.recv(1)
    assert False, "two have one place"
except socket.timeout:
    pass
gone.close()
third = client()  # it is not even greeted
third.settimeout(0.2)
try:
    third.recv(1)
    assert False, "a third is let in"
except socket.timeout:
    pass
for s, before in (second, first), (third, second):
    before.close()
    s.settimeout(30)
    if s is third:
        assert ready(s) > 0
    else:
        assert len(get(s, 10)) == 10
    s.sendall(request(READ, 1, 0, 512))
    assert done(s, 512)[:2] == (1, 0)'
}

start_serve disk --max-connections 1 "$T/raw"
ok "one place: silent ones don't take it, the others have it in turn" one_place
ok "it ends cleanly" stop_server disk

# ---- the disk fails ----

start_serve disk --no-lock-image "$T/raw"
truncate -s 16M "$T/raw"
ok "a file that became shorter: what is behind its end fails, and only that" py disk '
for count, at in (4096, 32 << 20), (8 << 20, 15 << 20), (32 << 20, 0):
    fails("EIO", h.pread, count, at)
same(h.pread(4096, 0), h.pread(4096, 0))'
ok "the same in one piece, whose reply has begun" not timeout 60 /usr/bin/python3 -m nbd -c "
h.set_request_structured_replies(False)
h.connect_uri('$(uri disk)')
h.pread(32 << 20, 0)"
ok "it serves others" py disk 'h.pwrite(data(4096), 0); same(h.pread(4096, 0), data(4096))'
like "it says which client's it was" "$(cat "$T/disk.log")" "raw: client process [0-9]+ of user [0-9]+: read of"

# How many failures were told of one process, by lines and by numbers.
told_of() { # PID
	python3 -c '
import re, sys
log = open(sys.argv[1]).read()
lines = len(re.findall(f"client process {sys.argv[2]} of user [0-9]+: read of", log))
more = sum(map(int, re.findall(f"client process {sys.argv[2]} of user [0-9]+: and ([0-9]+) more like this", log)))
print(lines, lines + more)' "$T/disk.log" "$1"
}
fail_often() {
	local pid lines all deadline=$((SECONDS + 20))

	pid=$(raw '
s = client()
size = ready(s)
for i in range(20):
    s.sendall(b"".join(request(READ, n, size - 4096, 512) for n in range(100)))
    for n in range(100):
        assert done(s)[1] == 5
print(os.getpid(), flush=True)') || return
	until read -r lines all < <(told_of "$pid") && [ "$all" = 2000 ]; do
		[ $SECONDS -le $deadline ] || return
		sleep 0.02
	done
	echo "$lines lines"
	[ "$lines" -ge 10 ] && [ "$lines" -le 1000 ]
}
ok "2,000 failures are some lines, and the number of the others" fail_often
ok "it ends cleanly" stop_server disk

# ---- a disk stalls ----

# One has written to it, and waits; the only thread there is goes on with the other disk's clients.
passes_one_that_stalls() {
	raw '
stall = sys.argv[2]
slow, fair = client(), client()
ready(slow, b"stalls"), ready(fair, b"works")
slow.sendall(request(WRITE, 1, 0, 4096) + bytes(4096))
while not os.path.exists(stall + ".waiting"):
    time.sleep(0.02)
for i in range(50):
    fair.sendall(request(WRITE, i, 4096 * i, 5000) + bytes(5000) + request(FLUSH, 100 + i, 0, 0))
    assert sorted(done(fair)[:2] for _ in range(2)) == [(i, 0), (100 + i, 0)]
    fair.sendall(request(READ, i, 4096 * i, 100000))
    assert done(fair, 100000)[:2] == (i, 0)
late = client()
assert ready(late, b"stalls") > 0
assert silent(slow), "it was answered while the disk stalled"
os.unlink(stall)
assert done(slow)[:2] == (1, 0)' "$T/stall"
}

truncate -s 64M "$T/works"
printf '%s\n' "stalls $T/raw none" "works $T/works none" >"$T/table"
touch "$T/stall"
start_server disk env LD_PRELOAD="${NDIO_PRELOAD:+$NDIO_PRELOAD }$NDIO_BUILD/tests/preload/volatile-disk.so" \
	VOLATILE_DISK="$T/raw" VOLATILE_DISK_STALL="$T/stall" "$NDIO_BUILD/ndio-serve" --threads 1 \
	--socket "$T/disk.sock" --pid-file "$T/disk.pid" --exports "$T/table"
ok "a disk stalls: who uses another goes on, others come in, and then it answers" passes_one_that_stalls
ok "it ends cleanly" stop_server disk

# ---- the server behind it dies ----

# Without its lock, which the kernel may keep for a moment when a process with a ring was killed.

truncate -s 64M "$T/raw"
start_serve behind --no-lock-image "$T/raw"
start_serve disk --reconnect 60 "$(uri behind)"
"$load" -c 2 -d 4 -s 100000 -r -w 50 -n 3000 "$(uri disk)" >"$T/load.log" 2>&1 &
loading=$!
for i in 1 2 3; do
	sleep 0.1
	{
		kill -KILL "${server_pids[behind]}"
		wait "${server_pids[behind]}"
	} 2>/dev/null
	start_serve behind --no-lock-image "$T/raw"
done
ok "a server behind it that dies, and comes back, is waited for" wait $loading
{
	kill -KILL "${server_pids[behind]}"
	wait "${server_pids[behind]}"
} 2>/dev/null
unset "server_pids[behind]"
"$load" -d 4 "$(uri disk)" >/dev/null 2>&1 &
loading=$!
started=$SECONDS
ok "one that doesn't come back keeps it from its end for some seconds only" stop_server disk
ok "and no more" test $((SECONDS - started)) -le 15
wait $loading 2>/dev/null

# One of the connections to it is lost, that of the thread which has all clients that come one by one.
start_server bad /usr/bin/python3 "$root/tests/tools/hostile.py" "$T/bad.sock" multi
start_serve disk --reconnect 0 "$(uri bad)"
py disk 'h.pread(4096, 0)'
kill -USR1 "${server_pids[bad]}"
ok "a connection to it is lost: who comes goes on by others" py disk '
for i in range(200):
    h.pread(4096, 4096 * i)'
ok "it ends cleanly" stop_server disk
end_server bad

# Silent, and with something of ours that it owes.
start_serve behind --no-lock-image "$T/raw"
start_serve disk "$(uri behind)"
raw '
s = client()
ready(s)
print("ready", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.02)
s.sendall(request(READ, 1, 0, 4096))
print("asked", flush=True)
s.recv(1)' "$T/silent" >"$T/asked" 2>&1 &
asking=$!
until grep -q ready "$T/asked"; do
	sleep 0.02
done
freeze "${server_pids[behind]}"
: >"$T/silent"
until grep -q asked "$T/asked"; do
	sleep 0.02
done
started=$SECONDS
ok "nor does one that is silent" stop_server disk
ok "for more than some seconds" test $((SECONDS - started)) -le 15
wait $asking 2>/dev/null
kill -KILL "${server_pids[behind]}"

# ---- the end, and a disk that is slow ----

start_stock inner --filter=noparallel --filter=delay memory 1M serialize=all-requests rdelay=1
start_serve disk --connections 1 "$(uri inner)"
ok "all that was asked for is answered, though it takes longer than a client may" py disk "
import os
cookies = [h.aio_pread(nbd.Buffer(512), i * 512) for i in range(10)]
while not h.aio_command_completed(cookies[0]):
    h.poll(20000)
os.kill(${server_pids[disk]}, 15)
while h.aio_in_flight() > 0:
    h.poll(20000)
assert all([h.aio_command_completed(cookie) for cookie in cookies[1:]])"
ok "then it ends" stop_server disk
stop_server inner

# ---- no descriptors, and clients that say nothing ----

start_server disk prlimit --nofile=60:60 "$NDIO_BUILD/ndio-serve" --socket "$T/disk.sock" --pid-file "$T/disk.pid" \
	"$T/raw"
raw '
silent = [client() for _ in range(100)]
print("here", flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.02)' "$T/gone" >"$T/silent" 2>&1 &
silent=$!
until grep -q here "$T/silent"; do
	sleep 0.02
done
started=$SECONDS
ok "who says something is let in where descriptors are short" py disk 'h.pread(4096, 0)'
ok "soon" test $((SECONDS - started)) -le 6
: >"$T/gone"
wait $silent
ok "it ends cleanly" stop_server disk

done_testing
