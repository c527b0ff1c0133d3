#!/bin/bash
# ndio key bind and unbind: what opens a volume without a person is added and removed, over NBD as well, and
# whatever a crash leaves opens. clevis understands what we bind, and we what it does.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/crash.sh"
. "$root/tests/lib/tang.sh"

has_tang && command -v clevis-luks-list >/dev/null || skip_all "no clevis, Tang server or socat here"

disk=$T/disk

key() { # ACTION... with nobody at a terminal
	setsid "$ndio" key "$@" </dev/null 2>&1
}

tokens() {
	"$ndio" info --json "$1" | python3 -c 'import json, sys
print(" ".join("%s:%s" % (t["token"], ",".join(map(str, t["key_slots"])))
               for t in json.load(sys.stdin)["luks"].get("tokens", [])))'
}

slots() {
	"$ndio" info --json "$1" | python3 -c 'import json, sys
print(*(s["slot"] for s in json.load(sys.stdin)["luks"]["key_slots"]))'
}

to_tang() {
	start_tang tang
	make_luks2 "$disk" 18M
	cp "$disk" "$T/before"
	like "nobody says whether it is trusted" "$(key bind --key-file "$T/pass" tang "$tang" "$disk")" \
		"$tang: it signs with the key $thp: if that is its own"
	like "another key is expected" "$(key bind --key-file "$T/pass" --thumbprint "$(tr 'A-Za-z' 'B-ZAb-za' <<<"$thp")" \
		tang "$tang" "$disk")" "tang: "
	ok "a wrong key for the volume" fails "no key slot opens" "$ndio" key bind --key-file "$T/wrong" \
		--thumbprint "$thp" tang "$tang" "$disk"
	ok "none of these has written" cmp "$disk" "$T/before"
	start_serve disk "$disk"
	ok "bound, over NBD" "$ndio" key bind --key-file "$T/pass" --thumbprint "$thp" tang "$tang" "$(uri disk)"
	is "its token and slot" "$(tokens "$(uri disk)") $(slots "$(uri disk)")" "0:1 0 1"
	like "it opens" "$("$ndio" info --token 0 "$(uri disk)")" "unlocked: +yes"
	ok "with a trust that is typed, opened by the first" terminal "Type YES: => YES" \
		"$ndio" key bind --token 0 --slot 5 tang "$tang" "$(uri disk)"
	is "a second one" "$(tokens "$(uri disk)") $(slots "$(uri disk)")" "0:1 1:5 0 1 5"
	stop_server disk
	is "clevis lists them" "$(clevis luks list -d "$disk")" \
		"1: tang '{\"url\":\"$tang\"}'"$'\n'"5: tang '{\"url\":\"$tang\"}'"
	ok "and opens" bash -c 'clevis luks pass -d "$1" -s 5 | cryptsetup open --test-passphrase --key-slot 5 \
		--key-file - "$1"' - "$disk"
}

unbound() {
	like "unbind: not by what goes" "$(key unbind --token 1 1 "$disk")" "it can't be shown to open"
	like "unbind: nor by its key" "$(clevis luks pass -d "$disk" -s 5 | tr -d '\n' |
		setsid "$ndio" key unbind --key-file - 1 "$disk" 2>&1)" "key slot 5, which this key opens, goes"
	ok "unbind: by another token" "$ndio" key unbind --token 0 1 "$disk"
	is "unbind: it is gone, with its slot" "$(tokens "$disk") $(slots "$disk")" "0:1 0 1"
	ok "unbind: clevis does it as well" clevis luks unbind -f -d "$disk" -s 1
	is "unbind: it is gone, too" "$(tokens "$disk") $(slots "$disk")" " 0"
}

from_clevis() {
	clevis luks bind -f -y -k "$T/pass" -d "$disk" tang "{\"url\":\"$tang\"}" 2>/dev/null
	like "clevis' own opens" "$("$ndio" info --token any "$disk")" "unlocked: +yes"
	ok "the other slot may go" "$ndio" key remove --token any --slot 0 "$disk"
	like "but not the last" "$(key unbind --key-file "$T/pass" 0 "$disk")" "no key slot opens"
	ok "clevis' own: by force, without a key" "$ndio" key unbind --force 0 "$disk"
	is "clevis' own: nothing is left" "$(tokens "$disk")$(slots "$disk")" ""
	end_tang tang
	make_luks2 "$disk" 18M
	cp "$disk" "$T/before"
	like "away" "$(key bind --key-file "$T/pass" --trust-keys tang "$tang" "$disk")" "Unable to fetch advertisement"
	like "away, and not trusted yet" "$(key bind --key-file "$T/pass" tang "$tang" "$disk" </dev/null)" \
		"$tang: .*Unable to fetch advertisement"
	ok "away: nothing is written" cmp "$disk" "$T/before"
}

# ---- what a crash leaves ----

# A clevis that holds what it is given.
fake() {
	mkdir -p "$T/bin"
	cat >"$T/bin/clevis" <<-EOT
		#!/bin/sh
		case \$1 in
		encrypt) cat >$T/held && echo eyJjbGV2aXMiOnsicGluIjoidHBtMiJ9fQ.k.i.c.t ;;
		decrypt) cat >/dev/null && cat $T/held ;;
		esac
	EOT
	chmod +x "$T/bin/clevis"
}

