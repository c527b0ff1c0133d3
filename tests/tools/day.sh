#!/bin/bash
# day.sh, for tests/packages/day.sh: in a Debian of its own, with the packages installed, /src/tests and the
# pages, and a network that has nothing but itself. Of what the pages say only the sizes of disks are others.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/tutorial.sh"
. "$root/tests/lib/document.sh"
. "$root/tests/lib/tang.sh"
. "$root/tests/lib/engines.sh"
. "$root/tests/lib/ceph.sh"

# Nothing is built here, and nothing is in the place of what the pages say.
unset -f ndio qemu-nbd nbdkit step
ndio=$(command -v ndio)
ip link set lo up
echo "127.0.0.1 server.example" >>/etc/hosts

# A passphrase is typed.
ndio() {
	case "$1 $2" in
	"key add") terminal "noecho New passphrase for $disk: => correct horse battery staple
noecho again: => correct horse battery staple" "$ndio" "$@" ;;
	*) "$ndio" "$@" ;;
	esac
}

# No systemd runs here: what its unit runs, with what that unit reads, and in the background.
systemctl() {
	local OPTIONS exec

	[ "$*" = "enable --now ndio-serve" ] || return
	exec=$(sed -n 's/^ExecStart=//p' /lib/systemd/system/ndio-serve.service)
	. /etc/ndio/serve.conf || return
	eval "$exec --background --pid-file /run/ndio-disk.pid"
}

ended() { # PID-FILE
	soon test ! -e "$1"
}

# ---- ndio-tutorial(7) ----

tutorial_day() {
	local step

	mkdir -p /root/day
	cd /root/day || return
	cp "$T/image.raw" .
	for step in prepare-server serve look format passphrase copy save-header stop-server; do
		must "tutorial: $step" run_step $step 's/20G/40M/'
	done
	ok "the image is the same" cmp -n $((10 << 20)) image.raw back.raw
	ok "the server's disk has only ciphertext" not grep -qaF "$nobody_reads" /srv/disk.luks
	ok "its header is kept" cryptsetup isLuks /root/disk.luks-header
	ok "the server ends" ended /run/ndio-disk.pid
	must "tutorial: boot-server" run_step boot-server
	ok "it is the same volume" ndio info --key-file /etc/ndio/disk.key "$disk"
	must "tutorial: make-certificates" run_step make-certificates
	mkdir -p /etc/ndio/tls
	cp ca/ca-cert.pem ca/server-*.pem ca/client-*.pem /etc/ndio/tls
	run_step stop-server >/dev/null
	ok "the server ends" ended /run/ndio-disk.pid
	must "tutorial: serve-certificates" run_step serve-certificates
	must "tutorial: look-certificates" run_step look-certificates
	ok "it is the same volume" ndio info --key-file /etc/ndio/disk.key "$disk"
	run_step stop-server >/dev/null
	ok "the server ends" ended /run/ndio-disk.pid
}

# ---- doc/unlocking.md ----

tang_day() {
	mkdir -p /root/unlocking
	cd /root/unlocking || return
	cp "$T/pass" pass
	must "a Tang server" start_tang tang 80
	tang=http://server.example
	# What its commands have in variables.
	thumbprint=$thp
	must "unlocking: a disk of its own" run_lines tang "$(tang_commands 1 1)"
	must "a server of the disk" nbdkit --unix /run/export.sock --pidfile /run/export.pid file disk.luks
	export="nbd+unix:///?socket=/run/export.sock"
	ok "unlocking: the rest of the page" run_lines tang "$(tang_commands 2 99)"
	end_tang tang
	ok "with Tang away it doesn't open" not setsid ndio info --token any "$export" </dev/null
	ok "but by its key" ndio info --token any --key-file pass "$export"
	kill "$(cat /run/export.pid)"
}

# tang_commands FIRST LAST: of these blocks of the page.
tang_commands() {
	awk -v first="$1" -v last="$2" '
		/^```sh$/ { inside = 1; block++; next }
		/^```$/ { inside = 0 }
		inside && block >= first && block <= last' "$root/doc/unlocking.md"
}

# ---- doc/engines.md ----

ceph_day() {
	cp "$T/image.raw" /root
	cd /root || return
	must "a small Ceph" start_ceph
	must "with a pool" make_pool disks
	must "engines: rbd" run_document rbd 's/20G/64M/'
	must "engines: rbd-volume" run_document rbd-volume
	ok "the image is the same" same_back back.raw
	must "engines: rbd-serve" run_document rbd-serve
	ok "it is served" nbdcopy --request-size=1048576 "nbd+unix:///?socket=/run/disk.sock" null:
	kill "$(cat /run/disk.pid)"
	ok "the server ends" ended /run/disk.pid
}

tutorial_day
tang_day
ceph_day
done_testing
[ $test_failures = 0 ]
