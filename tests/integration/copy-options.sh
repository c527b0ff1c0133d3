#!/bin/bash
# ndio copy: how fast, with a checksum, without holes, and only what has changed.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

key=$T/pass
kib=1024 mib=1048576
size=$((3 * mib + 5000))
head -c $size /dev/urandom >"$T/src"
dd if=/dev/zero of="$T/src" bs=64k seek=8 count=3 conv=notrunc status=none
fallocate --punch-hole --offset $((2 * mib)) --length 700000 "$T/src"
sum=$(sha256sum <"$T/src" | cut -d' ' -f1)

make_volume() { # FILE BYTES
	make_luks2 "$1" $(($2 + mib)) --luks2-metadata-size 16k --luks2-keyslots-size 512k --offset 2048 >/dev/null
}

# ---- --checksum ----

# summed NAME SUM ARG...: a copy tells it.
summed() {
	local name=$1 wanted=$2

	"$ndio" copy --checksum sha256 "${@:3}" >"$T/told" 2>"$T/err"
	is "$name" "$(cut -d' ' -f1 "$T/told")" "$wanted" || diag "$(cat "$T/err")"
}

summed "the checksum of a file is that of sha256sum" "$sum" "$T/src" "$T/dst"
is "in its words" "$(cat "$T/told")" "$sum  $T/src"
ok "which sha256sum takes" sha256sum --check --status "$T/told"
ok "and the copy is whole" cmp "$T/src" "$T/dst"
for options in "-C 1 -R 1" "-C 8 --request-size 4K"; do
	# shellcheck disable=SC2086
	summed "$options" "$sum" $options "$T/src" "$T/dst"
done
summed "to nowhere" "$sum" "$T/src" null:
: >"$T/empty"
summed "of nothing" "$(sha256sum <"$T/empty" | cut -d' ' -f1)" "$T/empty" "$T/dst"
truncate -s 9M "$T/holes"
summed "of a hole" "$(sha256sum <"$T/holes" | cut -d' ' -f1)" "$T/holes" "$T/dst"
# Requests that come back in another order than they went.
start_stock slow --filter=delay --filter=file file "$T/src" rdelay=1ms 2>/dev/null ||
	start_stock slow --filter=delay file "$T/src" rdelay=1ms
summed "of what many connections read" "$sum" -C 4 --request-size 16K "$(uri slow)" "$T/dst"
stop_server slow
summed "from a pipe" "$sum" - "$T/dst" < <(cat "$T/src")
"$ndio" copy --checksum sha256 "$T/src" - 2>"$T/err" >"$T/out"
is "to a pipe it is told on stderr" "$(without_limits "$T/err")" "$sum  $T/src"
ok "and the pipe has the disk alone" cmp "$T/src" "$T/out"
head -c $mib "$T/src" >"$T/dst"
summed "of a copy that goes on it is that of the whole" "$sum" --resume "$T/src" "$T/dst"

make_volume "$T/vol" $((4 * mib))
"$ndio" copy --dst-key-file "$key" "$T/src" "$T/vol" 2>/dev/null
"$ndio" copy --src-key-file "$key" "$T/vol" - 2>/dev/null >"$T/plain"
plain=$(sha256sum <"$T/plain" | cut -d' ' -f1)
summed "with a key it is of the plaintext" "$plain" --src-key-file "$key" "$T/vol" "$T/dst"
summed "without, of the ciphertext" "$(sha256sum <"$T/vol" | cut -d' ' -f1)" "$T/vol" "$T/dst"
summed "and of the source, into a volume" "$sum" --dst-key-file "$key" "$T/src" "$T/vol"
ok "none that it hasn't" usage "$ndio" copy --checksum sha257 "$T/src" null:
start_stock bad --filter=error file "$T/src" error-pread=EIO error-pread-rate=100%
ok "what couldn't be read" not "$ndio" copy --checksum sha256 "$(uri bad)" null:
is "has none" "$("$ndio" copy --checksum sha256 "$(uri bad)" null: 2>/dev/null)" ""
stop_server bad

# ---- --rate ----

