#!/bin/bash
# nbds: with each of the servers that we didn't write, by keys and by certificates, on Unix sockets
# and TCP: what one side wrote, the other has, through several connections.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/tls.sh"

model=$NDIO_BUILD/tests/clients/ndio-model
requests=60
[ -z "$NDIO_SANITIZE" ] || requests=25
size=$((8 << 20))

# closed_well NAME: no connection of the server's ended without TLS's own end.
closed_well() {
	! grep -iE 'non-properly terminated|premature|TLS.*(error|abort)' "$T/$1.log"
}

there_and_back() { # URI FILE
	"$ndio" copy "$T/data" "$1" && cmp "$T/data" "$2" &&
		"$ndio" copy "$1" "$T/back" && cmp "$T/data" "$T/back"
}

# stock client and ours take turns with the same server.
stock_takes_turns() { # URI
	random "$T/other" $size
	nbdcopy "$T/other" "$1" && "$ndio" copy "$1" "$T/back" && cmp "$T/other" "$T/back" &&
		"$ndio" copy "$T/data" "$1" && nbdcopy "$1" "$T/back" && cmp "$T/data" "$T/back"
}

# interop NAME URI: with the server that has $T/disk, by all means.
interop() {
	local name=$1 uri=$2

	ok "$name: a copy there and back" timeout 60 bash -c "$(declare -f there_and_back)
		ndio='$ndio' T='$T'; there_and_back \"\$1\" \"\$2\"" - "$uri" "$T/disk"
	ok "$name: odd requests through 4 connections" timeout 100 "$model" -n $requests -s $RANDOM \
		-c 4 -o "$T/model" "$uri"
	ok "$name: what the server has then" cmp -n "$(stat -c %s "$T/model")" "$T/disk" "$T/model"
}

nbdkits() {
	start_stock disk --tls=require --tls-psk="$psk" file "$T/disk" &&
		interop "nbdkit, key, Unix" "$(with_psk disk)"
	ok "nbdkit, key, Unix: a stock client in turn" stock_takes_turns "$(with_psk disk)"
	ok "nbdkit, key, Unix: connections ended well" closed_well disk
	ok "nbdkit, key, Unix: it ends cleanly" stop_server disk

	start_tcp_nbdkit disk --tls=require --tls-psk="$psk" file "$T/disk" &&
		interop "nbdkit, key, TCP" "$(tcp_with_psk disk)"
	ok "nbdkit, key, TCP: it ends cleanly" stop_server disk

	start_stock disk --tls=require --tls-certificates="$tls" --tls-verify-peer file "$T/disk" &&
		interop "nbdkit, certificates, Unix" "$(with_certificates disk)"
	ok "nbdkit, certificates, Unix: it ends cleanly" stop_server disk

	start_tcp_nbdkit disk --tls=require --tls-certificates="$tls" --tls-verify-peer file \
		"$T/disk" && interop "nbdkit, certificates, TCP" "$(tcp_with_certificates disk)"
	ok "nbdkit, certificates, TCP: a stock client in turn" \
		stock_takes_turns "$(tcp_with_certificates disk)"
	ok "nbdkit, certificates, TCP: it ends cleanly" stop_server disk
}

qemu_nbds() {
	start_qemu_nbd disk "${qemu_psk[@]}" --format raw "$T/disk" &&
		interop "qemu-nbd, key, Unix" "$(with_psk disk)"
	ok "qemu-nbd, key, Unix: it ends cleanly" stop_server disk

	start_tcp_qemu_nbd disk "${qemu_x509[@]}" --format raw "$T/disk" &&
		interop "qemu-nbd, certificates, TCP" "$(tcp_with_certificates disk)"
	ok "qemu-nbd, certificates, TCP: it ends cleanly" stop_server disk
}

# Its TLS is 1.2 unless it is told otherwise, and it takes no client without a certificate.
nbd_servers() {
	nbd_server=('force_tls = true' "certfile = $tls/server-cert.pem" "keyfile = $tls/server-key.pem"
		"cacertfile = $tls/ca-cert.pem" 'tlsprio = NORMAL:-VERS-ALL:+VERS-TLS1.3')
	start_nbd_server disk "$T/disk" 'flush = true' 'fua = true' 'trim = true' &&
		interop "nbd-server, certificates, Unix" "$(with_certificates disk disk)"
	end_nbd_server disk
}

ours() {
	start_stock backend file "$T/disk"
	start_tls_server disk backend -k "$psk" && interop "OpenSSL, key" "$(with_psk disk)"
	ok "OpenSSL, key: connections ended well" \
		[ "$(grep -c close_notify "$T/disk.log")" = "$(grep -c 'TLSv1.3' "$T/disk.log")" ]
	end_server disk
	ok "OpenSSL: the server behind it ends cleanly" stop_server backend
}

# Both ends are ours, but for the stock client.
serves() {
	start_server disk "$NDIO_BUILD/ndio-serve" --pid-file "$T/disk.pid" --socket "$T/disk.sock" \
		--tls-psk "$psk" "$T/disk" && interop "ndio serve, key, Unix" "$(with_psk disk)"
	ok "ndio serve, key, Unix: a stock client in turn" stock_takes_turns "$(with_psk disk)"
	ok "ndio serve, key, Unix: nobody without one" not nbdinfo "$(uri disk)"
	ok "ndio serve, key, Unix: it ends cleanly" stop_server disk

	listening disk "$NDIO_BUILD/ndio-serve" --pid-file "$T/disk.pid" --tls-certificates "$tls" \
		--verify-peer "$T/disk" &&
		interop "ndio serve, certificates, TCP" "$(tcp_with_certificates disk)"
	ok "ndio serve, certificates, TCP: a stock client in turn" \
		stock_takes_turns "$(tcp_with_certificates disk)"
	mkdir "$T/nobody"
	cp "$tls/ca-cert.pem" "$T/nobody"
	ok "ndio serve, certificates, TCP: nobody without one" not nbdinfo \
		"nbds://localhost:$(cat "$T/disk.port")/?tls-certificates=$T/nobody"
	ok "ndio serve, certificates, TCP: it ends cleanly" stop_server disk

	revoke "$T/ca" "$tls/client-cert.pem" && make_crl "$T/ca" "$tls/ca-crl.pem"
	listening disk "$NDIO_BUILD/ndio-serve" --pid-file "$T/disk.pid" --tls-certificates "$tls" \
		--verify-peer "$T/disk"
	ok "ndio serve, certificates, TCP: nobody whose is revoked" not nbdinfo \
		"$(tcp_with_certificates disk)"
	ok "ndio serve says why" grep -q 'certificate revoked\|certificate verify failed' "$T/disk.log"
	ok "ndio serve, certificates, TCP: it ends cleanly once more" stop_server disk
}

random "$T/data" $size
truncate -s $size "$T/disk"
make_tls
nbdkits
qemu_nbds
nbd_servers
ours
serves
done_testing
