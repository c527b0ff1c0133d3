#!/bin/bash
# Statistics: what is told is what was done, in a format that others read, over TCP, a Unix socket and by
# a file, by ndio serve, by nbdkit's plugin and by a gateway; and who asks for it disturbs nobody, whatever
# he does.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/command.sh"

# scrape TO CURL-ARG...
scrape() {
	curl -sS --max-time 20 --noproxy '*' "${@:2}" >"$1"
}

# tcp NAME: where it says that it tells.
tcp() {
	sed -n 's/.*metrics: \(http:[^ ]*\)$/\1/p' "$T/$1.log"
}

# told FILE SAMPLE: its value.
told() {
	sample=$2 awk 'index($0, ENVIRON["sample"] " ") == 1 { print $NF }' "$1"
}

# valid MODULE FILE...: as a parser sees them that isn't ours.
valid() {
	/usr/bin/python3 - "$@" <<'EOT'
import importlib, sys
parser = importlib.import_module("prometheus_client" + sys.argv[1])
for path in sys.argv[2:]:
    with open(path, newline="", encoding="utf-8", errors="strict") as text:
        families = list(parser.text_string_to_metric_families(text.read()))
    types = {f.type for f in families}
    assert {"counter", "gauge", "histogram"} <= types and "unknown" not in types, (path, types)
    names = [(s.name, tuple(sorted(s.labels.items()))) for f in families for s in f.samples]
    assert len(names) == len(set(names)), f"{path}: a sample is there twice"
EOT
}

all_valid() {
	if /usr/bin/python3 -c 'import prometheus_client' 2>/dev/null; then
		ok "all that was told by HTTP is OpenMetrics" valid .openmetrics.parser "$T"/*.told
		ok "by a file, or where it was asked for, it is Prometheus' older format" \
			valid .parser "$T"/*.prom
	else
		skip "python3-prometheus-client isn't installed" 2
	fi
}

# What a client does that knows what it has done: 3 reads, 2 writes, a flush and what is refused.
work='
h.pwrite(b"x" * 5000, 0)
h.pwrite(b"y" * (1 << 20), 8192)
for i in range(3):
    h.pread(4096, i * 4096)
h.flush()
'
beyond='
h.set_strict_mode(0)
fails("EINVAL", h.pread, 512, h.get_size())
'

# counts NAME FILE EXPORT: what it tells of that.
counts() {
	local label="{export=\"$3\",kind="

	is "$1: reads" "$(told "$2" "ndio_requests_total$label\"read\"}")" "$4"
	is "$1: bytes read" "$(told "$2" "ndio_bytes_total$label\"read\"}")" 12288
	is "$1: writes" "$(told "$2" "ndio_requests_total$label\"write\"}")" 2
	is "$1: bytes written" "$(told "$2" "ndio_bytes_total$label\"write\"}")" $((5000 + (1 << 20)))
	is "$1: flushes" "$(told "$2" "ndio_requests_total$label\"flush\"}")" 1
	is "$1: nothing is in flight" "$(grep -c '^ndio_in_flight{.* 0$' "$2")" 7
	is "$1: all reads have a time" \
		"$(told "$2" "ndio_request_duration_seconds_bucket$label\"read\",le=\"+Inf\"}")" "$4"
	like "$1: which isn't none" \
		"$(told "$2" "ndio_request_duration_seconds_sum$label\"read\"}")" '\.[0-9]*[1-9]'
	is "$1: the connection is over" "$(told "$2" "ndio_connections{export=\"$3\"}")" 0
	is "$1: it is counted" "$(told "$2" "ndio_connections_opened_total{export=\"$3\"}")" 1
}

# refuses REGEX ARG...: ndio serve doesn't begin.
refuses() {
	timeout 20 "$NDIO_BUILD/ndio-serve" --socket "$T/two.sock" "${@:2}" "$T/plain" 2>"$T/refused"
	[ $? = 1 ] && [[ $(tail -n 1 "$T/refused") =~ ^"ndio serve: metrics: "$1$ ]] && return
	cat "$T/refused"
	return 1
}

# gone URL...: the server has seen that its client has left.
gone() {
	local deadline=$((SECONDS + 30))

	until scrape "$T/gone" "$@" && grep -q '^ndio_connections{.* 0$' "$T/gone"; do
		[ $SECONDS -lt $deadline ] || return
		sleep 0.02
	done
}

make_luks2 "$T/disk" 32M

# ---- ndio serve, over TCP ----

over_tcp() {
	local url

	start_serve disk --key-file "$T/pass" --export 'my "disk"' --metrics :0 "$T/disk" || return
	url=$(tcp disk)
	like "serve: port 0 is one that is free, on this machine" "$url" \
		'^http://127\.0\.0\.1:[1-9][0-9]*/metrics$'
	ok "serve: a client" py disk "$work$beyond"
	ok "serve: it is gone" gone "$url"
	ok "serve: asked" scrape "$T/tcp.told" -D "$T/head" "$url"
	like "serve: the type" "$(tr -d '\r' <"$T/head")" \
		'Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8'
	counts "serve" "$T/tcp.told" 'my \"disk\"' 4
	is "serve: the error" \
		"$(told "$T/tcp.told" 'ndio_errors_total{export="my \"disk\"",kind="read",errno="EINVAL"}')" 1
	like "serve: what it is" "$(grep ^ndio_build_info "$T/tcp.told")" \
		"program=\"ndio serve\",version=\"$("$ndio" --version | sed 's/.* //')\"} 1"
	asks_otherwise "$url"
	hostile "$url"
	ok "serve: ends" stop_server disk
}

