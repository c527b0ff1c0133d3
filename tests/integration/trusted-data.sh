#!/bin/bash
# Disks with integrity and a trust file, written through the journal and without it: what is older than it
# should be, as a whole or below a running server, is an error and never data, at both doors, by the
# command and over TLS; and what was changed, too. trust.sh has the header.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/tls.sh"
. "$root/tests/lib/command.sh"

disk=$T/disk trust=$T/trust
MB=$((1 << 20))

# put FILE: that is the disk from now on, for who has it open, too; but for the header, which stays as it is.
put() {
	dd if="$1" of="$disk" bs=1M skip=16 seek=16 conv=notrunc status=none
}

copy_in() { # FILE [DISK]
	"$ndio" copy --overwrite --dst-key-file "$T/pass" --dst-trust "$trust" "$1" "${2:-$disk}"
}

copy_out() { # FILE [DISK]
	"$ndio" copy --src-key-file "$T/pass" --src-trust "$trust" "${2:-$disk}" "$1"
}

# has FILE [DISK]: it begins with that.
has() {
	rm -f "$T/back"
	copy_out "$T/back" "${2:-$disk}" && cmp -n "$(stat -c %s "$1")" "$1" "$T/back"
}

# serve_by DOOR [WHAT]: as "disk", which tells what it counts when it ends.
serve_by() {
	rm -f "$T/disk.prom"
	DOOR=$1 start_door disk "${2:-file=$disk}" passphrase=+"$T/pass" trust="$trust" metrics="$T/disk.prom"
}

# counted NAME: which it then was.
counted() {
	awk -v name="ndio_$1_total{" 'index($0, name) == 1 { print $NF }' "$T/disk.prom"
}

# blocks FILE COUNT: of the server, compared with the file's: how many are right, other, or which errors.
blocks() {
	nbdsh -u "$(uri disk)" -c "
import collections
found = collections.Counter()
with open('$1', 'rb') as wanted:
    for n in range($2):
        try:
            found['right' if h.pread(4096, n * 4096) == wanted.read(4096).ljust(4096, b'\0') else 'other'] += 1
        except nbd.Error as error:
            wanted.seek((n + 1) * 4096)
            found[error.errno] += 1
print(*(f'{count} {what}' for what, count in sorted(found.items())))"
}

made() { # FORMAT-OPTION...
	rm -f "$disk" "$trust"
	ok "$way: made" "$ndio" format --size 36M --integrity aead "$@" --key-file "$T/pass" "${cheap[@]}" --trust "$trust" "$disk"
	like "$way: all that was written is known" "$("$ndio" info --trust "$trust" "$disk")" "areas: *2, of which 2 are known"
	ok "$way: an image" copy_in "$T/first"
	cp "$disk" "$T/week-old"
	ok "$way: and another" copy_in "$T/second"
	ok "$way: which is there" has "$T/second"
	cp "$disk" "$T/newest"
	cp "$trust" "$T/trust-newest"
}

old_one() {
	put "$T/week-old"
	like "$way: an older disk is found out" "$(copy_out null: 2>&1)" "bytes 0 to 16777215 aren't what they were"
	ok "$way: by a status, too" not copy_out null: 2>/dev/null
	ok "$way: without the file it isn't" "$ndio" copy --src-key-file "$T/pass" "$disk" null:
	put "$T/newest"
	ok "$way: the newest is good" has "$T/second"
}

