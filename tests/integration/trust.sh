#!/bin/bash
# ndio trust: a header that is sealed, in itself and in a trust file; who changes it, by ndio or past it, and
# what opens it then.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/command.sh"

disk=$T/disk trust=$T/trust
stale="isn't the one that was sealed"
size() { # [OPTION...] LOCATOR
	"$ndio" info --size --key-file "$T/pass" "$@" 2>/dev/null
}
trusted() { # [OPTION...] LOCATOR
	[ "$(size --trust "$trust" "$@")" -gt 0 ]
}
sealed() {
	[ "$(size "$@")" -gt 0 ]
}
refuses() { # REGEX [OPTION...] LOCATOR
	fails "$1" "$ndio" info --key-file "$T/pass" "${@:2}"
}
key() {
	"$ndio" key "$1" --key-file "$T/pass" "${@:2}" "$disk" >/dev/null
}

# ---- made ----

make_small
cp "$disk" "$T/plain"
like "info of one that isn't sealed" "$("$ndio" info --json "$disk")" '"seal": 0'
ok "only the header is sealed" "$ndio" trust --key-file "$T/pass" "$disk"
like "cryptsetup sees the token" "$(cryptsetup luksDump "$disk")" "0: ndio-seal"
ok "and opens it" opens "$disk" "$T/pass"
like "info" "$("$ndio" info --key-file "$T/pass" "$disk")" "sealed: *yes, seal 1"
before=$(cksum <"$disk")
ok "a file" "$ndio" trust --trust "$trust" --key-file "$T/pass" "$disk"
is "what is sealed stays as it is" "$(cksum <"$disk")" "$before"
like "info with the file" "$("$ndio" info --trust "$trust" --key-file "$T/pass" "$disk")" \
	"$trust: the header is the one that was sealed, and opens with its key"
like "without a key" "$("$ndio" info --json --trust "$trust" "$disk")" '"fits": true'
like "what isn't protected" "$("$ndio" info --trust "$trust" "$disk")" "not protected: *the data"
ok "no file is replaced" fails "trust: it is there already" "$ndio" trust --trust "$trust" --key-file "$T/pass" "$disk"
ok "not without a word" fails "would be believed as it is now.*--yes is needed" "$ndio" trust --again --trust "$trust" \
	--key-file "$T/pass" "$disk"
cp "$T/pass" "$T/precious"
ok "what is no trust file stays" fails "no file that ndio trust made" "$ndio" trust --again --yes \
	--trust "$T/precious" --key-file "$T/pass" "$disk"
ok "as it was" cmp "$T/pass" "$T/precious"
ok "a wrong key makes none" fails "no key slot opens" "$ndio" trust --trust "$T/none" --key-file "$T/wrong" "$disk"
ok "on the disk itself there is none" fails "the same" "$ndio" trust --again --yes --trust "$disk" --key-file "$T/pass" "$disk"
is "nothing is left over" "$(echo "$T"/none* "$trust".*)" "$T/none* $trust.*"
make_luks1 "$T/old" 3M
ok "LUKS1" fails "LUKS1's header can't be sealed" "$ndio" trust --key-file "$T/pass" "$T/old"
ok "nor trusted" refuses "LUKS1's header can't be sealed" --trust "$trust" "$T/old"

ok "format makes one, too" "$ndio" format --size 17M --key-file "$T/pass" "${cheap[@]}" --trust "$T/new.trust" "$T/new.luks"
ok "which opens it" sealed --trust "$T/new.trust" "$T/new.luks"
before=$(cksum <"$T/new.luks")
ok "but not in place of another" fails "new.trust: it exists already" "$ndio" format --yes --key-file "$T/pass" \
	"${cheap[@]}" --trust "$T/new.trust" "$T/new.luks"
is "and formats nothing then" "$(cksum <"$T/new.luks")" "$before"

# ---- files that aren't it ----

ok "a file that isn't there" refuses "absent: No such file" --trust "$T/absent" "$disk"
head -c 400000 /dev/zero >"$T/zero"
ok "one that is damaged" refuses "zero: this is no file that ndio trust made, or it is damaged" --trust "$T/zero" "$disk"
make_luks2 "$T/another" 3M --luks2-keyslots-size 1M --offset 4096 2>/dev/null
ok "one of another volume" refuses "of another volume, with the UUID" --trust "$trust" "$T/another"
exec 9<"$trust"
flock 9
ok "one that is held" refuses "trust: in use by another process" --trust "$trust" "$disk"
ok "nor is it made anew then" fails "trust: in use by another process" "$ndio" trust --again --yes --trust "$trust" "$disk"
flock -s 9
ok "nor while somebody reads with it, as is said before a key is asked for" fails "trust: in use by another process" \
	"$ndio" trust --again --yes --trust "$trust" "$disk"
exec 9<&-

# ---- changed by ndio ----

