#!/bin/bash
# ndio resize and ndio convert: what cryptsetup sees afterwards, and what is refused.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/command.sh"

mib=1048576
payload() { # LOCATOR [OPTION...]
	"$ndio" info --size --key-file "$T/pass" "${@:2}" "$1" 2>/dev/null
}
fix_length() { # FILE BYTES
	python3 "$root/tests/tools/edit-luks2.py" "$1" "segment['size'] = '$2'"
}
# plain FILE [OPTION...]: the sum of its first MiB, decrypted.
plain() {
	"$ndio" copy --src-key-file "$T/pass" "${@:2}" "$1" - 2>/dev/null | head -c $mib | cksum
}

# ---- resize ----

make_small # 2 MiB of header, 1 MiB of data
head -c $mib /dev/urandom >"$T/content"
"$ndio" copy --dst-key-file "$T/pass" "$T/content" "$T/disk" 2>/dev/null
content=$(cksum <"$T/content")
fix_length "$T/disk" $mib
like "as large as its disk, it stays" "$("$ndio" resize "$T/disk")" "had $mib bytes, and have $mib: nothing"
truncate -s 8M "$T/disk"
is "before, it has its old length" "$(payload "$T/disk")" $mib
cp "$T/disk" "$T/before"
is "a disk that has grown" "$("$ndio" resize "$T/disk")" \
	"$T/disk: the data had $mib bytes, and have $((6 * mib))"
is "the volume follows" "$(payload "$T/disk")" $((6 * mib))
is "its content stays" "$(plain "$T/disk")" "$content"
ok "cryptsetup opens it" opens "$T/disk" "$T/pass"
like "and sees the length" "$(cryptsetup luksDump "$T/disk")" "length: $((6 * mib)) \[bytes\]"
for copy in 0 1; do # either copy alone is whole
	cp "$T/disk" "$T/half"
	dd if=/dev/zero of="$T/half" bs=4k seek=$((copy * 4)) count=1 conv=notrunc status=none
	is "without the ${copy/0/first copy, the second}" "$(payload "$T/half")" $((6 * mib))
done
like "once more" "$("$ndio" resize "$T/disk")" "nothing is to be changed"
truncate -s $((5 * mib + 5000)) "$T/disk"
before=$(cksum <"$T/disk")
ok "what would cut data is refused" fails "the data end at byte $((8 * mib)): they would be cut" "$ndio" resize "$T/disk"
is "and nothing changed" "$(cksum <"$T/disk")" "$before"

cp "$T/before" "$T/disk"
start_recorder crash "$T/disk"
ok "a server's disk" "$ndio" resize "$(uri crash)"
stop_server crash
crash_states crash "$T/before" "$T/states"
bad=0 count=0
for state in "$T/states"/*; do
	count=$((count + 1))
	opens "$state" "$T/pass" || bad=$((bad + 1))
done
is "a crash at each of $count places leaves one that opens" "$bad" 0

truncate -s 8M "$T/data"
truncate -s 4M "$T/apart"
cryptsetup --batch-mode luksFormat --type luks2 "${cheap[@]}" --luks2-keyslots-size 1M --header "$T/apart" \
	--key-file "$T/pass" "$T/data"
fix_length "$T/apart" $((3 * mib))
is "with a detached header it is the disk's size that counts" "$("$ndio" resize --header "$T/apart" "$T/data")" \
	"$T/data: the data had $((3 * mib)) bytes, and have $((8 * mib))"
is "and the header is there" "$(payload "$T/data" --header "$T/apart")" $((8 * mib))
ok "which isn't a disk itself" fails "detached LUKS header" "$ndio" resize "$T/apart"

make_luks2 "$T/dynamic" 20M
before=$(cksum <"$T/dynamic")
like "without a length it follows" "$("$ndio" resize "$T/dynamic")" \
	"the header says no length: the data end where the disk does, and have $((4 * mib)) bytes"
is "and nothing is written" "$(cksum <"$T/dynamic")" "$before"
make_luks1 "$T/old" 6M
like "LUKS1 has none" "$("$ndio" resize "$T/old")" "LUKS1 has no length: .* have $((4 * mib)) bytes"
ok "not LUKS" fails "not a LUKS" "$ndio" resize "$T/content"
ok "no such file" fails "none: No such" "$ndio" resize "$T/none"
cp "$T/before" "$T/disk"
start_stock ro --readonly file "$T/disk"
ok "read-only" fails "it can only be read" "$ndio" resize "$(uri ro)"
stop_server ro
start_stock bad --filter=error file "$T/disk" error-pwrite=ENOSPC error-pwrite-rate=100%
ok "a server that takes no write" fails "bad.sock: writing .*do it again" "$ndio" resize "$(uri bad)"
stop_server bad
ok "it is as it was" cmp "$T/before" "$T/disk"

# ---- convert ----

convert() { # NAME LOCATOR ARG...
	rm -f "$T/backup"
	ok "$1" "$ndio" convert --backup "$T/backup" "${@:3}" "$2"
}
version() {
	cryptsetup luksDump "$1" | sed -n 's/^Version:[^0-9]*//p'
}
cryptsetup luksAddKey --batch-mode "${cheap[@]}" --key-file "$T/pass" "$T/old" "$T/new"
"$ndio" copy --dst-key-file "$T/pass" "$T/content" "$T/old" 2>/dev/null
cp "$T/old" "$T/before1"
cp "$T/old" "$T/theirs"
convert "LUKS1 to LUKS2" "$T/old"
is "is that for cryptsetup" "$(version "$T/old")" 2
for key in pass new; do
	ok "$key opens it" opens "$T/old" "$T/$key"
