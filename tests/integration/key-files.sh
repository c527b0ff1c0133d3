#!/bin/bash
# Keys from files, pipes and descriptors, whole or in part, for the plugin and every command; who
# else may read them; how much memory they lock; how long a typed one can be.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"

disk=$T/disk
make_small || exit 1
chmod 600 "$T"/{new,third,wrong}

# A key in the middle of other bytes.
{ head -c 1000 /dev/zero && cat "$T/pass" && printf 'behind it'; } >"$T/middle"
size=$(stat -c %s "$T/pass")

# serves KEY...: nbdkit ndio opens the disk.
serves() {
	start_nbdkit disk "$NDIO_PLUGIN" "$disk" "$@" && nbdinfo --size "$(uri disk)" &&
		stop_server disk
}

plugin() {
	ok "plugin: a process substitution" serves keyfile=<(cat "$T/pass")
	mkfifo "$T/fifo"
	cat "$T/pass" >"$T/fifo" &
	ok "plugin: a FIFO" serves keyfile="$T/fifo"
	exec 9<"$T/pass"
	ok "plugin: a descriptor" serves keyfile=-9
	exec 9<"$T/pass"
	ok "plugin: /dev/fd" serves keyfile=/dev/fd/9
	exec 9<&-
	# shellcheck disable=SC2016
	ok "plugin: standard input" bash -c 'printf %s "$1" |
		LD_PRELOAD=$3 nbdkit -U "$5" "$2" "$4" keyfile=- --run "nbdinfo --size \$uri"' - \
		"$(cat "$T/pass")" "$NDIO_PLUGIN" "$NDIO_PRELOAD" "$disk" "$T/run.sock"
	ok "plugin: a part" serves keyfile-offset=1000 keyfile="$T/middle" keyfile-size="$size"
	ok "plugin: a part of a pipe" serves keyfile=<(cat "$T/middle") keyfile-offset=1000 \
		keyfile-size="$size"
	ok "plugin: the wrong part" refused "no key slot opens" "$disk" keyfile="$T/middle" \
		keyfile-offset=999 keyfile-size="$size"
	ok "plugin: a part that isn't there" refused "middle: from byte 5000 .* too few" "$disk" \
		keyfile="$T/middle" keyfile-offset=5000
	ok "plugin: a part without a file" refused "need keyfile=" "$disk" passphrase=+"$T/pass" \
		keyfile-size=3
	ok "plugin: too large a part" refused "keyfile-size=9M: must be from 0 to" "$disk" \
		keyfile="$T/middle" keyfile-size=9M
	ok "plugin: a descriptor that isn't open" refused "keyfile: -77: Bad file" "$disk" keyfile=-77
	ok "plugin: a descriptor that is none" refused "keyfile=-2: no desc" "$disk" keyfile=-2
}

commands() {
	local part=(--keyfile-offset 1000 --keyfile-size "$size")

	ok "info: a part" "$ndio" info --key-file "$T/middle" "${part[@]}" "$disk"
	ok "info: a part of a pipe" "$ndio" info --key-file <(cat "$T/middle") "${part[@]}" "$disk"
	ok "info: a part of a descriptor" "$ndio" info --key-fd 7 "${part[@]}" "$disk" 7<"$T/middle"
	ok "info: a part of standard input" eval \
		'"$ndio" info --key-file - "${part[@]}" "$disk" <"$T/middle"'
	ok "info: a part that isn't whole" fails "key file $T/middle: from byte 1000 on it has 37 bytes" \
		"$ndio" info --key-file "$T/middle" --keyfile-offset 1000 --keyfile-size 100 "$disk"
	ok "a pipe that is too short" fails "key file /dev/fd.*: it ends before byte 9999" \
		"$ndio" info --key-file <(cat "$T/middle") --keyfile-offset 9999 "$disk"
	ok "copy: the source" "$ndio" copy --src-key-file "$T/middle" --src-keyfile-offset 1000 \
		--src-keyfile-size "$size" "$disk" "$T/plain"
	ok "copy: the destination" "$ndio" copy --dst-key-file "$T/middle" --dst-keyfile-offset 1000 \
		--dst-keyfile-size "$size" "$T/plain" "$disk"
	ok "key: both" "$ndio" key add "${cheap[@]}" --key-file "$T/middle" "${part[@]}" \
		--new-key-file "$T/third" --new-keyfile-offset 2 --new-keyfile-size 3 "$disk"
	printf %s "$(head -c 5 "$T/third" | tail -c 3)" >"$T/thirds"
	ok "key: cryptsetup says the same" cryptsetup open --test-passphrase --key-file "$T/third" \
		--keyfile-offset 2 --keyfile-size 3 "$disk"
	ok "format" "$ndio" format "${cheap[@]}" --size 20M --key-file "$T/middle" "${part[@]}" "$T/made"
	ok "format: cryptsetup opens it" opens "$T/made" "$T/pass"
	for command in "info" "format --size 1M" "attach" "key add" "copy $T/plain --src-header $T/x" ; do
		# shellcheck disable=SC2086
		ok "$command: a part without a file" usage "$ndio" $command \
			--"$([[ $command != copy* ]] || echo src-)"keyfile-size=3 "$T/none"
	done
	ok "a size of nothing" usage "$ndio" info --key-file "$T/pass" --keyfile-size 0 "$disk"
}

