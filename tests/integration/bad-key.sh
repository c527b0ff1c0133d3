#!/bin/bash
# A key that doesn't open the volume, or can't be had, ends nbdkit at once, on the terminal
# and not in the background, with a message that names the file. No output tells a secret.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

disk=$T/disk.luks
make_luks2 "$disk" 20M || exit 1
make_luks1 "$T/disk.luks1" 20M || exit 1
printf 'wrong horse' >"$T/wrong"
: >"$T/empty"
printf '\n' >"$T/newline"
random "$T/raw" 1048576
truncate -s 1K "$T/tiny"
truncate -s 0 "$T/nothing"
truncate -s $((8 * 1024 * 1024 + 1)) "$T/large"
mkdir "$T/folder"
before=$(sha256sum "$disk" | cut -d ' ' -f 1)

ok "wrong passphrase, LUKS2" refused "$disk: no key slot opens with this passphrase" \
	"$disk" passphrase=+"$T/wrong"
ok "wrong passphrase, LUKS1" refused "$T/disk.luks1: no key slot opens with this passphrase" \
	"$T/disk.luks1" passphrase=+"$T/wrong"
ok "wrong key file" refused "$disk: no key slot opens" "$disk" keyfile="$T/raw"
ok "empty passphrase" refused "$disk: no key slot opens with an empty passphrase" \
	"$disk" passphrase=+"$T/newline"
ok "empty passphrase on the command line" refused "no key slot opens with an empty passphrase" \
	"$disk" passphrase=
ok "empty key file" refused "$disk: no key slot opens with an empty passphrase" \
	"$disk" keyfile="$T/empty"
ok "passphrase and key file" refused "keyfile= and ask= .*only one" "$disk" \
	passphrase=+"$T/pass" keyfile="$T/pass"
ok "two passphrases" refused "keyfile= and ask= .*only once" "$disk" \
	passphrase=+"$T/pass" passphrase=+"$T/pass"
ok "passphrase file missing" refused "$T/missing.*No such file" "$disk" \
	passphrase=+"$T/missing"
ok "passphrase descriptor not open" refused "Bad file descriptor|is not open" "$disk" \
	passphrase=-77
ok "passphrase asked for without a terminal" refused "passphrase|terminal|password|stdin" \
	"$disk" passphrase=-
ok "key file missing" refused "$T/missing: No such file" "$disk" keyfile="$T/missing"
ok "key file without a name" refused "keyfile.*No such file" "$disk" keyfile=
ok "key file is a folder" refused "$T/folder: not a regular file" "$disk" keyfile="$T/folder"
ok "key file too large" refused "$T/large: .*at most 8388608 bytes" "$disk" keyfile="$T/large"
ok "header missing" refused "$T/missing: No such file" "$disk" header="$T/missing" \
	passphrase=+"$T/pass"
ok "header is a folder" refused "$T/folder: " "$disk" header="$T/folder" passphrase=+"$T/pass"
ok "header is no header" refused "$T/raw: not a LUKS volume" "$disk" header="$T/raw" \
	passphrase=+"$T/pass"
ok "header without a key" refused "header= and trust= need passphrase=, keyfile=, ask= or token=" "$disk" \
	header="$disk"
ok "two headers" refused "header= can be given only once" "$disk" header="$disk" \
	header="$disk" passphrase=+"$T/pass"
ok "a key for what isn't LUKS" refused "$T/raw: not a LUKS volume" "$T/raw" \
	passphrase=+"$T/pass"
ok "a key for a tiny file" refused "$T/tiny: not a LUKS volume" "$T/tiny" \
	passphrase=+"$T/pass"
ok "a key for an empty file" refused "$T/nothing: not a LUKS volume" "$T/nothing" \
	passphrase=+"$T/pass"
ok "a key and no disk" refused "you must give the disk" passphrase=+"$T/pass"

# As a user who isn't root, to whom file permissions apply.
unreadable() {
	chmod 711 "$T"
	chmod 644 "$disk"
	chmod 600 "$T/wrong"
	cp "$NDIO_PLUGIN" "$T/plugin.so"
	# shellcheck disable=SC2016
	setpriv --reuid 65534 --regid 65534 --clear-groups env LD_PRELOAD="$NDIO_PRELOAD" \
		nbdkit --unix "$T/sock" "$T/plugin.so" "$disk" "$1" 2>&1
}
if [ "$(id -u)" = 0 ]; then
	like "key file that may not be read" "$(unreadable keyfile="$T/wrong")" \
		"$T/wrong: Permission denied"
	like "passphrase file that may not be read" "$(unreadable passphrase=+"$T/wrong")" \
		"$T/wrong: Permission denied"
else
	skip "needs root, to become someone else" 2
fi

is "nothing was written to the disk" "$(sha256sum "$disk" | cut -d ' ' -f 1)" "$before"

# All that nbdkit, the plugin and its debug flags print, from opening to the end.
silent() { # KEY...
	rm -f "$T/disk.log"
	start_nbdkit disk --verbose -D ndio.stats=1 -D nbdkit.backend.datapath=1 "$NDIO_PLUGIN" \
		"$disk" "$@" || return
	py disk "
h.pwrite(data(100000), 7)
same(h.pread(100000, 7), data(100000))
h.flush()" && stop_server disk && said disk "ndio.stats.writes=1" || return
	! grep -aF "$(cat "$T/pass")" "$T/disk.log"
}
ok "no passphrase in any output: passphrase=+FILE" silent passphrase=+"$T/pass"
ok "no passphrase in any output: keyfile=" silent keyfile="$T/pass"
exec 9<"$T/pass"
ok "no passphrase in any output: passphrase=-FD" silent passphrase=-9
exec 9<&-
ok "nor where it doesn't fit" refused "not a LUKS volume" --verbose -D ndio.stats=1 "$T/raw" \
	passphrase=+"$T/pass"

# The volume key doesn't show either.
cryptsetup luksDump --batch-mode --dump-volume-key --key-file "$T/pass" \
	--volume-key-file "$T/volume-key" "$disk" >"$T/dump.log" 2>&1 ||
	diag "$(cat "$T/dump.log")"
is "the volume key is known" "$(stat -c %s "$T/volume-key")" 64
od -A n -v -t x1 "$T/volume-key" | tr -d " \n" >"$T/volume-key.hex"
ok "and not in any output" not grep -aqiFf "$T/volume-key.hex" "$T/disk.log"
done_testing
