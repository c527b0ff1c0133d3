#!/bin/bash
# ndio writes a volume with integrity and a journal, and is cut off: after some of its writes to the disk,
# in their order, the kernel opens what is there. What was flushed by then is there, all sectors can be
# read, and each is as one of the writes left it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=../lib/crash.sh
. "$root/tests/lib/crash.sh"

export GUEST_MODULES="dm-integrity algif_aead algif_skcipher gcm ctr authenc ghash-generic"
CUTS=7

boot 1 cryptsetup
ok "a key" guest "printf %s '$(cat "$T/pass")' >/run/pass"

# What is written: of blocks from FIRST on, and how many calls the disk had seen when that was acknowledged.
cat >"$T/write.py" <<'END'
import json, os, sys, nbd
uri, log, out = sys.argv[1:]
h = nbd.NBD()
h.connect_uri(uri)
def calls():
    return len(os.listdir(log))
writes = []
def write(first, count, letter, flags=0):
    h.pwrite(letter.encode() * 4096 * count, first * 4096, flags)
    # Durable when so many calls are there; or never, by itself.
    writes.append([first, count, letter, calls() if flags else None])
def flush():
    h.flush()
    for w in writes:
        w[3] = w[3] or calls()
write(5, 10, "A")
flush()
write(7, 3, "B", nbd.CMD_FLAG_FUA)
write(30, 40, "C")
write(8, 1, "D")
flush()
write(0, 60, "E")
write(9, 1, "F", nbd.CMD_FLAG_FUA)
write(3, 20, "G")
h.shutdown()
json.dump(writes, open(out, "w"))
END

# cut IMAGE COUNT: the disk after so many calls.
cat >"$T/cut.py" <<'END'
import os, sys
log, image, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(image, "r+b") as disk:
    for name in sorted(os.listdir(log))[:count]:
        kind = name.split(".")
        if kind[1] == "write":
            disk.seek(int(kind[2]))
            disk.write(open(os.path.join(log, name), "rb").read())
END

# After so many calls, what the kernel reads: a letter fills a block, or zeroes.
cat >"$T/check.py" <<'END'
import json, sys
writes, count, seen = json.load(open(sys.argv[1])), int(sys.argv[2]), open(sys.argv[3], "rb").read()
if len(seen) != 80 * 4096:
    print("%d bytes" % len(seen))
for n in range(len(seen) // 4096):
    block = seen[n * 4096:(n + 1) * 4096]
    got = chr(block[0]) if block == block[:1] * 4096 else "something torn"
    may = ["\0"]
    for first, blocks, letter, durable in writes:
        if first <= n < first + blocks:
            if durable is not None and durable <= count:
                may = []
            may.append(letter)
    if got not in may:
        print("block %d: %r, and not one of %r" % (n, got, may))
END

made_and_written() {
	volume=$T/volume log=$T/recorder.log.d
	ok "a volume is made" "$NDIO_BUILD/ndio" format --key-file "$T/pass" --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 --sector-size 4096 --size 60M --integrity aead "$volume" || exit 1
	cp --sparse=always "$volume" "$T/before"
	start_recorder recorder "$volume" || exit 1
	start_nbdkit gateway "$NDIO_PLUGIN" uri="$(uri recorder)" "$key" || exit 1
	rm -f "$log"/*
	ok "it is written" /usr/bin/python3 "$T/write.py" "$(uri gateway)" "$log" "$T/writes"
	kill -KILL "${server_pids[gateway]}"
	wait "${server_pids[gateway]}" 2>/dev/null
	unset "server_pids[gateway]"
	ok "the recorder ends" stop_server recorder
}

# The first blocks, on the host.
seen_by_guest() { # FILE
	guest "dd if=/dev/mapper/volume bs=4096 count=80 2>/run/said | gzip" | gunzip >"$1"
}

opened_after() { # CALLS
	local count=$1 name="after $1 calls"

	cp --sparse=always "$T/before" "$T/cut"
	python3 "$T/cut.py" "$log" "$T/cut" "$count"
	ok "$name: is served" serve_stock cut file "$T/cut" || return
	ok "$name: the kernel opens it" guest "attach ${ports[cut]} /dev/nbd0 -C 1 &&
		cryptsetup open --key-file /run/pass /dev/nbd0 volume" || return
	ok "$name: it reads" seen_by_guest "$T/seen"
	is "$name: and each block is as it may be" \
		"$(python3 "$T/check.py" "$T/writes" "$count" "$T/seen")" ""
	ok "$name: all can be read" guest "dd if=/dev/mapper/volume of=/dev/null bs=1M"
	ok "$name: is closed" guest "cryptsetup close volume && detach /dev/nbd0"
	stop_server cut
}

made_and_written
all=$(find "$log" -type f | wc -l)
ok "the disk was written often enough: $all calls" [ "$all" -ge "$CUTS" ]
for ((i = 1; i <= CUTS; i++)); do
	opened_after $((all * i / CUTS))
done
sound_kernel
done_testing