# status CURL-ARG...
status() {
	curl -sS --max-time 20 --noproxy '*' -o "$T/body" -w '%{http_code} %{size_download}' "$@"
}

asks_otherwise() { # URL
	local base=${1%/metrics}

	is "HEAD: the head alone" "$(status --head "$1")" "200 0"
	like "another path" "$(status "$base/")" '^404 '
	like "one that goes up" "$(status --path-as-is "$base/metrics/../etc/passwd")" '^404 '
	like "POST" "$(status -d x "$1")" '^405 '
	like "DELETE" "$(status -X DELETE "$1")" '^405 '
	like "a query" "$(status "$1?name=x")" '^200 '
	scrape "$T/old.prom" -H 'Accept: text/plain' "$1"
	ok "the older format, for who asks for it" grep -q '^# TYPE ndio_requests_total counter$' "$T/old.prom"
}

# Each does what it does as long as it is let.
hostile() { # URL
	local before after took port

	port=${1##*:} port=${port%%/*}
	before=$(descriptors disk "$port")
	took=$(/usr/bin/python3 - "$1" "$T" 2>&1 <<'EOT'
import os, re, socket, subprocess, sys, time
host, port = re.match(r"http://([\d.]+):(\d+)/", sys.argv[1]).groups()
def connect():
    s = socket.create_connection((host, int(port)), timeout=20)
    return s
silent = [connect() for _ in range(50)]
deaf = []
for _ in range(20):
    s = connect()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    deaf.append(s)
for junk in (os.urandom(5000), b"\0" * 100, b"GET " + b"x" * 100000, b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 20000,
             b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
             b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n"):
    s = connect()
    try:
        s.sendall(junk)
        s.shutdown(socket.SHUT_WR)
        s.recv(1000)
    except OSError:
        pass
    deaf.append(s)
silent += [connect() for _ in range(50)]
started = time.monotonic()
subprocess.run(["curl", "-sS", "--max-time", "20", "--noproxy", "*", "-o", sys.argv[2] + "/among", sys.argv[1]], check=True)
# The one that came first has gone for those that came after it.
assert silent[0].recv(1) == b"", "it stays"
print("%.1f" % (time.monotonic() - started))
EOT
	)
	like "hostile: among them one is answered at once" "$took" '^[0-4]\.[0-9]$'
	ok "hostile: with all there is to tell" grep -qF '# EOF' "$T/among"
	ok "hostile: the disk's clients go on" py disk 'same(h.pread(4, 8192), b"yyyy")'
	after=$before
	for _ in {1..200}; do
		after=$(descriptors disk "$port")
		[ "$after" -gt "$before" ] || break
		sleep 0.05
	done
	is "hostile: nothing of them is left" "$after" "$before"
}

# ---- over a Unix socket ----

over_unix() {
	# One that was killed leaves its socket behind.
	start_serve disk --metrics "$T/stats" --key-file "$T/pass" "$T/disk" || return
	kill -KILL "${server_pids[disk]}"
	wait "${server_pids[disk]}" 2>/dev/null
	unset "server_pids[disk]"
	ok "a socket is left of one that was killed" test -S "$T/stats"
	start_serve disk --metrics "$T/stats" --key-file "$T/pass" "$T/disk" || return
	ok "a Unix socket: asked" scrape "$T/unix.told" --unix-socket "$T/stats" http://localhost/metrics
	is "an export without a name has the disk's" \
		"$(told "$T/unix.told" "ndio_connections{export=\"$T/disk\"}")" 0
	ok "one that lives isn't replaced" refuses "$T/stats: can't listen: Address already in use" --metrics "$T/stats"
	ok "a Unix socket: ends" stop_server disk
	ok "a Unix socket: is removed" test ! -e "$T/stats"
}

# Each export has its own numbers.
several() {
	printf '%s none\n' "one $T/plain" "two $T/disk" >"$T/exports"
	start_serve several --exports "$T/exports" --metrics "$T/stats" || return
	ok "several: a client of one" nbdsh --uri "$(uri several two)" -c 'h.pread(512, 0)'
	ok "several: asked" scrape "$T/several.told" --unix-socket "$T/stats" http://localhost/metrics
	is "several: it is counted there" \
		"$(told "$T/several.told" 'ndio_requests_total{export="two",kind="read"}')" 1
	is "several: and not elsewhere" \
		"$(told "$T/several.told" 'ndio_requests_total{export="one",kind="read"}')" 0
	ok "several: ends" stop_server several
}

# ---- by a file ----

by_file() {
	(umask 077 && exec "$NDIO_BUILD/ndio-serve" --socket "$T/file.sock" --metrics "$T/disk.prom" \
		--key-file "$T/pass" --run "
			until grep -q ndio_build_info $T/disk.prom; do sleep 0.02; done
			cp $T/disk.prom $T/first.prom
			nbdcopy --flush -- $T/plain '$(uri file)'
			for i in \$(seq 600); do
				! cmp -s $T/disk.prom $T/first.prom || sleep 0.1
			done
			cp $T/disk.prom $T/next.prom
			nbdcopy --flush -- $T/plain '$(uri file)'" "$T/disk") >"$T/file.log" 2>&1
	is "a file: written" $? 0
	is "a file: and anew, while it serves" \
		"$(told "$T/next.prom" "ndio_bytes_total{export=\"$T/disk\",kind=\"write\"}")" 65536
	is "a file: anybody may read it" "$(stat -c %a "$T/disk.prom")" 644
	is "a file: the end has what came last" \
		"$(told "$T/disk.prom" "ndio_bytes_total{export=\"$T/disk\",kind=\"write\"}")" 131072
	ok "a file: nothing else is left" test ! -e "$T/disk.prom.new"
	ok "a file that can't be written" refuses "$T/none/x.prom.new: No such file or directory" \
		--metrics "$T/none/x.prom"
	for where in localhost "" stats.prom; do
		ok "'$where' is no place" refuses "$where: neither HOST:PORT nor a path, which has a slash" \
			--metrics "$where"
	done
	ok "no port" refuses "localhost:: not HOST:PORT" --metrics localhost:
	ok "a port that there isn't" refuses "127.0.0.1:65536: not HOST:PORT" --metrics 65536
}

# ---- by TLS ----

by_tls() {
	"$ndio" psk "$T/keys.psk" alice >"$T/psk.out" 2>&1
	start_serve tls --tls-psk "$T/keys.psk" --metrics "$T/tls.stats" --read-only "$T/plain" || return
	ok "TLS: a client" "$ndio" copy "nbds+unix://alice@/?socket=$T/tls.sock&tls-psk-file=$T/keys.psk" \
		"$T/copy"
	not nbdinfo "$(uri tls)" >"$T/nbdinfo" 2>&1
	/usr/bin/python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"garbage" * 100)
while s.recv(1000): pass' "$T/tls.sock" 2>/dev/null
	ok "TLS: asked" scrape "$T/tls.told" --unix-socket "$T/tls.stats" http://localhost/metrics
	like "TLS: the cipher" "$(grep ^ndio_tls_connections_total "$T/tls.told")" \
		"listen=\"$T/tls.sock\",version=\"TLSv1.3\",cipher=\"TLS_[A-Z0-9_]*\"} [1-9]"
	ok "TLS: who sends garbage is counted" \
		test "$(told "$T/tls.told" "ndio_handshakes_failed_total{listen=\"$T/tls.sock\"}")" -ge 1
	ok "TLS: ends" stop_server tls
}

# ---- the plugin, and a gateway whose server goes away ----

plugin() {
	start_nbdkit disk "$NDIO_PLUGIN" "$T/disk" keyfile="$T/pass" metrics=:0 || return
	ok "plugin: a client" py disk "$work"
	ok "plugin: it is gone" gone "$(tcp disk)"
	ok "plugin: asked" scrape "$T/plugin.told" "$(tcp disk)"
	counts "plugin" "$T/plugin.told" "$T/disk" 3
	ok "plugin: ends" stop_server disk
	ok "plugin: what can't be had is told before it goes into the background" \
		refused "metrics: $T/none/x: can't listen: No such file" "$T/disk" metrics="$T/none/x"
}

# of_gate SAMPLE: its value now.
of_gate() {
	scrape "$T/gate.told" --unix-socket "$T/gate.stats" http://localhost/metrics &&
		told "$T/gate.told" "$1{export=\"$(uri inner)\"}"
}

becomes() { # SAMPLE VALUE
	local deadline=$((SECONDS + 60))

	until [ "$(of_gate "$1")" = "$2" ]; do
		[ $SECONDS -lt $deadline ] || return
		sleep 0.02
	done
}

kill_inner() {
	kill -KILL "${server_pids[inner]}"
	wait "${server_pids[inner]}" 2>/dev/null
	unset "server_pids[inner]"
}

gateway() { # NAME, and how it is started
	local name=$1

	start_serve inner "$T/disk" || return
	"${@:2}" || return
	ok "$name: a write" py gate 'h.pwrite(b"z" * 65536, 0)'
	ok "$name: it isn't flushed" test "$(of_gate ndio_unflushed_bytes)" -ge 65536
	is "$name: its server is there" "$(of_gate ndio_waiting)" 0
	kill_inner
	ok "$name: its server is away" becomes ndio_waiting 1
	is "$name: and hasn't come back" "$(of_gate ndio_reconnects_total)" 0
	start_serve inner "$T/disk" || return
	ok "$name: it is back" becomes ndio_reconnects_total 1
	is "$name: nobody waits" "$(of_gate ndio_waiting)" 0
	ok "$name: a flush" py gate 'h.flush()'
	ok "$name: nothing is kept then" becomes ndio_unflushed_bytes 0
	ok "$name: ends" stop_server gate
	ok "$name: its socket is removed" test ! -e "$T/gate.stats"
	stop_server inner
}

random "$T/plain" 65536
over_tcp
over_unix
several
by_file
by_tls
plugin
gateway "gateway by nbdkit" start_nbdkit gate "$NDIO_PLUGIN" uri="$(uri inner)" keyfile="$T/pass" \
	metrics="$T/gate.stats"
gateway "gateway by ndio serve" start_serve gate --key-file "$T/pass" --metrics "$T/gate.stats" \
	"$(uri inner)"
all_valid
done_testing
