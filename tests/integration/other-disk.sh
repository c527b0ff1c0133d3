#!/bin/bash
# A server that goes away, and another disk, or no disk, behind its address: nothing is written to
# it. What is the same disk, though its key slots have changed, goes on.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/nbd.sh"
. "$(dirname "$0")/../lib/command.sh"
. "$(dirname "$0")/../lib/tls.sh"

# LeakSanitizer (clang 14) crashes by itself in nbdkit where a thread that dialled has ended.
export ASAN_OPTIONS=${ASAN_OPTIONS-}:detect_leaks=0

# await_said SERVER REGEX
await_said() {
	local deadline=$((SECONDS + 60))

	until said "$@" >/dev/null; do
		[ $SECONDS -lt $deadline ] || said "$@" || return
		sleep 0.02
	done
}

kill_disk() {
	{
		kill -KILL "${server_pids[disk]}"
		wait "${server_pids[disk]}"
	} 2>/dev/null
	unset "server_pids[disk]"
}

# begin NAME ARG...: a gateway with these parameters, and a write that no flush covers.
begin() {
	local name=$1

	shift
	start_stock disk file "$T/disk" && start_door gate uri="$(uri disk)" \
		reconnect=60 answer=1 connections=2 "$@" || return
	ok "$name: a write" py gate 'h.pwrite(data(65536), 1 << 20)'
	kill_disk
	ok "$name: the loss is told" await_said gate "the connection is lost \(.*\): waiting for the"
}

# refused NAME FILE WORDS [SERVER-ARG...]: this instead of the disk.
refused() {
	local name=$1 file=$2 words=$3 before

	shift 3
	before=$(sha256sum <"$file")
	start_stock disk "$@" file "$file"
	ok "$name: is told" await_said gate "$words"
	ok "$name: a write fails" py_within 30 gate 'fails("EIO", h.pwrite, b"x" * 4096, 0)'
	ok "$name: and a flush" py_within 30 gate 'fails("EIO", h.flush)'
	is "$name: nothing was written to it" "$(sha256sum <"$file")" "$before"
	ok "$name: the gateway ends" stop_server gate
	stop_server disk
}

stale="another disk now, or has lost what it had acknowledged"
make_luks2 "$T/volume" 20M

# ---- without a key: by what the server says ----

truncate -s 16M "$T/disk" "$T/larger"
truncate -s 8M "$T/smaller"
truncate -s +1M "$T/larger"
begin "a smaller disk" && refused "a smaller disk" "$T/smaller" "$stale"
begin "a larger disk" && refused "a larger disk" "$T/larger" "$stale"
begin "a read-only disk" && refused "a read-only disk" "$T/disk" "$stale" --readonly
begin "an encrypted disk" && refused "an encrypted disk" "$T/volume" "$stale"

# ---- with one: by the header ----

# luks NAME MAKE: the volume that is written to, and another one of the same size.
luks() {
	local name=$1 make=$2

	"$make" "$T/disk" 20M
	cp "$T/disk" "$T/same"
	"$make" "$T/other" 20M
	begin "$name, another header" keyfile="$T/pass" &&
		refused "$name, another header" "$T/other" "$stale"
	# The same UUID, as a disk that was formatted anew over the old one may have.
	cryptsetup luksUUID --batch-mode --uuid "$(cryptsetup luksUUID "$T/disk")" "$T/other"
	begin "$name, another key" keyfile="$T/pass" &&
		refused "$name, another key" "$T/other" "$stale"

	begin "$name, a key more" keyfile="$T/pass" || return
	printf 'another' >"$T/second"
	ok "$name: a key is added meanwhile" cryptsetup luksAddKey --batch-mode --key-file "$T/pass" \
		--pbkdf-force-iterations "$iterations" "${pbkdf[@]}" "$T/disk" "$T/second"
	start_stock disk file "$T/disk"
	ok "$name, a key more: goes on" await_said gate "the server is back after"
	ok "$name: what was written is there" py_within 30 gate \
		'same(h.pread(65536, 1 << 20), data(65536)); h.flush()'
	ok "$name: the gateway ends" stop_server gate
	ok "$name: the server ends" stop_server disk
	ok "$name: it is on the disk" start_door direct "$T/disk" \
		keyfile="$T/second"
	ok "$name: whole" py direct 'same(h.pread(65536, 1 << 20), data(65536))'
	stop_server direct
}

iterations=4 pbkdf=(--pbkdf argon2id --pbkdf-memory 32 --pbkdf-parallel 1)
luks LUKS2 make_luks2
iterations=1000 pbkdf=()
luks LUKS1 make_luks1

