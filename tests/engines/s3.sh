#!/bin/bash
# A disk in S3, that of Ceph's own gateway, behind nbdkit, as doc/engines.md has it: made, filled and read;
# and served, while S3 goes away and comes back. S3 has ciphertext alone.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"
. "$root/tests/lib/document.sh"
. "$root/tests/lib/engines.sh"
. "$root/tests/lib/ceph.sh"

# objects: all that is in the bucket, one after the other.
objects() {
	rados -p default.rgw.buckets.data ls >names &&
		while read -r name; do rados -p default.rgw.buckets.data get "$name" - || return; done <names
}

writes() { # BYTE
	timeout 100 qemu-io -f raw -c "write -P $1 3M 100k" -c flush "$(uri disk)"
}

reads() {
	timeout 100 qemu-io -f raw -r -c "read -P $1 3M 100k" "$(uri disk)"
}

# Each 64 KiB are a request of their own: little is written here, and LUKS1's header is small.
head -c 512K image.raw >small.raw
yes "$nobody_reads" | head -c 512K >>small.raw
mv small.raw image.raw

must "a small Ceph" start_ceph
must "with S3" start_s3
must "a disk in it: a volume, filled, and read" step s3 "s|http://s3.example|$s3|; s|64M|8M|; s|ndio format|& --type luks1|"
ok "every byte is right" same_back
must "a gateway" step s3-serve
ok "writes" writes 1

kill_server radosgw
writes 2 >writes.out 2>&1 &
writer=$!
ok "S3 is away: nbdkit tries again" soon grep -qi 'could not connect to the endpoint' s3.log
ok "S3 is back" start_radosgw
ok "the write that waited goes on" wait $writer
ok "what it wrote is there" reads 2
ok "the gateway ends well" stop_server disk

objects >objects.all
is "the bucket can be read" $? 0
ok "it has an object for each 64 KiB that were written" test "$(wc -l <names)" -ge 16
ok "it has ciphertext alone" not grep -qaF "$nobody_reads" objects.all
done_testing
