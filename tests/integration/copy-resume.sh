#!/bin/bash
# ndio copy --resume: a copy that was stopped goes on; what isn't one is refused, and stays as it is.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

key=$T/pass
mib=1048576
size=$((6 * mib + 5000))
head -c $size /dev/urandom | tr '\377' '\376' >"$T/src" # no byte that spoil() writes
dd if=/dev/zero of="$T/src" bs=64k seek=30 count=20 conv=notrunc status=none

# A server that gives only the first 3 MiB, and fails behind.
cat >"$T/gives" <<SCRIPT
case \$1 in
get_size) echo $size ;;
pread)
	if [ \$((\$4 + \$3)) -gt $((3 * mib)) ] && [ ! -e "$T/go" ]; then
		echo EIO >&2
		exit 1
	fi
	dd if="$T/src" skip=\$4 count=\$3 iflag=count_bytes,skip_bytes status=none
	;;
thread_model) echo serialize_all_requests ;;
*) exit 2 ;;
esac
SCRIPT
chmod +x "$T/gives"
start_stock gives sh "$T/gives"
src=$(uri gives)

# stopped ARG...: by an error of the source, somewhere. Sets below and told.
stopped() {
	rm -f "$T/go"
	"$ndio" copy "$@" 2>"$T/err" && return 1
	below=$(sed -n 's/.*everything below offset \([0-9]*\) .*/\1/p' "$T/err")
	told=$(sed -n 's/.*; \(--resume[^ ]*\) goes on.*/\1/p' "$T/err")
	touch "$T/go"
	[ -n "$below" ] && [ -n "$told" ]
}


# ---- a plain file ----

ok "a copy to a file is stopped" stopped "$src" "$T/new"
is "the file has what it says" "$(stat -c %s "$T/new")" "$below"
is "and how it goes on" "$told" --resume
cp "$T/new" "$T/part"
ok "it goes on" "$ndio" copy --resume "$src" "$T/new"
ok "to its end" cmp "$T/src" "$T/new"
ok "and once more, with nothing to do" "$ndio" copy --resume "$src" "$T/new"
ok "it is whole" cmp "$T/src" "$T/new"
rm "$T/new"
ok "one that never began begins" "$ndio" copy --resume "$src" "$T/new"
ok "and is whole, too" cmp "$T/src" "$T/new"

