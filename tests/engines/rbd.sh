#!/bin/bash
# A disk in Ceph, behind qemu-nbd, as doc/engines.md has it: made, filled and read; and served, while OSDs
# and qemu-nbd are killed and come back. Ceph has ciphertext alone.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/document.sh"
. "$root/tests/lib/engines.sh"
. "$root/tests/lib/ceph.sh"
. "$root/tests/lib/tls.sh"
. "$root/tests/lib/survive.sh"

# osds_have WORDS: in the files of one of them at least.
osds_have() {
	grep -laF "$1" "$T"/ceph/osd?/block
}

# gone_and_back OSD GATEWAY: under load.
gone_and_back() {
	start_load "$2"
	ok "$2: fio writes and verifies" load_goes_on
	kill_server "osd$1"
	ok "$2: an OSD is killed, and the cluster knows it" soon is_up 2
	ok "$2: it goes on" load_goes_on
	start_osd "$1"
	ok "$2: the OSD is back" soon is_up 3
	ok "$2: it goes on" load_goes_on
	ok "$2: all that fio read was right" end_load
}

# qemu-nbd is killed in the middle of whatever it does, and another one takes its place.
another_qemu_nbd() {
	kill_server rbd
	step rbd 's/^rbd create.*/:/'
}

must "a small Ceph" start_ceph
must "with a pool" make_pool disks
must "an image, and its server" step rbd
must "a volume, filled, and read" step rbd-volume
ok "every byte is right" same_back

must "a gateway: ndio serve" step rbd-serve
gone_and_back 1 disk
must "a gateway: nbdkit" step rbd-nbdkit
gone_and_back 2 disk2
ok "it ends well" stop_server disk2

start_registers "$registers" --nbd "$(uri disk)" --start 24M --size 8M
ok "a program that knows what each read may return" goes_on
for round in 1 2 3; do
	mark "qemu-nbd-$round"
	ok "qemu-nbd is killed, and started again" another_qemu_nbd
	up
	ok "it goes on" goes_on
done
ok "no request failed, nothing went back" end_registers
ok "the gateway has told of it" grep -q "the connection is lost" "$T/disk.log"
ok "it ends well" stop_server disk

ok "what was copied is what it was" ndio copy --src-key-file "$T/pass" "$(uri rbd)" "$T/again.raw"
ok "every byte is right" same_back "$T/again.raw"
ok "qemu-nbd ends well" stop_server rbd
ok "the image has a header" bash -c 'rbd export disks/disk - | head -c 17M >"$1" && cryptsetup isLuks "$1"' \
	- "$T/exported"
ok "the OSDs have no plaintext" not osds_have "$nobody_reads"
rbd import --no-progress "$T/image.raw" disks/plain
ok "which would be found" osds_have "$nobody_reads"
done_testing
