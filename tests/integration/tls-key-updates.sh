#!/bin/bash
# TLS's keys change in mid-transfer, as the server wants it, which also asks for new ones of ours:
# every byte arrives, and we never start it ourselves.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/tls.sh"

update=$NDIO_BUILD/tests/preload/gnutls-key-update.so
size=$((24 << 20))

# updated NAME URI: copies in and out, again and again, until the server has said often enough that
# keys changed.
updated() {
	local name=$1 uri=$2 deadline=$((SECONDS + 60)) before

	while [ "$(grep -c '^key update.*asks for one: 0' "$T/disk.log")" -lt 3 ]; do
		if [ $SECONDS -gt $deadline ]; then
			diag "too few: $(cat "$T/disk.log")"
			return 1
		fi
		random "$T/data" $size
		timeout 30 "$ndio" copy "$T/data" "$uri" && timeout 30 "$ndio" copy "$uri" "$T/back" &&
			cmp "$T/data" "$T/back" || return
	done
	! grep '^key update.*: -' "$T/disk.log"
}

# GnuTLS's servers don't begin it; with the preloaded library they do, a few times a second, which
# is as much as GnuTLS takes.
gnutls_servers() {
	truncate -s $size "$T/disk"
	start_server disk env LD_PRELOAD="$update" KEY_UPDATE_MS=200 nbdkit --foreground \
		--exit-with-parent --threads 1 --unix "$T/disk.sock" --pidfile "$T/disk.pid" \
		--tls=require --tls-psk="$psk" file "$T/disk"
	ok "nbdkit with one thread" updated "nbdkit" "$(with_psk disk)"
	ok "it ends cleanly" stop_server disk

	start_server disk env LD_PRELOAD="$update" KEY_UPDATE_MS=200 qemu-nbd --persistent \
		--shared 0 --socket "$T/disk.sock" --pid-file "$T/disk.pid" "${qemu_psk[@]}" \
		--format raw "$T/disk"
	ok "qemu-nbd" updated "qemu-nbd" "$(with_psk disk)"
	ok "it ends cleanly" stop_server disk
}

# counted REGEX: the sum of that number in the server's lines.
counted() {
	sed -n -E "s/.*$1.*/\\1/p" "$T/disk.log" | awk '{ sum += $1 } END { print sum + 0 }'
}

# Ours, by OpenSSL, has no limit: after every 5 ms.
openssl_server() {
	local sent received

	start_stock backend memory $size
	start_tls_server disk backend -k "$psk" -U 5
	random "$T/data" $size
	ok "many, without a question" "$ndio" copy "$T/data" "$(with_psk disk)"
	ok "and back" "$ndio" copy "$(with_psk disk)" "$T/back"
	ok "every byte" cmp "$T/data" "$T/back"
	end_server disk
	sent=$(counted 'updates: ([0-9]+) sent')
	ok "the server sent some ($sent)" [ "$sent" -gt 10 ]
	is "we never started one" "$(counted 'sent, ([0-9]+) received')" 0

	start_tls_server disk backend -k "$psk" -U 5 -R
	ok "many, with questions" timeout 100 "$NDIO_BUILD/tests/clients/ndio-model" -n 100 \
		-s $RANDOM "$(with_psk disk)"
	end_server disk
	sent=$(counted 'updates: ([0-9]+) sent')
	received=$(counted 'sent, ([0-9]+) received')
	ok "the server sent some ($sent)" [ "$sent" -gt 10 ]
	ok "we answered ($received)" [ "$received" -gt $((sent / 4)) -a "$received" -le "$sent" ]
	ok "the server behind it ends cleanly" stop_server backend
}

make_psk "$psk" alice
gnutls_servers
openssl_server
done_testing
