#!/bin/bash
# Ctrl-C in ndio header restore, erase and config, in resize, convert and trust: a header that has begun to be
# written is written to its end, one that hasn't stays as it was; of a backup nothing half is left.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/command.sh"

# run_it COMMAND...: in the foreground, where it takes SIGINT; its number is in $T/client.
run_it() {
	# shellcheck disable=SC2016
	sh -c 'echo $$ >"$0" && exec "$@"' "$T/client" "$@" >"$T/said" 2>&1
}

# hit CALL NUMBER: when the server has had so many of them, and before it answers this one.
hit() {
	: >"$T/calls"
	echo "[ \$1 != $1 ] || { echo >>$T/calls; [ \$(wc -l <$T/calls) != $2 ] || kill -INT \$(cat $T/client); }" \
		>"$T/disk.hook"
}

# at_each NAME DONE COMMAND...: on $T/disk over NBD: whole, and then with Ctrl-C at its first read, and at
# its first and last write. DONE: a shell's condition that it is done.
at_each() {
	local name=$1 done=$2 count n

	shift 2
	cp "$T/disk" "$T/before"
	start_recorder disk "$T/disk"
	hit pwrite 0
	rm -f "$T/backup" "$T/known"
	run_it "$@"
	is "$name: by itself" $? 0
	ok "$name: it does it" eval "$done"
	count=$(wc -l <"$T/calls")
	ok "$name: by some writes" test "$count" -ge 2
	for n in read 1 "$count"; do
		cp "$T/before" "$T/disk"
		rm -f "$T/backup" "$T/known"
		[ "$n" = read ] && hit pread 1 || hit pwrite "$n"
		run_it "$@"
		is "$name: Ctrl-C at ${n/#[0-9]/write &}: it ends by it" $? 130
		if [ "$n" = read ]; then
			ok "$name: nothing has changed" cmp "$T/disk" "$T/before"
		else
			ok "$name: it is done" eval "$done"
		fi
	done
	stop_server disk
}

length_is() { # BYTES
	cryptsetup luksDump "$T/disk" | grep -q "length: $1 \[bytes\]"
}

# What the volume is for who doesn't look at the first copy of its header.
second_opens() {
	cp "$T/disk" "$T/half"
	dd if=/dev/zero of="$T/half" bs=4k count=1 conv=notrunc status=none
	opens "$T/half" "$@"
}

disk=$(uri disk)
make_small
"$ndio" header backup "$T/disk" "$T/kept"
"$ndio" key change --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" "$T/disk" >/dev/null
at_each restore 'opens "$T/disk" "$T/pass" && second_opens "$T/pass" && not opens "$T/disk" "$T/new"' \
	"$ndio" header restore "$disk" "$T/kept"
make_small
at_each erase 'not opens "$T/disk" "$T/pass" && not second_opens "$T/pass"' \
	"$ndio" header erase --force "$disk"
make_small
at_each config 'cryptsetup luksDump "$T/disk" | grep -q "^Label:[[:space:]]*mine\$" && second_opens "$T/pass"' \
	"$ndio" header config --label mine "$disk"
python3 "$root/tests/tools/edit-luks2.py" "$T/disk" "json['segments']['0']['size'] = '524288'"
at_each resize 'length_is 1048576 && second_opens "$T/pass"' "$ndio" resize "$disk"
rm "$T/disk"
make_luks1 "$T/disk" 3M
at_each convert 'cryptsetup isLuks --type luks2 "$T/disk" && opens "$T/disk" "$T/pass" && second_opens "$T/pass"' \
	"$ndio" convert --backup "$T/backup" "$disk"
make_small
at_each trust '"$ndio" info --trust "$T/known" --key-file "$T/pass" "$T/disk" && second_opens "$T/pass"' \
	"$ndio" trust --trust "$T/known" --key-file "$T/pass" "$disk"
is "trust: nothing else is left of its file" "$(cd "$T" && ls -A | grep known | grep -vx known)" ""

# ---- at a question ----

make_small
cp "$T/disk" "$T/before"
terminal "Type YES => ^C" "$ndio" header erase "$T/disk" >/dev/null
is "erase: Ctrl-C at its question" $? 130
terminal "Type YES => ^C" "$ndio" header restore "$T/disk" "$T/kept" >/dev/null
is "restore: Ctrl-C at its question" $? 130
ok "nothing has changed" cmp "$T/disk" "$T/before"

# ---- while the backup is written ----

# keeps NAME COMMAND...: Ctrl-C while there is a file that isn't whole yet, in its own name.
keeps() {
	local name=$1

	shift
	rm -f "$T/backup"
	like "$name: Ctrl-C while the backup is written" \
		"$(python3 "$root/tests/tools/interrupt.py" SIGINT "ls $T/backup.*.part >&2 && pgrep -P \$pid ndio" \
			strace -f -o /dev/null -e trace=fsync -e inject=fsync:delay_enter=1000000 "$@" 2>/dev/null)" \
		"ended by SIGINT"
	is "$name: nothing else is left of it" "$(cd "$T" && ls | grep '^backup' | grep -vx backup)" ""
	ok "$name: it is whole, or isn't there" eval \
		'[ ! -e "$T/backup" ] || { cp "$T/disk" "$T/again" && "$ndio" header restore "$T/again" "$T/backup" && opens "$T/again" "$T/pass"; }'
	ok "$name: the disk has not changed" cmp "$T/disk" "$T/before"
}

if [ -n "$NDIO_SANITIZE" ] || ! strace -o /dev/null true 2>/dev/null; then
	skip "no strace here, or under a sanitizer" 8
else
	keeps backup "$ndio" header backup "$T/disk" "$T/backup"
	make_luks1 "$T/disk" 3M
	cp "$T/disk" "$T/before"
	keeps convert "$ndio" convert --backup "$T/backup" "$T/disk"
fi
done_testing