ok "a key is added" key add --new-key-file "$T/new" --trust "$trust" "${cheap[@]}"
ok "the file knows it" trusted "$disk"
ok "and the header says so" sealed "$disk"
cp "$disk" "$T/revoked"
ok "it is changed" "$ndio" key change --slot 1 --key-file "$T/new" --new-key-file "$T/third" --trust "$trust" "${cheap[@]}" "$disk"
ok "and removed" key remove --slot 1 --trust "$trust"
ok "the file knows that" trusted "$disk"
ok "the revoked passphrase opens the older header" "$ndio" info --size --key-file "$T/new" "$T/revoked"
ok "but not with the file" fails "key slot 1 is new" "$ndio" info --size --key-file "$T/new" --trust "$trust" "$T/revoked"
ok "without a key it is no longer sealed" fails "$stale" "$ndio" key remove --force --slot 7 --trust "$trust" "$T/revoked"
cp "$disk" "$T/saved"
like "config without a key tells" "$("$ndio" header config --slot 0 --priority prefer "$disk" 2>&1)" "$stale any more.*ndio trust --again"
ok "and it is refused" refuses "$stale" "$disk"
ok "by its file, too" refuses "key slot 0: priority is new" --trust "$trust" "$disk"
ok "a new key isn't added to it" fails "$stale" "$ndio" key add --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" "$disk"
ok "again, the header only" "$ndio" trust --again --header-only --yes --trust "$trust" --key-file "$T/pass" "$disk"
ok "then it is good" trusted "$disk"
is "a label isn't under the seal" "$("$ndio" header config --label blue "$disk" 2>&1)" ""
ok "and it stays good" trusted "$disk"

# ---- changed by others ----

cryptsetup token add --token-id 5 --key-description somebody "$disk"
ok "cryptsetup's change is refused" refuses "$stale" "$disk"
ok "with the file, in words" refuses "token 5 is new" --trust "$trust" "$disk"
ok "before a passphrase is asked for" fails "token 5 is new" "$ndio" info --size --unlock --trust "$trust" "$disk"
ok "again" "$ndio" trust --again --yes --trust "$trust" --key-file "$T/pass" "$disk"
ok "it is believed" trusted "$disk"
cp "$T/plain" "$T/stripped"
ok "one whose seal was taken away isn't found out" sealed "$T/stripped"
ok "but by the file" refuses "token 5 is gone" --trust "$trust" "$T/stripped"
is "a copy of the file and the disk is one" "$(cp "$trust" "$T/trust2" && size --trust "$T/trust2" "$disk")" $((1 << 20))

# ---- restored from a backup ----

restored() { # BACKUP
	"$ndio" header restore "$T/kept" "$1" 2>&1
}
cp "$T/plain" "$T/kept"
ok "a backup without a seal" "$ndio" header backup "$T/kept" "$T/unsealed.bak"
ok "sealed, with a file" "$ndio" trust --trust "$T/kept.trust" --key-file "$T/pass" "$T/kept"
ok "one with a seal" "$ndio" header backup "$T/kept" "$T/sealed.bak"
is "what it is already is restored without a word" "$(restored "$T/sealed.bak")" ""
like "which is restored: that the seal is gone" "$(restored "$T/unsealed.bak")" \
	"^ndio: $T/kept: its header has no seal any more.*opens.*ndio trust seals it$"
like "and it is" "$("$ndio" info --json "$T/kept")" '"seal": 0'
ok "it opens" sealed "$T/kept"
ok "ndio trust seals it" "$ndio" trust --key-file "$T/pass" "$T/kept"
like "again" "$("$ndio" info --json "$T/kept")" '"seal": 1'

ok "another passphrase" "$ndio" key add --key-file "$T/pass" --new-key-file "$T/new" --trust "$T/kept.trust" \
	"${cheap[@]}" "$T/kept"
ok "in place of the first" "$ndio" key remove --slot 0 --key-file "$T/new" --trust "$T/kept.trust" "$T/kept"
ok "which opens no more" not sealed "$T/kept"
cp "$T/kept" "$T/newest"
like "restored with its own seal: that it opens" "$(restored "$T/sealed.bak")" \
	"^ndio: $T/kept: its header has the backup's seal now: if that fits it opens"
ok "as it does, with what was removed" sealed "$T/kept"
ok "the file refuses it" refuses "key slot" --trust "$T/kept.trust" "$T/kept"
ok "until it is believed" "$ndio" trust --again --yes --trust "$T/kept.trust" --key-file "$T/pass" "$T/kept"
ok "then it doesn't" sealed --trust "$T/kept.trust" "$T/kept"

