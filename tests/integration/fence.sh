#!/bin/bash
# A client that comes back: a server tells who it is, and that it fences; what a session's older
# connections left is over before a newer one is open, and they are let do nothing more. Who says
# nothing of a session sees nothing of this.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/tls.sh"

# With the plugin an export has any name.
named=()
[ "$DOOR" = nbdkit ] || named=(--export=disk)
identity="ndio $(cat "$root/VERSION") instance=[0-9a-f]{32} fences"

# What the pieces of Python below use besides.
prelude+='
import time

def deadline():
    until = time.monotonic() + 60
    while time.monotonic() < until:
        yield
    assert False, "a minute has passed"

# In the middle of the negotiation, for an export of this name.
def negotiating(uri, name=""):
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.set_full_info(True)
    h.set_uri_allow_local_file(True)
    h.connect_uri(uri)
    h.set_export_name(name)
    return h

def connect(uri, name=""):
    h = negotiating(uri, name)
    h.opt_go()
    return h

def refused(uri, name):
    try:
        negotiating(uri, name).opt_go()
    except nbd.Error:
        return
    assert False, f"{name} was let in"

def describe(uri, name=""):
    h = negotiating(uri, name)
    h.opt_info()
    said = h.get_export_description()
    h.opt_abort()
    return said

# The name of an export, with a session and epoch.
def of(session, epoch, name="disk"):
    return f"{name};ndio-session={session}.{epoch:x}"

def drawn():
    return os.urandom(16).hex()
'

# run CODE ARG...: Python, with its arguments in `args`.
run() {
	timeout 100 /usr/bin/python3 -c "import nbd, sys
args = sys.argv[1:]
$prelude
$1" "${@:2}"
}

describe() { # URI [NAME]
	run 'print(describe(*args))' "$@"
}

# ---- what it says ----

truncate -s 1M "$T/disk"
make_luks2 "$T/luks" 20M --sector-size 4096
start_door disk "${named[@]}" "$T/disk" || exit 1
start_door luks "$T/luks" passphrase=+"$T/pass" || exit 1
start_door gate "${named[@]}" uri="$(uri disk)" || exit 1
first=$(describe "$(uri disk)")
like "it tells who it is" "$first" "^$identity\$"
is "over each connection" "$(describe "$(uri disk)")" "$first"
[ "$DOOR" = serve ] || is "for each name" "$(describe "$(uri disk)" "a;b;ndio-session=")" "$first"
like "behind what it tells of a volume" "$(describe "$(uri luks)")" \
	"^LUKS2, sectors of 4096 bytes; $identity\$"
like "a gateway is somebody of its own, and promises no more than who is behind it lets it" \
	"$(describe "$(uri gate)")" "^${identity% fences}(;|\$)"
isnt() {
	[ "$2" != "$3" ]
}
ok "who isn't the server behind it" isnt "" "$(describe "$(uri gate)")" "$first"
like "nbdinfo shows it" "$(nbdinfo "$(uri disk)")" "description: $identity"
end_server gate
stop_server disk
start_door disk "${named[@]}" "$T/disk" || exit 1
like "the next one tells" "$(describe "$(uri disk)")" "^$identity\$"
ok "something else" isnt "" "$(describe "$(uri disk)")" "$first"

if [ -n "$NDIO_SANITIZE" ] || ! strace -o /dev/null true 2>/dev/null; then
	skip "no strace here, or under a sanitizer" 2
else
	door_command --foreground --unix "$T/refused.sock" "$T/disk" lock-image=off
	timeout 60 strace -f -o /dev/null -e trace=getrandom -e inject=getrandom:error=EIO \
		"${door[@]}" >"$T/refused.log" 2>&1 </dev/null
	is "without a number of its own it doesn't start" $? 1
	ok "and says so" said refused "no random number to tell this server from others: Input/output"
fi

# ---- who has no session ----

