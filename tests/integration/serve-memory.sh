#!/bin/bash
# ndio serve: what is in its memory. The key's round keys lie in few places, all of them locked; and
# of a client that is gone no plaintext is left.
# shellcheck disable=SC2154
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/tls.sh
. "$root/tests/lib/tls.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "a sanitizer's build keeps what was freed, in terabytes of its own"

[ "$(id -u)" = 0 ] || skip_all "only root may look into a process that has keys"

finder=$root/tests/tools/find-in-memory.py
threads=2

within() { # SECONDS COMMAND...
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $deadline ] || return
		sleep 0.02
	done
}

find_in() { # NAME FILE...
	local name=$1
	shift
	"$finder" "${server_pids[$name]}" "$@"
}

# The halves of the key for XTS: each begins its round keys for encryption, and there is the key itself.
keys_are_few() { # NAME
	find_in "$1" "$T/half0" "$T/half1" >"$T/places"
	echo "# $(wc -l <"$T/places") places"
	! grep loose "$T/places" && [ "$(wc -l <"$T/places")" -ge 2 ] &&
		[ "$(wc -l <"$T/places")" -le $((2 * (2 * 2 * threads + 1))) ]
}

# Every 16 bytes of it: a buffer may be left of which a part was overwritten.
pattern='
import os
mark = open(os.environ["T"] + "/mark", "rb").read()
size = h.get_size()
def marked(count):
    return bytearray((mark * (count // len(mark) + 1))[:count])
for count in 4096, 512, 100000, 1 << 20, 3000, 4 << 20:
    h.pwrite(marked(count), 0)
    h.pwrite(marked(count), 8 << 20, flags=nbd.CMD_FLAG_FUA)
    same(h.pread(count, 0), marked(count))
    h.pwrite(marked(count), (16 << 20) + 100)
    same(h.pread(count, (16 << 20) + 100), marked(count))
buffers = [nbd.Buffer.from_bytearray(marked(65536)) for _ in range(16)]
cookies = [h.aio_pwrite(buffers[i], i << 16) for i in range(16)]
cookies += [h.aio_pread(nbd.Buffer(1 << 20), i << 20) for i in range(4)]
while not all(h.aio_command_completed(c) for c in cookies[-1:]):
    h.poll(10000)
'
leave='h.shutdown()'
vanish='
for i in range(8):
    h.aio_pwrite(nbd.Buffer.from_bytearray(marked(1 << 20)), i << 20)
    h.aio_pread(nbd.Buffer(1 << 20), i << 20)
for i in range(20):
    h.poll(0)
os._exit(0)'

client() { # URI END
	T=$T timeout 60 /usr/bin/python3 -m nbd -c 'h.set_uri_allow_local_file(True)' \
		-c "h.connect_uri('$1')" -c "$prelude" -c "$pattern" -c "$2"
}

sockets() { # NAME
	find "/proc/${server_pids[$1]}/fd" -lname 'socket:*' | wc -l
}

all_have_gone() { # NAME
	[ "$(sockets "$1")" -le "$alone" ]
}

nothing_left() { # NAME
	within 20 all_have_gone "$1" || return
	! find_in "$1" "$T/piece" | head -n 5 | grep .
}

# It is there while the client is: so it would be found.
found_meanwhile() { # NAME URI
	local client found

	client "$2" "
open('$T/ready', 'w').close()
import time
while not os.path.exists('$T/go'):
    time.sleep(0.02)" &
	client=$!
	within 20 test -e "$T/ready"
	find_in "$1" "$T/piece" >/dev/null
	found=$?
	touch "$T/go"
	wait "$client" && rm "$T/ready" "$T/go" && [ $found = 0 ]
}

left_by() { # URI END
	client "$@" && nothing_left disk
}

leaves_nothing() { # NAME URI
	alone=$(sockets disk)
	ok "$1: while a client is there it is found" found_meanwhile disk "$2"
	ok "$1: a client leaves no plaintext" left_by "$2" "$leave"
	ok "$1: one that vanishes neither" left_by "$2" "$vanish"
}

make_luks2 "$T/disk" 49M --sector-size 4096
random "$T/mark" 16
cat "$T/mark" "$T/mark" "$T/mark" "$T/mark" | head -c 31 >"$T/piece"
ok "the volume's key" cryptsetup luksDump --batch-mode --dump-volume-key \
	--volume-key-file "$T/key" --key-file "$T/pass" "$T/disk"
head -c 32 "$T/key" >"$T/half0"
tail -c 32 "$T/key" >"$T/half1"

start_serve disk --key-file "$T/pass" --threads $threads "$T/disk"
ok "keys lie in few places, all locked" keys_are_few disk
leaves_nothing plain "$(uri disk)"
ok "keys lie in few places still" keys_are_few disk
ok "it ends cleanly" stop_server disk

make_tls
start_serve disk --key-file "$T/pass" --threads $threads --tls-psk "$psk" "$T/disk"
leaves_nothing "TLS" "$(with_psk disk)"
ok "it ends cleanly" stop_server disk

start_serve behind "$T/disk"
start_serve disk --key-file "$T/pass" --threads $threads "$(uri behind)"
ok "a gateway's keys lie in few places, all locked" keys_are_few disk
leaves_nothing gateway "$(uri disk)"
ok "it ends cleanly" stop_server disk
ok "and what is behind it" stop_server behind

# What connections have had in flight is no more than all may have together, also if they came one by one and
# stay.
truncate -s 64M "$T/raw"
start_serve disk --threads $threads "$T/raw"
resident() {
	sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/${server_pids[disk]}/status"
}
was=$(resident)
nbdsh -c "
clients = []
for _ in range(24):
    h = nbd.NBD()
    h.connect_uri('$(uri disk)')
    cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(1 << 20)), i << 20) for i in range(16)]
    while h.aio_in_flight() > 0:
        h.poll(60000)
    assert all([h.aio_command_completed(cookie) for cookie in cookies])
    clients.append(h)
open('$T/busy', 'w').close()
import os, time
while not os.path.exists('$T/looked'):
    time.sleep(0.02)" &
busy=$!
ok "24 connections are busy, one by one" within 60 test -e "$T/busy"
now=$(resident)
ok "and hold $(((now - was) / 1024)) MiB" test $((now - was)) -le $(((48 + 16) * 1024))
: >"$T/looked"
wait $busy
ok "it ends cleanly" stop_server disk

none_is_loose() {
	find_in "$1" "$T/half0" "$T/half1" >"$T/places" && ! grep loose "$T/places"
}

start_nbdkit plugin "$NDIO_PLUGIN" "$T/disk" "keyfile=$T/pass"
ok "the plugin: keys" client "$(uri plugin)" "$leave"
ok "the plugin's keys are all locked" none_is_loose plugin
ok "it ends cleanly" stop_server plugin

done_testing
