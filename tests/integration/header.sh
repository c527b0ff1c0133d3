#!/bin/bash
# ndio header: backups that cryptsetup takes and makes; what another volume's header would destroy;
# erasing; labels and priorities.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/command.sh"

header() { # ACTION ARG...
	"$ndio" header "$@"
}
label_of() {
	"$ndio" info --json "$1" 2>/dev/null | python3 -c 'import json, sys
luks = json.load(sys.stdin)["luks"]
print(luks["label"], [s["priority"] for s in luks["key_slots"]])'
}
sum_of() {
	cksum <"$1"
}

# ---- backup and restore, ours and cryptsetup's, of every kind ----

for type in luks1 luks2; do
	make_$type "$T/disk" 20M
	for place in file server; do
		[ $type.$place != luks1.server ] || continue
		at=$T/disk
		[ $place = file ] || { start_qemu_nbd disk --format raw "$T/disk" && at=$(uri disk); }
		rm -f "$T/ours" "$T/theirs"
		ok "$type, $place: a backup" header backup "$at" "$T/ours"
		is "for its owner alone" "$(stat -c %a "$T/ours")" 400
		ok "one that is there stays" fails "ours: it is there already" header backup "$at" "$T/ours"
		"$ndio" key add --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" "$at" >/dev/null
		"$ndio" key remove --key-file "$T/pass" "$at" >/dev/null
		ok "$type, $place: restored" header restore "$at" "$T/ours"
		[ $place = file ] || stop_server disk
		ok "the key is back" opens "$T/disk" "$T/pass"
		ok "and the newer one gone" not opens "$T/disk" "$T/new" 2>/dev/null
		cryptsetup luksHeaderBackup "$T/disk" --header-backup-file "$T/theirs"
		ok "cryptsetup's backup is ours" cmp "$T/ours" "$T/theirs"
	done
	cryptsetup luksAddKey --batch-mode "${cheap[@]}" --key-file "$T/pass" "$T/disk" "$T/new"
	ok "$type: ours by cryptsetup" cryptsetup luksHeaderRestore --batch-mode "$T/disk" --header-backup-file "$T/ours"
	ok "opens" opens "$T/disk" "$T/pass"
	ok "$type: cryptsetup's by ours" header restore "$T/disk" "$T/theirs"
	ok "opens, too" opens "$T/disk" "$T/pass"

	# Damaged: nothing is there to compare with.
	dd if=/dev/zero of="$T/disk" bs=1M count=1 conv=notrunc status=none
	[ $type = luks1 ] || dd if=/dev/zero of="$T/disk" bs=1M count=16 conv=notrunc status=none
	before=$(sum_of "$T/disk")
	ok "$type: a disk without a header asks" fails "no LUKS header to compare .*--force" \
		header restore "$T/disk" "$T/ours"
	is "and stays" "$(sum_of "$T/disk")" "$before"
	ok "at a terminal, too" not terminal "put this one there: => no" "$ndio" header restore "$T/disk" "$T/ours"
	is "no leaves it" "$(sum_of "$T/disk")" "$before"
	[ $type = luks1 ] || ok "yes doesn't" terminal "put this one there: => YES" "$ndio" header restore "$T/disk" "$T/ours"
	ok "--force" header restore --force "$T/disk" "$T/ours"
	ok "brings it back" opens "$T/disk" "$T/pass"

	# Another volume's.
	make_$type "$T/other" 20M
	before=$(sum_of "$T/other")
	ok "$type: another volume's header is refused" fails "header of another volume than .*ours" \
		header restore "$T/other" "$T/ours"
	is "nothing is written" "$(sum_of "$T/other")" "$before"
	ok "unless told" header restore --force "$T/other" "$T/ours"
	is "it has it" "$(cryptsetup luksUUID "$T/other")" "$(cryptsetup luksUUID "$T/disk")"

	# What is no backup.
	before=$(sum_of "$T/disk")
	head -c 300000 "$T/ours" >"$T/cut"
	ok "$type: a truncated backup" fails "cut: no whole backup" header restore --force "$T/disk" "$T/cut"
	head -c 1M /dev/urandom >"$T/noise"
	ok "noise" fails "noise: no whole backup" header restore --force "$T/disk" "$T/noise"
	ok "none" fails "none: No such file" header restore --force "$T/disk" "$T/none"
	ok "one on the disk itself" fails "the same|on the other" header restore "$T/disk" "$T/disk"
	is "nothing of that is written" "$(sum_of "$T/disk")" "$before"
	truncate -s 1M "$T/small"
	ok "a disk that is too small" fails "small: " header restore --force "$T/small" "$T/ours"
done

make_luks2 "$T/data" 20M --header "$T/apart" >/dev/null 2>&1 || {
	truncate -s 16M "$T/apart"
	make_luks2 "$T/data" 4M --header "$T/apart"
}
ok "a detached header's backup" header backup --header "$T/apart" "$T/data" "$T/kept"
"$ndio" key change --header "$T/apart" --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" "$T/data" >/dev/null
ok "and back" header restore --header "$T/apart" "$T/data" "$T/kept"
ok "opens" opens "$T/apart" "$T/pass"

# ---- after a crash ----

