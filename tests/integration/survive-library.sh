#!/bin/bash
# A disk survives its server, by the library: it is killed and started again, forgets what wasn't
# flushed, is stopped, its disk stalls, the network holds back what old connections sent, and a link goes
# down. Nothing fails, nothing is lost, no block goes back to what it was.
#
# SURVIVE=COUNT: how many faults of each kind, for each transport. FAULTS="cut lose": of these alone.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/tls.sh
. "$root/tests/lib/tls.sh"
# shellcheck source=../lib/survive.sh
. "$root/tests/lib/survive.sh"

make_psk "$psk" alice
for transport in tcp tls; do
	survives_all library $transport "${SURVIVE:-10}"
done
[ "$nbdkit_failures" = 0 ] || diag "nbdkit ended by its own assertion $nbdkit_failures times"
done_testing