# The time is only known from below: the machine may be slow.
takes_ms() { # COMMAND...
	local start

	start=$(date +%s%N)
	"$@" >/dev/null 2>&1 || return
	echo $((($(date +%s%N) - start) / 1000000))
}
rm "$T/dst"
head -c $mib "$T/src" >"$T/one"
ms=$(takes_ms "$ndio" copy -S 0 --rate 1M --request-size 64K "$T/one" "$T/dst")
ok "1 MiB at 1M takes a second: $ms ms" test "$ms" -ge 800
ok "and is whole" cmp "$T/one" "$T/dst"
ms=$(takes_ms sh -c "cat '$T/one' | '$ndio' copy --rate 1M --request-size 64K - '$T/dst'")
ok "so it does from a pipe: $ms ms" test "$ms" -ge 800
ok "no rate at all" usage "$ndio" copy --rate 0 "$T/one" "$T/dst"
"$ndio" copy -S 0 --rate 1 "$T/src" - >"$T/slowly" 2>/dev/null &
pid=$!
until [ -s "$T/slowly" ]; do sleep 0.02; done
kill -TERM $pid
wait $pid
is "one that waits for days ends by a signal" $? 143

# ---- --skip-holes ----

ones() { # FILE BYTES
	head -c "$2" /dev/zero | tr '\0' '\377' >"$1"
}
# The bytes of a file at an offset, as a word.
bytes_at() { # FILE OFFSET
	od -An -tx1 -j "$2" -N 4 "$1" | tr -d ' \n'
}
skips() { # NAME SOURCE
	ones "$T/target" $((4 * mib))
	start_stock target file "$T/target"
	ok "holes are skipped, from $1" "$ndio" copy --skip-holes "$2" "$(uri target)"
	stop_server target
	is "what lay there stays" "$(bytes_at "$T/target" $((2 * mib + 8192)))" ffffffff
	is "zeroes are written" "$(bytes_at "$T/target" $((8 * 65536 + 4096)))" 00000000
	ok "and data" cmp -n $((2 * mib)) "$T/src" "$T/target"
	ok "behind it, too" cmp -i $((2 * mib + 704512)) -n 300000 "$T/src" "$T/target"
}
skips "a file" "$T/src"
start_qemu_nbd source --read-only --format raw "$T/src"
skips "a server" "$(uri source)"
stop_server source
summed "the checksum has them as zeroes" "$sum" --skip-holes "$T/src" null:
ok "a pipe can't leave anything out" usage "$ndio" copy --skip-holes "$T/src" -
mkfifo "$T/fifo"
cat "$T/fifo" >/dev/null &
ok "whatever its name" fails "fifo: --skip-holes needs" "$ndio" copy --skip-holes "$T/src" "$T/fifo"
wait $!
like "an encrypted disk shows no holes" \
	"$("$ndio" copy --skip-holes --src-key-file "$key" "$T/vol" null: 2>&1)" "vol: it doesn't tell where its holes are"

# ---- --only-changes ----

changes() { # WANTED-BYTES ARG...
	is "$1 bytes" "$("$ndio" copy --only-changes "${@:2}" 2>"$T/err" | cut -d' ' -f1)" "$1" ||
		diag "$(cat "$T/err")"
}
change() { # FILE OFFSET BYTES
	head -c "$3" /dev/urandom | dd of="$1" bs=64k oflag=seek_bytes seek="$2" conv=notrunc status=none
}

rm -f "$T/dst"
ok "a file that isn't there is made" "$ndio" copy --only-changes "$T/src" "$T/dst"
ok "whole" cmp "$T/src" "$T/dst"
changes 0 "$T/src" "$T/dst"
cp --sparse=always "$T/src" "$T/new"
change "$T/new" 70000 10 # in one block of 4 KiB
change "$T/new" $((mib - 4)) 8 # in two
change "$T/new" $((size - 5)) 5 # in the last, of 904 bytes
changes $((3 * 4096 + size % 4096)) "$T/new" "$T/dst"
ok "it has them all" cmp "$T/new" "$T/dst"
truncate -s 1M "$T/dst"
ok "a shorter file grows" "$ndio" copy --only-changes "$T/new" "$T/dst"
ok "to all" cmp "$T/new" "$T/dst"
truncate -s 5M "$T/dst"
ok "a longer one isn't cut" fails "dst: it has 5242880 bytes, and .*/new only" \
	"$ndio" copy --only-changes "$T/new" "$T/dst"
is "nor changed" "$(stat -c %s "$T/dst")" $((5 * mib))

# What the destination does, by a log; and that it is flushed once.
cp "$T/src" "$T/target"
truncate -s 4M "$T/target"
start_stock target --filter=log file "$T/target" logfile="$T/log"
changes $((3 * 4096 + size % 4096)) "$T/new" "$(uri target)"
stop_server target
is "one flush" "$(grep -c ' Flush id' "$T/log")" 1
is "no more is written than that" "$(grep -c ' Write id' "$T/log")" 4 # two of them beside 1 MiB
ok "and it is there" cmp -n $size "$T/new" "$T/target"

