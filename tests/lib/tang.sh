# Helpers for tests of tokens: `. tests/lib/lib.sh`, command.sh, and then this.
# shellcheck shell=bash disable=SC2154

# has_tang: what clevis and a Tang server need is here.
has_tang() {
	local program

	for program in clevis socat jose curl /usr/libexec/tangd /usr/libexec/tangd-keygen; do
		command -v "$program" >/dev/null || return
	done
}

# start_tang NAME: a Tang server with keys of its own; sets $tang to its URL, $thp to the thumbprint of its
# signing key. A tangd a connection, as systemd starts it.
start_tang() {
	local name=$1 deadline=$((SECONDS + 60))

	mkdir -p "$T/$name.keys"
	[ -e "$T/$name.keys/sig.jwk" ] || /usr/libexec/tangd-keygen "$T/$name.keys" sig exc
	socat "TCP-LISTEN:${2:-0},bind=127.0.0.1,fork,reuseaddr" "EXEC:/usr/libexec/tangd $T/$name.keys" \
		>"$T/$name.log" 2>&1 &
	server_pids[$name]=$!
	until port_of "$name" >"$T/$name.port"; do
		[ "$SECONDS" -le "$deadline" ] && kill -0 "${server_pids[$name]}" || return
		sleep 0.02
	done
	tang=http://127.0.0.1:$(cat "$T/$name.port")
	thp=$(jose jwk thp -a S256 -i "$T/$name.keys/sig.jwk")
}

# end_tang NAME: nobody listens any more.
end_tang() {
	kill "${server_pids[$1]}"
	wait "${server_pids[$1]}" 2>/dev/null
	unset "server_pids[$1]"
}
