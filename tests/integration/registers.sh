#!/bin/bash
# The checker that tells whether a disk survives, and the tools that try to kill it: it has nothing to
# say of a good server, and convicts each kind of a bad one; and each fault does what it should.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/tls.sh
. "$root/tests/lib/tls.sh"
# shellcheck source=../lib/survive.sh
. "$root/tests/lib/survive.sh"

nbdkit=(nbdkit --foreground --exit-with-parent --unix "$T/disk.sock" --pidfile "$T/disk.pid")
serve_at plain --unix "$T/disk.sock"
ours=("${serve[@]}")
# Another's server, so that what it does isn't held up by a sanitizer.
stock=("${nbdkit[@]}" file "$T/disk")

# uses NAME ARG...: two thousand operations, of which none may fail.
uses() {
	start_registers "$registers" "${@:2}" && goes_on 2000
	ok "$1: nothing is wrong" end_registers || diag "$(tail -n 20 "$T/registers.said")"
}

# convicted NAME REGEX ARG...: there are violations, of this kind.
convicted() {
	start_registers "$registers" --may-fail "${@:3}" && goes_on 3000
	end_registers
	is "$1: status 1" $? 1
	ok "$1: it says what is wrong" grep -qE "^violation=($2) " "$T/registers.said"
}

# ---- a good server ----

truncate -s 16M "$T/disk"
serve=("${ours[@]}")
disk_preload=
start_disk || exit 1
uses "libnbd" --nbd "$(uri disk)"
uses "the library" "$(uri disk)"
uses "the library, registers of 512 bytes" --block 512 --size 1M --start 12800 "$(uri disk)"
uses "registers of 64 KiB" --nbd --block 64K --lanes 2 --depth 4 "$(uri disk)"
is "all kinds of operations were done" "$(value read | grep -c '[1-9]')$(value write | grep -c '[1-9]')$(
	value zero | grep -c '[1-9]')$(value trim | grep -c '[1-9]')$(value fua | grep -c '[1-9]')" 11111
ok "what the file holds is right" "$registers" --verify --state "$T/state" "$T/disk"
ok "the server ends well" stop_server disk
make_luks2 "$T/disk" 24M --sector-size 4096
start_disk || exit 1
uses "LUKS here" --key "$T/pass" --discard "$(uri disk)"
ok "LUKS: what the file holds is right" "$registers" --verify --state "$T/state" --key "$T/pass" "$T/disk"
kill_disk

# ---- a server that fails, and one that hangs ----

: >"$T/disk"
truncate -s 16M "$T/disk"
serve=("${nbdkit[@]}" --filter=error file "$T/disk" error=EIO error-rate=1 error-file="$T/fails")
start_disk || exit 1
start_registers "$registers" --nbd "$(uri disk)" && touch "$T/fails" && goes_on 100 && rm "$T/fails" && goes_on
end_registers
is "errors: status 2" $? 2
is "errors: no violation" "$(value violations)" 0
ok "errors: which ones" grep -q '^error=EIO operation=write count=' "$T/registers.said"
freeze "${server_pids[disk]}"
start_talker hangs "$registers" --nbd --stuck 1 "$(uri disk)"
kill -CONT "${server_pids[disk]}"
hear hangs '^begun' && freeze "${server_pids[disk]}" && say hangs 'wait 1000000'
end_talker hangs
is "what hangs: status 3" $? 3
ok "what hangs is named" grep -q '^stuck=' "$T/hangs.said"
kill_disk

# ---- liars ----

disk_preload=$volatile

liar() { # LIE REGEX
	export VOLATILE_DISK_LIE=$1
	start_disk || return
	unset VOLATILE_DISK_LIE
	convicted "a disk with '$1'" "$2" --nbd --size 1M "$(uri disk)"
	kill_disk
}

serve=("${stock[@]}")
liar drop stale
liar half torn
liar misplace foreign
liar late stale
liar zero stale

# ---- a disk that forgets ----

