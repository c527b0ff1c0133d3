#!/bin/bash
# What is said where somebody mistook one thing for another: empty names, servers that want TLS or
# the other kind of it, numbers that are none, options that would be passed over beside others.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/tls.sh"

truncate -s 1M "$T/raw"
make_small || exit 1

empty_names() {
	local command

	for command in info "copy $T/raw" "key list" "format --size 20M" format; do
		# shellcheck disable=SC2086
		ok "$command: no name" fails "^ndio: an empty name: a disk is a path or an NBD URI$" \
			"$ndio" $command ""
	done
	like "compare: no name" "$("$ndio" compare "$T/raw" "" 2>&1)" "^ndio: an empty name"
	ok "copy: no source" fails "an empty name" "$ndio" copy "" "$T/none"
	ok "format --like: no name" fails "an empty name" "$ndio" format --like "" "$T/none"
	ok "info --header: no name" fails "an empty name" "$ndio" info --header "" "$T/raw"
	ok "psk: no name" usage "$ndio" psk "" alice
	ok "the plugin: no name" refused "an empty name" file=
	like "the library: no name" "$("$NDIO_BUILD/tests/clients/ndio-try" "")" "EINVAL: an empty name"
}

# says NAME REGEX URI
says() {
	ok "$1" fails "$2" timeout 25 "$ndio" info "$3"
	ok "$1, for copy" fails "$2" timeout 25 "$ndio" copy "$3" null:
}

servers() {
	local wants="the server wants an encrypted connection: nbds://"

	start_stock disk --tls=require --tls-psk="$psk" memory 1M
	says "a server that wants TLS" "$wants" "$(uri disk)"
	ok "a gateway to it" refused "$wants" uri="$(uri disk)"
	says "one with pre-shared keys, and none here" "does it want a pre-shared key, tls-psk-file" \
		"$(with_certificates disk)"
	stop_server disk
	start_stock disk --tls=require --tls-certificates="$tls" memory 1M
	says "a pre-shared key, and certificates there" \
		"key of \"alice\", but shows a certificate: it wants tls-certificates=FOLDER" "$(with_psk disk)"
	says "with an older TLS, too" "alice.*tls-certificates=FOLDER" \
		"$(with_psk disk)&tls-version=1.2"
	stop_server disk
}

numbers() {
	local size

	for size in 3 256 1000 512K x -1 ''; do
		like "copy --sparse=$size" "$("$ndio" copy --sparse="$size" "$T/raw" "$T/none" 2>&1)" \
			"with \"$size\": it takes a power of two from 512 to 256K, or 0"
	done
}

# beside WHAT COMMAND...: a usage error that says so.
beside() {
	ok "${*:2}" usage "$ndio" "${@:2}"
	like "${*:2}: the reason" "$("$ndio" "${@:2}" 2>&1 </dev/null)" "$1"
}

options() {
	beside "--unlock asks" info --unlock --key-file "$T/pass" "$T/disk"
	beside "--unlock asks" info --key-fd 0 --unlock "$T/disk"
	beside "not both" copy --src-unlock --src-key-file "$T/pass" "$T/disk" "$T/none"
	beside "not both" copy --dst-key-file "$T/pass" --dst-unlock "$T/raw" "$T/disk"
	beside "not both" compare --src-unlock --src-key-file "$T/pass" "$T/disk" "$T/raw"
	for action in copy compare; do
		beside "a key slot is a number from 0 to 31" $action --src-slot 99 "$T/disk" "$T/raw"
		beside "--answer-timeout takes seconds" $action --answer-timeout x "$T/disk" "$T/raw"
		beside "--reconnect takes seconds" $action --reconnect 86401 "$T/disk" "$T/raw"
		beside "--max-kdf-time takes a number" $action --max-kdf-time x "$T/disk" "$T/raw"
		beside "a key comes from one --dst-key-file or --dst-key-fd" $action \
			--dst-key-file "$T/pass" --dst-key-file "$T/pass" "$T/disk" "$T/raw"
		beside "takes json, or a descriptor" $action --progress=x "$T/disk" "$T/raw"
	done
	beside "--discard is nothing" attach --read-only --discard "$T/disk"
	beside "--reconnect takes seconds" attach --reconnect 86401 "$T/disk"
	beside "--unflushed takes a size" attach --unflushed 1023K "$T/disk"
	ok "plugin: connections= of a file" refused "connections= is for uri=" "$T/raw" connections=3
	ok "plugin: answer= of a file" refused "answer= is for uri=" "$T/raw" answer=3
	ok "plugin: direct= of a server" refused "direct= is for a file" direct=on uri=nbd://localhost
	ok "plugin: lock-image= of a server" refused "lock-image= is for a file" uri=nbd://localhost \
		lock-image=off
	ok "nothing was made" [ ! -e "$T/none" ]
}

make_tls
empty_names
servers
numbers
options
done_testing