# ---- another disk while a passphrase is awaited ----

# What counts is what was opened, not who is there when the first request comes.
cat >"$T/answer.py" <<'PYTHON'
import os, socket, subprocess, sys, time

preload, plugin, folder, *parameters = sys.argv[1:]
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server = subprocess.Popen(
    ["nbdkit", "-U", "-", plugin, *parameters, "ask=%d" % theirs.fileno(), "--run",
     "echo served; qemu-io -f raw -c 'write -P 7 0 4096' $uri"],
    pass_fds=[theirs.fileno()], env=dict(os.environ, LD_PRELOAD=preload),
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
theirs.close()
ours.recv(4096)
open(folder + "/asked", "w").close()
for _ in range(600):
    if os.path.exists(folder + "/go"):
        break
    time.sleep(0.1)
ours.send(open(folder + "/pass", "rb").read() + b"\n")
print(server.communicate(timeout=60)[0])
sys.exit(server.returncode)
PYTHON

# meanwhile NAME WORDS PARAMETER...
meanwhile() {
	local name=$1 words=$2 before pid deadline=$((SECONDS + 60))

	shift 2
	rm -f "$T/asked" "$T/go"
	start_stock disk file "$T/disk"
	before=$(sha256sum <"$T/other")
	python3 "$T/answer.py" "$NDIO_PRELOAD" "$NDIO_PLUGIN" "$T" uri="$(uri disk)" "$@" \
		>"$T/said" 2>&1 &
	pid=$!
	until [ -e "$T/asked" ] || [ $SECONDS -gt $deadline ]; do
		sleep 0.02
	done
	kill_disk
	start_stock disk file "$T/other"
	: >"$T/go"
	wait $pid
	like "$name: refused" "$(cat "$T/said")" "$words"
	is "$name: nothing was written to it" "$(sha256sum <"$T/other")" "$before"
	stop_server disk
}

make_luks2 "$T/disk" 20M
make_luks2 "$T/other" 20M
meanwhile "another disk, four connections" "disk.sock: .*another"
meanwhile "another disk, one connection" "disk.sock: .*another" connections=1
meanwhile "another disk, without reconnect" "disk.sock: .*(another|lost)" reconnect=0
meanwhile "another disk, one connection, without reconnect" "disk.sock: .*(another|lost)" \
	reconnect=0 connections=1

# ---- a server that doesn't know the key any more ----

make_psk "$psk" alice
make_psk "$bad_psk" alice
truncate -s 16M "$T/disk"
start_stock disk --tls=require --tls-psk="$psk" file "$T/disk"
start_door gate uri="$(with_psk disk)" reconnect=60
ok "by TLS: a write" py gate 'h.pwrite(data(65536), 0)'
kill_disk
start_stock disk --tls=require --tls-psk="$psk" file "$T/disk"
ok "by TLS: goes on" await_said gate "the server is back after"
kill_disk
start_stock disk --tls=require --tls-psk="$bad_psk" file "$T/disk"
ok "another key: given up at once" await_said gate "the server is given up: .*key"
ok "another key: a read fails" py_within 30 gate 'fails("EIO", h.pread, 4096, 0)'
stop_server gate
stop_server disk

# ---- nobody comes back ----

truncate -s 16M "$T/disk"
start_stock disk file "$T/disk" && start_door gate uri="$(uri disk)" reconnect=1
ok "a write" py gate 'h.pwrite(data(65536), 0)'
kill_disk
ok "nobody: a read fails after a second" py_within 30 gate 'fails("EIO", h.pread, 4096, 0)'
ok "nobody: why is told" said gate "has been away for 1 second"
start_stock disk file "$T/disk"
ok "late, with something unflushed: refused" await_said gate "$stale"
ok "late: a read fails" py_within 30 gate 'fails("EIO", h.pread, 4096, 0)'
stop_server gate
start_door gate uri="$(uri disk)" reconnect=1
ok "a write and a flush" py gate 'h.pwrite(data(65536, 1), 0); h.flush()'
kill_disk
ok "nobody: a read fails" py_within 30 gate 'fails("EIO", h.pread, 4096, 0)'
start_stock disk file "$T/disk"
ok "late, with nothing unflushed: goes on" await_said gate "the server is back after"
ok "late: reads" py_within 30 gate 'same(h.pread(65536, 0), data(65536, 1))'
stop_server gate
stop_server disk
done_testing