# killed_both: checker and server, at once.
killed_both() {
	start_disk || return
	start_registers "$registers" --no-trim --nbd "$(uri disk)" && goes_on 1000
	kill -KILL "${server_pids[registers]}" "${server_pids[disk]}"
	kill_disk
	end_talker registers 2>/dev/null
	"$registers" --verify --state "$T/state" "$T/disk" >"$T/verified"
}

ok "killed: what was flushed is there" killed_both
export VOLATILE_DISK_KEEPS=50
ok "killed, of the rest half is there: what was flushed is" killed_both
unset VOLATILE_DISK_KEEPS
export VOLATILE_DISK_LIE=flush
ok "killed: flushes that did nothing are found out" not killed_both
ok "and named" grep -qE "^violation=(stale|foreign) " "$T/verified"
unset VOLATILE_DISK_LIE

serve=("${ours[@]}")
cp "$T/disk" "$T/before"
start_disk
ok "a flush, FUA and nothing" py disk "
h.pwrite(b'1' * 8192, 0)
h.flush()
h.pwrite(b'2' * 4096, 4096, nbd.CMD_FLAG_FUA)
h.pwrite(b'3' * 4096, 0)
h.zero(4096, 8192)
h.pwrite(b'4' * 100, 12288)
same(h.pread(4096, 0), b'3' * 4096)"
kill_disk
{
	head -c 4096 /dev/zero | tr '\0' 1
	head -c 4096 /dev/zero | tr '\0' 2
} >"$T/flushed"
ok "only what was flushed stays" cmp --bytes 8192 "$T/disk" "$T/flushed"
ok "and nothing else has changed" cmp --ignore-initial 8192 "$T/disk" "$T/before"

# ---- a disk that stalls ----

serve=("${stock[@]}")
start_disk
ok "a stalled write lands after one that passed it" nbdsh -c "
import os
path, uri = '$T/stall', '$(uri disk)'
old, new = nbd.NBD(), nbd.NBD()
old.connect_uri(uri)
new.connect_uri(uri)
open(path, 'w').close()
cookie = old.aio_pwrite(b'1' * 512, 0)
while not os.path.exists(path + '.waiting'):
    old.poll(10)
os.rename(path, path + '.held')
new.pwrite(b'2' * 512, 0)
assert new.pread(512, 0) == b'2' * 512
os.unlink(path + '.held')
while not old.aio_command_completed(cookie):
    old.poll(-1)
assert new.pread(512, 0) == b'1' * 512"

# ---- a network ----

start_network || exit 1
cat >"$T/network.py" <<PYTHON
import nbd, sys
uri = "nbd://127.0.0.1:$(cat "$T/network.port")"
def say(line):
    print(line, flush=True)
    assert sys.stdin.readline() == "ok\n"
def connected():
    h = nbd.NBD()
    h.connect_uri(uri)
    return h
def lost(h):
    while not h.aio_is_dead():
        try:
            h.poll(-1)
        except nbd.Error:
            pass
def sent(h, what):
    h.aio_pwrite(what * 512, 0)
    while h.aio_get_direction() & nbd.AIO_DIRECTION_WRITE:
        h.poll(-1)
old = connected()
old.pwrite(b"0" * 512, 0)
say("hold 0")
sent(old, b"1")
say("hold 512")
say("part")
lost(old)
new = connected()
new.pwrite(b"2" * 512, 0)
assert new.pread(512, 0) == b"2" * 512
say("release")
while new.pread(512, 0) != b"1" * 512: # the server has it, but may still be at work
    pass
say("close")
say("drop")
cookie = new.aio_pwrite(b"3" * 512, 0)
assert new.poll(200) == 0
say("forward")
while not new.aio_command_completed(cookie):
    new.poll(-1)
say("lose")
sent(new, b"4")
assert new.poll(200) == 0
again = connected()
assert again.pread(512, 0) == b"3" * 512
say("cut")
lost(again)
lost(new)
PYTHON
# What it prints goes to the proxy, and what that answers comes back.
on_network() {
	timeout 60 /usr/bin/python3 "$T/network.py" >&"${say_fd[network]}" <&"${hear_fd[network]}"
}
ok "a network that holds, parts, releases, drops, loses and cuts" on_network
end_talker network
kill_disk
done_testing