done
is "the content stays" "$(plain "$T/old")" "$content"
cryptsetup --batch-mode convert --type luks2 "$T/theirs"
is "as cryptsetup makes it" "$(cryptsetup luksDump "$T/old" | grep -v 'Salt:\|UUID\|Epoch')" \
	"$(cryptsetup luksDump "$T/theirs" | grep -v 'Salt:\|UUID\|Epoch')"
cp "$T/old" "$T/again"
ok "the backup undoes it" "$ndio" header restore --force "$T/again" "$T/backup"
is "all is LUKS1" "$(version "$T/again")" 1
ok "and opens" opens "$T/again" "$T/new"
is "with its content" "$(plain "$T/again")" "$content"
start_qemu_nbd old --format raw "$T/old"
convert "and back, on a server, tried by a key" "$(uri old)" --type luks1 --key-file "$T/pass"
stop_server old
is "is LUKS1" "$(version "$T/old")" 1
for key in pass new; do
	ok "$key opens it" opens "$T/old" "$T/$key"
done
is "with its content, again" "$(plain "$T/old")" "$content"
ok "it is LUKS1 already" fails "it is luks1 already" "$ndio" convert --type luks1 --backup "$T/b" "$T/old"

make_luks2 "$T/modern" 20M --sector-size 4096
before=$(cksum <"$T/modern")
ok "what LUKS1 can't be is told" fails "modern: it can't be made luks1: ." \
	"$ndio" convert --type luks1 --backup "$T/b" "$T/modern"
ok "and leaves no backup" not test -e "$T/b"
ok "a wrong key stops it" fails "old: .*key" \
	"$ndio" convert --backup "$T/wrongly" --key-file "$T/wrong" "$T/old"
is "before anything is written" "$(cksum <"$T/modern") $(version "$T/old")" "$before 1"
ok "a backup that is there" fails "backup: it is there already" "$ndio" convert --backup "$T/backup" "$T/old"
truncate -s 4M "$T/apart1"
cryptsetup --batch-mode luksFormat --type luks1 --pbkdf-force-iterations 1000 --header "$T/apart1" \
	--key-file "$T/pass" "$T/data"
convert "a detached header" "$T/data" --header "$T/apart1"
is "is LUKS2" "$(version "$T/apart1")" 2
ok "and opens" opens "$T/apart1" "$T/pass"

# After a crash the backup brings it back, wherever that was.
cp "$T/before1" "$T/disk"
start_recorder crash "$T/disk"
convert "with a record" "$(uri crash)"
stop_server crash
rm -rf "$T/states"
crash_states crash "$T/before1" "$T/states"
bad=0 count=0
for state in "$T/states"/*; do
	count=$((count + 1))
	[ $((count % 6)) = 0 ] || continue # each takes a while
	"$ndio" header restore --force "$state" "$T/backup" >/dev/null 2>&1 && opens "$state" "$T/new" ||
		bad=$((bad + 1))
done
is "a crash at a sixth of $count places can be undone" "$bad" 0
for wrong in "$T/old" "--backup $T/b" "--backup $T/b --type luks3 $T/old"; do
	# shellcheck disable=SC2086
	ok "convert $wrong" usage "$ndio" convert $wrong
done
ok "resize what?" usage "$ndio" resize
done_testing