make_small
header backup "$T/disk" "$T/small.backup"
"$ndio" key change --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" "$T/disk" >/dev/null
cp "$T/disk" "$T/before"
start_recorder crash "$T/disk"
ok "a restore" header restore "$(uri crash)" "$T/small.backup"
stop_server crash
crash_states crash "$T/before" "$T/states"
bad=0 count=0
for state in "$T/states"/*; do
	count=$((count + 1))
	[ $((count % 3)) = 0 ] || continue # each takes a while
	header restore "$state" "$T/small.backup" >/dev/null 2>&1 && opens "$state" "$T/pass" || bad=$((bad + 1))
done
is "after a crash at a third of $count places it can be restored again, and needs no force" "$bad" 0

# ---- erase ----

for type in luks1 luks2; do
	make_$type "$T/disk" 20M
	rm -f "$T/kept"
	header backup "$T/disk" "$T/kept"
	cryptsetup luksAddKey --batch-mode "${cheap[@]}" --key-file "$T/pass" "$T/disk" "$T/new"
	cp "$T/disk" "$T/before"
	ok "$type: erasing asks" fails "2 key slots, without which nothing opens.*--force" header erase "$T/disk"
	ok "and does nothing else" cmp "$T/disk" "$T/before"
	is "$type: --force" "$(header erase --force "$T/disk")" "2 key slots erased"
	ok "nothing opens it" not opens "$T/disk" "$T/pass" 2>/dev/null
	ok "nor does the key area" not sh -c "cmp -s -n 100000 -i 32768 '$T/disk' '$T/before'"
	is "for cryptsetup it is erased" "$(cryptsetup luksDump "$T/disk" | grep -cE 'ENABLED|^  [0-9]: luks2')" 0
	ok "a backup brings it back" header restore "$T/disk" "$T/kept"
	ok "with the first key" opens "$T/disk" "$T/pass"
done

# ---- config ----

ok "a label, and a subsystem" header config --label "my disk" --subsystem sub "$T/disk"
like "cryptsetup has them" "$(cryptsetup luksDump "$T/disk")" "Label: +.*my disk"$'\n'"Subsystem: +.*sub"
ok "another label" header config --label other "$T/disk"
like "leaves the subsystem" "$(cryptsetup luksDump "$T/disk")" "Label: +.*other"$'\n'"Subsystem: +.*sub"
ok "none" header config --label '' "$T/disk"
start_qemu_nbd disk --format raw "$T/disk"
for priority in prefer ignore normal; do
	ok "priority $priority" header config --slot 0 --priority $priority --label $priority "$(uri disk)"
	is "$priority is shown" "$(label_of "$(uri disk)")" "$priority ['$priority']"
done
stop_server disk
ok "and it opens" opens "$T/disk" "$T/pass"
ok "a slot that isn't in use" fails "key slot 5 is not in use" header config --slot 5 --priority prefer "$T/disk"
ok "a label that would be cut" usage "$ndio" header config --label "$(printf %060d 1)" "$T/disk"
ok "nor does format cut one" usage "$ndio" format --key-file "$T/pass" --label "$(printf %060d 1)" "$T/never"
make_luks1 "$T/old" 6M
ok "LUKS1 has none" fails "LUKS1 has no labels" header config --label x "$T/old"

# ---- what fails ----

ok "not LUKS" fails "noise: not a LUKS" header backup "$T/noise" "$T/never"
ok "no file is left" not test -e "$T/never"
ok "no such file" fails "none: No such file" header backup "$T/none" "$T/never"
ok "no folder for it" fails "no/where: writing the backup" header backup "$T/disk" "$T/no/where"
if [ "$(id -u)" = 0 ] && mkdir "$T/full" && mount -t tmpfs -o size=1M none "$T/full" 2>/dev/null; then
	ok "a full disk" fails "b: writing the backup" header backup "$T/disk" "$T/full/b"
	is "nothing is left there" "$(ls "$T/full")" ""
	umount "$T/full"
else
	skip "no file system to mount" 2
fi
start_stock ro --readonly file "$T/disk"
ok "read-only" fails "ro.sock: it can only be read" header erase --force "$(uri ro)"
rm -f "$T/kept"
ok "can be backed up" header backup "$(uri ro)" "$T/kept"
stop_server ro
start_stock bad --filter=error file "$T/disk" error-pwrite=ENOSPC error-pwrite-rate=100%
header config --label changed "$T/disk"
ok "a server that takes no write" fails "bad.sock: writing .*: No space" header restore "$(uri bad)" "$T/kept"
ok "or no erasing" fails "bad.sock: .*do it again|nothing was written" header erase --force "$(uri bad)"
stop_server bad
for wrong in "" "backup $T/disk" "erase $T/disk $T/x" "nonsense $T/disk" "config $T/disk" "erase --label x $T/disk" \
	"config --slot 1 $T/disk" "config --priority prefer $T/disk" "config --slot 1 --priority high $T/disk" \
	"backup --force $T/disk $T/x" "backup --no-lock-image $T/disk $T/x"; do
	# shellcheck disable=SC2086
	ok "header $wrong" usage "$ndio" header $wrong
done
done_testing
