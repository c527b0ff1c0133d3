#!/bin/bash
# Trims give blocks back, zeroes read as zeroes, at any offset and length, and neither touches
# its neighbours.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

key=passphrase=+$T/pass

# Bytes that the file has on its disk.
used() {
	sync "$1"
	echo $(($(stat -c %b "$1") * 512))
}

# gave_back BEFORE FILE: 4 MiB since then; the file system's own needs may change a little.
gave_back() {
	[ $(($1 - $(used "$2"))) -gt $(((4 << 20) - 131072)) ]
}

# Where a file system can't punch holes, nothing is given back.
truncate -s 1M "$T/probe"
holes=yes
fallocate --punch-hole --offset 0 --length 65536 "$T/probe" 2>/dev/null || holes=

# 8 MiB of data.
full() {
	py disk "h.pwrite(data(8 << 20), 0); h.flush()"
}

trims() { # NAME FILE ARG...
	local name=$1 file=$2 before

	shift 2
	ok "$name: starts" start_door disk "$file" "$@" || return
	full
	before=$(used "$file")
	ok "$name: trims" py disk "
h.trim(4 << 20, 1 << 20)
h.flush()"
	if [ -n "$holes" ]; then
		ok "$name: that much is given back" gave_back "$before" "$file"
	else
		skip "the file system here has no holes"
	fi
	ok "$name: odd offsets and lengths, to the byte at the most" py disk "
want = data(8 << 20)
h.pwrite(want, 0)
trims = [((2 << 20) + 1, 65536), ((3 << 20) + 4095, 2), ((3 << 20) + 70000, 100000),
         (5 << 20, 1), ((6 << 20) - 1, 1 << 20), ((8 << 20) - 3, 3)]
for i, (offset, count) in enumerate(trims):
    h.trim(count, offset, nbd.CMD_FLAG_FUA if i % 2 else 0)
h.flush()
got = h.pread(8 << 20, 0)
for offset, count in trims:
    got = got[:offset] + want[offset:offset + count] + got[offset + count:]
same(got, want)"
	ok "$name: what was trimmed can be written again" py disk "
h.pwrite(data(8 << 20, 1), 0)
same(h.pread(8 << 20, 0), data(8 << 20, 1))"
	ok "$name: several at once, next to writes" py disk "
h.pwrite(data(8 << 20), 0)
cookies = []
for i in range(0, 8 << 20, 65536):
    cookies.append(h.aio_trim(30000, i + 5))
    cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data(5000, i))), i + 40000))
while h.aio_in_flight():
    h.poll(-1)
assert all([h.aio_command_completed(cookie) for cookie in cookies])
want, got = data(8 << 20), h.pread(8 << 20, 0)
for i in range(0, 8 << 20, 65536):
    same(got[i + 40000:i + 45000], data(5000, i))
    same(got[i:i + 5], want[i:i + 5])
    same(got[i + 30005:i + 40000], want[i + 30005:i + 40000])
    same(got[i + 45000:i + 65536], want[i + 45000:i + 65536])"
	ok "$name: and it ends well" stop_server disk
}

# Every flag that there is, if it is to be had.
zeroes() { # NAME FILE ARG...
	local name=$1 file=$2

	shift 2
	ok "$name: starts" start_door disk "$file" "$@" || return
	ok "$name: any offset, length and flag" py disk "
every = [0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA]
want = bytearray(data(8 << 20))
h.pwrite(data(8 << 20), 0)
random.seed(1)
places = [(0, 1), (0, 4096), (511, 2), (512, 512), (513, 511), (4095, 1), (4095, 8194),
          (65536, 65536), (131071, 131074), (1 << 20, 1 << 20), ((2 << 20) + 1, 1 << 20),
          (4 << 20, (1 << 20) + 3), ((8 << 20) - 1, 1), ((8 << 20) - 5000, 5000)]
places += [(random.randrange(8 << 20), random.randrange(1, 300000)) for i in range(60)]
for i, (offset, count) in enumerate(places):
    count = min(count, (8 << 20) - offset)
    for flags in every if i < 8 else [every[i % 4]]:
        again = data(count, i)
        h.pwrite(again, offset)
        h.zero(count, offset, flags)
        want[offset:offset + count] = bytes(count)
        around = max(0, offset - 5000)
        same(h.pread(min(count + 10000, (8 << 20) - around), around),
             bytes(want[around:around + min(count + 10000, (8 << 20) - around)]))
h.flush()
same(h.pread(8 << 20, 0), bytes(want))"
	ok "$name: a fast zero is done or refused, never half done" py disk "
if h.can_fast_zero():
    for i, (offset, count) in enumerate([(0, 1 << 20), (4096, 4096), (1000, 5), (777, 1 << 20)]):
        for flags in [0, nbd.CMD_FLAG_NO_HOLE]:
            h.pwrite(data(2 << 20, i), 0)
            want = bytearray(data(2 << 20, i))
            try:
                h.zero(count, offset, flags | nbd.CMD_FLAG_FAST_ZERO)
            except nbd.Error as e:
                assert e.errno in ('ENOTSUP', 'EOPNOTSUPP'), e
            else:
                want[offset:offset + count] = bytes(count)
            same(h.pread(2 << 20, 0), bytes(want))"
	ok "$name: several at once, next to writes" py disk "
h.pwrite(data(8 << 20), 0)
want = bytearray(data(8 << 20))
cookies = []
for i in range(0, 8 << 20, 65536):
    cookies.append(h.aio_zero(30000, i + 5,
                              flags=nbd.CMD_FLAG_NO_HOLE if i & 65536 else 0))
    cookies.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data(5000, i))), i + 30005))
    want[i + 5:i + 30005] = bytes(30000)
    want[i + 30005:i + 35005] = data(5000, i)
