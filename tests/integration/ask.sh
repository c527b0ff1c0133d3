#!/bin/bash
# ask=FD: the plugin asks another program for the passphrase when it has checked the header, and
# again while none opens it, all with one connection to the disk.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"

make_small || exit 1
pass=$(cat "$T/pass")
one="nbd+unix:///?socket=$T/one.sock"

# Answers with the packets ANSWER, of which "end" hangs up; and prints what it is asked and, at the
# end, what nbdkit says.
cat >"$T/answer.py" <<'PYTHON'
import os, socket, subprocess, sys

preload, plugin, disk, *answers = sys.argv[1:]
kind = getattr(socket, os.environ.get("KIND", "SOCK_SEQPACKET"))
ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
server = subprocess.Popen(
    ["nbdkit", "-U", "-", plugin, disk, "ask=%d" % theirs.fileno(), "--run",
     "nbdinfo --size $uri"],
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
	local said

	start_server one qemu-nbd --socket "$T/one.sock" --pid-file "$T/one.pid" -f raw "$T/disk"
	said=$(python3 "$T/answer.py" "$NDIO_PRELOAD" "$NDIO_PLUGIN" "uri=$one" "${@:3}" 2>&1)
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
