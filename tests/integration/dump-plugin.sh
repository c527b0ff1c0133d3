#!/bin/bash
# The plugin tells what it is and takes: --dump-plugin, --help, messages for parameters that are
# wrong, and the flags that an export has.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

ndio() {
	LD_PRELOAD=$NDIO_PRELOAD nbdkit "$@"
}

# --dump-plugin
ok "--dump-plugin" ndio --dump-plugin "$NDIO_PLUGIN"
ndio --dump-plugin "$NDIO_PLUGIN" >"$T/dump"
for line in name=ndio magic_config_key=file thread_model=parallel errno_is_preserved=1 \
	'version=[0-9]+\.[0-9]+\.[0-9]+' 'ndio_formats=raw luks1 luks2' \
	'ndio_ciphers=.*aes-xts-plain64.*' 'ndio_openssl=3\..*' 'ndio_bounce_memory=[1-9][0-9]*' \
	'ndio_usdt=(yes|no)'; do
	ok "--dump-plugin says $line" grep -qxE "$line" "$T/dump"
done
ok "its version is the build's" grep -qx "version=$(cat "$root/VERSION")" \
	"$T/dump"
ok "--version" ndio "$NDIO_PLUGIN" --version

# --help
ndio "$NDIO_PLUGIN" --help >"$T/help"
parameters=$(sed -n 's/^\t{ "\([a-z-]*\)", .*/\1/p' "$root/server/parameters.c")
for parameter in $parameters; do
	ok "--help tells of $parameter=" grep -qE "^\[?$parameter=\]?" "$T/help"
done
ok "of ten parameters or more" [ "$(wc -w <<<"$parameters")" -ge 10 ]

# Parameters.
truncate -s 1M "$T/disk"
truncate -s 1M "$T/name=with.equals"
ok "file=PATH" start_nbdkit disk "$NDIO_PLUGIN" file="$T/disk" && stop_server disk
ok "PATH alone" start_nbdkit disk "$NDIO_PLUGIN" "$T/disk" && stop_server disk
(cd "$T" && mkdir below) || exit 1
cd "$T/below" || exit 1
ok "a path from here" start_nbdkit disk "$NDIO_PLUGIN" ../disk && stop_server disk
cd / || exit 1
ok "a name that looks like a parameter" start_nbdkit disk "$NDIO_PLUGIN" \
	file="$T/name=with.equals" && stop_server disk
ok "a parameter that doesn't exist" refused "unknown parameter 'pasphrase'" "$T/disk" \
	pasphrase=x
for value in maybe ON '' 1; do
	ok "direct=$value" refused "direct=$value: must be auto, on or off" "$T/disk" \
		direct="$value"
done
for parameter in discard pin lock; do
	for value in maybe '' 2; do
		ok "$parameter=$value" refused "$parameter|$value.* boolean|could not decipher" \
			"$T/disk" "$parameter=$value"
	done
	ok "$parameter=off" start_nbdkit disk "$NDIO_PLUGIN" "$T/disk" "$parameter=off" &&
		stop_server disk
done

# Flags. can NAME FLAG...: the export has them; cannot NAME FLAG...: it hasn't.
can() {
	local name=$1 flag

	shift
	for flag; do
		ok "$name: can $flag" nbdinfo --can "$flag" "$(uri disk)"
	done
}

cannot() {
	local name=$1 flag

	shift
	for flag; do
		ok "$name: can't $flag" not nbdinfo --can "$flag" "$(uri disk)"
	done
}

export_of() { # NAME ARG...
	local name=$1

	shift
	ok "$name: starts" start_nbdkit disk "$NDIO_PLUGIN" "$@"
	ok "$name: isn't rotational, as a file" not nbdinfo --is rotational "$(uri disk)"
	is "$name: requests of any size, best of 4096, up to 64 MiB" "$(py disk "
print(h.get_block_size(nbd.SIZE_MINIMUM), h.get_block_size(nbd.SIZE_PREFERRED),
      h.get_block_size(nbd.SIZE_MAXIMUM))")" "1 4096 67108864"
}

