#!/bin/bash
# Key slots that aren't safe, that are bad or compute for ever are passed over, and the others
# are tried; one can be chosen by its number: the plugin, the command, the library.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"

disk=$T/disk
trusted='only aes-xts and aes-cbc are trusted'

# Slot 0 opens by $T/pass, slot 1 by $T/new, slot 2 by $T/third.
make_three() {
	make_small && cp --sparse=always "$disk" "$T/one-slot" &&
		cryptsetup luksAddKey -q "${cheap[@]}" --key-file "$T/pass" "$disk" "$T/new" &&
		cryptsetup luksAddKey -q "${cheap[@]}" --key-file "$T/pass" "$disk" "$T/third" &&
		mv "$disk" "$T/three"
}

fresh() { # three|one-slot
	cp --sparse=always "$T/$1" "$disk"
}

edit() { # CODE, where s is the list of key slots
	/usr/bin/python3 "$root/tests/tools/edit-luks2.py" "$disk" "s = json['keyslots']; $1"
}

serves() { # PARAMETER...
	start_door disk "$disk" "$@" && stop_server disk
}

# all_refuse REGEX [COMMAND-OPTION...]: whatever takes a key, with $T/pass, and soon.
all_refuse() {
	local want=$1 start=$SECONDS

	shift
	ok "the plugin" refused "$disk: $want" "$disk" keyfile="$T/pass"
	ok "info" fails "$disk: $want" "$ndio" info --key-file "$T/pass" "$@" "$disk"
	ok "copy from it" fails "$disk: $want" "$ndio" copy --src-key-file "$T/pass" "$disk" "$T/out"
	ok "copy to it" fails "$disk: $want" "$ndio" copy --dst-key-file "$T/pass" "$T/source" "$disk"
	ok "key add" fails "$disk: $want" "$ndio" key add --key-file "$T/pass" \
		--new-key-file "$T/wrong" "$disk"
	ok "key change" fails "$disk: $want" "$ndio" key change --key-file "$T/pass" \
		--new-key-file "$T/wrong" "$disk"
	ok "key remove" fails "$disk: $want" "$ndio" key remove --key-file "$T/pass" "$disk"
	ok "the library" like_try "open: .*$disk: $want"
	ok "soon" [ $((SECONDS - start)) -lt 60 ]
}

like_try() { # REGEX [OPTION...]: what the library says
	local said

	said=$("$NDIO_BUILD/tests/clients/ndio-try" -k "$T/pass" "${@:2}" "$disk")
	[[ $said =~ $1 ]] || {
		echo "$said"
		return 1
	}
}

make_three
head -c 4096 /dev/urandom >"$T/source"

echo "# not encrypted"
fresh one-slot
edit 's["0"]["area"]["encryption"] = "cipher_null-ecb"'
before=$(sha256sum "$disk")
all_refuse "no key slot can be opened .slot 0 is encrypted with cipher_null-ecb: $trusted"
is "nothing changed" "$(sha256sum "$disk")" "$before"

echo "# computes for hours"
fresh one-slot
edit 's["0"]["kdf"]["iterations"] = (1 << 31) - 1'
all_refuse "no key slot can be opened .slot 0 takes about 2147 seconds"
fresh one-slot
edit 's["0"]["kdf"] = { "type": "argon2id", "time": (1 << 31) - 1, "memory": 1024, "cpus": 1,
	"salt": s["0"]["kdf"]["salt"] }'
ok "Argon2" refused "slot 0 takes about 2147483 seconds, and the limit is 120" "$disk" \
	keyfile="$T/pass"
fresh one-slot
edit 's["0"]["kdf"] = { "type": "argon2id", "time": 4, "memory": (1 << 31) - 1, "cpus": 1,
	"salt": s["0"]["kdf"]["salt"] }'
ok "memory that nobody has" refused "slot 0 takes 2097151 MiB of memory" "$disk" keyfile="$T/pass"

echo "# the limit"
fresh one-slot
cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1500000 --key-file "$T/pass" \
	"$disk" "$T/new"
