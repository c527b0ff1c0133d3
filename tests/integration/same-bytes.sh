#!/bin/bash
# What two names stand for may be the same bytes: what is written is then never the source, a header
# or a key file that is needed, whatever the names are; and nothing has been written when that is said.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/command.sh"

same='the same, or one is on the other'
loops=()
trap 'for l in "${loops[@]}"; do losetup --detach "$l"; done; clean_up' EXIT

# What tells of each write to them.
state() {
	stat -c '%n %s %y' "$T"/{vol,key,header,psk,data}
}

# untouched NAME REGEX COMMAND...: it fails, and says so in one line; none of the files is written to.
untouched() {
	local name=$1 before

	shift
	before=$(state)
	ok "$name" fails "$@"
	is "$name: nothing was written" "$(state)" "$before"
}

make_luks2 "$T/vol" 24M
cp "$T/pass" "$T/key"
head -c 20M /dev/zero >"$T/data"
"$ndio" format --key-file "$T/key" "${cheap[@]}" --yes --header "$T/header" "$T/data" || exit 1
printf 'alice:%064d\n' 1 >"$T/psk" && chmod 600 "$T/psk"
ln -s vol "$T/link"
ln "$T/vol" "$T/hard"
ln "$T/key" "$T/key2"
ln -s header "$T/header2"

# ---- names of files ----

for other in link hard ../"$(basename "$T")"/vol; do
	untouched "copy onto itself: $other" "$same: the source would be" \
		"$ndio" copy --src-key-file "$T/key" "$T/vol" "$T/$other"
	untouched "format: the header on the disk: $other" "$same: the LUKS header would be" \
		"$ndio" format --yes --key-file "$T/key" --header "$T/$other" "$T/vol"
done
untouched "copy onto a header" "its own header would be" "$ndio" copy --dst-key-file "$T/key" \
	--dst-header "$T/header2" "$T/key" "$T/header"
untouched "copy onto the source's header" "the source's header would be" "$ndio" copy \
	--src-key-file "$T/key" --src-header "$T/header" "$T/data" "$T/header2"
untouched "copy onto a key" "the key file would be" "$ndio" copy --src-key-file "$T/key" "$T/vol" \
	"$T/key2"
untouched "copy onto the destination's key" "the key file would be" "$ndio" copy \
	--dst-key-file "$T/key" "$T/data" "$T/key2"
untouched "copy onto a key by a descriptor" "the key file would be" bash -c \
	'"$1" copy --src-key-fd 5 "$2" "$3" 5<"$3"' - "$ndio" "$T/vol" "$T/key"
untouched "copy onto what stdin is" "the source would be" bash -c '"$1" copy - "$2" <"$2"' - "$ndio" \
	"$T/vol"
untouched "copy onto a pre-shared key" "the pre-shared keys would be" "$ndio" copy \
	"nbds://alice@localhost:1/?tls-psk-file=$T/psk" "$T/psk"
untouched "format onto the key" "the key file would be" "$ndio" format --yes --key-file "$T/key" \
	"$T/key2"
untouched "format: the key on the data" "the key file would be" "$ndio" format --yes \
	--key-file "$T/key" --header "$T/none" "$T/key2"
ok "no header was made" not test -e "$T/none"
untouched "key add: the new key is the disk" "the key file would be" "$ndio" key add \
	--key-file "$T/key" --new-key-file "$T/hard" "$T/vol"
untouched "key change: the key is the header" "the key file would be" "$ndio" key change \
	--key-file "$T/header2" --new-key-file "$T/new" --header "$T/header" "$T/data"
ok "format: two new files of one name" fails "would be" "$ndio" format --size 64M --key-file "$T/key" \
	--header "$T/new-disk" "$T/./new-disk"
ok "none was made" not test -e "$T/new-disk"
ok "the plugin's key file" refused "the key file would be" "$T/vol" keyfile="$T/hard"
ok "the plugin's passphrase" refused "the key file would be" "$T/key" passphrase=+"$T/key2"
ok "who only reads may name it" "$ndio" copy --src-key-file "$T/key" --src-header "$T/link" "$T/vol" null:

# The data of this header begin where it does.
cp "$T/header" "$T/whole" && truncate -s 40M "$T/whole" && ln -s whole "$T/whole-link"
ok "the plugin's header" refused "the header" "$T/whole" keyfile="$T/key" header="$T/whole-link"
like "the library's header" \
	"$("$NDIO_BUILD/tests/clients/ndio-try" -k "$T/key" -H "$T/whole-link" "$T/whole")" \
	"open: EINVAL: .*the header"

# ---- servers ----

start_stock server file "$T/vol"
ln -s server.sock "$T/server2.sock"
untouched "an export by another name of its socket" "the source would be" "$ndio" copy \
	--src-key-file "$T/key" "$(uri server)" "$(uri server2)"
stop_server server
untouched "an export by other names of its host" "the source would be" "$ndio" copy \
	nbd://localhost:1/x nbd://127.0.0.1:1/x
ok "another export is another" fails "refused" "$ndio" copy nbd://localhost:1/x nbd://127.0.0.1:1/y

# ---- block devices ----

# attach FILE [OPTION...]: sets loop.
attach() {
	loop=$(losetup --find --show "$@" 2>/dev/null) && loops+=("$loop")
}

if [ "$(id -u)" = 0 ] && attach "$T/vol"; then
	first=$loop
	untouched "a loop device on the source" "the source would be" "$ndio" copy --src-key-file "$T/key" \
		"$T/vol" "$first"
	untouched "a source on which is the destination" "the source would be" "$ndio" copy "$first" "$T/vol"
	untouched "a header on the disk" "the LUKS header would be" "$ndio" format --yes \
		--key-file "$T/key" --header "$first" "$T/vol"
	mknod "$T/node" b $(stat -c '0x%t 0x%T' "$first")
	untouched "another name of a device" "the source would be" "$ndio" copy "$first" "$T/node"
	attach "$first"
	untouched "a loop device on a loop device" "the source would be" "$ndio" copy "$T/vol" "$loop"
	attach --offset 20M "$T/vol"
	untouched "a part of it" "the source would be" "$ndio" copy "$T/vol" "$loop"
	tail=$loop
	attach --sizelimit 20M "$T/vol"
	ok "two parts that don't touch" "$ndio" copy --overwrite "$tail" "$loop"
	# The header lies somewhere among the data.
	dd if="$T/header" of="$T/data" bs=1M seek=2 conv=notrunc status=none
	attach --offset 2M "$T/data"
	ok "a header among the data" refused "the header would be" "$T/data" keyfile="$T/key" header="$loop"
	like "also for the library" "$("$NDIO_BUILD/tests/clients/ndio-try" -k "$T/key" -H "$loop" "$T/data")" \
		"open: EINVAL: .*the header would be"
	attach "$T/key"
	untouched "a key file that a device is on" "the key file would be" "$ndio" format --yes \
		--key-file "$T/key" "$loop"
else
	skip "no loop devices" 17
fi
done_testing
