#!/bin/bash
# ndio map, and ndio info's --size, --can and --is: what nbdinfo says.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

truncate -s 5M "$T/disk"
head -c 200000 /dev/urandom | dd of="$T/disk" bs=64k seek=7 conv=notrunc status=none
dd if=/dev/zero of="$T/disk" bs=64k count=3 seek=30 conv=notrunc status=none

# as_nbdinfo NAME LOCATOR URI OPTION...: both show the same, a file directly where LOCATOR is one.
as_nbdinfo() {
	is "$1" "$("$ndio" map "${@:4}" "$2" 2>&1)" "$(nbdinfo --map "${@:4}" "$3" 2>&1)"
}
as_json() { # the same, by what programs read
	is "$1" "$("$ndio" map --json "${@:4}" "$2" | python3 -c 'import json, sys; print(json.load(sys.stdin))')" \
		"$(nbdinfo --map --json "${@:4}" "$3" | python3 -c 'import json, sys; print(json.load(sys.stdin))')"
}

start_stock file file "$T/disk"
start_qemu_nbd qemu --read-only --format raw "$T/disk"
start_stock data data "@32768 1*99 @2097152 1*70000" size=3M
for server in file qemu data; do
	as_nbdinfo "$server: the map" "$(uri $server)" "$(uri $server)"
	as_nbdinfo "$server: totals" "$(uri $server)" "$(uri $server)" --totals
	as_json "$server: JSON" "$(uri $server)" "$(uri $server)"
	as_json "$server: totals as JSON" "$(uri $server)" "$(uri $server)" --totals
done
as_nbdinfo "a file's own is that of its server" "$T/disk" "$(uri file)"
as_nbdinfo "so are its totals" "$T/disk" "$(uri file)" --totals
: >"$T/empty"
is "an empty file has none" "$("$ndio" map --totals "$T/empty")" ""
is "as JSON" "$("$ndio" map --json "$T/empty" | tr -d ' \n')" "[]"

make_luks2 "$T/vol" 20M
truncate -s 24M "$T/vol"
start_stock vol file "$T/vol"
as_nbdinfo "a volume without its key is its file" "$T/vol" "$(uri vol)"
whole="         0     8388608    0  data"
is "with it, all is data" "$("$ndio" map --key-file "$T/pass" "$T/vol" 2>/dev/null)" "$whole"
is "of a server, too" "$("$ndio" map --key-file "$T/pass" "$(uri vol)" 2>/dev/null)" "$whole"
dd if="$T/vol" of="$T/header" bs=1M count=16 status=none
is "and with a detached header" \
	"$("$ndio" map --key-file "$T/pass" --header "$T/header" "$T/vol" 2>/dev/null)" "$whole"
make_luks1 "$T/old" 6M
is "LUKS1" "$("$ndio" map --totals --key-file "$T/pass" "$T/old" 2>/dev/null)" "   4194304 100.0%   0 data"

ok "a wrong passphrase" fails "vol: .*key" "$ndio" map --key-file "$T/wrong" "$T/vol"
ok "no such file" fails "none: No such file" "$ndio" map "$T/none"
ok "a pipe" fails "stdin: it can't be read anywhere" "$ndio" map /dev/stdin
ok "a server that tells nothing" fails "the server doesn't tell" \
	nbdkit -U - --no-sr memory 1M --run "'$ndio' map \"\$uri\""
start_stock dies --filter=error file "$T/disk" error-extents=EIO error-extents-rate=100%
ok "one that fails" fails "dies.sock: extents at 0: " "$ndio" map "$(uri dies)"
is "with --json prints nothing" "$("$ndio" map --json "$(uri dies)" 2>/dev/null)" ""
ok "standard input" usage "$ndio" map -
ok "two" usage "$ndio" map "$T/disk" "$T/disk"
ok "a header without a key" usage "$ndio" map --header "$T/header" "$T/vol"
ok "a full disk" fails "standard output: No space" sh -c "'$ndio' map '$T/disk' >/dev/full"

# ---- ndio info --size, --can, --is ----

status() {
	"$@" >"$T/out" 2>"$T/err"
	echo $?
}
start_stock ro --readonly memory 3M
start_stock plain --no-sr --filter=nocache memory 1M
for server in file qemu ro plain; do
	is "$server: --size" "$("$ndio" info --size "$(uri $server)")" "$(nbdinfo --size "$(uri $server)")"
	for what in --can=flush --can=fua --can=trim --can=fast-zero --can=cache --can=multi-conn --can=connect \
		--can=read --can=write --can=structured-reply --is=read-only --is=tls; do
		[ "$server $what" != "ro --can=fua" ] || continue # a flush does as well, and nothing is written
		is "$server: $what" "$(status "$ndio" info $what "$(uri $server)")" \
			"$(status nbdinfo $what "$(uri $server)")"
	done
done
is "nothing is printed" "$(cat "$T/out")" ""
is "a file's size" "$("$ndio" info --size "$T/disk")" 5242880
is "a volume's, with a key" "$("$ndio" info --size --key-file "$T/pass" "$T/vol" 2>/dev/null)" 8388608
is "and without" "$("$ndio" info --size "$T/vol")" 25165824
is "extents: a file has them" "$(status "$ndio" info --can extents "$T/disk")" 0
is "a volume hasn't" "$(status "$ndio" info --can extents "$T/vol")" 2
is "nor trims, if its header doesn't say so" "$(status "$ndio" info --can trim "$T/vol")" 2
is "a file that isn't there can't be known" "$(status "$ndio" info --can flush "$T/none")" 1
is "nor a server" "$(status "$ndio" info --can connect "$(uri none)")" 1
is "nor what has no name, as with nbdinfo" "$(status "$ndio" info --can fly "$T/disk")" \
	"$(status nbdinfo --can fly "$(uri file)")"
is "no other mistake is a no" "$(status "$ndio" info --nonsense --is tls "$T/disk")" 1
is "be it two questions" "$(status "$ndio" info --json --is tls "$T/disk")" 1
is "or a wrong key" "$(status "$ndio" info --can flush --key-file "$T/wrong" "$T/vol")" 1
for server in file qemu data vol dies ro plain; do
	stop_server $server
done
done_testing