any_name() {
	ok "names of users are theirs" run '
alike = ["", "disk", ";", "a;b", "a.b", "disk;ndio-session=", "/dev/sd;x.1", "\u00e9;.1",
         of(drawn().upper(), 1), of(drawn()[1:], 1), of(drawn(), 1) + ".", of(drawn(), 1) + ";x"]
for name in alike + [alike[-1]]:
    h = connect(args[0], name)
    same(h.get_export_name(), name)
    h.pwrite(b"x" * 512, 0)
    same(h.pread(512, 0), b"x" * 512)' "$(uri disk)"
	ok "and are never fenced" run '
session = drawn()
bad = [of(session, 1).replace(".1", ".0" + n) for n in "123"]
handles = [connect(args[0], name) for name in bad + ["a", "b"] + bad]
handles += [connect(args[0], of(session, 5)), connect(args[0], of(drawn(), 1))]
for h in handles:
    h.pwrite(b"y" * 512, 0)' "$(uri disk)"
	head -c 1M /dev/urandom >"$T/noise"
	ok "nbdcopy as before" nbdcopy --flush "$T/noise" "$(uri disk "a%3Bb.1")"
	ok "qemu-img too" qemu-img compare -f raw -F raw "$(uri disk "a%3Bb.1")" "$T/noise"
	ok "and ndio" "$ndio" compare "$(uri disk)" "$T/noise"
}
[ "$DOOR" = serve ] || any_name

# ---- who has one ----

stop_server disk
make_tls
truncate -s 1M "$T/disk"
start_door disk "${named[@]}" "$T/disk" direct=off
start_tcp_door tcp "${named[@]}" "$T/disk" direct=off lock-image=off
start_tcp_door tls "${named[@]}" --tls=require --tls-psk="$psk" "$T/disk" direct=off lock-image=off

# fences NAME URI
fences() {
	ok "$1: older epochs are fenced, and nobody else is" run '
uri, door = args
session = drawn()
plain, other = connect(uri, "disk"), connect(uri, of(drawn(), 1))
old = [connect(uri, of(session, 1)), connect(uri, of(session, 1, ""))]
for h in old:
    h.pwrite(b"1" * 4096, 0)
new = connect(uri, of(session, 2))
for h in old:
    fails("ESHUTDOWN", h.pwrite, b"2" * 4096, 0)
    fails("ESHUTDOWN", h.pread, 4096, 0)
    fails("ESHUTDOWN", h.zero, 4096, 0)
    fails("ESHUTDOWN", h.trim, 4096, 0)
    if h.can_cache():
        fails("ESHUTDOWN", h.cache, 4096, 0)
    fails("ESHUTDOWN", h.flush)
same(new.pread(4096, 0), b"1" * 4096)
for h in plain, other, new, connect(uri, of(session, 2)):
    h.pwrite(b"3" * 4096, 0)
    h.flush()
refused(uri, of(session, 1))
if door == "nbdkit": # there a description is as good as an opening
    describe(uri, of(session, 255))
else:
    connect(uri, of(session, 255))
refused(uri, of(session, 2))
fails("ESHUTDOWN", new.pwrite, b"4" * 4096, 0)
plain.pwrite(b"5" * 4096, 0)
new = connect(uri, of(session, 256))
same(new.pread(4096, 0), b"5" * 4096)' "$2" "$DOOR"
}

fences "a Unix socket" "$(uri disk)"
is "an older one's request is no error of the server's" "$(grep -c "of 4096 bytes" "$T/disk.log")" 0
is "that it comes is one" "$(sed -E 's/.* (a conn)/\1/' "$T/disk.log" | grep -c "^a conn.*comes after")" 2
fences "TCP" "nbd://localhost:$(cat "$T/tcp.port")"
fences "TLS" "$(tcp_with_psk tls)"
ok "forgotten with its last connection" run '
uri, = args
session = drawn()
h = connect(uri, of(session, 9))
refused(uri, of(session, 8))
h.shutdown()
for _ in deadline(): # nbdkit closes it some time after that
    try:
        connect(uri, of(session, 1))
        break
    except nbd.Error:
        pass' "$(uri disk)"
for server in disk tcp tls luks; do
	ok "$server ends cleanly" stop_server $server
done

# ---- what is still on its way to the disk ----