# Those who may read what.
access() {
	mkdir -m 755 "$T/open"
	chmod 755 "$T"
	cp "$T/pass" "$T/open/key"
	chmod 644 "$T/open/key"
	is "others may read it" "$("$ndio" format "${cheap[@]}" --size 20M --key-file "$T/open/key" \
		"$T/said" 2>&1)" "ndio: warning: key file $T/open/key: others may read it"
	is "that is for who makes it" \
		"$("$ndio" info --key-file "$T/open/key" "$disk" 2>&1 >/dev/null | without_limits)" ""
	ok "plugin: others may read it" eval 'serves keyfile="$T/open/key" &&
		said disk "warning: keyfile: $T/open/key: others may read it"'
	chmod 606 "$T/open/key"
	ok "others may change it" fails "open/key: others may change it" "$ndio" info \
		--key-file "$T/open/key" "$disk"
	ok "plugin: others may change it" refused "open/key: others may change it" "$disk" \
		keyfile="$T/open/key"
	chmod 700 "$T/open"
	is "not where nobody gets at it" \
		"$("$ndio" info --key-file "$T/open/key" "$disk" 2>&1 >/dev/null | without_limits)" ""
	chmod 700 "$T"
}

# as_user GROUP COMMAND...: as somebody who isn't root and owns nothing here, of this group.
as_user() {
	setpriv --reuid 65534 --regid "$1" --clear-groups --inh-caps=-all --bounding-set=-all \
		env ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" "${@:2}"
}

# secret_modes FILE COMMAND...: which owners, groups and modes of a file the command takes.
secret_modes() {
	local what=$1 file=$2 mode

	shift 2
	chown 0:4711 "$file"
	for mode in 440 640 040; do
		chmod "$mode" "$file"
		ok "$what: of root's, for its group, $mode" as_user 4711 "$@"
	done
	for mode in 660 644 650 642; do
		chmod "$mode" "$file"
		ok "$what: of root's, $mode" fails "others may read or change" as_user 4711 "$@"
	done
	chmod 640 "$file"
	ok "$what: our own, given to a group" "$@"
	chown 65534:65534 "$file"
	ok "$what: our own, and our group's" fails "chmod 600" as_user 65534 "$@"
	chmod 600 "$file"
	ok "$what: our own" as_user 65534 "$@"
	chown 0:0 "$file"
}

secrets() {
	[ "$(id -u)" = 0 ] || {
		skip "needs root, to give files away" 30
		return
	}
	chmod 711 "$T"
	install -m 755 "$ndio" "$T/ndio"
	"$ndio" psk "$T/keys.psk" alice
	start_stock tls --tls=require --tls-psk="$T/keys.psk" memory 1M
	chmod 666 "$T/tls.sock"
	secret_modes "pre-shared keys" "$T/keys.psk" "$T/ndio" copy \
		"nbds+unix://alice@/?socket=$T/tls.sock&tls-psk-file=$T/keys.psk" null:
	stop_server tls
	chmod 700 "$T"
}