ok "lowered: the plugin" refused "slot 1 takes about 1 seconds, and the limit is 1 " "$disk" \
	keyfile="$T/new" max-kdf-time=1
ok "lowered: info" fails "slot 1 takes about 1 seconds" "$ndio" info --key-file "$T/new" \
	--max-kdf-time 1 "$disk"
ok "lowered: copy" fails "slot 1 takes about 1 seconds" "$ndio" copy --src-key-file "$T/new" \
	--max-kdf-time 1 "$disk" "$T/out"
ok "lowered: key" fails "slot 1 takes about 1 seconds" "$ndio" key remove --key-file "$T/new" \
	--max-kdf-time 1 "$disk"
ok "what is below is tried" "$ndio" info --key-file "$T/pass" --max-kdf-time 1 "$disk"
ok "not lowered" "$ndio" info --key-file "$T/new" "$disk"
for wrong in 0 x -1; do
	ok "--max-kdf-time $wrong" usage "$ndio" info --max-kdf-time=$wrong "$disk"
	[ "$DOOR" = serve ] || ok "max-kdf-time=$wrong" refused "max-kdf-time" "$disk" keyfile="$T/pass" \
		max-kdf-time=$wrong
done
# Ctrl-C ends what was let through by a limit raised. The shell would have it ignored.
fresh one-slot
edit 's["0"]["kdf"]["iterations"] = (1 << 31) - 1'
cat >"$T/interrupt" <<'PYTHON'
import signal, subprocess, sys

signal.signal(signal.SIGINT, signal.SIG_DFL)
child = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, text=True, errors="replace")
said = ""
while "deriving keys may take 2147 seconds" not in said: # told before it is begun
    line = child.stderr.readline()
    assert line, said
    said += line
child.send_signal(signal.SIGINT)
child.wait(20)
assert child.returncode in (-signal.SIGINT, 128 + signal.SIGINT), child.returncode
PYTHON
raised=(--max-kdf-time 4000)
ok "interrupted: info" python3 "$T/interrupt" "$ndio" info --key-file "$T/pass" "${raised[@]}" "$disk"
ok "interrupted: copy" python3 "$T/interrupt" "$ndio" copy --src-key-file "$T/pass" \
	"${raised[@]}" "$disk" "$T/out"
ok "interrupted: key" python3 "$T/interrupt" "$ndio" key add --key-file "$T/pass" \
	--new-key-file "$T/new" "${raised[@]}" "$disk"
door_command -f --unix "$T/never.sock" "$disk" keyfile="$T/pass" max-kdf-time=4000
ok "interrupted: a server" python3 "$T/interrupt" env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}"

echo "# a bad one hides none"
for code in 's["0"]["area"]["encryption"] = "cipher_null-ecb"' 's["0"]["kdf"]["hash"] = "md17"' \
	's["0"]["kdf"]["iterations"] = 1 << 30' 's["0"]["key_size"] = 16' \
	's["0"]["af"]["hash"] = "md17"' 's["0"]["priority"] = 0' 's["0"]["type"] = "other"'; do
	fresh three
	edit "$code"
	ok "the plugin: $code" serves keyfile="$T/new"
	ok "info" "$ndio" info --key-file "$T/new" "$disk"
	ok "key" "$ndio" key remove --key-file "$T/third" "$disk"
	ok "and it is still one of them" fails "no key slot opens with this .*slot 0 " "$ndio" info \
		--key-file "$T/wrong" "$disk"
done

echo "# chosen by its number"
fresh three
ok "the plugin" serves keyfile="$T/new" slot=1
ok "the plugin: another" refused "$disk: key slot 0 doesn't open" "$disk" keyfile="$T/new" slot=0
ok "the plugin: not in use" refused "$disk: key slot 7 is not in use" "$disk" keyfile="$T/new" slot=7
if [ "$DOOR" = nbdkit ]; then
	ok "the plugin: no number" refused "slot=32" "$disk" keyfile="$T/new" slot=32
	ok "the plugin: without a key" refused "slot= needs" "$disk" slot=1