while h.aio_in_flight():
    h.poll(-1)
assert all([h.aio_command_completed(cookie) for cookie in cookies])
same(h.pread(8 << 20, 0), bytes(want))"
	ok "$name: and it ends well" stop_server disk
}

truncate -s 8M "$T/raw"
make_luks2 "$T/luks" 24M --sector-size 512
make_luks2 "$T/luks4k" 24M --sector-size 4096
trims "raw" "$T/raw"
trims "raw, buffered" "$T/raw" direct=off
trims "LUKS, discard=on" "$T/luks" "$key" discard=on
trims "LUKS, sectors of 4096, discard=on" "$T/luks4k" "$key" discard=on
zeroes "raw" "$T/raw"
zeroes "raw, buffered" "$T/raw" direct=off
zeroes "LUKS" "$T/luks" "$key"
zeroes "LUKS, sectors of 4096" "$T/luks4k" "$key"
zeroes "LUKS, discard=on, buffered" "$T/luks" "$key" discard=on direct=off

# Without discard=on nothing tells which blocks of an encrypted volume are in use.
ok "LUKS: starts" start_door disk "$T/luks" "$key"
full
before=$(used "$T/luks")
ok "LUKS: no trims" not nbdinfo --can trim "$(uri disk)"
ok "LUKS: one that is sent anyway is refused" py disk "
h.set_strict_mode(0)
fails('EINVAL', h.trim, 1 << 20, 0)
same(h.pread(8 << 20, 0), data(8 << 20))"
ok "LUKS: zeroes make no holes" py disk "h.zero(8 << 20, 0); h.flush()"
ok "LUKS: so nothing is given back" [ "$(used "$T/luks")" -ge "$before" ]
ok "LUKS: and zeroes aren't zeroes on the disk" [ "$(tail -c 8M "$T/luks" | tr -d '\0' |
	wc -c)" -gt 8200000 ]
stop_server disk

# Raw: holes where they may be, and none where not.
ok "raw: starts" start_door disk "$T/raw"
full
before=$(used "$T/raw")
ok "raw: a zero that may make no hole" py disk "
h.zero(4 << 20, 0, nbd.CMD_FLAG_NO_HOLE)
h.flush()
same(h.pread(4 << 20, 0), bytes(4 << 20))"
ok "raw: makes none" [ "$(used "$T/raw")" -ge "$before" ]
ok "raw: a zero that may" py disk "
h.zero(4 << 20, 0)
h.flush()
same(h.pread(4 << 20, 0), bytes(4 << 20))"
if [ -n "$holes" ]; then
	ok "raw: does" gave_back "$before" "$T/raw"
else
	skip "the file system here has no holes"
fi
stop_server disk

# As much as one request can ask for.
truncate -s 5G "$T/large"
ok "zeroes of 4 GiB: starts" start_door disk "$T/large"
py disk "
h.pwrite(data(1 << 20), 0)
h.pwrite(data(1 << 20, 1), (4 << 30) - (1 << 20) - 512)
h.pwrite(data(512, 3), (4 << 30) - 512)
h.pwrite(data(1 << 20, 2), 4 << 30)"
start=$SECONDS
ok "zeroes of 4 GiB: in one request" py disk "h.zero((4 << 30) - 513, 1); h.flush()"
ok "zeroes of 4 GiB: quickly" [ $((SECONDS - start)) -lt 20 ]
ok "zeroes of 4 GiB: all of them, and no others" py disk "
same(h.pread(1 << 20, 0), data(1 << 20)[:1] + bytes((1 << 20) - 1))
same(h.pread(1 << 20, (4 << 30) - (1 << 20) - 512), bytes(1 << 20))
same(h.pread(512, (4 << 30) - 512), data(512, 3))
same(h.pread(1 << 20, 4 << 30), data(1 << 20, 2))"
ok "zeroes of 4 GiB: a trim of as much" py disk "h.trim((4 << 30) - 4096, 0); h.flush()"
ok "zeroes of 4 GiB: and it ends well" stop_server disk
done_testing
