#!/bin/bash
# Key slots of all kinds: a changed key keeps its slot's number, priority and tokens; unbound slots are
# told, removed, and never open; tokens are shown, and which copy of the header is damaged.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

# json EXPRESSION: of what ndio info says of $T/disk, as luks.
json() {
	"$ndio" info --json "$T/disk" | python3 -c 'import json, sys
luks = json.load(sys.stdin)["luks"]
print(eval(sys.argv[1]))' "$1"
}

slots() {
	json '" ".join("%s %s" % (s["slot"], s["priority"]) for s in luks["key_slots"])'
}

change() { # OPTION...
	"$ndio" key change --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" "$@" "$T/disk"
}

fill() { # SLOT KEY-FILE [CRYPTSETUP-OPTION...]
	cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-slot "$1" --key-file "$T/pass" "${@:3}" "$T/disk" "$2"
}

kept() {
	make_luks2 "$T/disk" 18M
	fill 2 "$T/third"
	cryptsetup token add --key-slot 0 --token-id 4 --key-description mine "$T/disk"
	cryptsetup token add --key-slot 0 --token-id 5 --key-description ours "$T/disk"
	cryptsetup token import --token-id 7 --json-file - "$T/disk" <<-'JSON'
		{"type": "nobody-knows", "keyslots": ["0", "2"]}
	JSON
	cryptsetup config --key-slot 0 --priority prefer "$T/disk"
	is "tokens are shown" "$(json '[(t["token"], t["type"], t["key_slots"]) for t in luks["tokens"]]')" \
		"[(4, 'luks2-keyring', [0]), (5, 'luks2-keyring', [0]), (7, 'nobody-knows', [0, 2])]"
	like "by info" "$("$ndio" info "$T/disk")" "tokens: +3.* 7  nobody-knows +0 2"
	like "by key list" "$("$ndio" key list "$T/disk")" " 4  luks2-keyring +0.* 7  nobody-knows +0 2"
	ok "change" change
	ok "the new key opens slot 0" opens "$T/disk" "$T/new" --key-slot 0
	is "slots and priorities are as before" "$(slots)" "0 prefer 2 normal"
	is "and what tokens are assigned to" "$(json '[t["key_slots"] for t in luks["tokens"]]')" \
		"[[0], [0], [0, 2]]"
	like "it says which slot" "$("$ndio" key change --key-file "$T/third" --new-key-file "$T/pass" \
		"${cheap[@]}" "$T/disk")" "^key slot 2 changed$"
	is "the other one, too" "$(slots)" "0 prefer 2 normal"
	make_luks1 "$T/disk" 4M --key-slot 5
	ok "LUKS1: change" change
	ok "LUKS1: the new key opens the same slot" opens "$T/disk" "$T/new" --key-slot 5
	is "LUKS1: and there is no other" "$(slots)" "5 normal"
}

# There is room for four areas.
none_free() {
	local slot

	make_small
	for slot in 1 2 3; do
		fill $slot "$T/third"
	done
	cp "$T/disk" "$T/before"
	ok "no free area: the old key isn't overwritten" fails "free key slot: there is none" change
	ok "and nothing is written" cmp "$T/disk" "$T/before"
}

unbound() {
	make_luks2 "$T/disk" 18M
	fill 3 "$T/third" --unbound --key-size 512
	is "unbound: told" "$(json '[(s["slot"], s.get("unbound", False)) for s in luks["key_slots"]]')" \
		"[(0, False), (3, True)]"
	like "unbound: by info" "$("$ndio" info "$T/disk")" " 3  normal [^$'\n']*unbound: opens nothing"
	like "unbound: by key list" "$("$ndio" key list "$T/disk")" " 3  normal [^$'\n']*unbound"
	for command in info "key add --new-key-file $T/new" "key change --new-key-file $T/new" \
		"key remove"; do
		# shellcheck disable=SC2086
		ok "unbound: $command isn't opened by it" fails "no key slot opens" "$ndio" $command \
			--key-file "$T/third" "$T/disk"
	done
	ok "unbound: nor when it is named" fails "slot 3 is unbound" "$ndio" key change --slot 3 \
		--key-file "$T/third" --new-key-file "$T/new" "$T/disk"
	ok "unbound: the last one that opens isn't removed beside it" fails "slot 0 is the last" \
		"$ndio" key remove --key-file "$T/pass" "$T/disk"
	ok "unbound: removed" "$ndio" key remove --slot 3 --key-file "$T/pass" "$T/disk"
	is "unbound: it is gone" "$(slots)" "0 normal"
	ok "unbound: the other opens" opens "$T/disk" "$T/pass"
}

# cryptsetup only tries it when it is named, and so do we; but it is there.
ignored() {
	make_luks2 "$T/disk" 18M
	cryptsetup config --key-slot 0 --priority ignore "$T/disk"
	ok "ignored: it isn't said to be no slot" fails 'slot 0 has the priority "ignore"' \
		"$ndio" info --key-file "$T/pass" "$T/disk"
	ok "ignored: it opens when it is chosen" "$ndio" info --slot 0 --key-file "$T/pass" "$T/disk"
	ok "ignored: key add" "$ndio" key add --key-slot 0 --slot 3 --key-file "$T/pass" \
		--new-key-file "$T/third" "${cheap[@]}" "$T/disk"
	ok "ignored: key change" change --slot 0
	is "ignored: it keeps its priority" "$(slots)" "0 ignore 3 normal"
	ok "ignored: and opens" opens "$T/disk" "$T/new" --key-slot 0
	ok "ignored: key remove" "$ndio" key remove --slot 0 --key-file "$T/third" "$T/disk"
}

# Its data can't be decrypted here, but its keys can be edited.
strange_cipher() {
	make_luks2 "$T/disk" 18M
	python3 "$root/tests/tools/edit-luks2.py" "$T/disk" 'segment["encryption"] = "aes-xts-plain"'
	ok "another cipher for the data: change" change
	ok "another cipher for the data: the new key opens" opens "$T/disk" "$T/new"
}

# The other one counts, and the next change puts it right.
damaged_copies() {
	local number=0 name

	for name in first second; do
		make_small
		ok "$name copy: nothing to tell" not grep -q damaged <<<"$("$ndio" info "$T/disk")"
		dd if=/dev/urandom of="$T/disk" bs=16K seek=$number count=1 conv=notrunc status=none
		like "$name copy: told" "$("$ndio" info "$T/disk")" "damaged: +the $name of the header's two"
		is "$name copy: by JSON" "$(json 'luks["damaged_copy"]')" "$name"
		ok "$name copy: a change" change
		is "$name copy: puts it right" "$(json 'luks.get("damaged_copy")')" None
		number=$((number + 1))
	done
}

kept
none_free
unbound
ignored
strange_cipher
damaged_copies
done_testing