# Everything that is there is looked at before anything is written.
spoil() { # FILE BYTE
	printf '\377\0' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
touched() { # FILE COMMAND...: the file stays as it is
	local before

	before=$(stat -c '%s %Y %Z' "$1"; cksum <"$1")
	"${@:2}" && [ "$before" = "$(stat -c '%s %Y %Z' "$1"; cksum <"$1")" ]
}
cp "$T/part" "$T/new"
if [ "$(stat -c %s "$T/new")" -gt 200000 ]; then
	spoil "$T/new" 100000
	ok "a part that isn't the source's is refused" touched "$T/new" \
		fails "new: byte 10000[01] isn't that of .*no copy" "$ndio" copy --resume "$src" "$T/new"
else
	skip "the server gave too little"
fi
head -c 100000 "$T/src" | tr '\000-\177\200-\377' '\200-\377\000-\177' >"$T/other" # each byte is another
ok "another file is" touched "$T/other" fails "other: byte 0 isn't that of" \
	"$ndio" copy --resume "$src" "$T/other"
head -c $((size + 1)) /dev/urandom >"$T/other"
ok "a longer one, too" touched "$T/other" fails "other: it has .* more than" \
	"$ndio" copy --resume "$src" "$T/other"
cp "$T/part" "$T/new"
ok "more than there is can't be there" fails "new: it has .* bytes, and not" \
	"$ndio" copy --resume=$((5 * mib)) "$T/src" "$T/new"
ok "the source had another size, by what was told" fails "src: it has $size bytes, and had 1000" \
	"$ndio" copy --resume="$below/1000" "$T/src" "$T/new"
head -c $((2 * mib)) "$T/src" >"$T/new"
ok "a part of which nobody told" "$ndio" copy --resume "$T/src" "$T/new"
ok "goes on, too" cmp "$T/src" "$T/new"
cp "$T/src" "$T/grown"
ok "stopped again" stopped "$src" "$T/new2"
if python3 -c "import os, sys; os.getxattr(sys.argv[1], 'user.ndio.copy')" "$T/new2" 2>/dev/null; then
	head -c 4096 /dev/urandom >>"$T/grown"
	ok "a source that has grown is refused" fails "grown: it has .* bytes, and had $size" \
		"$ndio" copy --resume "$T/grown" "$T/new2"
else
	skip "no extended attributes here"
fi

# ---- killed ----

# Not even a length that can be believed: a hole, and what is behind it.
ok "stopped once more" stopped "$src" "$T/killed"
if python3 -c "
import os, sys
if int(sys.argv[2]) < 600000: sys.exit(1)
os.setxattr(sys.argv[1], 'user.ndio.copy', b'$size')
with open(sys.argv[1], 'r+b') as f:
    f.seek(300000)
    f.write(bytes(200000))
    f.truncate(4 << 20)" "$T/killed" "$below" 2>/dev/null; then
	ok "a copy that was killed goes on where it has a gap" "$ndio" copy --resume "$src" "$T/killed"
	ok "and is whole" cmp "$T/src" "$T/killed"
else
	skip "no extended attributes here, or the server gave too little" 2
fi

# ---- exports and volumes ----

head -c $((size + 3000)) /dev/urandom >"$T/served"
start_nbdkit served "$NDIO_PLUGIN" "$T/served" direct=off
ok "a copy to a server is stopped" stopped "$src" "$(uri served)"
is "and says what to give" "$told" "--resume=$below/$size"
ok "it goes on from there" "$ndio" copy "$told" "$src" "$(uri served)"
ok "to its end" cmp -n $size "$T/src" "$T/served"
ok "once more" stopped "$src" "$(uri served)"
head -c $((size - below)) /dev/urandom | dd of="$T/served" bs=1M oflag=seek_bytes seek="$below" conv=notrunc status=none
ok "and with nothing told" "$ndio" copy --resume "$src" "$(uri served)"
ok "it finds out" cmp -n $size "$T/src" "$T/served"
spoil "$T/served" 100000
ok "what should be there is refused" fails "sock: byte 10000[01] isn't that of .*no copy" \
	"$ndio" copy --resume=$mib "$src" "$(uri served)"
spoil "$T/served" 0
ok "and what never was" touched "$T/served" fails "sock: byte 0 isn't that of .*nothing to go on from" \
	"$ndio" copy --resume "$src" "$(uri served)"
ok "its server ends cleanly" stop_server served

make_luks2 "$T/vol" 24M
ok "a copy to a volume is stopped" stopped --dst-key-file "$key" "$src" "$T/vol"
ok "it goes on" "$ndio" copy --dst-key-file "$key" "$told" "$src" "$T/vol"
"$ndio" copy --src-key-file "$key" "$T/vol" "$T/back"
ok "to its end" cmp -n $size "$T/back" "$T/src"

# ---- what makes no sense ----

ok "from a pipe" fails "standard input: --resume needs" "$ndio" copy --resume - "$T/new"
ok "to a pipe" usage "$ndio" copy --resume "$T/src" -
ok "from nowhere" usage "$ndio" copy --resume=x "$T/src" "$T/new"
for wrong in --connections=0 --connections=65 --requests=0 --request-size=5000 --request-size=64M \
	"--requests=1024 --request-size=32M" "--request-size=4K --sparse=64K"; do
	# shellcheck disable=SC2086 # two options
	ok "$wrong" usage "$ndio" copy $wrong "$T/src" "$T/new"
done

# ---- connections and requests ----

for options in "-C 1 -R 1" "-C 7 -R 3 --request-size 4K" "--request-size 32M --requests 2" \
	"--connections 64 --request-size=64K"; do
	rm -f "$T/new"
	# shellcheck disable=SC2086
	ok "$options" "$ndio" copy $options "$src" "$T/new"
	ok "has all bytes" cmp "$T/src" "$T/new"
done
ok "its server ends cleanly" stop_server gives
done_testing
