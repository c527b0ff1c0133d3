#!/bin/bash
# What nbds: refuses: keys, certificates, files, URIs and servers that are not as they should be.
# Each has a message of its own and status 1, nothing hangs, and nothing goes out in clear text.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/command.sh"
. "$(dirname "$0")/../lib/tls.sh"

# refuses NAME REGEX URI: and the message names the URI.
refuses() {
	ok "$1" fails "^ndio: nbds?[^ ]*: .*($2)" timeout 25 "$ndio" info "$3"
}

accepts() { # NAME URI
	ok "$1" shown "$2"
}

# ---- keys ----

# of_file FILE: the URI of the server "disk" with this key file.
of_file() {
	with_psk disk | sed "s|$psk|$1|"
}

# file_with LINE...: such a key file.
file_with() {
	(umask 077 && printf "$@" >"$bad_psk")
	of_file "$bad_psk"
}

keys() {
	local hex mode

	hex=$(openssl rand -hex 32)
	start_stock disk --tls=require --tls-psk="$psk" memory 1M
	accepts "a key that is right" "$(with_psk disk)"
	refuses "an unknown user" "user|key" "$(file_with 'mallory:%s\n' "$hex" | sed s/alice@/mallory@/)"
	refuses "a wrong key" "user|key" "$(file_with 'alice:%s\n' "$hex")"
	refuses "a user whom the file doesn't have" "bad.psk: .*alice" "$(file_with 'bob:%s\n' "$hex")"
	refuses "a key file that isn't there" "nothing.psk: No such file" "$(of_file "$T/nothing.psk")"
	refuses "a directory" "Is a directory|not a (regular )?file" "$(of_file "$T")"
	refuses "an empty key file" "bad.psk: .*alice" "$(file_with '')"
	refuses "a line without a colon" "bad.psk: line 2" "$(file_with 'bob:%s\nalice%s\n' "$hex" "$hex")"
	refuses "a line without a user" "bad.psk: line 1" "$(file_with ':%s\n' "$hex")"
	refuses "a line without a key" "bad.psk: line 3" "$(file_with 'a:%s\n#\nalice:\n' "$hex")"
	refuses "a key that is short" "bad.psk: line 1: .*at least|must have" "$(file_with 'alice:00ff\n')"
	refuses "an odd number of digits" "bad.psk: line 1" "$(file_with 'alice:%sa\n' "$hex")"
	refuses "digits that are none" "bad.psk: line 1" "$(file_with 'alice:%sxy\n' "$hex")"
	refuses "a file without an end" "bad.psk: .*bytes" "$(file_with 'alice:%0200000d' 0)"
	refuses "a NUL in a name" "bad.psk: .*alice" "$(file_with 'al\0ice:%s\n' "$hex")"
	for mode in 644 640 604 602; do
		cp "$psk" "$T/open.psk"
		chmod $mode "$T/open.psk"
		refuses "a key file of mode $mode" "open.psk: .*chmod 600" "$(of_file "$T/open.psk")"
	done
	chmod 400 "$T/open.psk"
	accepts "and of mode 400" "$(of_file "$T/open.psk")"
	stop_server disk
}

# ---- certificates ----

# served DIR: what a client with $tls's CA makes of a server with these certificates, by name.
served() {
	[ -z "${server_pids[disk]:-}" ] || stop_server disk
	start_tcp_nbdkit disk --tls=require --tls-certificates="$1" memory 1M
}