changes 0 --dst-key-file "$key" "$T/src" "$T/vol"
"$ndio" copy --dst-key-file "$key" --only-changes "$T/new" "$T/vol" >"$T/told" 2>&1
like "a volume gets whole sectors" "$(without_limits "$T/told")" "^[0-9]+ of $size bytes differed"
"$ndio" copy --src-key-file "$key" "$T/vol" - 2>/dev/null >"$T/plain"
ok "which decrypt to the source" cmp -n $size "$T/new" "$T/plain"

# qcow2: an overlay has only what was written; one with a snapshot in itself grows by that.
qemu-img create -q -f qcow2 "$T/base.qcow2" 4M
qemu-img create -q -f qcow2 -b "$T/base.qcow2" -F qcow2 "$T/over.qcow2"
start_qemu_nbd base --format qcow2 "$T/base.qcow2"
ok "a first copy into qcow2" "$ndio" copy --only-changes "$T/src" "$(uri base)"
stop_server base
clusters() { # of 64 KiB, that the overlay has itself
	qemu-img map --output=json "$T/over.qcow2" | python3 -c '
import json, sys
print(sum(e["length"] for e in json.load(sys.stdin) if e["depth"] == 0 and e["present"]) // 65536)'
}
start_qemu_nbd over --format qcow2 "$T/over.qcow2"
changes 0 "$T/src" "$(uri over)"
stop_server over
is "a snapshot of what is the same stays empty" "$(clusters)" 0
start_qemu_nbd over --format qcow2 "$T/over.qcow2"
ok "changes come" "$ndio" copy --only-changes "$T/new" "$(uri over)"
stop_server over
is "and take their clusters" "$(clusters)" 4 # one at 70000, two around 1 MiB, the last
ok "it is the source" qemu-img compare -q -f raw -F qcow2 "$T/new" "$T/over.qcow2"
qemu-img snapshot -c night "$T/base.qcow2"
before=$(stat -c %s "$T/base.qcow2")
start_qemu_nbd base --format qcow2 "$T/base.qcow2"
ok "a snapshot in the file" "$ndio" copy --only-changes "$T/new" "$(uri base)"
stop_server base
grown=$((($(stat -c %s "$T/base.qcow2") - before) / 65536))
ok "grows by little: $grown clusters" test $grown -le 8 # and tables of its own
qemu-img convert -f qcow2 -O raw -l night "$T/base.qcow2" "$T/night"
ok "and still has what was" cmp -n $size "$T/src" "$T/night"

# Killed, wherever: the same command again.
for signal in KILL TERM; do
	cp "$T/src" "$T/dst"
	head -c $size /dev/urandom >"$T/new"
	"$ndio" copy --only-changes --rate 2M --request-size 64K "$T/new" "$T/dst" >/dev/null 2>&1 &
	pid=$!
	while cmp -s -n 65536 "$T/src" "$T/dst"; do sleep 0.02; done
	kill -$signal $pid
	wait $pid 2>/dev/null
	ok "one that SIG$signal ended isn't whole" not cmp -s "$T/new" "$T/dst"
	is "nor cut" "$(stat -c %s "$T/dst")" "$size"
	ok "the same command goes on" "$ndio" copy --only-changes "$T/new" "$T/dst"
	ok "to the end" cmp "$T/new" "$T/dst"
done

# What fails.
start_stock target --filter=error memory 4M error-pwrite=ENOSPC error-pwrite-rate=100%
ok "a full disk" fails "target.sock: write at .*: No space left" \
	sh -c "'$ndio' copy --only-changes '$T/new' '$(uri target)' 2>&1 | grep -v '^ndio: stopped at' >&2; exit 1"
like "how far it was is told" "$("$ndio" copy --only-changes "$T/new" "$(uri target)" 2>&1)" \
	"stopped at .*that differed are written.*the same command goes on"
stop_server target
start_stock target --readonly memory 4M
ok "a read-only server" fails "read-only" "$ndio" copy --only-changes "$T/new" "$(uri target)"
stop_server target
ok "no such server" fails "Connection refused|No such file" "$ndio" copy --only-changes "$T/new" "$(uri target)"
ok "a wrong passphrase" fails "vol: .*passphrase|key" \
	"$ndio" copy --only-changes --dst-key-file "$T/wrong" "$T/new" "$T/vol"
for wrong in "$T/src -" "- $T/dst" "$T/src null:" "--resume $T/src $T/dst" "--destination-is-zero $T/src $T/dst"; do
	# shellcheck disable=SC2086
	ok "--only-changes $wrong" usage "$ndio" copy --only-changes $wrong
done
done_testing
