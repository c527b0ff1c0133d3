#!/bin/bash
# ndio key on headers of which one thing is wrong: whoever is told that a key was added or changed has
# one that opens, and otherwise what opened before still does. Also with a damaged slot between the
# old and the new one, at which libcryptsetup stops.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

either_opens() { # FILE KEY-FILE
	"$ndio" info --key-file "$2" "$1" >/dev/null 2>&1 || opens "$1" "$2" 2>/dev/null
}

# key ACTION: from pass to new, on $T/disk. What it says goes to $T/said.
key() {
	timeout 60 "$ndio" key "$1" --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" \
		"$T/disk" >"$T/said" 2>&1
}

# tell_truth NAME: what it says of $T/disk, which is damaged, is so afterwards.
tell_truth() {
	local action before status bad=

	cp "$T/disk" "$T/damaged"
	either_opens "$T/disk" "$T/pass"
	before=$?
	for action in add change; do
		cp "$T/damaged" "$T/disk"
		key $action
		status=$?
		case $status in
		0) either_opens "$T/disk" "$T/new" || bad="$bad $action: done, and the new key doesn't open;" ;;
		1) [ $before != 0 ] || either_opens "$T/disk" "$T/pass" ||
			bad="$bad $action: it failed, and the old key doesn't open any more;" ;;
		*) bad="$bad $action: status $status;" ;;
		esac
		[ -z "$bad" ] || diag "$bad $(cat "$T/said")"
	done
	is "$1" "$bad" ""
}

luks2() { # NAME CODE
	cp "$T/good2" "$T/disk"
	python3 "$root/tests/tools/edit-luks2.py" "$T/disk" "$2"
	tell_truth "LUKS2: $1"
}

luks1() { # NAME OFFSET BYTES
	cp "$T/good1" "$T/disk"
	# shellcheck disable=SC2059
	printf "$3" | dd of="$T/disk" bs=1 seek="$2" conv=notrunc status=none
	tell_truth "LUKS1: $1"
}

# The new key would be in slot 2, behind the damaged one.
slot_between() { # NAME
	ok "$1: the old key opens" "$ndio" info --key-file "$T/pass" "$T/disk"
	ok "$1: change" key change
	ok "$1: the new key opens" "$ndio" info --key-file "$T/new" "$T/disk"
	ok "$1: add" "$ndio" key add --key-file "$T/new" --new-key-file "$T/pass" "${cheap[@]}" "$T/disk"
	ok "$1: the added one opens, too" "$ndio" info --key-file "$T/pass" "$T/disk"
}

fill() { # SLOT
	cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-slot "$1" --key-file "$T/pass" "$T/disk" "$T/third"
}

make_small
fill 1
mv "$T/disk" "$T/good2"
make_luks1 "$T/disk" 3M
fill 1
mv "$T/disk" "$T/good1"

slot='json["keyslots"]["1"]'
cp "$T/good2" "$T/disk"
python3 "$root/tests/tools/edit-luks2.py" "$T/disk" "$slot"'["area"]["encryption"] = "serpent-xts-plain64"'
slot_between "LUKS2, another cipher for a slot"
cp "$T/good2" "$T/disk"
python3 "$root/tests/tools/edit-luks2.py" "$T/disk" "$slot"'["kdf"]["hash"] = "nonsense"'
slot_between "LUKS2, a hash for a slot that nobody knows"

luks2 "a slot's type" "$slot"'["type"] = "luks9"'
luks2 "a slot that isn't encrypted" "$slot"'["area"]["encryption"] = "cipher_null-ecb"'
luks2 "a slot's encryption" "$slot"'["area"]["encryption"] = "aes-nonsense-plain64"'
luks2 "the key for that" "$slot"'["area"]["key_size"] = 7'
luks2 "a slot's splitter" "$slot"'["af"]["hash"] = "nonsense"'
luks2 "its stripes" "$slot"'["af"]["stripes"] = 1'
luks2 "a slot's derivation" "$slot"'["kdf"]["type"] = "nonsense"'
luks2 "its salt" "$slot"'["kdf"]["salt"] = "!!"'
luks2 "a slot's area, too small" "$slot"'["area"]["size"] = "4096"'
luks2 "a slot's area, on the other's" "$slot"'["area"]["offset"] = json["keyslots"]["0"]["area"]["offset"]'
luks2 "a slot's key of another size" "$slot"'["key_size"] = 32'
luks2 "the old slot's key of another size" 'json["keyslots"]["0"]["key_size"] = 32'
luks2 "the old slot is ignored" 'json["keyslots"]["0"]["priority"] = 0'
luks2 "the digest's hash" 'json["digests"]["0"]["hash"] = "nonsense"'
luks2 "the digest's salt" 'json["digests"]["0"]["salt"] = "AAAA"'
luks2 "the digest is for the other slot" 'json["digests"]["0"]["keyslots"] = ["1"]'
luks2 "the digest is for no segment" 'json["digests"]["0"]["segments"] = []'
luks2 "a digest more" 'json["digests"]["1"] = dict(json["digests"]["0"], segments=[], keyslots=["1"])
json["digests"]["0"]["keyslots"] = ["0"]'
luks2 "another cipher for the data" 'segment["encryption"] = "serpent-xts-plain64"'
luks2 "one for which the key doesn't fit" 'segment["encryption"] = "aes-cbc-essiv:sha256"'
luks2 "impossible sectors" 'segment["sector_size"] = 1111'
luks2 "a flag that nobody knows" 'json["config"]["requirements"] = {"mandatory": ["time-travel"]}'
luks2 "less room for areas" 'json["config"]["keyslots_size"] = "524288"'
luks2 "a token for a slot that isn't there" 'json["tokens"] = {"0": {"type": "x", "keyslots": ["7"]}}'
luks1 "a slot without iterations" $((208 + 48 + 4)) '\0\0\0\0'
luks1 "a slot's place" $((208 + 48 + 40)) '\0\0\0\1'
luks1 "a slot's stripes" $((208 + 48 + 44)) '\0\0\0\1'
luks1 "a slot that is neither in use nor free" $((208 + 48)) 'abcd'
luks1 "a free slot's place is the first one's" $((208 + 2 * 48 + 40)) '\0\0\0\10'
luks1 "no digest iterations" 164 '\0\0\0\0'
luks1 "the hash" 72 'nonsense\0'
luks1 "another cipher" 8 'serpent\0'
done_testing
