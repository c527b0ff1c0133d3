#!/bin/bash
# nbds: wherever a server can be named: the gateway, also in the background, the command, volumes
# with a key; and what was agreed on is told.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/tls.sh"
. "$(dirname "$0")/../lib/command.sh"

key=$T/pass

# has NAME JSON-FIELD REGEX: in what ndio info says of the server.
has() {
	like "$1" "$(/usr/bin/python3 -c 'import json, sys
print(json.load(open(sys.argv[1]))["server"][sys.argv[2]])' "$T/json" "$2")" "$3"
}

# suite CPU: what is agreed on by a client on such a processor.
suite() {
	qemu-x86_64 -cpu "$1" "$ndio" info "$(with_psk disk)" 2>&1 | sed -n 's/.*TLSv1.3, //p'
}

offers_what_is_fast() {
	[ "$(uname -m)" = x86_64 ] && [ -z "$NDIO_SANITIZE" ] || return
	is "a processor with AES takes that" "$(suite max)" TLS_AES_128_GCM_SHA256
	is "one without takes ChaCha20" "$(suite max,-aes)" TLS_CHACHA20_POLY1305_SHA256
}

facts() {
	start_stock disk --tls=require --tls-psk="$psk" memory 1M
	ok "info, with a key" shown "$(with_psk disk)"
	"$ndio" info --json "$(with_psk disk)" >"$T/json"
	has "the version" tls_version '^TLSv1\.3$'
	has "the suite" tls_cipher '^TLS_(AES_128_GCM|CHACHA20_POLY1305)_SHA256$'
	has "the user" tls_peer '^user alice$'
	like "for people, too" "$("$ndio" info "$(with_psk disk)")" 'TLSv1\.3, TLS_.*user alice'
	like "and in debug output" "$(LIBNBD_DEBUG=1 "$ndio" info "$(with_psk disk)" 2>&1)" \
		'ndio: debug: nbds[^ ]*: TLSv1\.3, TLS_[A-Z0-9_]*, user alice'
	# Of who isn't root, and has turned core dumps off, strace sees no memory.
	if [ -z "$NDIO_SANITIZE" ] && [ "$(id -u)" = 0 ] && strace -o /dev/null true 2>/dev/null; then
		strace -f -e trace=setsockopt -o "$T/strace" "$ndio" info "$(with_psk disk)" >/dev/null
		is "the server's socket has room for a large write" \
			"$(grep -c 'SO_SNDBUF, \[1048576\].* = 0$' "$T/strace")" 1
	fi
	offers_what_is_fast
	stop_server disk

	start_stock disk --tls=require --tls-certificates="$tls" memory 1M
	"$ndio" info --json "$(with_certificates disk)" >"$T/json"
	has "the certificate's name" tls_peer 'CN *= *localhost'
	"$ndio" info --json "$(with_certificates disk | sed s/.tls-hostname=localhost//)\
&tls-verify-peer=no" >"$T/json"
	has "or that there is none" tls_version '^TLSv1\.3$'
	stop_server disk

	start_stock disk --tls=off memory 1M
	"$ndio" info --json "$(uri disk)" >"$T/json"
	has "no TLS" tls '^False$'
	stop_server disk
}

# ---- a volume with a key ----

volumes() {
	start_stock disk --tls=require --tls-psk="$psk" memory 24M
	ok "a volume is made" "$ndio" format --key-file "$key" --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 "$(with_psk disk)"
	random "$T/data" 5M
	ok "and filled" "$ndio" copy --dst-key-file "$key" "$T/data" "$(with_psk disk)"
	ok "and read" "$ndio" copy --src-key-file "$key" "$(with_psk disk)" "$T/back"
	ok "every byte" cmp -n 5242880 "$T/data" "$T/back"
	ok "its keys" "$ndio" key list "$(with_psk disk)"
}

# ---- the gateway, in front of that volume ----

in_the_background() {
	local deadline=$((SECONDS + 30))

	LD_PRELOAD=$NDIO_PRELOAD nbdkit --unix "$T/back.sock" --pidfile "$T/back.pid" \
		"$NDIO_PLUGIN" uri="$(with_psk disk)" passphrase=+"$key" >"$T/back.log" 2>&1 </dev/null
	until [ -s "$T/back.pid" ] || [ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	ok "in the background it reads" bash -c 'nbdcopy "$1" - | cmp -n 5242880 - "$2"' - \
		"$(uri back)" "$T/data"
	kill "$(cat "$T/back.pid")"
	ok "and ends" timeout 20 tail --pid="$(cat "$T/back.pid")" -f /dev/null
}

# While it is still a child of this shell, and after it went into the background.
gateways() {
	start_door gate uri="$(with_psk disk)" passphrase=+"$key"
	ok "the gateway reads" bash -c 'nbdcopy "$1" - | cmp -n 5242880 - "$2"' - "$(uri gate)" \
		"$T/data"
	random "$T/data" 5M
	ok "and writes" fill gate "$T/data"
	ok "and ends cleanly" stop_server gate

	[ "$DOOR" = serve ] || in_the_background
	make_psk "$bad_psk" alice
	ok "a wrong key is told at the start" refused "key" \
		uri="$(with_psk disk | sed "s|$psk|$bad_psk|")"
	stop_server disk
}

# A server with TLS that goes away behind it.
server_goes() {
	local pid

	start_stock disk --tls=require --tls-psk="$psk" --filter=delay memory 8M rdelay=50ms
	pid=${server_pids[disk]}
	start_door gate uri="$(with_psk disk)" connections=2 reconnect=0
	ok "its server dies: clients get EIO" py gate "
import os, signal
h.pread(512, 0)
os.kill($pid, signal.SIGKILL)
for i in range(4):
    fails('EIO', h.pread, 65536, i * 65536)"
	{ wait "$pid"; } 2>/dev/null
	unset "server_pids[disk]"
	ok "and it ends cleanly" stop_server gate
}

make_tls
facts
volumes
gateways
server_goes
done_testing
