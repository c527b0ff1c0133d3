#!/bin/bash
# What a session does when connections are lost, over many seeds of a simulated network and server;
# and that the simulator would see it if it were wrong: ten bugs, planted one at a time, are found.
. "$(dirname "$0")/../lib/lib.sh"

sim=$NDIO_BUILD/tests/sim/sim

# Sanitizers take their time.
seeds=100000
[ -z "$NDIO_SANITIZE" ] || seeds=10000

ok "$seeds seeds: nothing is lost, reverted, told twice or hangs" "$sim" -j "$(nproc)" 1 $seeds

"$sim" -t 7 1 >"$T/once"
"$sim" -t 7 1 >"$T/again"
sed -i '/seeds, .* a second/d' "$T/once" "$T/again"
ok "a seed does the same again, to the byte" cmp "$T/once" "$T/again"
like "and says what it does" "$(cat "$T/once")" "epoch 1 sends"

is_found() {
	! "$sim-bug-$1" -j "$(nproc)" 1 10000 >"$T/bug" 2>&1 && grep -qE '^seed [0-9]+: |^an assertion' "$T/bug"
}

bug=0
for name in "no fence" "no log" "replay in the wrong order" "a trim replayed" \
	"a flush that covers too much" "the log freed when a flush is sent" \
	"one connection left in the old epoch" "completion twice" "verifier ignored" \
	"a write let through before the replay has ended"; do
	bug=$((bug + 1))
	ok "found within 10,000 seeds: $name" is_found $bug
done
done_testing
