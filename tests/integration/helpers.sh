#!/bin/bash
# What several cores encrypt of one large write is what others read, who use one; and what those
# have written is what several cores decrypt.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
ndio=$NDIO_BUILD/ndio
first=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//') # of the cores that we may use

stat_of() { # COUNTER: as the server printed it at its end
	sed -n "s/^ndio\.stats\.$1=//p" "$T/disk.log"
}

start_disk() { # COMMAND... that starts the server
	door_command --foreground --exit-with-parent --unix "$T/disk.sock" --pidfile "$T/disk.pid" \
		-D ndio.stats=1 "$disk" passphrase=+"$T/pass"
	start_server disk "$@" env LD_PRELOAD="$NDIO_PRELOAD" "${door[@]}"
}

# written VERSION COMMAND...: a new volume.
written() {
	disk=$T/luks$1
	make_luks "luks$1" "$disk" 96M && start_disk "${@:2}" &&
		nbdcopy --request-size=1048576 "$T/plain" "$(uri disk)" && stop_server disk
}

# read_back COMMAND...: with the same server, from what it wrote.
read_back() {
	start_disk "$@" && nbdcopy --request-size=1048576 "$(uri disk)" "$T/copy" && stop_server disk &&
		cmp --bytes="$(stat -c %s "$T/plain")" "$T/plain" "$T/copy"
}

# By our own client, which has no helpers.
is_plain() {
	"$ndio" copy --src-key-file "$T/pass" "$disk" "$T/copy" &&
		cmp --bytes="$(stat -c %s "$T/plain")" "$T/plain" "$T/copy"
}

qemu_says_so() {
	start_qemu_nbd qemu --object "secret,id=key,file=$T/pass" --read-only --image-opts \
		"driver=luks,key-secret=key,file.driver=file,file.filename=$disk" &&
		nbdcopy "$(uri qemu)" "$T/copy" && stop_server qemu &&
		cmp --bytes="$(stat -c %s "$T/plain")" "$T/plain" "$T/copy"
}

dd if=/dev/urandom of="$T/plain" bs=1M count=64 status=none
helped() { # NAME
	[ "$DOOR" = nbdkit ] || return # which tells no counters
	if [ "$(env -u OMP_NUM_THREADS nproc)" -ge 2 ]; then
		ok "$1: helpers did a part" test "$(stat_of helped)" -gt 0
	else
		skip "there is one core" 1
	fi
}

for version in 1 2; do
	ok "LUKS$version is written" written $version
	helped "LUKS$version"
	ok "LUKS$version is read" read_back
	helped "LUKS$version"
	ok "LUKS$version: our client reads the same" is_plain
	[ $version = 2 ] || ok "LUKS1: and so does qemu" qemu_says_so
done
ok "it is written on one core, too" written 1 taskset -c "$first"
[ "$DOOR" = serve ] || is "without help" "$(stat_of helped)" 0
ok "and read" read_back taskset -c "$first"
[ "$DOOR" = serve ] || is "without help" "$(stat_of helped)" 0
ok "our client reads the same" is_plain

done_testing
