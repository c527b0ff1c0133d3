#!/bin/bash
# What looks like a URI and isn't one as NBD's are written here is refused, with how it is written,
# and no file of that name is made: by every command, the plugin and the library.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/command.sh"

cd "$T" || exit 1
head -c 1M /dev/urandom >image
make_luks2 "$T/vol" 24M
mkdir empty
cd empty || exit 1

hints=(
	"nbd:localhost:10809" "write nbd://localhost:10809/"
	"nbd:unix:$T/s:exportname=x" "write nbd\+unix:///x\?socket=$T/s"
	"NBD://localhost" "write nbd://localhost"
	"http://localhost/disk" "neither a file nor an NBD URI"
	"ssh:host" "./ssh:host"
)
for ((i = 0; i < ${#hints[@]}; i += 2)); do
	at=${hints[i]} hint=${hints[i + 1]}
	ok "$at: copied to" fails "$hint" "$ndio" copy "$T/image" "$at"
	ok "$at: copied to, from a pipe" fails "$hint" "$ndio" copy - "$at"
	ok "$at: copied from" fails "$hint" "$ndio" copy "$at" "$T/image"
	ok "$at: info" fails "$hint" "$ndio" info "$at"
	ok "$at: key list" fails "$hint" "$ndio" key list "$at"
	ok "$at: key add" fails "$hint" "$ndio" key add --key-file "$T/pass" --new-key-file "$T/new" "$at"
	ok "$at: format" fails "$hint" "$ndio" format --key-file "$T/pass" "$at"
	ok "$at: format --size" fails "$hint" "$ndio" format --key-file "$T/pass" --size 64M "$at"
	ok "$at: format --header" fails "$hint" "$ndio" format --key-file "$T/pass" --header "$at" "$T/vol"
	ok "$at: the plugin's file" refused "$hint" "$at"
	ok "$at: the plugin's uri" refused "not an NBD URI|starts in lower case" uri="$at"
	ok "$at: the plugin's header" refused "$hint" "$T/vol" keyfile="$T/pass" header="$at"
	like "$at: the library" "$("$NDIO_BUILD/tests/clients/ndio-try" "$at")" "open: EINVAL: .*$hint"
	if [ "$(id -u)" = 0 ] && command -v nbd-client >/dev/null; then
		ok "$at: attach" fails "$hint" "$ndio" attach --key-file "$T/pass" "$at" nbd0
	else
		skip "attach needs root and nbd-client"
	fi
done
is "no file was made" "$(ls -A)" ""

ok "an NBD URI isn't the plugin's file" refused 'a server.s export is uri=URI' "nbd://localhost/"
ok "nor a header" fails "a LUKS header is named by a path" \
	"$ndio" copy --src-key-file "$T/pass" --src-header nbd://localhost/ "$T/vol" null:

ok "a file of that name is ./nbd:x" "$ndio" copy "$T/image" ./nbd:x
ok "and has it all" cmp "$T/image" nbd:x
mv nbd:x backup:monday
ok "a colon in a file's name is fine" "$ndio" copy backup:monday ./again:
ok "all of it again" cmp "$T/image" ./again:
done_testing
