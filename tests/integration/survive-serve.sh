#!/bin/bash
# A disk survives its server, where that is our own and not nbdkit: it fences as the plugin does.
#
# SURVIVE=COUNT: how many faults of each kind, for each transport. FAULTS="cut lose": of these alone.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/tls.sh
. "$root/tests/lib/tls.sh"
# shellcheck source=../lib/survive.sh
. "$root/tests/lib/survive.sh"

make_psk "$psk" alice
DOOR=serve
survives_all library tcp "${SURVIVE:-5}"
survives_all library tls "${SURVIVE:-5}"
done_testing