server_certificates() {
	local ca=$T/ca dir

	served "$tls"
	accepts "a certificate that is right" "$(tcp_with_certificates disk)"
	accepts "by address" "$(tcp_with_certificates disk | sed s/localhost/127.0.0.1/)"

	issue "$ca" "$T/expired" server from=-9 to=-2
	served "$T/expired"
	refuses "an expired certificate" "expired" "$(tcp_with_certificates disk)"
	issue "$ca" "$T/early" server from=2 to=9
	served "$T/early"
	refuses "one that isn't valid yet" "valid yet" "$(tcp_with_certificates disk)"
	issue "$ca" "$T/host" server names=DNS:example.com,DNS:localhost.example.com cn=localhost
	served "$T/host"
	refuses "one of another host" "host.?name|localhost" "$(tcp_with_certificates disk)"
	refuses "or address" "address|127.0.0.1" "$(tcp_with_certificates disk | sed s/localhost/127.0.0.1/)"
	issue "$ca" "$T/purpose" server purpose=clientAuth
	served "$T/purpose"
	refuses "one for clients" "purpose" "$(tcp_with_certificates disk)"

	# Of itself, and of a CA that nobody knows.
	mkdir -p "$T/self" "$T/unknown"
	cp "$tls/ca-cert.pem" "$T/self"
	openssl req -x509 -config "$ca/config" -new -key "$tls/server-key.pem" -subj /CN=localhost \
		-addext subjectAltName=DNS:localhost -out "$T/self/server-cert.pem"
	cp "$tls/server-key.pem" "$T/self"
	served "$T/self"
	refuses "one that signed itself" "self-?.?signed" "$(tcp_with_certificates disk)"
	make_ca "$T/other-ca"
	issue "$T/other-ca" "$T/unknown" server
	served "$T/unknown"
	refuses "one of an unknown CA" "signed by no authority" "$(tcp_with_certificates disk)"
}

# Through a CA in between, whose certificate the server forgets, or sends along.
chain() {
	local ca=$T/ca middle=$T/middle

	issue "$ca" "$T/between" middle cn=middle names= purpose= ca=TRUE
	make_ca "$middle"
	cp "$T/between/middle-key.pem" "$middle/ca-key.pem"
	cp "$T/between/middle-cert.pem" "$middle/ca-cert.pem"
	issue "$middle" "$T/long" server
	cp "$ca/ca-cert.pem" "$T/long"
	served "$T/long"
	refuses "a chain with a gap" "signed by no authority" "$(tcp_with_certificates disk)"
	cat "$T/between/middle-cert.pem" >>"$T/long/server-cert.pem"
	served "$T/long"
	accepts "a chain without one" "$(tcp_with_certificates disk)"
}

# with_dir DIR NAME: with other files of our own.
with_dir() {
	tcp_with_certificates "$2" | sed "s|=$tls|=$1|"
}

# trusting FILE...: with these certificates alone in our ca-cert.pem.
trusting() {
	rm -rf "$T/trusting"
	mkdir -p "$T/trusting"
	cat "$@" >"$T/trusting/ca-cert.pem"
	with_dir "$T/trusting" disk
}

# What ca-cert.pem holds is trusted without whoever has signed it; all else is checked as ever.
trusted() {
	local ca=$T/ca middle=$T/middle

	issue "$middle" "$T/short" server
	served "$T/short"
	accepts "the authority in the middle alone" "$(trusting "$middle/ca-cert.pem")"
	refuses "another one alone" "signed by no authority" "$(trusting "$T/other-ca/ca-cert.pem")"
	refuses "another's certificate alone" "signed by no authority" \
		"$(trusting "$tls/server-cert.pem")"
	accepts "the server's own certificate" "$(trusting "$T/short/server-cert.pem")"
	accepts "beside others" "$(trusting "$T/other-ca/ca-cert.pem" "$T/short/server-cert.pem")"
	make_crl "$middle" "$T/middle-crl.pem"
	trusting "$middle/ca-cert.pem" >"$T/uri"
	cp "$T/middle-crl.pem" "$T/trusting/ca-crl.pem"
	accepts "the authority in the middle, and its CRL" "$(cat "$T/uri")"
	revoke "$middle" "$T/short/server-cert.pem"
	make_crl "$middle" "$T/trusting/ca-crl.pem"
	refuses "in which the server's certificate is" "revoked" "$(cat "$T/uri")"
	make_crl "$T/other-ca" "$T/trusting/ca-crl.pem"
	refuses "another's CRL" "ca-crl.pem" "$(cat "$T/uri")"
	served "$T/expired"
	refuses "its own, expired" "expired" "$(trusting "$T/expired/server-cert.pem")"
	served "$T/host"
	refuses "its own, of another host" "localhost" "$(trusting "$T/host/server-cert.pem")"
	served "$T/purpose"
	refuses "its own, for clients" "purpose" "$(trusting "$T/purpose/server-cert.pem")"
	issue "$ca" "$T/late-middle" middle cn=late names= purpose= ca=TRUE from=-9 to=-2
	make_ca "$T/late-ca"
	cp "$T/late-middle/middle-key.pem" "$T/late-ca/ca-key.pem"
	cp "$T/late-middle/middle-cert.pem" "$T/late-ca/ca-cert.pem"
	issue "$T/late-ca" "$T/of-late" server
	served "$T/of-late"
	refuses "an expired authority in the middle" "expired" "$(trusting "$T/late-ca/ca-cert.pem")"
}