# The server has opened the newest, and read nothing of it yet.
below_a_server() { # DOOR
	ok "$way, $1: a server" serve_by "$1"
	put "$T/week-old"
	is "$way, $1: an older disk below it is an error, where it is older" "$(blocks "$T/second" 16)" "16 EIO"
	is "$way, $1: and not elsewhere" "$(py disk 'h.pread(4096, 17 << 20); print("read")')" read
	ok "$way, $1: nothing is written there" py disk 'fails("EIO", h.pwrite, b"x" * 4096, 0); fails("EIO", h.pwrite, b"x" * 5, 9000)'
	is "$way, $1: all others are served" "$(py disk 'h.pwrite(b"x" * 4096, 17 << 20); h.flush(); print(h.pread(2, 17 << 20))')" \
		"bytearray(b'xx')"
	ok "$way, $1: the log says where" said disk "$disk: integrity: bytes 0 to 16777215 aren't what they were"
	ok "$way, $1: and what failed" said disk "read.* 4096 bytes at 0: .*gives back an older one"
	ok "$way, $1: it ends" stop_server disk
	is "$way, $1: an area is counted" "$(counted stale_areas)" 1
	is "$way, $1: and no block" "$(counted bad_blocks)" 0
	put "$T/newest"
	cp "$T/trust-newest" "$trust"
}

# It has read and written it all before, so that tags, and what the journal has, are in its memory.
below_a_busy_server() { # DOOR
	local found

	ok "$way, busy $1: a server" serve_by "$1"
	ok "$way, busy $1: is written to" nbdsh -u "$(uri disk)" -c "
data = open('$T/third', 'rb').read()
h.pwrite(data, 0)
h.flush()
assert h.pread(len(data), 0) == data"
	put "$T/week-old"
	found=$(blocks "$T/third" 256)
	like "$way, busy $1: nothing older is read: $found" "$found" '^[0-9]+ (EIO|right)( [0-9]+ right)?$'
	ok "$way, busy $1: it ends" stop_server disk
	ok "$way, busy $1: the next one" serve_by "$1"
	found=$(blocks "$T/third" 256)
	like "$way, busy $1: reads nothing older either: $found" "$found" '^[0-9]+ (EIO|right)( [0-9]+ right)?$'
	ok "$way, busy $1: ends" stop_server disk
	put "$T/newest"
	cp "$T/trust-newest" "$trust"
}

# What a server leaves that is killed when it has flushed; that is handed back after it went on.
killed() { # DOOR
	ok "$way, killed $1: a server" serve_by "$1"
	ok "$way, killed $1: is flushed" py disk 'h.pwrite(b"k" * 65536, 4096); h.flush()'
	kill -KILL "${server_pids[disk]}"
	wait "${server_pids[disk]}" 2>/dev/null
	unset "server_pids[disk]"
	cp "$disk" "$T/killed"
	ok "$way, killed $1: the next one" serve_by "$1"
	ok "$way, killed $1: has that, and writes" py disk 'same(h.pread(65536, 4096), b"k" * 65536)
h.pwrite(b"l" * 65536, 4096)
h.flush()'
	ok "$way, killed $1: ends" stop_server disk
	is "$way, killed $1: all was as it was known" "$(counted stale_areas) $(counted bad_blocks)" "0 0"
	put "$T/killed"
	ok "$way, killed $1: what it left is handed back" serve_by "$1"
	ok "$way, killed $1: which is an error" py disk 'fails("EIO", h.pread, 4096, 4096)'
	ok "$way, killed $1: ends" stop_server disk
	is "$way, killed $1: it is counted" "$(counted stale_areas)" 1
	put "$T/newest"
	cp "$T/trust-newest" "$trust"
}

# A bit of a block, and of no other.
changed() { # DOOR
	local at=$((17 * MB))

	printf "\\x$(printf %x $(($(od -An -tu1 -j $at -N 1 "$disk") ^ 1)))" | dd of="$disk" bs=1 seek=$at conv=notrunc status=none
	ok "$way, $1: a server of a disk that was changed" serve_by "$1"
	is "$way, $1: it is an error in one block" "$(blocks "$T/second" 512)" "1 EIO 511 right"
	ok "$way, $1: the log says where" said disk "$disk: integrity: byte [0-9]+, which is at [0-9]+ here, isn't what was written there"
	ok "$way, $1: and what failed" said disk "read.* 4096 bytes at [0-9]+: its integrity is broken"
	ok "$way, $1: ends" stop_server disk
	is "$way, $1: it is counted" "$(counted bad_blocks)" 1
	is "$way, $1: as no area" "$(counted stale_areas)" 0
	like "$way: a copy fails" "$(copy_out null: 2>&1)" "its integrity is broken"
	like "$way: it isn't believed" "$("$ndio" trust --again --yes --trust "$trust" --key-file "$T/pass" "$disk" 2>&1)" \
		"its integrity is broken"
	ok "$way: the file is what it was" cmp "$trust" "$T/trust-newest"
	put "$T/newest"
}

