#!/bin/bash
# ndio key and format over NBD where /run/lock isn't everybody's: the lock is somewhere else, that is
# told, and where there is no place for it, nobody is asked for a passphrase first.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/command.sh"

[ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null || skip_all "needs root"
user=$((100000 + $$))
own=/tmp/ndio-$user
trap 'rm -rf "$own"; unmount_all; clean_up' EXIT
allow_nobody
chmod 644 "$T/pass"
install -m 755 "$ndio" "$T/ndio"

# theirs COMMAND...: as that user, where /run/lock is root's.
theirs() {
	unshare --mount sh -c 'mount -t tmpfs -o mode=755 none /run/lock && exec "$@"' sh \
		"${nobody[@]}" LD_PRELOAD="$nobody_preload" "$@"
}

add() { # [VARIABLE=VALUE...]
	theirs "$@" "$T/ndio" key add --key-file "$T/pass" --new-key-file "$T/new" "${cheap[@]}" \
		"$(uri disk)" 2>&1
}

make_luks2 "$T/disk" 18M
start_stock disk file "$T/disk"
chmod 777 "$T/disk.sock"

like "no /run/lock: a folder of one's own in /tmp" "$(add)" \
	"its lock is in $own, since /run/lock can't be used \(Permission denied\).*key slot 1 added"
is "which is nobody else's" "$(stat -c '%a %u' "$own")" "700 $user"
mkdir "$T/runtime"
chown "$user" "$T/runtime"
like "XDG_RUNTIME_DIR comes first" "$(add XDG_RUNTIME_DIR="$T/runtime")" \
	"its lock is in $T/runtime, .*key slot 2 added"

# Somebody of the same user has it.
exec {held}<"$(echo "$own"/ndio-*)"
flock "$held"
add {held}<&- >"$T/waiting" &
pid=$!
until grep -q "waiting for another program" "$T/waiting" || ! kill -0 $pid 2>/dev/null; do
	sleep 0.02
done
ok "it waits for another one of the same user" grep -q "waiting for another" "$T/waiting"
exec {held}<&-
ok "and goes on" wait $pid

rm -r "$own"
mkdir -m 777 "$own"
like "a folder that others could have made isn't taken" "$(add)" \
	"no place for its lock: /run/lock: Permission denied; $own: it has to be a folder that is only"
chown "$user" "$own"
like "nor one that others may write to" "$(add)" "no place for its lock"
for command in "key add" format; do
	# shellcheck disable=SC2086
	like "$command: it is found out before anything is asked" \
		"$(theirs setsid "$T/ndio" $command "$(uri disk)" 2>&1)" "no place for its lock"
done
rmdir "$own"
stop_server disk
done_testing