# A zone is this machine's own: it is no part of the name in the certificate. That of ::1 is no
# name but the number of the interface.
zones() {
	local uri

	[ -e /proc/net/if_inet6 ] && ip -6 address show dev lo 2>/dev/null | grep -q "inet6 ::1" || {
		skip "this machine has no IPv6" 4
		return
	}
	issue "$T/ca" "$T/six" server names=IP:::1
	stop_server disk
	host=::1 start_tcp_nbdkit disk --tls=require --tls-certificates="$T/six" memory 1M
	uri=$(tcp_with_certificates disk)
	accepts "by an IPv6 address" "${uri/localhost/[::1]}"
	accepts "with a zone" "${uri/localhost/[::1%251]}"
	refuses "with a zone that isn't there" "connecting: " "${uri/localhost/[fe80::1%25nowhere]}"
	stop_server disk
	host=::1 start_tcp_nbdkit disk memory 1M
	accepts "without TLS" "nbd://[::1%251]:$(cat "$T/disk.port")/"
}

revoked() {
	local ca=$T/ca

	issue "$ca" "$T/revoked" server
	mkdir -p "$T/crl"
	cp "$tls/ca-cert.pem" "$T/crl"
	make_crl "$ca" "$T/crl/ca-crl.pem"
	served "$T/revoked"
	accepts "a certificate, and an empty CRL" "$(with_dir "$T/crl" disk)"
	revoke "$ca" "$T/revoked/server-cert.pem"
	make_crl "$ca" "$T/crl/ca-crl.pem"
	refuses "one that was revoked" "revoked" "$(with_dir "$T/crl" disk)"
	accepts "without the CRL it isn't known" "$(tcp_with_certificates disk)"
	echo nothing >"$T/crl/ca-crl.pem"
	refuses "a CRL that is none" "ca-crl.pem" "$(with_dir "$T/crl" disk)"
	openssl ca -config "$ca/config" -gencrl -crl_lastupdate "$(when -9)" \
		-crl_nextupdate "$(when -2)" -out "$T/crl/ca-crl.pem" 2>/dev/null
	refuses "a CRL that is too old" "CRL.*expired|ca-crl.pem" "$(with_dir "$T/crl" disk)"
}

# On a Unix socket there is no name but that which tls-hostname gives.
unix_sockets() {
	local name

	for name in expired self unknown purpose; do
		start_stock unix --tls=require --tls-certificates="$T/$name" memory 1M
		refuses "Unix socket: $name" "expired|self|signed by no authority|purpose" \
			"$(with_certificates unix | sed s/.tls-hostname=localhost//)"
		stop_server unix
	done
	start_stock unix --tls=require --tls-certificates="$T/host" memory 1M
	accepts "Unix socket: no name to check" "$(with_certificates unix | sed s/.tls-hostname=localhost//)"
	refuses "Unix socket: another host" "host.?name|localhost" "$(with_certificates unix)"
	accepts "Unix socket: the host that it is" \
		"$(with_certificates unix | sed s/=localhost/=example.com/)"
	stop_server unix
}

