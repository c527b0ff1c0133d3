#!/bin/bash
# A disk in a qcow2 image with snapshots, behind qemu-nbd, as doc/engines.md has it: what an older
# snapshot holds, decrypted, is what the disk was then, whatever is written afterwards.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/document.sh"
. "$root/tests/lib/engines.sh"

size=$(stat -c %s image.raw)
head -c "$size" /dev/urandom >second.raw
head -c "$size" /dev/urandom >third.raw

# write_served FILE: by a client of the gateway, which knows nothing of all this.
write_served() {
	qemu-img convert -n -f raw -O raw "$1" "$(uri disk)"
}

# holds_now FILE: the gateway serves it.
holds_now() {
	rm -f now.raw
	"$ndio" copy "$(uri disk)" now.raw && same_now "$1"
}

same_now() {
	cmp -n "$size" "$1" now.raw
}

# While a snapshot is made the gateway waits, and so do its clients.
begin_waiting() {
	write_served third.raw >waiting.out 2>&1 &
	waiting=$!
	soon grep -q 'the connection is lost' disk.log && kill -0 $waiting
}

go_on() {
	wait "$waiting" || { cat waiting.out; return 1; }
}

must "an image, and its server" step qcow2
must "a volume, filled, and read" step qcow2-volume
ok "every byte is right" same_back
must "a gateway" step qcow2-serve
ok "serves it" holds_now image.raw
must "its server ends, an internal snapshot, its server again" step qcow2-internal
ok "the gateway goes on" write_served second.raw
ok "with what is written" holds_now second.raw
must "the snapshot is read, too" step qcow2-look
ok "it is what the disk was" same_back monday.raw
ok "byte for byte" not cmp -n "$size" second.raw monday.raw

ok "its server ends" stop_server qcow2
ok "a client that writes waits" begin_waiting
must "an external snapshot, its server again" step qcow2-external 's/^pid=.*/:/'
ok "the client goes on" go_on
ok "with what is written" holds_now third.raw
ok "the gateway ends well" stop_server disk
ok "and its server" stop_server qcow2
ok "the older file is what the disk was" bash -c \
	'qemu-img convert -f qcow2 -O raw disk.qcow2 older.luks && rm -f now.raw &&
		"$1" copy --src-key-file pass older.luks now.raw' - "$ndio"
ok "every byte" same_now second.raw
ok "no file has plaintext" not grep -laF "$nobody_reads" disk.qcow2 disk-2.qcow2
ok "the images are sound" bash -c 'qemu-img check -q disk.qcow2 && qemu-img check -q disk-2.qcow2'
is "every step of the page is run by a test" "$(document_steps | sort)" \
	"$(grep -ohE '\bstep (qcow2|rbd|s3)[a-z0-9-]*' "$root"/tests/{engines,integration}/*.sh | cut -c6- | sort -u)"
is "every command of the page is in a step" "$(document_loose)" ""
done_testing