# Without its key nobody knows of which of them that is: not even where it was refused before.
cp "$T/newest" "$T/kept"
like "a priority" "$("$ndio" header config --slot 1 --priority prefer "$T/kept" 2>&1)" "$stale any more"
ok "is refused" fails "$stale" "$ndio" info --size --key-file "$T/new" "$T/kept"
ok "it is backed up" "$ndio" header backup "$T/kept" "$T/changed.bak"
ok "the good one" "$ndio" header backup "$T/newest" "$T/newest.bak"
like "over it: that it may open" "$(restored "$T/newest.bak")" "if that fits it opens"
ok "it does" "$ndio" info --size --key-file "$T/new" "$T/kept"
like "the changed one over it: that it may be refused" "$(restored "$T/changed.bak")" "what is refused is believed after ndio trust --again"
ok "it is" fails "$stale" "$ndio" info --size --key-file "$T/new" "$T/kept"
make_luks1 "$T/old.bak.disk" 3M
ok "LUKS1's backup" "$ndio" header backup "$T/old.bak.disk" "$T/luks1.bak"
like "by force: that there is no seal" "$("$ndio" header restore --force "$T/kept" "$T/luks1.bak" 2>&1)" \
	"its header is LUKS1's now, and has no seal any more"

# ---- everywhere ----

random "$T/data" $((1 << 20))
ok "copied to" "$ndio" copy --dst-key-file "$T/pass" --dst-trust "$trust" "$T/data" "$disk"
ok "and from" "$ndio" copy --src-key-file "$T/pass" --src-trust "$trust" "$disk" "$T/back"
ok "that" cmp "$T/data" "$T/back"
ok "compared" "$ndio" compare --src-key-file "$T/pass" --src-trust "$trust" "$disk" "$T/data"
ok "mapped" "$ndio" map --key-file "$T/pass" --trust "$trust" "$disk"
ok "a door opens it" start_door door "$disk" "passphrase=+$T/pass" "trust=$trust"
ok "it has that" holds door "$T/data"
ok "ends" stop_server door
ok "without a key it is nothing" usage "$ndio" copy --src-trust "$trust" "$disk" "$T/back2"
printf 'one %s %s trust=%s\n' "$disk" "$T/pass" "$trust" >"$T/table"
ok "a table of exports" "$ndio" serve --socket "$T/table.sock" --exports "$T/table" --run true
for way in "info --key-file $T/pass --trust $trust" "copy --src-key-file $T/pass --src-trust $trust" \
	"map --key-file $T/pass --trust $trust" "serve --key-file $T/pass --trust $trust --socket $T/s --run true"; do
	[[ $way != copy* ]] || set -- "$T/back3"
	# shellcheck disable=SC2086
	ok "${way%% *} refuses another" fails "token 5 is gone" "$ndio" $way "$T/stripped" "$@"
	set --
done
is "and makes nothing" "$(ls "$T/back3" 2>/dev/null)" ""

# ---- remote, detached, crashed ----

start_stock served file "$disk"
ok "a server's disk" trusted "$(uri served)"
ok "is sealed there" "$ndio" trust --trust "$T/remote" --key-file "$T/pass" "$(uri served)"
stop_server served
start_stock ro --readonly file "$T/plain"
ok "one that can't be written is known by the file alone" "$ndio" trust --trust "$T/ro" --key-file "$T/pass" "$(uri ro)"
ok "which opens it" sealed --trust "$T/ro" "$(uri ro)"
ok "sealed it can't be" fails "it can only be read" "$ndio" trust --key-file "$T/pass" "$(uri ro)"
stop_server ro
# What is copied to a server is there as it would be on a file: said nothing of, and nothing left to be done.
for how in "" --integrity-no-journal; do
	rm -f "$T/far" "$T/far.trust"
	# shellcheck disable=SC2086
	ok "a disk for a server${how:+, $how}" "$ndio" format --size 24M --integrity aead $how --key-file "$T/pass" \
		"${cheap[@]}" --trust "$T/far.trust" "$T/far"
	start_stock far file "$T/far"
	is "is copied to, and nothing is said" "$("$ndio" copy --dst-key-file "$T/pass" --dst-trust "$T/far.trust" \
		"$T/data" "$(uri far)" 2>&1 | without_limits)" ""
	stop_server far
	start_stock far --readonly file "$T/far"
	ok "can be read where it can't be written" "$ndio" copy --src-key-file "$T/pass" --src-trust "$T/far.trust" \
		"$(uri far)" null:
	stop_server far
done
truncate -s 4M "$T/data.img"
truncate -s 4M "$T/apart"
cryptsetup --batch-mode luksFormat --type luks2 "${cheap[@]}" --luks2-keyslots-size 1M --header "$T/apart" \
	--key-file "$T/pass" "$T/data.img"
ok "a detached header" "$ndio" trust --trust "$T/apart.trust" --header "$T/apart" --key-file "$T/pass" "$T/data.img"
ok "opens" sealed --trust "$T/apart.trust" --header "$T/apart" "$T/data.img"

cp "$T/plain" "$disk"
rm -f "$trust"
start_recorder crash "$disk"
ok "sealed on a server" "$ndio" trust --key-file "$T/pass" "$(uri crash)"
stop_server crash
crash_states crash "$T/plain" "$T/states"
bad=0 count=0
for state in "$T/states"/*; do
	count=$((count + 1))
	sealed "$state" || bad=$((bad + 1))
done
is "a crash at each of $count places leaves one that opens" "$bad" 0
done_testing
