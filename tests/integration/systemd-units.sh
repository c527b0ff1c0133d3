#!/bin/bash
# systemd takes the units that `make install` puts in place, as they are and together with the
# mounts that need them; what ndio-export@.service runs serves a disk on a socket of systemd's, and what
# ndio-serve.service runs says when it serves.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/install.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "what is installed has no sanitizer"
command -v systemd-analyze >/dev/null || skip_all "no systemd here"

prefix=$T/prefix
units=$prefix/lib/systemd/system

# verify UNIT...: loaded with all that they need, and a start is put together. Any word is a
# complaint.
verify() {
	local said

	said=$(SYSTEMD_UNIT_PATH="$units:$T/mounts:" systemd-analyze verify --man=no "$@" 2>&1) &&
		[ -z "$said" ] && return
	echo "$said"
	return 1
}

# What systemd makes of an fstab.
make_mounts() {
	local folder generator

	for folder in /usr/lib /lib; do
		generator=$folder/systemd/system-generators/systemd-fstab-generator
		[ ! -x "$generator" ] || break
	done
	mkdir "$T/mounts" "$T/early" "$T/late"
	printf '%s %s ext4 _netdev,x-systemd.requires=ndio-attach@%s.service 0 2\n' \
		/dev/nbd0 /mnt nbd0 /dev/nbd1p1 /srv nbd1 /dev/nbd2 /var nbd2 >"$T/fstab"
	echo "/dev/nbd3 /opt ext4 defaults 0 0" >>"$T/fstab"
	printf '[Unit]\nWants=opt.mount ndio-attach@nbd3.service local-fs.target\n' >"$T/mounts/all.target"
	SYSTEMD_FSTAB=$T/fstab "$generator" "$T/mounts" "$T/early" "$T/late"
}

# spoilt SCRIPT UNIT: the same, with the unit file changed by sed, and back.
spoilt() {
	sed -i.orig "$1" "$attach" && not verify "$2"
	local status=$?

	mv "$attach.orig" "$attach"
	return "$status"
}

# setting FILE NAME: all that a unit file gives this, on one line.
setting() {
	sed -n "s/^$2=//p" "$1" | tr '\n' ' '
}

# Its variables in braces are a word each, as systemd has it; those without are split.
command_line() { # UNIT-FILE
	setting "$1" ExecStart | sed 's/\(\S*\)\${\(\w*\)}/"\1$\2"/'
}

# activated NAME CONFIGURATION: the export's command line, waiting for clients on $T/NAME.sock.
activated() {
	local name=$1 i words OPTIONS='' PARAMETERS=''

	printf '%s\n' "${@:2}" >"$T/$name.conf"
	. "$T/$name.conf"
	eval "words=($(command_line "$units/ndio-export@.service"))"
	rm -f "$T/$name.sock"
	systemd-socket-activate --listen="$T/$name.sock" "${words[@]}" >"$T/$name.log" 2>&1 &
	server_pids[$name]=$!
	for ((i = 0; i < 500; i++)); do
		[ ! -S "$T/$name.sock" ] || return 0
		sleep 0.02
	done
	cat "$T/$name.log"
	return 1
}

# ends NAME REGEX: it has ended, and said this.
ends() {
	local i

	for ((i = 0; i < 500; i++)); do
		kill -0 "${server_pids[$1]}" 2>/dev/null || break
		sleep 0.02
	done
	grep -qE "$2" "$T/$1.log" && not wait "${server_pids[$1]}" && unset "server_pids[$1]"
}

if ! ok "make install" install_copy PREFIX="$prefix"; then
	done_testing
	exit 1
fi
attach=$units/ndio-attach@.service
is "the units are installed" "$(cd "$units" && echo *)" \
	"ndio-attach@.service ndio-export@.service ndio-export@.socket ndio-serve.service"
