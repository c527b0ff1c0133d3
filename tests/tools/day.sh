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

# Those that need a kernel with nbd, or change the machine.
nowhere=("${tutorial_guest[@]}" install fetch-tls-key boot-client boot-client-stop)
done_here=()

does() { # STEP...
	local step

	for step; do
		done_here+=("$step")
		must "tutorial: $step" run_step "$step" 's/20G/40M/'
	done
}

tutorial_day() {
	mkdir -p /root/day
	cd /root/day || return
	cp "$T/image.raw" .
	does prepare-server serve look format passphrase copy save-header stop-server
	ok "the image is the same" cmp -n $((10 << 20)) image.raw back.raw
	ok "the server's disk has only ciphertext" not grep -qaF "$nobody_reads" /srv/disk.luks
	ok "its header is kept" cryptsetup isLuks /root/disk.luks-header
	ok "the server ends" ended /run/ndio-disk.pid
	does boot-server
	ok "it is the same volume" ndio info --key-file /etc/ndio/disk.key "$disk"
	does make-certificates
	mkdir -p /etc/ndio/tls
	cp ca/ca-cert.pem ca/server-*.pem ca/client-*.pem /etc/ndio/tls
	run_step stop-server >/dev/null
	ok "the server ends" ended /run/ndio-disk.pid
	does serve-certificates look-certificates
	ok "it is the same volume" ndio info --key-file /etc/ndio/disk.key "$disk"
	trusted_day
	run_step stop-server >/dev/null
	ok "the server ends" ended /run/ndio-disk.pid
	is "tutorial: every step of the page is known" "$(tutorial_steps | sort)" \
		"$(printf '%s\n' "${done_here[@]}" "${nowhere[@]}" | sort)"
}

# The server brings back what was.
trusted_day() {
	{ printf newer && tail -c +6 image.raw; } >newer.raw
	does format-trusted copy-trusted keep-old write-on put-back-old find-old
	like "in words" "$(cat "$T/ok.out")" "aren't what they were: the disk is an older one"
	does believe
	ok "it is the old one" cmp -n $((10 << 20)) image.raw back.raw
	does change-key
	like "an older header is refused in words" "$(cat "$T/ok.out")" "key slot 1 is gone"
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

qcow2_day() {
	mkdir -p /root/qcow2
	cd /root/qcow2 || return
	cp "$T/image.raw" .
	must "engines: qcow2" run_document qcow2 's/20G/64M/'
	must "engines: qcow2-volume" run_document qcow2-volume
	ok "the image is the same" same_back back.raw
	must "engines: qcow2-serve" run_document qcow2-serve
	must "engines: qcow2-internal" run_document qcow2-internal
	must "engines: qcow2-look" run_document qcow2-look
	ok "the snapshot has it" same_back monday.raw
	must "engines: qcow2-external" run_document qcow2-external
	is_served /run/disk.sock
	end_gateway disk
	end_gateway qcow2
}

is_served() { # SOCKET
	ok "it is served" nbdcopy --request-size=1048576 "nbd+unix:///?socket=$1" null:
}

end_gateway() { # NAME
	local pid

	pid=$(cat "/run/$1.pid")
	kill "$pid"
	ok "$1: the server ends" timeout 120 tail --pid="$pid" -f /dev/null
}

ceph_day() {
	cp "$T/image.raw" /root
	cd /root || return
	must "a small Ceph" start_ceph
	must "with a pool" make_pool disks
	must "engines: rbd" run_document rbd 's/20G/64M/'
	must "engines: rbd-volume" run_document rbd-volume
	ok "the image is the same" same_back back.raw
	must "engines: rbd-serve" run_document rbd-serve
	is_served /run/disk.sock
	end_gateway disk
	must "engines: rbd-nbdkit" run_document rbd-nbdkit
	is_served /run/disk2.sock
	end_gateway disk2
	end_gateway rbd
}

tutorial_day
tang_day
qcow2_day
ceph_day
done_testing
[ $test_failures = 0 ]
