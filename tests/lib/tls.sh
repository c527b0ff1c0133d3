# Helpers for tests of TLS: `. tests/lib/tls.sh` after lib.sh. Keys and certificates, and servers that
# want them. Directories of certificates are laid out as nbdkit, qemu and libnbd expect it.
# shellcheck shell=bash disable=SC2034

ndio=$NDIO_BUILD/ndio
psk=$T/keys/keys.psk # qemu takes the directory and expects this name in it
tls=$T/tls           # what server and clients have when all is well
bad_psk=$T/bad.psk

# make_psk FILE USER...: a key for each.
make_psk() {
	local file=$1 user

	shift
	mkdir -p "${file%/*}"
	(umask 077 && for user in "$@"; do echo "$user:$(openssl rand -hex 32)"; done >"$file")
}

# ---- certificates ----

# when DAYS: in so many days from now, as openssl ca wants it.
when() {
	date -u -d "$1 days" +%Y%m%d%H%M%SZ
}

new_key() { # FILE
	(umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1")
}

# make_ca DIR
make_ca() {
	local dir=$1

	mkdir -p "$dir"
	: >"$dir/index"
	echo 01 >"$dir/serial"
	echo 01 >"$dir/crl-number"
	cat >"$dir/config" <<-CONFIG
		[ca]
		default_ca = this
		[this]
		database = $dir/index
		serial = $dir/serial
		crlnumber = $dir/crl-number
		new_certs_dir = $dir
		certificate = $dir/ca-cert.pem
		private_key = $dir/ca-key.pem
		default_md = sha256
		default_crl_days = 30
		unique_subject = no
		policy = any
		[any]
		commonName = supplied
		[req]
		distinguished_name = name
		[name]
	CONFIG
	new_key "$dir/ca-key.pem" &&
		openssl req -x509 -config "$dir/config" -new -key "$dir/ca-key.pem" -days 30 \
			-subj "/CN=CA of ${dir##*/}" -out "$dir/ca-cert.pem" \
			-addext "basicConstraints=critical,CA:TRUE" \
			-addext "keyUsage=critical,keyCertSign,cRLSign"
}

# issue CA DIR NAME [FIELD=VALUE...]: DIR gets NAME-key.pem, NAME-cert.pem and the CA's
# certificate. Fields: names (a subjectAltName; none: only a common name), cn, purpose (an
# extendedKeyUsage), from and to (days from now), ca (TRUE: itself a CA).
issue() {
	local ca=$1 dir=$2 name=$3 field
	local names=DNS:localhost,IP:127.0.0.1 cn=localhost purpose=serverAuth from=-1 to=20
	local is_ca=FALSE usage=digitalSignature

	shift 3
	for field in "$@"; do
		case $field in
		names=*) names=${field#*=} ;;
		cn=*) cn=${field#*=} ;;
		purpose=*) purpose=${field#*=} ;;
		from=*) from=${field#*=} ;;
		to=*) to=${field#*=} ;;
		ca=*) is_ca=${field#*=} usage=keyCertSign,cRLSign ;;
		esac
	done
	{
		printf '%s\n' "basicConstraints = critical,CA:$is_ca" "keyUsage = critical,$usage"
		[ -z "$purpose" ] || echo "extendedKeyUsage = $purpose"
		[ -z "$names" ] || echo "subjectAltName = $names"
	} >"$ca/extensions"
	mkdir -p "$dir"
	new_key "$dir/$name-key.pem" &&
		openssl req -new -config "$ca/config" -key "$dir/$name-key.pem" -subj "/CN=$cn" \
			-out "$ca/request" &&
		openssl ca -batch -notext -config "$ca/config" -in "$ca/request" \
			-extfile "$ca/extensions" -startdate "$(when "$from")" \
			-enddate "$(when "$to")" -out "$dir/$name-cert.pem" 2>"$ca/log" ||
		diag "$(cat "$ca/log")"
	[ "$ca" = "$dir" ] || cp "$ca/ca-cert.pem" "$dir"
}

# revoke CA CERTIFICATE; make_crl CA FILE: what it revoked so far.
revoke() {
	openssl ca -config "$1/config" -revoke "$2" 2>/dev/null
}

make_crl() {
	openssl ca -config "$1/config" -gencrl -out "$2" 2>/dev/null
}

# make_tls: keys for alice and bob, a CA in $T/ca, and certificates of it in $tls.
make_tls() {
	make_psk "$psk" alice bob
	make_ca "$T/ca"
	issue "$T/ca" "$tls" server
	issue "$T/ca" "$tls" client cn=client names= purpose=clientAuth
}

# ---- servers ----

# listening NAME COMMAND...: for start_server: a server that takes its socket from systemd's
# protocol listens on a free port of localhost, which $T/NAME.port then has.
listening() {
	local name=$1

	shift
	start_server "$name" /usr/bin/python3 "$root/tests/tools/listen.py" "$T/$name.port" "$@"
}

# start_tcp_nbdkit NAME ARG...
start_tcp_nbdkit() {
	local name=$1

	shift
	listening "$name" env LD_PRELOAD="$(preload_for "$@")" nbdkit --foreground \
		--exit-with-parent --pidfile "$T/$name.pid" "$@"
}

# start_tcp_door NAME ARG...
start_tcp_door() {
	local name=$1

	shift
	door_command --foreground --exit-with-parent --pidfile "$T/$name.pid" "$@"
	listening "$name" env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}"
}

# start_tcp_qemu_nbd NAME ARG...
start_tcp_qemu_nbd() {
	local name=$1

	shift
	listening "$name" qemu-nbd --persistent --shared 0 --pid-file "$T/$name.pid" "$@"
}

qemu_psk=(--object "tls-creds-psk,id=tls,dir=${psk%/*},endpoint=server" --tls-creds tls)
qemu_x509=(--object "tls-creds-x509,id=tls,dir=$tls,endpoint=server,verify-peer=on" --tls-creds tls)

# start_tls_server NAME BACKEND OPTION...: the tests' own, see tls-server.c, in front of another
# server of ours. start_tcp_tls_server: on a port.
start_tls_server() {
	start_server "$1" "$NDIO_BUILD/tests/servers/tls-server" -i "$T/$1.pid" -u "$T/$1.sock" \
		"${@:3}" "$T/$2.sock"
}

start_tcp_tls_server() {
	start_server "$1" "$NDIO_BUILD/tests/servers/tls-server" -i "$T/$1.pid" -p "$T/$1.port" \
		"${@:3}" "$T/$2.sock"
}

# end_server NAME: by force, one that has nothing to say at its end.
end_server() {
	{
		kill -KILL "${server_pids[$1]}"
		wait "${server_pids[$1]}"
		unset "server_pids[$1]"
	} 2>/dev/null
}

# ---- URIs ----

# with_psk NAME [EXPORT]; with_certificates NAME [EXPORT]: of the server's Unix socket.
# tcp_with_psk and tcp_with_certificates: of its port.
with_psk() {
	echo "nbds+unix://alice@/${2:-}?socket=$T/$1.sock&tls-psk-file=$psk"
}

with_certificates() {
	echo "nbds+unix:///${2:-}?socket=$T/$1.sock&tls-certificates=$tls&tls-hostname=localhost"
}

tcp_with_psk() {
	echo "nbds://alice@localhost:$(cat "$T/$1.port")/${2:-}?tls-psk-file=$psk"
}

tcp_with_certificates() {
	echo "nbds://localhost:$(cat "$T/$1.port")/${2:-}?tls-certificates=$tls"
}