is "nothing was left to fill in" "$(grep -l '@[A-Z]*@' "$units"/*)" ""
for page in $(grep -h ^Documentation= "$units"/* | grep -oE '[a-z-]+\([0-9]\)' | sort -u); do
	page=${page%?}
	ok "they name a page that there is: ${page/(/.}" test -e "$root/man/${page/(/.}.pod"
done

ok "systemd takes ndio-attach@" verify ndio-attach@nbd0.service
ok "systemd takes ndio-export@" verify ndio-export@10809.socket ndio-export@10809.service
ok "systemd takes ndio-serve" verify ndio-serve.service
ok "mounts" make_mounts
ok "systemd takes mounts that need it, early ones too" verify mnt.mount srv.mount var.mount \
	ndio-attach@nbd0.service
ok "and would notice a circle" spoilt '/^DefaultDependencies=/d' var.mount
ok "a mount that isn't for the network is in no circle" verify all.target
ok "and would be" spoilt '/^Wants=remote/s/$/ blockdev@dev-%i.target\nBefore=blockdev@dev-%i.target/' all.target

make_luks2 "$T/disk.luks" 20M
(umask 077 && printf 'alice:%s\n' "$(openssl rand -hex 32)" >"$T/psk")
head -c 1000000 /dev/urandom >"$T/data"
psk="nbds+unix://alice@/?socket=$T/tls.sock&tls-psk-file=$T/psk"

ok "an export waits for clients" activated tls "DISK=$T/disk.luks" "OPTIONS=--tls-psk=$T/psk"
is "the first one starts it, with TLS" "$(nbdinfo --size "$psk")" $((20 << 20))
ok "ndio copies to it" "$prefix/bin/ndio" copy --dst-key-file "$T/pass" "$T/data" "$psk"
ok "and back" "$prefix/bin/ndio" copy --src-key-file "$T/pass" "$psk" "$T/back"
ok "it is the same" cmp -n 1000000 "$T/data" "$T/back"
ok "who has no key gets nothing" not nbdinfo "nbds+unix:///?socket=$T/tls.sock"
ok "nor who knows no TLS" not nbdinfo "nbd+unix:///?socket=$T/tls.sock"
ok "it ends when asked" stop_server tls

ok "an export may go without TLS, and be a gateway" activated plain \
	"DISK=$T/disk.luks" "OPTIONS='--tls=off -r'" "PARAMETERS=keyfile=$T/pass"
rm "$T/back"
ok "which reads the plaintext" nbdcopy "nbd+unix:///?socket=$T/plain.sock" "$T/back"
ok "it is the same" cmp -n 1000000 "$T/data" "$T/back"
ok "it ends when asked" stop_server plain

ok "an export that says nothing of TLS" activated silent "DISK=$T/disk.luks"
ok "gets no client" not timeout 10 nbdinfo "nbd+unix:///?socket=$T/silent.sock"
ok "and says why" ends silent 'TLS'

# With a table of our own; told by systemd's socket that it serves, before that is looked at.
serves() {
	local i words OPTIONS="--socket $T/serve.sock --pid-file $T/serve.pid"

	printf 'a %s\nb %s\n' "$T/disk.luks none read-only" \
		"$T/disk.luks \$CREDENTIALS_DIRECTORY/key read-only" >"$T/exports"
	mkdir "$T/credentials" && cp "$T/pass" "$T/credentials/key"
	eval "words=($(command_line "$units/ndio-serve.service" | sed "s|/etc/ndio/exports|$T/exports|"))"
	CREDENTIALS_DIRECTORY=$T/credentials start_server serve /usr/bin/python3 -c '
import os, socket, sys
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.bind(sys.argv[1])
if os.fork() == 0:
    assert told.recv(100) == b"READY=1"
    open(sys.argv[2], "w").write("ready")
    os._exit(0)
os.environ["NOTIFY_SOCKET"] = sys.argv[1]
os.execv(sys.argv[3], sys.argv[3:])' "$T/notify" "$T/ready" "${words[@]}" || return
	for ((i = 0; i < 500; i++)); do
		[ ! -s "$T/ready" ] || return 0
		sleep 0.02
	done
	return 1
}
ok "ndio-serve starts, and says when it serves" serves
rm "$T/back"
ok "an export with a credential of systemd's" nbdcopy "nbd+unix:///b?socket=$T/serve.sock" "$T/back"
ok "is the plaintext" cmp -n 1000000 "$T/data" "$T/back"
is "and one without a key isn't" "$(nbdinfo --size "nbd+unix:///a?socket=$T/serve.sock")" $((20 << 20))
ok "it ends when asked" stop_server serve

ok "make uninstall" in_copy uninstall PREFIX="$prefix"
is "leaves nothing" "$(find "$prefix" ! -type d)" ""
done_testing