make_luks2 "$T/luks" 20M
key=passphrase=+$T/pass
export_of "raw" "$T/disk" direct=auto
can "raw" write flush fua multi-conn zero fast-zero trim
grep -q "refuses direct I/O" "$T/disk.log" || cannot "raw" cache
stop_server disk
export_of "raw, buffered" "$T/disk" direct=off
can "raw, buffered" write flush fua multi-conn zero fast-zero trim cache
stop_server disk
export_of "LUKS" "$T/luks" "$key"
can "LUKS" write flush fua multi-conn zero
cannot "LUKS" trim fast-zero
is "LUKS: tells of no holes" "$(nbdinfo --map --totals "$(uri disk)" | awk '{ print $1, $NF }')" \
	"4194304 data"
stop_server disk
export_of "LUKS, discard=on" "$T/luks" "$key" discard=on
can "LUKS, discard=on" write flush fua multi-conn zero trim
cannot "LUKS, discard=on" fast-zero
is "LUKS, discard=on: tells of no holes" \
	"$(nbdinfo --map --totals "$(uri disk)" | awk '{ print $1, $NF }')" "4194304 data"
stop_server disk
# The header's own flag, as with cryptsetup, which would set it when it opens a volume.
cp --sparse=always "$T/luks" "$T/allows"
/usr/bin/python3 "$root/tests/tools/edit-luks2.py" "$T/allows" \
	'json["config"]["flags"] = ["allow-discards", "no-read-workqueue"]'
export_of "allow-discards" "$T/allows" "$key"
can "allow-discards" trim
stop_server disk
export_of "allow-discards, discard=off" "$T/allows" "$key" discard=off
cannot "allow-discards, discard=off" trim
stop_server disk
like "allow-discards: shown" "$("$NDIO_BUILD/ndio" info "$T/allows")" \
	"flags: +allow-discards no-read-workqueue"
like "allow-discards: shown as JSON" "$("$NDIO_BUILD/ndio" info --json "$T/allows" | tr -d ' \n')" \
	'"flags":\["allow-discards","no-read-workqueue"\]'
trims() { # VOLUME [OPTION...]: what comes of it in the library
	"$NDIO_BUILD/tests/clients/ndio-try" -k "$T/pass" -t "${@:2}" "$1" | sed -n 's/^trim: //p'
}
is "allow-discards: the library" "$(trims "$T/allows")" 0
like "allow-discards: the library, forbidden" "$(trims "$T/allows" -d off)" "EOPNOTSUPP"
like "no flag: the library" "$(trims "$T/luks")" "EOPNOTSUPP"
is "no flag: the library, told to" "$(trims "$T/luks" -d on)" 0
ok "nbdkit -r: starts" start_nbdkit disk --readonly "$NDIO_PLUGIN" "$T/luks" "$key" discard=on
ok "nbdkit -r: a read-only export" nbdinfo --is read-only "$(uri disk)"
ok "nbdkit -r: nothing can be written" py disk "
h.set_strict_mode(0)
fails('EPERM', h.pwrite, b'x', 0)
fails('EPERM', h.zero, 512, 0)
fails('EPERM', h.trim, 512, 0)"
stop_server disk

# A map of a sparse file: data at 1 MiB and at the end, in 4 MiB. File systems keep blocks of
# up to 64 KiB.
truncate -s 4M "$T/sparse"
random "$T/piece" 65536
dd if="$T/piece" of="$T/sparse" bs=64K seek=16 conv=notrunc status=none
dd if="$T/piece" of="$T/sparse" bs=64K seek=63 conv=notrunc status=none
sync "$T/sparse"
for direct in auto off; do
	ok "map, direct=$direct: starts" start_nbdkit disk "$NDIO_PLUGIN" "$T/sparse" \
		direct=$direct
	is "map, direct=$direct: data and holes of a sparse file" \
		"$(nbdinfo --map "$(uri disk)" | awk '{ print $1, $2, $NF }' | paste -s -d ,)" \
		"0 1048576 hole,zero,1048576 65536 data,1114112 3014656 hole,zero,4128768 65536 data"
	is "map, direct=$direct: from the middle of one to the middle of another" "$(py disk "
extents = []
other = nbd.NBD()
other.add_meta_context('base:allocation')
other.connect_uri('$(uri disk)')
other.block_status(1000, (1 << 20) + 65536 - 500,
                lambda context, offset, entries, error: extents.extend(entries))
print(extents)")" "[500, 0, 500, 3]"
	stop_server disk
done
done_testing
