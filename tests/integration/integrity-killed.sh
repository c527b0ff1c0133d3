#!/bin/bash
# A volume with integrity and a journal, whose server is killed in the midst of writing: what was flushed is
# there, each sector is as one of the writes left it, and all can be read. So it is behind a gateway whose
# server is killed and comes back, and nobody notices; or doesn't come back, and all that wait fail.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/command.sh"

disk=$T/disk key=passphrase=+$T/pass known=$T/known

# Writes versions of sectors from several connections, some at once and some in part, until the server is
# gone; or looks whether all sectors are as they may be. Between them is a file: of each sector the
# version that was flushed, and that which was sent last.
cat >"$T/versions.py" <<'END'
import json, os, random, sys, threading, nbd

command, uri, known, seed = sys.argv[1:5]
SECTOR, COUNT, THREADS = int(sys.argv[5]), 1024, 4
def content(n, version):
    return (b"%8d%8d" % (n, version)) * (SECTOR // 16)
try:
    flushed, sent = json.load(open(known))
except FileNotFoundError:
    flushed, sent = [0] * COUNT, [0] * COUNT

def connect():
    h = nbd.NBD()
    h.connect_uri(uri)
    return h

def write(which):
    r = random.Random("%s %d" % (seed, which))
    h, acked = connect(), {}
    try:
        while True:
            first = r.randrange(which, COUNT - 32 * THREADS, THREADS) // THREADS * THREADS
            run = range(first + which, first + which + THREADS * r.choice((1, 1, 3, 24)), THREADS)
            fua = nbd.CMD_FLAG_FUA if r.randrange(16) == 0 else 0
            for n in run:
                sent[n] += 1
                h.pwrite(content(n, sent[n]), n * SECTOR, fua)
                if fua:
                    flushed[n] = sent[n]
                acked[n] = sent[n]
            if r.randrange(8) == 0:
                h.flush()
                for n, version in acked.items():
                    flushed[n] = max(flushed[n], version)
                acked = {}
                done[which] += 1
            with lock:
                if min(done) >= told[0] + 3:
                    told[0] = min(done)
                    print("busy", flush=True)
    except nbd.Error:
        pass

def version_of(n, sector):
    version = int(sector[8:16])
    if sector != content(n, version):
        print("sector %d is torn, or of another one" % n)
    return version

if command == "write":
    done, told, lock = [0] * THREADS, [0], threading.Lock()
    threads = [threading.Thread(target=write, args=(n,)) for n in range(THREADS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    json.dump((flushed, sent), open(known, "w"))
elif command == "fill":
    h = connect()
    for n in range(COUNT):
        h.pwrite(content(n, 0), n * SECTOR)
    h.flush()
else:
    h = connect()
    for n in range(COUNT):
        try:
            version = version_of(n, h.pread(SECTOR, n * SECTOR))
            if not flushed[n] <= version <= sent[n]:
                print("sector %d: %d, and not from %d to %d" % (n, version, flushed[n], sent[n]))
            sent[n] = flushed[n] = version
        except nbd.Error as error:
            print("sector %d: %s" % (n, error.errno))
    json.dump((flushed, sent), open(known, "w"))
END

versions() { # COMMAND SEED
	/usr/bin/python3 "$T/versions.py" "$1" "$(uri disk)" "$known" "$2" "$sector"
}

kill_server() { # NAME
	kill -KILL "${server_pids[$1]}"
	wait "${server_pids[$1]}" 2>/dev/null
	unset "server_pids[$1]"
}

# All connections have flushed some times since that was last so.
busy() {
	local said

	read -r -t 60 said <&"${WRITER[0]}" && [ "$said" = busy ]
}

start_writer() { # SEED
	coproc WRITER { exec timeout 120 /usr/bin/python3 "$T/versions.py" write "$(uri disk)" "$known" "$1" \
		"$sector"; }
	writer=$WRITER_PID
}

write_until_killed() { # SEED
	start_writer "$1"
	busy || return
	kill_server disk
	wait "$writer"
}

killed() { # NAME SECTOR FORMAT-OPTION...
	local name=$1 seed

	sector=$2
	shift 2
	rm -f "$disk" "$known"
	ok "$name: a disk" "$ndio" format --key-file "$T/pass" "${cheap[@]}" --size 26M --sector-size \
		"$sector" "$@" "$disk"
	ok "$name: a server" start_door disk "$disk" "$key" integrity-cache=1M
	ok "$name: is filled" versions fill 0
	for seed in 1 2 3; do
		ok "$name: it is killed while it writes, $seed" write_until_killed "$seed"
		ok "$name: another server, $seed" start_door disk "$disk" "$key" integrity-cache=1M || return
		is "$name: all is as it may be, $seed" "$(versions check "$seed")" ""
	done
	ok "$name: it ends" stop_server disk
	ok "$name: nothing is left to be done" "$ndio" copy --src-key-file "$T/pass" "$disk" null:
}

start_gateway() { # RECONNECT
	start_door disk uri="$(uri store)" "$key" integrity-cache=1M reconnect="$1"
}

# Not nbdkit: 1.32 may end by an assertion when a client is killed under load.
start_store() {
	start_serve store "$disk"
}

comes_back() {
	kill_server store
	start_store && busy && busy
}

behind_a_gateway() {
	local i

	sector=4096
	rm -f "$disk" "$known"
	ok "gateway: a disk" "$ndio" format --key-file "$T/pass" "${cheap[@]}" --size 26M --integrity aead \
		"$disk"
	ok "gateway: its server" start_store
	ok "gateway: itself" start_gateway 60
	ok "gateway: is filled" versions fill 0
	start_writer 1
	for i in 1 2 3; do
		ok "gateway: the server is killed and comes back, $i, and all goes on" comes_back
	done
	kill_server disk
	wait "$writer"
	ok "gateway: another one" start_gateway 1
	is "gateway: all is as it may be" "$(versions check 1)" ""
	start_writer 2
	ok "gateway: it is written again" busy
	kill_server store
	ok "gateway: the server doesn't come back, and all that wait fail" wait "$writer"
	ok "gateway: the log says so, once" [ "$(grep -c "nothing is written any more" "$T/disk.log")" = 1 ]
	ok "gateway: it ends" stop_server disk
	ok "gateway: the server is there again" start_store
	ok "gateway: another one" start_gateway 60
	is "gateway: all is as it may be then, too" "$(versions check 2)" ""
	ok "gateway: it ends well" stop_server disk
	ok "gateway: and its server" stop_server store
}

# What was written and not flushed isn't lost when a server is told to end.
ends_by_itself() { # FORMAT-OPTION...
	rm -f "$disk"
	ok "an end${*:+, $*}: a disk" "$ndio" format --key-file "$T/pass" "${cheap[@]}" --size 24M --integrity aead "$@" "$disk"
	ok "an end: its server" start_store
	ok "an end: a gateway" start_gateway 60
	ok "an end: it is written, and not flushed" py disk 'h.pwrite(data(65536), 1 << 20)'
	ok "an end: the gateway ends" stop_server disk
	is "an end: and says nothing of it" "$(grep -c integrity "$T/disk.log")" 0
	ok "an end: its server, too" stop_server store
	ok "an end: it is opened" start_door disk "$disk" "$key"
	ok "an end: all is there" py disk 'same(h.pread(65536, 1 << 20), data(65536))'
	ok "an end: it ends" stop_server disk
}

# A server that ends while its own server is away waits for that, as requests do. Its connections come back only
# all together, whoever of those that have them is done by then.
away_at_an_end() { # NAME FORMAT-OPTION...
	local name=$1

	shift
	rm -f "$disk"
	ok "$name: a disk" "$ndio" format --key-file "$T/pass" "${cheap[@]}" --size 24M --integrity aead "$@" "$disk"
	ok "$name: its server" start_store
	ok "$name: a gateway" start_serve disk --key-file "$T/pass" --reconnect 60 --connections 4 "$(uri store)"
	ok "$name: it is written, and not flushed" py disk 'h.pwrite(data(65536), 1 << 20)'
	freeze "${server_pids[store]}"
	sleep 2 # it begins to write what wasn't flushed, and waits
	kill -TERM "${server_pids[disk]}"
	sleep 1 # and ends
	kill_server store
	ok "$name: the server is there again" start_store
	ok "$name: the gateway ends" stop_server disk
	is "$name: and says nothing of it" "$(grep -c integrity "$T/disk.log")" 0
	ok "$name: its server, too" stop_server store
	ok "$name: it is opened" start_door disk "$disk" "$key"
	ok "$name: all is there" py disk 'same(h.pread(65536, 1 << 20), data(65536))'
	ok "$name: it ends" stop_server disk
}

behind_a_gateway
ends_by_itself
ends_by_itself --integrity-no-journal
away_at_an_end "away"
away_at_an_end "away, no journal" --integrity-no-journal
killed "AES-GCM" 4096 --integrity aead
killed "HMAC, sectors of 512" 512 --integrity hmac-sha256
done_testing