no_advice() {
	cp /etc/passwd "$T/passwd"
	chmod 644 "$T/passwd"
	ok "psk: a file of another kind" fails "^ndio: $T/passwd: line 1: [^:]*$" "$ndio" psk \
		"$T/passwd" bob
	ok "is as it was" cmp /etc/passwd "$T/passwd"
	ok "its mode as well" [ "$(stat -c %a "$T/passwd")" = 644 ]
	start_stock tls --tls=off memory 1M
	ok "a URI with such a file" fails "passwd: line 1: [^:]*$" "$ndio" info \
		"nbds+unix://bob@/?socket=$T/tls.sock&tls-psk-file=$T/passwd"
	stop_server tls
}

# limited KIB COMMAND...: by one who can lock no more than that.
limited() {
	prlimit --memlock="$(($1 * 1024)):$(($1 * 1024))" "${nobody[@]}" "${@:2}"
}

memory() {
	local big

	[ "$(id -u)" = 0 ] || {
		skip "needs root, to become someone else with other limits" 8
		return
	}
	mkdir -m 1777 "$T/theirs"
	chmod 755 "$T"
	allow_nobody
	install -m 755 "$ndio" "$T/ndio"
	chmod 666 "$disk"
	ok "64 KiB: psk" limited 64 "$T/ndio" psk "$T/theirs/psk" alice
	for i in $(seq 700); do printf 'user%d:%064d\n' "$i" "$i"; done >"$T/many.psk"
	"$ndio" psk "$T/many.psk" alice 2>/dev/null || chmod 600 "$T/many.psk"
	"$ndio" psk "$T/many.psk" alice
	chown --reference="$T/theirs/psk" "$T/many.psk"
	start_stock tls --tls=require --tls-psk="$T/many.psk" memory 1M
	chmod 666 "$T/tls.sock"
	ok "64 KiB: a key out of 700" limited 64 "$T/ndio" copy \
		"nbds+unix://alice@/?socket=$T/tls.sock&tls-psk-file=$T/many.psk" null:
	stop_server tls

	big=$T/big
	random "$big" $((5 << 20))
	cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-file "$T/pass" "$disk" "$big"
	ok "8 MiB: a key of 5 MiB from a pipe" eval \
		'limited 8192 "$T/ndio" copy --src-key-file - "$disk" null: < <(cat "$big")'
	ok "8 MiB: for the plugin" eval '
		limited 8192 LD_PRELOAD="$nobody_preload" nbdkit -U "$T/theirs/run.sock" \
			"$T/plugin.so" "$disk" keyfile=- \
			--run "nbdinfo --size \"\$uri\"" < <(cat "$big")'
	ok "6 MiB: too" eval \
		'limited 6144 "$T/ndio" copy --src-key-file - "$disk" null: < <(cat "$big")'
	random "$T/medium" 40000
	cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-file "$T/pass" "$disk" "$T/medium"
	ok "64 KiB: a key of 40000 bytes" eval \
		'limited 64 "$T/ndio" copy --src-key-file - "$disk" null: < <(cat "$T/medium")'
	like "4 MiB: too little" "$(limited 4096 "$T/ndio" copy --src-key-fd 8 "$disk" null: 8<"$big" 2>&1)" \
		"cannot lock memory for the key: the locked-memory limit is 4194304"
	chmod 700 "$T"
}

typed() {
	local most

	rm "$disk"
	make_small
	most=$(printf '%0512d' 7)
	printf %s "$most" >"$T/most"
	cryptsetup luksAddKey --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--key-file "$T/pass" "$disk" "$T/most"
	like "512 characters" "$(terminal "noecho Passphrase for $disk: => $most" \
		"$ndio" info --unlock "$disk")" "unlocked: *yes"
	like "513 are too many" "$(terminal "noecho Passphrase for $disk: => ${most}8" \
		"$ndio" info --unlock "$disk")" "a typed passphrase has at most 512 bytes"
	ok "a new one of 512" terminal "noecho New passphrase for $T/typed: => $most
noecho The same again: => $most" "$ndio" format "${cheap[@]}" --size 20M "$T/typed"
	ok "and cryptsetup opens it" opens "$T/typed" "$T/most"
}

plugin
commands
access
secrets
no_advice
memory
typed
done_testing