crashes() { # WHAT COMMAND...
	local what=$1 bad=0 count=0 state

	shift
	cp "$disk" "$T/before"
	start_recorder crash "$disk"
	ok "$what" env PATH="$T/bin:$PATH" "$@" "$(uri crash)"
	stop_server crash
	rm -rf "$T/states"
	crash_states crash "$T/before" "$T/states"
	for state in "$T/states"/*; do
		count=$((count + 1))
		opens "$state" "$T/pass" --key-slot 0 2>/dev/null || {
			bad=$((bad + 1))
			diag "$state doesn't open"
		}
		if [ -n "$(cryptsetup luksDump "$state" | grep '^  1: luks2')" ]; then
			opens "$state" "$T/held" --key-slot 1 || bad=$((bad + 1))
		fi
	done
	is "$what: all $count states that a crash can leave open" "$bad" 0
	ok "$what: there are states" test "$count" -ge 5
}

after_crashes() {
	fake
	make_small
	crashes "bind" "$ndio" key bind --key-file "$T/pass" clevis tpm2 '{}'
	is "bind: it is there" "$(tokens "$disk") $(slots "$disk")" "0:1 0 1"
	ok "unbind" "$ndio" key unbind --key-file "$T/pass" 0 "$disk"
	is "unbind: it isn't" "$(tokens "$disk") $(slots "$disk")" " 0"
	sed -i 's/ cat .*held ;;/ echo other ;;/' "$T/bin/clevis"
	cp "$disk" "$T/before"
	like "what it gives back is something else" \
		"$(PATH=$T/bin:$PATH key bind --key-file "$T/pass" clevis tpm2 '{}' "$disk")" \
		"the new key doesn't open the new header: .*: all was put back as it was"
	is "and is bound to nothing" "$(tokens "$disk") $(slots "$disk")" " 0"
}

# ---- the kernel's keyring ----

with_key() {
	keyctl session - bash -c 'keyctl padd user "ndio test" @s >/dev/null <'"$T/$1"' && shift &&
		exec "$@"' - "$@" 2>&1
}

to_keyring() {
	make_luks2 "$disk" 18M
	ok "keyring: there has to be such a key" fails "no such key in the kernel's keyrings" \
		"$ndio" key bind --key-file "$T/pass" keyring "ndio none" "$disk"
	with_key pass true >/dev/null || {
		skip "no keyring for us: $(with_key pass true | tail -n 1)" 5
		return
	}
	ok "keyring: a passphrase that opens a slot" with_key pass "$ndio" key bind --key-file "$T/pass" \
		keyring "ndio test" "$disk"
	ok "keyring: and one that opens none yet" with_key new "$ndio" key bind --key-file "$T/pass" \
		"${cheap[@]}" keyring "ndio test" "$disk"
	is "keyring: their slots" "$(tokens "$disk") $(slots "$disk")" "0:0 1:1 0 1"
	ok "keyring: cryptsetup opens it" with_key new cryptsetup open --test-passphrase --token-id 1 \
		--token-only "$disk"
	ok "keyring: unbind" "$ndio" key unbind --key-file "$T/pass" 0 "$disk"
	is "keyring: unbound, the passphrase stays" "$(tokens "$disk") $(slots "$disk")" "1:1 0 1"
}

# ---- doc/unlocking.md ----

# What it has between ```sh and ``` runs as it stands there.
document() {
	local examples

	examples=$(awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$root/doc/unlocking.md")
	mkdir -p "$T/doc"
	cp "$T/pass" "$T/doc/pass"
	start_tang theirs
	truncate -s 32M "$T/doc/disk.luks"
	start_stock doc file "$T/doc/disk.luks"
	like "doc/unlocking.md has examples" "$(wc -l <<<"$examples")" "^9$"
	# The disk is formatted as cheaply as can be.
	ok "they run" env -C "$T/doc" tang="$tang" thumbprint="$thp" export="$(uri doc)" PATH="$NDIO_BUILD:$PATH" \
		bash -eu -c "$(sed "s/ --size 32M/ ${cheap[*]}/" <<<"$examples")"
}

words() {
	make_luks1 "$disk" 4M
	ok "LUKS1" fails "LUKS1 headers have no tokens" "$ndio" key unbind --key-file "$T/pass" 0 "$disk"
	ok "bind to what" usage "$ndio" key bind moon "$disk"
	ok "a Tang server without its URL" usage "$ndio" key bind tang "$disk"
	ok "unbind which" usage "$ndio" key unbind some "$disk"
	ok "change by a token" usage "$ndio" key change --token any "$disk"
	ok "list by a token" usage "$ndio" key list --token any "$disk"
	ok "a thumbprint for a TPM" usage "$ndio" key bind --thumbprint x tpm2 "$disk"
	ok "registers of a Tang server" usage "$ndio" key bind --pcrs 7 tang x "$disk"
	ok "add has no server" usage "$ndio" key add --trust-keys "$disk"
}

to_tang
unbound
from_clevis
after_crashes
to_keyring
document
words
done_testing
