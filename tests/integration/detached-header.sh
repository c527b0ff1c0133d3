#!/bin/bash
# A file that is nothing but a LUKS header is no disk: its first write would destroy it. It is
# refused by whatever reads or writes data, and shown by what only looks; given as the header it
# opens its disk, unless it lies on that very disk.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"

header=$T/header
data=$T/data
elsewhere="this is a detached LUKS header: its data are elsewhere: give it"

json() { # EXPRESSION INFO-ARGUMENT...
	"$ndio" info --json "${@:2}" | python3 -c 'import json, sys
i = json.load(sys.stdin)["luks"]
print(eval(sys.argv[1]))' "$1"
}

no_disk() {
	local before

	before=$(sha256sum "$header")
	ok "the plugin" refused "$header: $elsewhere" "$header" keyfile="$T/pass"
	ok "info with a key" fails "$header: $elsewhere" "$ndio" info --key-file "$T/pass" "$header"
	ok "copy from it" fails "$header: $elsewhere" "$ndio" copy --src-key-file "$T/pass" "$header" \
		"$T/out"
	ok "copy to it" fails "$header: $elsewhere" "$ndio" copy --dst-key-file "$T/pass" "$T/source" \
		"$header"
	for action in add change; do
		ok "key $action" fails "$header: $elsewhere" "$ndio" key $action \
			--key-file "$T/pass" --new-key-file "$T/new" "$header"
	done
	ok "key remove" fails "$header: $elsewhere" "$ndio" key remove --key-file "$T/pass" "$header"
	is "the library" "$("$NDIO_BUILD/tests/clients/ndio-try" -k "$T/pass" "$header" |
		grep -o "open: EINVAL: $header: $elsewhere")" "open: EINVAL: $header: $elsewhere"
	start_stock disk --readonly file "$header"
	ok "a server's" fails "$elsewhere" "$ndio" info --key-file "$T/pass" "$(uri disk)"
	ok "a gateway to it" refused "$elsewhere" uri="$(uri disk)" keyfile="$T/pass"
	stop_server disk
	is "nothing changed" "$(sha256sum "$header")" "$before"
}

shown() {
	like "info" "$("$ndio" info "$header")" "data: +elsewhere: this is a detached header"
	is "info as JSON" "$(json '(i["data_elsewhere"], i["payload_size"])' "$header")" "(True, 0)"
	is "info of header and disk" "$(json '(i["data_elsewhere"], i["payload_size"])' "$data" \
		--header "$header")" "(False, 2097152)"
	ok "key list" "$ndio" key list "$header"
}

with_its_disk() {
	ok "the plugin" start_door disk "$data" header="$header" keyfile="$T/pass"
	ok "serves all of the disk" [ "$(nbdinfo --size "$(uri disk)")" = 2097152 ]
	ok "and ends" stop_server disk
	ok "info" "$ndio" info --header "$header" --key-file "$T/pass" "$data"
	ok "key add" "$ndio" key add "${cheap[@]}" --header "$header" --key-file "$T/pass" \
		--new-key-file "$T/new" "$data"
	ok "key remove, the disk isn't there" "$ndio" key remove --header "$header" \
		--key-file "$T/new" "$T/absent"
	ok "opens for cryptsetup as before" opens "$data" "$T/pass" --header "$header"
}

# The same bytes are header and disk: by the path, another name of the file, a server.
on_itself() {
	local over='the header is on the disk itself' before

	before=$(sha256sum "$header")
	ln -sf "$header" "$T/symbolic" && ln -f "$header" "$T/hard"
	for disk in "$header" "$T/symbolic" "$T/hard"; do
		ok "the plugin: ${disk##*/}" refused "($over|same)" "$disk" header="$header" \
			keyfile="$T/pass"
		ok "copy: ${disk##*/}" fails "($over|same)" "$ndio" copy --dst-key-file "$T/pass" \
			--dst-header "$header" "$T/source" "$disk"
	done
	start_stock disk file "$header"
	ok "a server's" refused "$over" uri="$(uri disk)" header="$header" keyfile="$T/pass"
	stop_server disk
	is "nothing changed" "$(sha256sum "$header")" "$before"
}

head -c 4096 /dev/urandom >"$T/source"
for type in luks2 luks1; do
	echo "# $type"
	rm -f "$header" "$data"
	make_luks $type "$data" 2M --header "$header"
	truncate -s 32M "$header" # as on a stick, where data might fit behind it
	no_disk
	shown
	with_its_disk
	on_itself
done

echo "# a header that is on its own disk, and not over its data"
make_small
ok "is fine" start_door disk "$T/disk" header="$T/disk" keyfile="$T/pass" &&
	stop_server disk
done_testing