fi
ok "info" "$ndio" info --key-file "$T/new" --slot 1 "$disk"
ok "info: another" fails "key slot 2 doesn't open" "$ndio" info --key-file "$T/new" --slot 2 "$disk"
ok "info: no number" usage "$ndio" info --key-file "$T/new" --slot 32 "$disk"
ok "copy from it" "$ndio" copy --src-key-file "$T/new" --src-slot 1 "$disk" "$T/out"
ok "copy from it: another" fails "key slot 0 doesn't open" "$ndio" copy --src-key-file "$T/new" \
	--src-slot 0 "$disk" "$T/out"
ok "copy to it" "$ndio" copy --dst-key-file "$T/new" --dst-slot 1 "$T/source" "$disk"
ok "copy to it: another" fails "key slot 0 doesn't open" "$ndio" copy --dst-key-file "$T/new" \
	--dst-slot 0 "$T/source" "$disk"
ok "copy: without a key" usage "$ndio" copy --src-slot 0 "$disk" "$T/out"
ok "the library" like_try "open: 0" -s 0
ok "the library: another" like_try "open: EPERM: $disk: key slot 1 doesn't open" -s 1
ok "the library: not in use" like_try "open: ENOENT: $disk: key slot 9 is not in use" -s 9
ok "the library: no such slot" like_try "open: ENOENT: $disk: there is no key slot 40" \
	-s 40
cryptsetup config --priority ignore -S 0 "$disk"
ok "ignore" fails "no key slot opens with this passphrase .slot 0 has the priority \"ignore\"" \
	"$ndio" info --key-file "$T/pass" "$disk"
ok "ignore, but chosen" "$ndio" info --key-file "$T/pass" --slot 0 "$disk"
ok "ignore, but chosen: the plugin" serves keyfile="$T/pass" slot=0
cryptsetup luksAddKey -q --unbound --key-size 512 "${cheap[@]}" "$disk" "$T/wrong"
ok "unbound" fails "no key slot opens with this passphrase" "$ndio" info --key-file "$T/wrong" "$disk"
ok "unbound, but chosen" fails "key slot 3 is unbound" "$ndio" info --key-file "$T/wrong" --slot 3 \
	"$disk"
ok "unbound, but chosen: the plugin" refused "key slot 3 is unbound" "$disk" keyfile="$T/wrong" slot=3

echo "# a newline too many"
fresh three
echo 'new key' >"$T/line"
without="no key slot opens with this [a-z]*, but slot 1 does without the newline at its end"
ok "the plugin, all of a file" refused "$without" "$disk" keyfile="$T/line"
[ "$DOOR" = serve ] || ok "the plugin, its first line" serves passphrase="+$T/line"
ok "info" fails "$without" "$ndio" info --key-file "$T/line" "$disk"
ok "copy" fails "$without" "$ndio" copy --src-key-file "$T/line" "$disk" "$T/out"
ok "key" fails "$without" "$ndio" key add --key-file "$T/line" --new-key-file "$T/wrong" "$disk"
ok "a wrong one with a newline" fails "no key slot opens with this passphrase, with or without" \
	"$ndio" info --key-file /etc/hostname "$disk"
# By estimate a million iterations take a second: both tries keep to the time, or there is but one.
make_luks2 "$T/slow" 20M --pbkdf-force-iterations 2000000
fresh slow
like "once more where there is time" "$("$ndio" info --max-kdf-time 5 --key-file "$T/line" "$disk" 2>&1)" \
	"with or without"
like "not where that would take too long" \
	"$("$ndio" info --max-kdf-time 3 --key-file "$T/line" "$disk" 2>&1)" \
	"no key slot opens with this passphrase$"
fresh three
cryptsetup luksAddKey -q "${cheap[@]}" --key-file "$T/pass" "$disk" "$T/line"
ok "where it is part of the key" "$ndio" info --key-file "$T/line" "$disk"
done_testing