# The disk's server knows neither key nor file.
over_tls() {
	local remote="nbds+unix://alice@/?socket=$T/remote.sock&tls-psk-file=$psk"

	ok "$way, TLS: a server" start_serve remote --tls-psk "$psk" "$disk"
	ok "$way, TLS: an image" copy_in "$T/third" "$remote"
	ok "$way, TLS: is there" has "$T/third" "$remote"
	put "$T/newest"
	like "$way, TLS: an older disk is found out" "$(copy_out null: "$remote" 2>&1)" \
		"integrity: bytes 0 to 16777215 aren't what they were"
	ok "$way, TLS: a gateway" serve_by serve uri="$remote"
	is "$way, TLS: tells its clients" "$(blocks "$T/third" 16)" "16 EIO"
	ok "$way, TLS: ends" stop_server disk
	is "$way, TLS: and counts it" "$(counted stale_areas)" 1
	ok "$way, TLS: the disk's server ends" stop_server remote
	cp "$T/trust-newest" "$trust"
}

make_psk "$psk" alice
random "$T/first" $((2 * MB))
random "$T/second" $((2 * MB))
random "$T/third" $MB
for way in journal direct; do
	options=() one=nbdkit
	[ $way = journal ] || options=(--integrity-no-journal) one=serve
	made "${options[@]}"
	old_one
	for door in nbdkit serve; do
		below_a_server $door
	done
	changed $one
	below_a_busy_server $one
	killed $one
	over_tls
done

# ---- learned ----

start_stock ro --readonly file "$disk"
ok "one that can't be written is read into a file" "$ndio" trust --trust "$T/of-ro" --key-file "$T/pass" "$(uri ro)"
like "whole" "$("$ndio" info --trust "$T/of-ro" "$disk")" "areas: *2, of which 2 are known"
stop_server ro

# A file that is made anew is held meanwhile: who wrote with the old one what is read would be taken for older.
put "$T/newest"
start_stock again --filter=delay file "$disk" rdelay=300ms
"$ndio" trust --again --yes --trust "$trust" --key-file "$T/pass" "$(uri again)" >"$T/again.out" 2>&1 &
making=$!
until compgen -G "$trust.??????" >/dev/null || ! kill -0 $making 2>/dev/null; do
	sleep 0.02
done
freeze "${server_pids[again]}"
like "nobody writes with the old file while a new one is made" "$(copy_in "$T/first" 2>&1)" "trust: in use by another process"
kill -CONT "${server_pids[again]}"
wait $making
is "which is made" $? 0
stop_server again
ok "and is the disk's" has "$T/second"
ok "and then one writes with it" copy_in "$T/first"

# Who is stopped in the middle of it leaves nothing.
start_stock slow --readonly --filter=delay file "$disk" rdelay=100ms
"$ndio" trust --trust "$T/stopped" --key-file "$T/pass" "$(uri slow)" 2>/dev/null &
making=$!
until compgen -G "$T/stopped.*" >/dev/null || ! kill -0 $making 2>/dev/null; do
	sleep 0.02
done
kill -TERM $making
wait $making
is "stopped, it dies of that" $? 143
is "and no file is left" "$(compgen -G "$T/stopped*")" ""
stop_server slow
done_testing
