#!/bin/bash
# The library while a server goes away and comes back, when memory can't be had: each allocation fails
# in turn, also while it dials and recovers. See tests/allocations/allocations.h for what may come of it.
#
# All are tried that our own code makes. Of those that other libraries make for it, ALLOCATIONS=1: all,
# else one of so many.
. "$(dirname "$0")/../lib/lib.sh"
. "$(dirname "$0")/../lib/tls.sh"
. "$root/tests/lib/command.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "a sanitizer has its own malloc"
allocations=$NDIO_BUILD/tests/allocations/allocations
jobs=24

# in_turn NAME STRIDE ARGUMENT...
in_turn() {
	ok "$1" "$allocations" -j $jobs -s "${ALLOCATIONS:-$2}" "${@:3}"
	diag "$1: $(tail -n 1 "$T/ok.out")"
}

in_turn "a plain disk" 2 "$T/disk%.sock" "nbd+unix:///?socket=$T/disk%.sock"

in_turn "one that isn't waited for" 1 -R "$T/disk%.sock" "nbd+unix:///?socket=$T/disk%.sock"

# -O: libcryptsetup and OpenSSL, where they are set up without memory, may crash, or stay of no use.
make_luks2 "$T/luks" 4M --luks2-metadata-size 16k --luks2-keyslots-size 256k --offset 1024 &>/dev/null
in_turn "an encrypted one" 3 -O -k "$T/pass" -d "$T/luks" "$T/disk%.sock" \
	"nbd+unix:///?socket=$T/disk%.sock"

# What can't be told to the trust file waits for memory: else nothing would be written any more.
tagged() { # NAME FORMAT-OPTION...
	rm -f "$T/tagged" "$T/trust"
	ok "$1: a disk" "$ndio" format --size 18M --integrity aead "${@:2}" --trust "$T/trust" --key-file "$T/pass" \
		"${cheap[@]}" "$T/tagged"
	in_turn "$1" 11 -O -k "$T/pass" -d "$T/tagged" -t "$T/trust" "$T/disk%.sock" \
		"nbd+unix:///?socket=$T/disk%.sock"
}
tagged "one with integrity, a journal and a trust file"
tagged "one with integrity, a trust file and no journal" --integrity-no-journal

make_psk "$psk" alice
for ((job = 0; job < jobs; job++)); do
	start_server "tls$job" "$NDIO_BUILD/tests/servers/tls-server" -u "$T/tls$job.sock" \
		-i "$T/tls$job.pid" -k "$psk" -s 1 "$T/disk$job.sock"
done
in_turn "by TLS" 101 -O "$T/disk%.sock" \
	"nbds+unix://alice@/?socket=$T/tls%.sock&tls-psk-file=$psk"
done_testing
