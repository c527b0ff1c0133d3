#!/bin/bash
# A start that finds no memory ends, with a message, and so does a command that nbdkit --run runs
# against it: before the fork and after it, where nbdkit itself would let it wait for ever.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "a sanitizer has its own malloc"
failing=$NDIO_BUILD/tests/preload/fail-allocation.so

# start AT [NAME=VALUE...]: of an encrypted disk, for a command that asks for its size.
user=(env)
start() {
	rm -f "$T/disk.sock"
	timeout -k 5 60 "${user[@]}" FAIL_AT="$1" "${@:2}" LD_PRELOAD="$failing" nbdkit \
		--unix "$T/disk.sock" "$NDIO_PLUGIN" "$T/luks" passphrase=+"$T/pass" \
		--run 'exec env -u LD_PRELOAD nbdinfo --size "$uri"' >"$T/out" 2>&1
}

# Its status is that of a failure, and it says why; or what couldn't be had wasn't needed.
ends() { # NAME AT [NAME=VALUE...]
	local name=$1 status

	shift
	start "$@"
	status=$?
	if [ $status = 0 ]; then
		like "$name: it serves all the same" "$(cat "$T/out")" "4194304$"
	else
		like "$name: it ends and says why" "status $status: $(cat "$T/out")" \
			"^status 1: .*(no memory|[Mm]emory|annot allocate)"
	fi
}

make_luks2 "$T/luks" 20M
for at in 1 2 3 7 20 60 200; do
	ends "before the fork, at $at" $at
done
for at in 1 2 3 4 6 20 40 100 400 800; do
	ends "after the fork, at $at" $at FAIL_CHILD=1
done
# To who isn't root /proc tells little of a process that has a key.
if [ "$(id -u)" = 0 ]; then
	chmod 1777 "$T"
	chmod 666 "$T/luks"
	chmod 444 "$T/pass"
	install -m 755 "$NDIO_PLUGIN" "$failing" "$T"
	NDIO_PLUGIN=$T/${NDIO_PLUGIN##*/} failing=$T/${failing##*/} user=("${nobody[@]}")
	ends "after the fork, by who isn't root" 1 FAIL_CHILD=1
else
	skip "nobody here is root"
fi
done_testing
