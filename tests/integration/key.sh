#!/bin/bash
# ndio key: adds, removes and changes keys of local and remote volumes, as cryptsetup sees them;
# nobody's change is lost.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/command.sh"

slots() {
	"$ndio" info --json "$@" | python3 -c 'import json, sys
print(*(s["slot"] for s in json.load(sys.stdin)["luks"]["key_slots"]))'
}

key() { # ACTION LOCATOR OPTION...: from pass to new
	local new=()

	[ "$1" = remove ] || new=(--new-key-file "$T/new" "${cheap[@]}")
	"$ndio" key "$1" --key-file "$T/pass" "${new[@]}" "${@:3}" "$2"
}

life_of_keys() { # WHAT FILE LOCATOR
	ok "$1: add" key add "$3" --slot 3
	ok "$1: the new key opens it" opens "$2" "$T/new" --key-slot 3
	ok "$1: the old one too" opens "$2" "$T/pass"
	is "$1: slots" "$(slots "$3")" "0 3"
	ok "$1: change" "$ndio" key change --key-file "$T/new" --new-key-file "$T/third" \
		"${cheap[@]}" "$3"
	ok "$1: the changed key opens it" opens "$2" "$T/third"
	ok "$1: what it was doesn't" not opens "$2" "$T/new"
	ok "$1: remove" "$ndio" key remove --key-file "$T/third" "$3"
	is "$1: slots" "$(slots "$3")" "0"
	ok "$1: the removed key doesn't open it" not opens "$2" "$T/third"
	ok "$1: the last key isn't removed" fails "key slot 0 is the last" key remove "$3"
	ok "$1: and opens it" opens "$2" "$T/pass"
	ok "$1: unless by force" key remove "$3" --force
	is "$1: no slots" "$(slots "$3")" ""
}

on_files() {
	make_luks2 "$T/two" 18M
	life_of_keys "LUKS2 file" "$T/two" "$T/two"
	make_luks1 "$T/one" 4M
	life_of_keys "LUKS1 file" "$T/one" "$T/one"
	make_luks2 "$T/data" 2M --header "$T/header"
	cp "$T/data" "$T/data.before"
	ok "detached: change" key change "$T/data" --header "$T/header"
	ok "detached: it opens" opens "$T/data" "$T/new" --header "$T/header"
	ok "detached: the data are untouched" cmp "$T/data" "$T/data.before"
}

on_servers() {
	make_luks2 "$T/disk" 18M
	start_nbdkit file file "$T/disk"
	life_of_keys "nbdkit, LUKS2" "$T/disk" "$(uri file)"
	stop_server file
	make_luks1 "$T/disk" 4M
	start_qemu_nbd qemu --format raw "$T/disk"
	life_of_keys "qemu-nbd, LUKS1" "$T/disk" "$(uri qemu)"
	stop_server qemu
	make_luks2 "$T/disk" 18M
	start_nbdkit plugin --filter=blocksize-policy "$NDIO_PLUGIN" "$T/disk" \
		blocksize-minimum=4096 blocksize-error-policy=error
	life_of_keys "our plugin, blocks of 4096" "$T/disk" "$(uri plugin)"
	stop_server plugin
}

# Somebody else writes to the first copy, right before it is looked at again.
changed_meanwhile() {
	make_small
	start_recorder swap "$T/disk"
	echo "[ \"\$1 \$3 \$4\" != 'pread 16384 0' ] ||
		printf x | dd of=$T/disk bs=1 seek=200 conv=notrunc status=none" >"$T/swap.hook"
	ok "a header that changed meanwhile is refused" fails "changed meanwhile: nothing was written" \
		key add "$(uri swap)"
	is "and nothing was written" "$(ls "$T/swap.log.d")" ""
	rm "$T/swap.hook"
	stop_server swap
}

at_once() { # WHAT FILE LOCATOR
	local i pids=()

	for i in 1 2 3 4; do
		printf 'key number %s' $i >"$T/number.$i"
		"$ndio" key add --key-file "$T/pass" --new-key-file "$T/number.$i" "${cheap[@]}" "$3" \
			>/dev/null 2>&1 &
		pids+=($!)
	done
	for i in 1 2 3 4; do
		ok "$1: $i of 4 at once is added" wait "${pids[i - 1]}"
		ok "$1: $i of 4 at once opens it" opens "$2" "$T/number.$i"
	done
}

