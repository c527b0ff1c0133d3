#!/bin/bash
# ndio key: whatever a crash, a failing server or a signal leaves behind opens.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/command.sh"

change() { # LOCATOR: from pass to new
	"$ndio" key change --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" "$1"
}

one_opens() { # FILE
	opens "$1" "$T/new" 2>/dev/null || opens "$1" "$T/pass" 2>/dev/null
}

slots_in_use() { # FILE
	cryptsetup luksDump "$1" 2>/dev/null |
		sed -nE 's/^Key Slot ([0-9]): ENABLED/\1/p; s/^ +([0-9]+): luks2$/\1/p'
}

# Every slot in use, but for those of other keys, opens with the old or the new key; and there is one.
all_open() { # FILE OTHERS
	local slot count=0

	for slot in $(slots_in_use "$1"); do
		[[ " $2 " != *" $slot "* ]] || continue
		opens "$1" "$T/new" --key-slot "$slot" 2>/dev/null ||
			opens "$1" "$T/pass" --key-slot "$slot" 2>/dev/null || return
		count=$((count + 1))
	done
	[ $count -gt 0 ]
}

# Every state that a crash can leave opens with the old or with the new key, and names no key
# slot that doesn't open, but for those of others; the last opens with the new key alone, in the
# slot that the old one had.
after_crashes() { # WHAT SLOT [SLOTS-OF-OTHER-KEYS]
	local what=$1 others=${3:-} bad=0 count=0 state

	cp "$T/disk" "$T/before"
	start_recorder crash "$T/disk"
	ok "$what" change "$(uri crash)"
	stop_server crash
	rm -rf "$T/states"
	crash_states crash "$T/before" "$T/states"
	for state in "$T/states"/*; do
		count=$((count + 1))
		all_open "$state" "$others" || {
			bad=$((bad + 1))
			diag "$state: not all of its slots open: $(slots_in_use "$state" | xargs)"
		}
	done
	is "$what: all $count states that a crash can leave open" "$bad" 0
	ok "$what: there are states" test "$count" -ge 10
	ok "$what: the last opens with the new key, in the slot of the old one" opens "$state" "$T/new" \
		--key-slot "$2"
	is "$what: and has no slot more" "$(slots_in_use "$state" | wc -w)" $((1 + $(wc -w <<<"$others")))
	ok "$what: and not with the old one" not opens "$state" "$T/pass"
}

crashes() { # WHAT [SLOTS-OF-OTHER-KEYS]
	local what=$1 others=${2:-0} bad=0 count=0 state opening slots

	cp "$T/disk" "$T/before"
	start_recorder crash "$T/disk"
	ok "$what" change "$(uri crash)"
	stop_server crash
	rm -rf "$T/states"
	crash_states crash "$T/before" "$T/states"
	for state in "$T/states"/*; do
		count=$((count + 1))
		opening=0
		! opens "$state" "$T/new" 2>/dev/null || opening=1
		! opens "$state" "$T/pass" 2>/dev/null || opening=$((opening + 1))
		slots=$(slots_in_use "$state")
		if [ $opening = 0 ] || [ "$slots" != $((opening + others)) ]; then
			bad=$((bad + 1))
			diag "$state opens with $opening of two keys and has $slots slots"
		fi
	done
	is "$what: all $count states that a crash can leave open" "$bad" 0
	ok "$what: there are states" test "$count" -ge 10
	ok "$what: the last opens with the new key" opens "$state" "$T/new"
	ok "$what: and not with the old one" not opens "$state" "$T/pass"
}

crashes() {
	make_small
	after_crashes "LUKS2, change" 0
	# One copy of the metadata is lost: the other has to last until the first is written.
	make_small
	dd if=/dev/zero of="$T/disk" bs=16K seek=1 count=1 conv=notrunc status=none
	after_crashes "LUKS2 without its second copy, change" 0
	make_small
	dd if=/dev/zero of="$T/disk" bs=16K count=1 conv=notrunc status=none
	after_crashes "LUKS2 without its first copy, change" 0
	# Slot 6 of LUKS1 lies across the first two sectors.
	make_luks1 "$T/disk" 3M --key-slot 6
	after_crashes "LUKS1, change of slot 6" 6
	make_luks1 "$T/disk" 3M --key-slot 5
	for slot in 0 1 2 3 4; do
		cryptsetup luksAddKey --batch-mode --pbkdf-force-iterations 1000 --key-slot $slot \
			--key-file "$T/pass" "$T/disk" "$T/wrong"
	done
	after_crashes "LUKS1, change by way of slot 6" 5 "0 1 2 3 4"
}

# The old area's content must be gone.
wiped() {
	make_small
	dd if="$T/disk" of="$T/area" bs=4096 skip=8 count=8 status=none
	change "$T/disk" >/dev/null
	dd if="$T/disk" of="$T/area.now" bs=4096 skip=8 count=8 status=none
	ok "the old key's area was wiped" not cmp -s "$T/area" "$T/area.now"
}

failing_server() {
	local n

	make_small
	cp "$T/disk" "$T/before"
	start_recorder fail "$T/disk"
	for n in 0 2 4 6; do
		cp "$T/before" "$T/disk"
		rm -rf "$T/fail.log.d"/*
		echo "[ \$1 != pwrite ] || [ \$(ls $T/fail.log.d | wc -l) -lt $n ] ||
			{ echo EIO broken >&2; exit 1; }" >"$T/fail.hook"
		ok "write $n fails: it says so" fails "^ndio: nbd.*fail.sock: [a-zA-Z0-9 ]*: write at" change "$(uri fail)"
		ok "write $n fails: a key opens it" one_opens "$T/disk"
	done
	rm "$T/fail.hook"
	stop_server fail
}

# SIGTERM while it writes: it ends the writing first.
interrupted() {
	local pid status

	make_small
	start_recorder slow "$T/disk"
	echo '[ $1 != pwrite ] || sleep 0.1' >"$T/slow.hook"
	"$ndio" key change --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" \
		"$(uri slow)" >/dev/null & # not by a function: the shell would be a process more
	pid=$!
	until [ -n "$(ls "$T/slow.log.d")" ]; do
		sleep 0.02
	done
	kill -TERM $pid
	wait $pid 2>/dev/null
	status=$?
	is "SIGTERM while it writes: it ends by it" $status 143
	rm "$T/slow.hook"
	stop_server slow
	ok "SIGTERM while it writes: the new key opens it" opens "$T/disk" "$T/new"
}

crashes
wiped
failing_server
interrupted
done_testing
