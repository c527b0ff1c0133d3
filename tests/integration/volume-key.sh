#!/bin/bash
# The volume key: written out as cryptsetup does, and opening what no passphrase opens any more.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

mib=1048576
head -c $mib /dev/urandom >"$T/content"
dump() {
	"$ndio" key dump "$@"
}

for type in luks1 luks2; do
	make_$type "$T/disk" 20M
	"$ndio" copy --dst-key-file "$T/pass" "$T/content" "$T/disk" 2>/dev/null
	rm -f "$T/ours" "$T/theirs"
	ok "$type: without a terminal the volume key isn't written" \
		fails "ours: the volume key opens .* --force is needed" dump --key-file "$T/pass" "$T/disk" "$T/ours"
	ok "nor is a file made" not test -e "$T/ours"
	ok "$type: a terminal may say no" not terminal "Type YES to write it => no" \
		"$ndio" key dump --key-file "$T/pass" "$T/disk" "$T/ours"
	ok "which leaves none" not test -e "$T/ours"
	ok "$type: or yes" terminal "Type YES to write it => YES" "$ndio" key dump --key-file "$T/pass" "$T/disk" "$T/ours"
	is "for its owner alone" "$(stat -c %a "$T/ours")" 400
	cryptsetup luksDump --batch-mode --dump-volume-key --volume-key-file "$T/theirs" --key-file "$T/pass" \
		"$T/disk" >/dev/null
	ok "$type: it is what cryptsetup writes" cmp "$T/ours" "$T/theirs"
	ok "one that is there stays" fails "ours: File exists" dump --force --key-file "$T/pass" "$T/disk" "$T/ours"
	ok "a wrong passphrase writes none" fails "disk: .*key" dump --force --key-file "$T/wrong" "$T/disk" "$T/none"

	# Nothing opens it any more, but for that key.
	"$ndio" header erase --force "$T/disk" >/dev/null
	ok "$type: no passphrase opens it" not opens "$T/disk" "$T/pass" 2>/dev/null
	ok "info does" "$ndio" info --volume-key-file "$T/ours" "$T/disk"
	is "copy does" "$("$ndio" copy --src-volume-key-file "$T/theirs" "$T/disk" - 2>/dev/null | head -c $mib | cksum)" \
		"$(cksum <"$T/content")"
	ok "compare does" "$ndio" compare --src-volume-key-file "$T/ours" --dst-volume-key-file "$T/ours" "$T/disk" "$T/disk"
	ok "map does" "$ndio" map --volume-key-file "$T/ours" "$T/disk"
	start_server disk "$NDIO_BUILD/ndio-serve" --socket "$T/disk.sock" --pid-file "$T/disk.pid" \
		--volume-key-file "$T/ours" "$T/disk"
	is "serve does" "$("$ndio" copy "$(uri disk)" - 2>/dev/null | head -c $mib | cksum)" "$(cksum <"$T/content")"
	stop_server disk
	start_qemu_nbd raw --format raw "$T/disk"
	ok "a server's disk is opened, too" "$ndio" info --volume-key-file "$T/ours" "$(uri raw)"
	ok "key add gives it a passphrase again" "$ndio" key add --volume-key-file "$T/ours" --new-key-file "$T/new" \
		"${cheap[@]}" "$(uri raw)"
	stop_server raw
	ok "which opens it" opens "$T/disk" "$T/new"
	ok "dumped again it is the same" sh -c "'$ndio' key dump --force --volume-key-file '$T/ours' '$T/disk' '$T/again' &&
		cmp '$T/ours' '$T/again'"
	rm -f "$T/again"

	# What isn't it.
	head -c "$(stat -c %s "$T/ours")" /dev/urandom >"$T/other"
	ok "$type: another key" fails "disk: this isn't its volume key" "$ndio" info --volume-key-file "$T/other" "$T/disk"
	printf short >"$T/short"
	ok "a short one" fails "disk: this isn't its volume key" "$ndio" info --volume-key-file "$T/short" "$T/disk"
	ok "a passphrase" fails "disk: this isn't its volume key" "$ndio" info --volume-key-file "$T/new" "$T/disk"
	ok "an empty one" fails "disk: " "$ndio" info --volume-key-file /dev/null "$T/disk"
	ok "none" fails "none: No such" "$ndio" info --volume-key-file "$T/none" "$T/disk"
	ok "nor is it a passphrase" fails "disk: no key slot opens" "$ndio" info --key-file "$T/ours" "$T/disk"
done

# A digest that takes for ever is a hostile header's.
python3 "$root/tests/tools/edit-luks2.py" "$T/disk" "json['digests']['0']['iterations'] = 4000000000"
ok "trying takes no hours" fails "disk: to try the volume key takes about 4000 s" \
	"$ndio" info --volume-key-file "$T/ours" "$T/disk"
for wrong in "remove --volume-key-file $T/ours $T/disk" "change --volume-key-file $T/ours $T/disk" \
	"dump $T/disk" "dump --slot 1 $T/disk $T/x" "add --volume-key-file $T/ours --key-file $T/pass $T/disk"; do
	# shellcheck disable=SC2086
	ok "key $wrong" usage "$ndio" key $wrong
done
done_testing
