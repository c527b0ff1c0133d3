#!/bin/bash
# The commands of ndio-tutorial(7) work as they stand there, but for names of machines and folders:
# from a TLS key to a volume that is filled over the network, by a pre-shared key and by
# certificates. Those that need a device of the kernel, or systemd, are known by name.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/tutorial.sh"

# Those that change the machine itself.
nowhere=(install fetch-tls-key boot-client boot-client-stop)
done_here=()

# Key derivation as cheap as it can be, somebody who types, and a port of the system's choice.
ndio() {
	local cheap=(--pbkdf pbkdf2 --pbkdf-force-iterations 1000)

	case "$1 $2" in
	format\ *) "$ndio" format "${cheap[@]}" "${@:2}" ;;
	"key add") terminal "noecho New passphrase for $disk: => $typed
noecho again: => $typed" "$ndio" key add "${cheap[@]}" "${@:3}" ;;
	serve\ *) serve "${@/#:10809/127.0.0.1:0}" ;;
	*) "$ndio" "$@" ;;
	esac
}
marker="nobody reads this at the server"
typed="correct horse battery staple"

# In the background, as it stands there. It says where it listens before it goes there.
serve() {
	"$ndio" "$@" 2>"$T/serve.out" || { cat "$T/serve.out"; return 1; }
	port=$(sed -n 's/.*listening on 127\.0\.0\.1:\([0-9]*\)$/\1/p' "$T/serve.out")
	pid=$(cat "$T/disk.pid")
}
port=
pid=

# What ndio-serve.service runs, but in the background: that line is in its file.
systemctl() {
	local OPTIONS

	[ "$*" = "enable --now ndio-serve" ] || return
	. "$T/etc/ndio/serve.conf" || return
	# shellcheck disable=SC2086
	ndio serve --background --pid-file "$T/disk.pid" --exports "$T/etc/ndio/exports" $OPTIONS
}

# ended: it does so within half a minute.
ended() {
	local deadline=$((SECONDS + 30))

	while kill -0 "$pid" 2>/dev/null; do
		[ "$SECONDS" -lt "$deadline" ] || return 1
		sleep 0.02
	done
}
trap '[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null; clean_up' EXIT

# The page's folders are in $T, and its server is here.
step() { # NAME
	run_step "$1" "s|/etc/|$T/etc/|g; s|/srv/|$T/srv/|g; s|/root/|$T/root/|g
		s|/run/ndio-disk|$T/disk|g; s|20G|40M|
		s|server\.example/|localhost:$port/|g; s|server\.example|localhost|g"
}

# Each rests on those before.
runs() { # NAME STEP
	done_here+=("$2")
	ok "$1" step "$2" && return
	done_testing
	exit 1
}

mkdir "$T/etc" "$T/srv" "$T/root"
cd "$T" || exit

runs "a TLS key and a disk" prepare-server
is "the key is the owner's" "$(stat -c %a "$T/etc/ndio/tls.psk" "$T/srv/disk.luks" | tr '\n' ' ')" "600 600 "
runs "the disk is served" serve
runs "the client sees it" look
like "over TLS" "$(cat "$T/ok.out")" 'with TLS'
ok "nobody else does" not ndio info "nbd://localhost:$port/"
sed 's/:.*/:0123456789abcdef/' etc/ndio/tls.psk >etc/ndio/other.psk
ok "nor with another key" not ndio info "${disk/tls.psk/other.psk}"
runs "a key, and a volume that it opens" format

runs "a passphrase too" passphrase
ok "it opens the volume" ndio info --key-file "$T/pass" "$disk"
{ head -c 9M /dev/urandom && yes "$marker" | head -c 1M; } >image.raw
runs "an image is copied to it and back" copy
ok "it is the same" cmp -n $((10 << 20)) image.raw back.raw
ok "the server's disk has only ciphertext" not grep -qaF "$marker" srv/disk.luks
runs "its header is kept" save-header
ok "which is one" cryptsetup isLuks root/disk.luks-header
runs "the server ends" stop-server
ok "well" ended
is "and leaves no file" "$(ls "$T/disk.pid" 2>/dev/null)" ""

runs "as it starts by itself" boot-server
disk="nbds://alice@localhost:$port/?tls-psk-file=$T/etc/ndio/tls.psk"
ok "it is the same volume" ndio info --key-file "$T/etc/ndio/disk.key" "$disk"
is "which has a line of its own" "$(cut -d ' ' -f 1 "$T/etc/ndio/exports")" '""'
kill "$pid"
ok "it ends" ended

runs "certificates" make-certificates
is "the keys are the owner's" "$(stat -c %a ca/*-key.pem | sort -u)" 600
mkdir "$T/etc/ndio/tls" strangers
cp ca/ca-cert.pem ca/server-*.pem ca/client-*.pem "$T/etc/ndio/tls"
runs "the disk is served with them" serve-certificates
runs "the client sees it" look-certificates
like "over TLS" "$(cat "$T/ok.out")" 'with TLS'
ok "it is the same volume" ndio info --key-file "$T/etc/ndio/disk.key" "$disk"
cp ca/ca-cert.pem strangers
ok "nobody without a certificate does" not ndio info "${disk%tls-*}tls-certificates=$T/strangers"
cp ca/client-*.pem strangers
openssl req -x509 -newkey rsa:2048 -noenc -subj /CN=x -keyout x.pem \
	-out strangers/ca-cert.pem 2>/dev/null
ok "nor does one that trusts another authority" not ndio info \
	"${disk%tls-*}tls-certificates=$T/strangers"

cp image.raw newer.raw
printf newer | dd of=newer.raw conv=notrunc status=none
runs "a disk with integrity and a trust file" format-trusted
like "which knows all of it" "$(cat "$T/ok.out")" "areas: *2, of which 2 are known"
runs "an image is copied to it" copy-trusted
runs "the server keeps that" keep-old
runs "it is written again" write-on
runs "the server puts the old one back" put-back-old
runs "which is found out" find-old
like "in words" "$(cat "$T/ok.out")" "aren't what they were: the disk is an older one"
runs "it can be believed" believe
ok "it is the old one" cmp -n $((10 << 20)) image.raw back.raw
runs "an older header" change-key
like "is refused in words" "$(cat "$T/ok.out")" "key slot 1 is gone"
run_step stop-server "s|/run/ndio-disk|$T/disk|" >/dev/null
ok "the server ends well" ended

is "every step of the page is known" "$(tutorial_steps | sort)" \
	"$(printf '%s\n' "${done_here[@]}" "${tutorial_guest[@]}" "${nowhere[@]}" | sort)"
is "every command is in a step" "$(tutorial_loose)" ""
done_testing
