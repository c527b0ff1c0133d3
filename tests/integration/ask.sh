#!/bin/bash
# ask=FD, and --ask of ndio serve: another program is asked for the passphrase when the header has been
# checked, and again while none opens it, all with one connection to the disk.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"

make_small || exit 1
pass=$(cat "$T/pass")
one="nbd+unix:///?socket=$T/one.sock"
export SERVER=

# Answers with the packets ANSWER, of which "end" hangs up; and prints what it is asked and, at the
# end, what the server says: nbdkit with our plugin, or SERVER, which has it as an option.
cat >"$T/answer.py" <<'PYTHON'
import os, socket, subprocess, sys

preload, plugin, disk, *answers = sys.argv[1:]
kind = getattr(socket, os.environ.get("KIND", "SOCK_SEQPACKET"))
ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
program = os.environ.get("SERVER")
command = ["nbdkit", "-U", "-", plugin, disk, "ask=%d" % theirs.fileno()]
if program:
    command = [program, "--socket", "serve.sock", "--ask=%d" % theirs.fileno(), disk]
server = subprocess.Popen(
    command + ["--run", "nbdinfo --size $uri"],
    pass_fds=[theirs.fileno()], env=dict(os.environ, LD_PRELOAD=preload),
    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
theirs.close()
for answer in answers:
    why = ours.recv(4096)
    print("asked:", repr(why.decode()))
    if answer == "end":
        ours.close()
        break
    ours.send(answer.encode())
else:
    print("at last:", ours.recv(4096))
print(server.communicate(timeout=60)[0])
sys.exit(server.returncode)
PYTHON

# asked NAME REGEX ANSWER...: of a server that ends with its first client.
asked() {
	local said disk=uri=$one

	[ -z "$SERVER" ] || disk=$one
	start_server one qemu-nbd --socket "$T/one.sock" --pid-file "$T/one.pid" -f raw "$T/disk"
	said=$(cd "$T" && python3 "$T/answer.py" "$NDIO_PRELOAD" "$NDIO_PLUGIN" "$disk" "${@:3}" 2>&1)
	like "$1" "$said" "$2"
	wait "${server_pids[one]}"
	is "$1: the one-shot server ends" $? 0
	unset "server_pids[one]"
}

why='[^'$'\n'"]*/one.sock: no key slot opens with this passphrase"
served="at last: b''.*"$'\n'"1048576"
asked "the right one" "^asked: '\\\\n'"$'\n'"$served" "$pass"$'\n'
asked "wrong ones before" "^asked: '\\\\n'"$'\n'"asked: '$why\\\\n'"$'\n'"asked: '.*with an empty passphrase\\\\n'"$'\n'"$served" \
	wrong$'\n' $'\n' "$pass"$'\n'
asked "none" "nbdkit: error: ask=[0-9]+: no passphrase came" end
asked "a wrong one, and then none" "nbdkit: error: $why" wrong$'\n' end
asked "without a newline" "nbdkit: error: ask=[0-9]+: no newline behind" "$pass"
asked "too long" "nbdkit: error: ask=[0-9]+: a passphrase has at most 4095 bytes" \
	"$(head -c 4096 /dev/zero | tr '\0' x)"$'\n'
asked "the longest" "asked: '$why" "$(head -c 4095 /dev/zero | tr '\0' x)"$'\n' "$pass"$'\n'

truncate -s 1M "$T/empty"
said=$(python3 "$T/answer.py" "$NDIO_PRELOAD" "$NDIO_PLUGIN" "$T/empty" 2>&1)
like "not LUKS: nothing is asked" "$said" "^at last: b''.*not a LUKS volume"

said=$(KIND=SOCK_STREAM python3 "$T/answer.py" "$NDIO_PRELOAD" "$NDIO_PLUGIN" "$T/disk" 2>&1)
like "another kind of socket" "$said" "ask=[0-9]+: not a socket of type SOCK_SEQPACKET"

# ---- ndio serve ----

SERVER=$NDIO_BUILD/ndio-serve
refuses_ask() { # REGEX ARG...
	local said status

	said=$(timeout 30 "$SERVER" --socket "$T/x.sock" "${@:2}" "$T/disk" 2>&1)
	status=$?
	[ "$status" = 2 ] && [[ $said =~ $1 ]] && return
	diag "status $status: $said"
	return 1
}

asked "ndio serve: a wrong one before" "^asked: '\\\\n'"$'\n'"asked: '$why\\\\n'"$'\n'"$served" wrong$'\n' "$pass"$'\n'
asked "ndio serve: none" "ndio serve: --ask: no passphrase came" end
ok "ndio serve: no socket" refuses_ask "--ask: .*on non-socket" --ask 9 9<"$T/pass"
said=$(KIND=SOCK_STREAM python3 "$T/answer.py" "" "" "$T/disk" 2>&1)
like "ndio serve: another kind of socket" "$said" "ndio serve: --ask: not a socket of type SOCK_SEQPACKET"
ok "ndio serve: standard input" refuses_ask "--ask: must be above 2" --ask 0
ok "ndio serve: another key" refuses_ask "--ask, or --key-file or --key-fd" --key-file "$T/pass" --ask 9
ok "ndio serve: a part of it" refuses_ask "--keyfile-offset" --keyfile-size 1 --ask 9
ok "ndio serve: two disks" refuses_ask "--ask is for one disk" --ask 9 "$T/empty"

SERVER=

# ---- what is no socket ----

refused() { # REGEX PARAMETER...
	fails "nbdkit: error: .*$1" env LD_PRELOAD="$NDIO_PRELOAD" nbdkit -U - "$NDIO_PLUGIN" \
		"$T/disk" "${@:2}"
}
ok "no socket" refused "ask=9: .*on non-socket" ask=9 9<"$T/pass"
ok "standard input" refused "ask=0: must be above 2" ask=0
ok "not open" refused "ask=77: Bad file" ask=77
ok "no number" refused "ask" ask=x
ok "another key" refused "only one" keyfile="$T/pass" ask=9
done_testing