# A disk that holds up a write at 64 KiB as long as there is a file "hold": behind a gateway, which
# has to wait for it.
# shellcheck disable=SC2016
start_stock inner eval thread_model='echo parallel' get_size='echo 1M' \
	pread='dd if='"$T"'/disk iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none' \
	pwrite='if [ $4 = 65536 ] && [ -e '"$T"'/hold ]; then
			: >'"$T"'/stuck
			while [ -e '"$T"'/hold ]; do sleep 0.02; done
		fi
		dd of='"$T"'/disk oflag=seek_bytes seek=$4 conv=notrunc,nocreat status=none' || exit 1
# LeakSanitizer (clang 14) crashes by itself in nbdkit where a thread that dialled has ended.
export ASAN_OPTIONS=${ASAN_OPTIONS-}:detect_leaks=0
start_door gate "${named[@]}" uri="$(uri inner)"
start_tcp_door tcp "${named[@]}" uri="$(uri inner)"
start_tcp_door tls "${named[@]}" --tls=require --tls-psk="$psk" uri="$(uri inner)"

waiting='
uri, hold, stuck, then = args
session = drawn()

# The beginning of an opening; ended() has its errno, or 0, when it is over.
class Opening:
    def __init__(self, epoch):
        self.h = negotiating(uri, of(session, epoch))
        self.errors = []
        self.h.aio_opt_go(lambda error: self.errors.append(error.value) or 1)

    def ended(self, timeout=0):
        if not self.errors:
            try:
                self.h.poll(timeout)
            except nbd.Error: # the end of it, for some
                pass
        return self.errors

    def wait(self):
        for _ in deadline():
            if self.ended(100):
                return self.errors[0]

old, beside = connect(uri, of(session, 1)), connect(uri, of(session, 1))
old_write = old.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"old!" * 1024)), 65536)
for _ in deadline():
    old.poll(10)
    if os.path.exists(stuck):
        break
if then == "gone": # its request stays
    del old
second = [Opening(2), Opening(2)]
for _ in deadline():
    try:
        beside.pread(512, 0)
    except nbd.Error as e:
        assert e.errno == "ESHUTDOWN", e
        break
'

# held_up NAME URI kept|gone
held_up() {
	rm -f "$T/stuck"
	: >"$T/hold"
	dd if=/dev/zero of="$T/disk" bs=1M count=1 conv=notrunc status=none
	ok "$1: a newer epoch waits for it; an even newer one takes its place" run "$waiting"'
assert not second[0].ended(200) and not second[1].ended(200)
plain = connect(uri) # others are let in
plain.pwrite(b"them", 0)
third = [Opening(3), Opening(3)]
assert second[0].wait() and second[1].wait()
assert not third[0].ended(200) and not third[1].ended(200)
os.unlink(hold)
for opening in third:
    assert opening.wait() == 0
    same(opening.h.pread(4096, 65536), b"old!" * 1024)
third[1].h.pwrite(b"new!" * 1024, 65536)
if then == "kept":
    for _ in deadline():
        if old.aio_command_completed(old_write):
            break
        old.poll(100)
    fails("ESHUTDOWN", old.pwrite, b"late" * 1024, 65536)
same(third[0].h.pread(4096, 65536), b"new!" * 1024)
same(plain.pread(4, 0), b"them")' "$2" "$T/hold" "$T/stuck" "$3"
}

held_up "a write held up" "$(uri gate)" kept
held_up "its connection is gone" "nbd://localhost:$(cat "$T/tcp.port")" gone
held_up "a connection by TLS" "$(tcp_with_psk tls)" gone

# Nobody lets it go on.
rm -f "$T/stuck"
: >"$T/hold"
run "$waiting"'
assert not second[0].ended(200)
open(stuck, "w").write("waiting")
for opening in second:
    opening.wait()' "$(uri gate)" "$T/hold" "$T/stuck" kept >"$T/client" 2>&1 &
client=$!
until [ -s "$T/stuck" ] || ! kill -0 $client 2>/dev/null; do
	sleep 0.02
done
ok "one waits" test -s "$T/stuck"
ok "the server ends when it is told" stop_server gate
wait $client
ok "and so does its client" test $? = 0
stop_server tcp
stop_server tls
end_server inner
done_testing
