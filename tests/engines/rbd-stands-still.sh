#!/bin/bash
# Ceph stands still: too few OSDs, no room, no monitor. What doc/engines.md says of it: with long times
# requests wait, as Ceph has it, and go on; with short ones they end, with words.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/document.sh"
. "$root/tests/lib/engines.sh"
. "$root/tests/lib/ceph.sh"

# Through the gateway, flushed.
writes() { # BYTE [PLACE=8M]
	timeout 100 qemu-io -f raw -c "write -P $1 ${2:-8M} 64k" -c flush "$(uri disk)"
}

reads() { # BYTE [PLACE=8M]
	timeout 100 qemu-io -f raw -r -c "read -P $1 ${2:-8M} 64k" "$(uri disk)"
}

# Something that is to wait, and then to succeed.
begin() { # COMMAND...
	"$@" >"$T/begun.out" 2>&1 &
	begun=$!
}

still_waits() {
	kill -0 $begun
}

ends() { # STATUS
	wait $begun
	[ $? = "$1" ] || { cat "$T/begun.out"; return 1; }
}

kill_two() {
	kill_server osd1
	kill_server osd2
	soon is_up 1
}

start_two() {
	start_osd 1
	start_osd 2
	soon is_up 3
}

ratios() { # FULL BACKFILLFULL NEARFULL
	ceph osd set-full-ratio "$1" && ceph osd set-backfillfull-ratio "$2" &&
		ceph osd set-nearfull-ratio "$3"
}

health_says() {
	timeout 10 ceph health detail | grep -q "$1"
}

must "a small Ceph" start_ceph
must "with a pool" make_pool disks
must "an image, and its server" step rbd
must "a volume, filled" step rbd-volume
must "a gateway with long times" step rbd-serve
ok "writes" writes 1

# Too few OSDs.
impatient=(--answer-timeout 2 --reconnect 4)
must "two of three OSDs are killed" kill_two
begin writes 2
ok "what begins then ends by its own time" fails "rbd.sock: .*has not answered for 2 seconds" \
	"$ndio" info "${impatient[@]:0:2}" "$(uri rbd)"
ok "so does a copy" fails "rbd.sock: .*has not answered for 2 seconds" \
	"$ndio" copy "${impatient[@]}" --dst-key-file pass image.raw "$(uri rbd)"
ok "a client of the patient gateway waits" still_waits
ok "the OSDs come back" start_two
ok "it goes on" ends 0
ok "what it wrote is there" reads 2

# The same in the middle of what has begun.
start_server hasty "$NDIO_BUILD/ndio-serve" --socket "$T/hasty.sock" --pid-file "$T/hasty.pid" \
	--key-file pass "${impatient[@]}" "$(uri rbd)"
must "two of three OSDs are killed" kill_two
ok "an impatient gateway's client has an error" not timeout 100 qemu-io -f raw -c "write -P 3 12M 64k" \
	-c flush "$(uri hasty)"
ok "its log says that the connection is lost" grep -q \
	"the connection is lost (the server has not answered for 2 seconds)" hasty.log
ok "and then that it has waited long enough" grep -q "the server has been away for 4 seconds" hasty.log
ok "the OSDs come back" start_two
ok "the impatient gateway is started anew" stop_server hasty
ok "the patient one has lost nothing" reads 2

# Room.
ok "nearly full" ratios 0.95 0.90 0.0001
ok "the cluster says so" soon health_says OSD_NEARFULL
ok "writes go on" writes 4
ok "full" ratios 0.0003 0.0002 0.0001
ok "the cluster says so" soon health_says POOL_FULL
begin writes 5 16M
ok "reads go on, beside a write that waits" reads 4
ok "which does" still_waits
ok "room again" ratios 0.95 0.90 0.85
ok "it goes on" ends 0
ok "what it wrote is there" reads 5 16M

# The monitor.
kill_server mon
ok "without a monitor writes go on" writes 6
ok "and reads" reads 6
start_mon
ok "it is back" soon is_up 3
ok "writes go on" writes 7

is "the patient gateway has seen nothing" "$(grep -c 'lost\|away' disk.log)" 0
ok "it ends well" stop_server disk
ok "what was copied before all this is there" ndio copy --src-key-file pass "$(uri rbd)" again.raw
ok "every byte that wasn't written" cmp -n $((8 << 20)) image.raw again.raw
ok "qemu-nbd ends well" stop_server rbd
done_testing