serialised() {
	make_luks2 "$T/disk" 18M
	at_once "file" "$T/disk" "$T/disk"
	make_luks1 "$T/disk" 3M
	start_nbdkit many file "$T/disk"
	at_once "server" "$T/disk" "$(uri many)"
	stop_server many
}

# thrice TEXT
thrice() {
	printf '%s\n' "$1" "$1" "$1"
}

terminals() {
	local change=("$ndio" key change "${cheap[@]}" "$T/disk") said
	local old="noecho Passphrase for $T/disk: => " new="noecho New passphrase for $T/disk: => "

	make_luks2 "$T/disk" 18M
	said=$(terminal "${old}correct horse battery staple
${new}typed key
noecho again: => typed key" "${change[@]}")
	is "terminal: change" $? 0
	is "terminal: it is said, once, that it takes a while" \
		"$(grep -c "deriving the key, this takes some seconds" <<<"$said")" 1
	printf 'typed key' >"$T/typed"
	ok "terminal: the key has no newline" opens "$T/disk" "$T/typed"
	like "terminal: two that differ, three times" "$(terminal "${old}typed key
$(thrice "${new}horse
noecho again: => battery")" "${change[@]}")" "differ: try again.*differ: try again.*ndio: the two passphrases differ"
	like "terminal: an empty new one, three times" "$(terminal "${old}typed key
$(thrice "$new")" "${change[@]}")" "try again.*ndio: an empty key protects nothing"
	said=$(terminal "$(thrice "${old}nonsense")" "${change[@]}")
	is "terminal: a wrong one, three times" $? 1
	like "terminal: it says so each time" "$said" \
		"no key slot opens [^$'\n']*: try again.*again.*no key slot opens [^$'\n']*key$"
	ok "terminal: before the new one is asked for" not grep -q "New passphrase" <<<"$said"
	ok "terminal: two wrong ones, and the right one" terminal "${old}nonsense
${old}
${old}typed key
${new}horse
noecho again: => battery
${new}typed key
noecho again: => typed key" "${change[@]}"
	like "terminal: a key file that is wrong, before the new one is asked for" \
		"$(terminal "" "${change[@]}" --key-file "$T/wrong")" "no key slot opens"
	terminal "$old^C" "${change[@]}" >/dev/null
	is "terminal: SIGINT at the prompt, and it echoes again" $? 130
	ok "terminal: nothing was changed" opens "$T/disk" "$T/typed"
	ok "no terminal: it says so" fails "no terminal to ask" setsid "${change[@]}"
}

# Whatever asks for a passphrase asks again. Attach does, too: see tests/vm.
tries() {
	local typed="noecho Passphrase for $T/disk: => "

	make_luks2 "$T/disk" 18M
	typed="${typed}nonsense
${typed}correct horse battery staple"
	like "info: a wrong one, and the right one" "$(terminal "$typed" "$ndio" info --unlock "$T/disk")" \
		"no key slot opens [^$'\n']*: try again.*unlocked: +yes"
	like "copy: likewise" "$(terminal "$typed" "$ndio" copy --src-unlock "$T/disk" null:)" \
		"no key slot opens [^$'\n']*: try again"
	like "key remove: likewise" "$(terminal "$typed" "$ndio" key remove "$T/disk")" \
		"no key slot opens [^$'\n']*: try again.*key slot 0 is the last"
	start_stock once --filter=limit file "$T/disk" limit=1
	like "a server that takes one connection" "$(terminal "noecho Passphrase for $(uri once): => nonsense
noecho Passphrase for $(uri once): => correct horse battery staple
noecho New passphrase for $(uri once): => third
noecho again: => third" "$ndio" key add "${cheap[@]}" "$(uri once)")" "key slot 1 added"
	stop_server once
}

sources() {
	make_luks2 "$T/disk" 18M
	ok "the key from standard input, the new one from a descriptor" "$ndio" key add \
		"${cheap[@]}" --key-file - --new-key-fd 5 "$T/disk" <"$T/pass" 5<"$T/new"
	ok "it opens" opens "$T/disk" "$T/new"
	head -c 100000 /dev/urandom >"$T/long"
	ok "a long key through a pipe" "$ndio" key add "${cheap[@]}" --key-file "$T/new" \
		--new-key-file - "$T/disk" < <(cat "$T/long")
	ok "it opens" opens "$T/disk" "$T/long"
	head -c $((8 * 1024 * 1024 + 1)) /dev/zero >"$T/long"
	ok "a key file that is too large" fails "larger than" "$ndio" key remove --key-file "$T/long" \
		"$T/disk"
	ok "an empty new key" fails "protects nothing" "$ndio" key add --key-file "$T/new" \
		--new-key-file /dev/null "$T/disk"
	ok "no such key file" fails "$T/nothing: No such file" "$ndio" key remove \
		--key-file "$T/nothing" "$T/disk"
	ok "no such descriptor" fails "descriptor 77: Bad file" "$ndio" key remove --key-fd 77 "$T/disk"
}

refused() {
	local wrong

	make_luks1 "$T/disk" 3M
	ok "a wrong key" fails "$T/disk: no key slot opens" "$ndio" key add --key-file "$T/wrong" \
		--new-key-file "$T/new" "${cheap[@]}" "$T/disk"
	ok "the wrong slot" fails "key slot 5 is not in use" key remove "$T/disk" --slot 5
	ok "a slot that the key doesn't open" fails "key slot 5 is not in use" key change "$T/disk" --slot 5
	for _ in 1 2 3 4 5 6 7; do
		key add "$T/disk" >/dev/null
	done
	ok "a change without a free slot" fails "free key slot" key change "$T/disk"
	ok "and all is as it was" opens "$T/disk" "$T/pass"
	start_nbdkit readonly --readonly file "$T/disk"
	ok "a read-only server" fails "sock: it can only be read" key add "$(uri readonly)"
	stop_server readonly
	truncate -s 3M "$T/raw"
	ok "no LUKS volume" fails "$T/raw: not a LUKS volume" key add "$T/raw"
	ok "no file" fails "$T/nothing: No such file" key add "$T/nothing"
	ok "no server" fails "sock: .*No such file" key add "$(uri nothing)"
	make_luks1 "$T/disk" 3M
	ok "argon2 with LUKS1" fails "LUKS1 has pbkdf2 only, and not argon2i, which needs LUKS2" \
		"$ndio" key add --key-file "$T/pass" --new-key-file "$T/new" --pbkdf argon2i "$T/disk"
	ok "by force, but with a wrong key" fails "no key slot opens" "$ndio" key remove --force \
		--slot 0 --key-file "$T/wrong" "$T/disk"
	dd if=/dev/urandom of="$T/disk" bs=1 seek=208 count=300 conv=notrunc status=none
	ok "a damaged header" fails "$T/disk: .*damaged" key add "$T/disk"
	for wrong in "" "add" "frob $T/disk" "add $T/disk $T/disk" "add --slot x $T/disk" \
		"add --slot 32 $T/disk" "list --force $T/disk" "remove --new-key-file x $T/disk" \
		"add --key-file - --new-key-file - $T/disk" "add --key-file a --key-fd 1 $T/disk" \
		"add --pbkdf scrypt $T/disk" "--nonsense" "add --pbkdf-memory 1 $T/disk" \
		"add --pbkdf pbkdf2 --pbkdf-memory 64 $T/disk" "remove --pbkdf pbkdf2 $T/disk" \
		"add --iter-time 1 --pbkdf-force-iterations 1000 $T/disk" "list --slot 1 $T/disk" \
		"list --key-file x $T/disk"; do
		# shellcheck disable=SC2086
		ok "a usage error: key $wrong" usage "$ndio" key $wrong
	done
}

on_files
on_servers
changed_meanwhile
serialised
terminals
tries
sources
refused
done_testing