# What servers refuse: a client without a certificate, and with a wrong one.
client_certificates() {
	local ca=$T/ca

	[ -z "${server_pids[disk]:-}" ] || stop_server disk
	issue "$ca" "$T/late" client cn=client names= purpose=clientAuth from=-9 to=-2
	issue "$T/other-ca" "$T/stranger" client cn=client names= purpose=clientAuth
	cp "$ca/ca-cert.pem" "$T/stranger"
	start_tcp_qemu_nbd disk "${qemu_x509[@]}" --format raw "$T/raw"
	accepts "a client with a certificate" "$(tcp_with_certificates disk)"
	mkdir -p "$T/none"
	cp "$ca/ca-cert.pem" "$T/none"
	refuses "a client without one" "certificate" "$(with_dir "$T/none" disk)"
	refuses "a client with an expired one" "certificate" "$(with_dir "$T/late" disk)"
	refuses "a client with one of another CA" "certificate" \
		"$(with_dir "$T/stranger" disk)"
	stop_server disk
}

own_files() {
	local dir=$T/own

	served "$tls"
	mkdir -p "$dir"
	refuses "a directory that isn't there" "nowhere" "$(with_dir "$T/nowhere" disk)"
	refuses "one without a CA" "ca-cert.pem" "$(with_dir "$dir" disk)"
	echo nothing >"$dir/ca-cert.pem"
	refuses "a CA that is none" "ca-cert.pem" "$(with_dir "$dir" disk)"
	cp "$tls"/{ca-cert,client-cert}.pem "$dir"
	refuses "a certificate without its key" "client-key.pem" "$(with_dir "$dir" disk)"
	cp "$tls/server-key.pem" "$dir/client-key.pem"
	refuses "a key that isn't its" "client-key.pem|match" "$(with_dir "$dir" disk)"
	stop_server disk
}

# ---- URIs ----

uris() {
	local uri

	start_stock disk --tls=require --tls-psk="$psk" memory 1M
	uri=$(with_psk disk)
	refuses "an unknown parameter" "tls-pks-file" "${uri/tls-psk-file/tls-pks-file}"
	refuses "in any case" "TLS-PKS-FILE" "${uri/tls-psk-file/TLS-PKS-FILE}"
	refuses "a parameter twice" "tls-psk-file|twice" "$uri&tls-psk-file=$psk"
	refuses "no socket" "socket" "nbds+unix://alice@/?tls-psk-file=$psk"
	refuses "a socket by TCP" "socket" "nbds://alice@localhost/?socket=$T/disk.sock&tls-psk-file=$psk"
	refuses "a bad port" "port|99999" "nbds://alice@localhost:99999/?tls-psk-file=$psk"
	refuses "a bad escape" "not a URI" "nbds+unix://alice@/%zz?socket=$T/disk.sock&tls-psk-file=$psk"
	refuses "keys and certificates" "tls-certificates|both" "$uri&tls-certificates=$tls"
	refuses "TLS's parameters without TLS" "tls" \
		"nbd+unix:///?socket=$T/disk.sock&tls-psk-file=$psk"
	refuses "in any case" "tls" "nbd+unix:///?socket=$T/disk.sock&TLS-PSK-FILE=$psk"
	ok "an export's name that is too long" fails "" timeout 25 "$ndio" info \
		"nbds+unix://alice@/$(printf '%05000d' 0)?socket=$T/disk.sock&tls-psk-file=$psk"
	stop_server disk
}

# ---- servers ----

# NBD_REP_* in hex, for STARTTLS.
nbd_reply() { # TYPE [LENGTH [PAYLOAD]]
	printf '0003e88904556 5a900000005%s%s%s' "$1" "${2:-00000000}" "${3:-}" | tr -d ' '
}

# misbehaves NAME REGEX OPTION...: a server of ours, which has no plain option to tell of.
misbehaves() {
	local name=$1 regex=$2

	shift 2
	start_tls_server bad backend -k "$psk" "$@"
	refuses "$name" "$regex" "$(with_psk bad)"
	ok "$name: nothing in clear text" not grep -E 'option ([^25]|..)' "$T/bad.log"
	end_server bad
}

without_tls() {
	start_stock disk --tls=off memory 1M
	refuses "nbdkit without TLS" "TLS" "$(with_psk disk)"
	stop_server disk
	start_qemu_nbd disk --format raw "$T/raw"
	refuses "qemu-nbd without TLS" "TLS" "$(with_psk disk)"
	stop_server disk
	start_stock disk --oldstyle memory 1M
	refuses "an old server" "old|fixed" "$(with_psk disk)"
	stop_server disk
	misbehaves "STARTTLS is unknown" "TLS" -r "$(nbd_reply 80000001)"
	misbehaves "STARTTLS is against the rules" "TLS.*(policy|not allow)|policy" \
		-r "$(nbd_reply 80000002)"
	misbehaves "and the server says why" "not today" -r "$(nbd_reply 80000002 00000009 6e6f7420746f646179)"
	misbehaves "a reply to another option" "no NBD server" -r 0003e889045565a9000000070000000100000000
	misbehaves "a reply that is noise" "no NBD server" -r "$(printf '%040d' 7)"
	misbehaves "a reply with too much in it" "no NBD server" -r "$(nbd_reply 00000001 00000004 00000000)"
	misbehaves "a greeting without newstyle" "fixed|newstyle|old" -g 4e42444d4147494349484156454f50540000
	misbehaves "a greeting that is noise" "no NBD server" -g "$(printf '%036d' 7)"
	misbehaves "SSH" "no NBD server" -g "$(printf 'SSH-2.0-OpenSSH_9.2p1 Debian\r\n' | od -An -tx1 | tr -d ' \n')"
}

bad_tls() {
	misbehaves "TLS 1.1 only" "TLS 1.[23]|version" -v 1.1 -V 1.1
	misbehaves "TLS 1.2 only" "TLS 1.[23]|version" -v 1.2 -V 1.2
	start_tls_server bad backend -k "$psk" -V 1.2
	accepts "TLS 1.2, where the URI says so" "$(with_psk bad)&tls-version=1.2"
	end_server bad
	misbehaves "garbage for a handshake" "TLS|SSL" -x garbage@0
	misbehaves "garbage in the handshake" "TLS|SSL" -x garbage@60
	misbehaves "garbage behind it" "TLS|SSL" -x garbage@done+0
	misbehaves "the handshake is cut off" "cut short" -x cut@60
	misbehaves "it ends before the handshake" "closed" -x cut@0
	misbehaves "a reset in the handshake" "reset|TLS|broke" -x reset@60
	misbehaves "it ends behind the handshake" "close|end" -x end@done+0
	misbehaves "even with close_notify" "close|end" -x notify@done+0
}

# Nothing more is ever said: an error, by all at once.
silence() {
	local places=(0 60 done+0 done+100) place pids=()

	for place in "${places[@]}"; do
		start_tls_server "mute-$place" backend -k "$psk" -x "stall@$place"
		timeout 20 "$ndio" info --answer-timeout 1 "$(with_psk "mute-$place")" >"$T/said-$place" 2>&1 &
		pids+=($!)
	done
	start_tls_server mute-reply backend -k "$psk" -r ""
	timeout 20 "$ndio" info --answer-timeout 1 "$(with_psk mute-reply)" >"$T/said-reply" 2>&1 &
	wait "${pids[@]}" $!
	for place in "${places[@]}" reply; do
		like "no answer: $place" "$(cat "$T/said-$place")" \
			"^ndio: nbds.*mute-[^ ]*: .*the server has not answered for 1 second$"
		end_server "mute-$place"
	done
}

make_tls
truncate -s 1M "$T/raw"
start_stock backend --threads 1 memory 1M
keys
server_certificates
chain
trusted
zones
revoked
unix_sockets
client_certificates
own_files
uris
without_tls
bad_tls
silence
stop_server backend
done_testing
