#!/bin/bash
# The journal of dm-integrity is the kernel's own: of disks that were taken away from it while it
# wrote, and from ours, our code and the kernel make the same, byte for byte.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

export GUEST_MODULES="dm-integrity algif_aead algif_skcipher gcm ctr authenc ghash-generic"
tool=$NDIO_BUILD/tests/images/integrity-journal
offset=16777216 # of the segment

boot 1 cryptsetup
ok "a key and some data" guest "printf %s '$(cat "$T/pass")' >/run/pass &&
	head -c 4m /dev/urandom >/run/random"

# open_in_guest NAME DEVICE
open_in_guest() {
	guest "attach ${ports[$1]} $2 -C 1 && cryptsetup open --key-file /run/pass $2 $1"
}

close_in_guest() {
	guest "cryptsetup close $1 && detach $2"
}

# write BLOCK-SIZE COUNT SEEK [OFLAG]: as a command for the guest, past its page cache.
write() {
	echo "dd if=/run/random of=/dev/mapper/disk bs=$1 count=$2 seek=$3 conv=fsync oflag=direct"
}

# snapshot FILE: the disk as it is at this moment, with whatever the guest is about.
snapshot() {
	freeze "${server_pids[disk]}" && cp --sparse=always "$T/disk" "$1" &&
		kill -CONT "${server_pids[disk]}"
}

# same_as_kernel NAME FILE: what the kernel makes of it, opening and closing it.
same_as_kernel() {
	local name=$1 file=$2

	cp --sparse=always "$file" "$T/kernel" && cp --sparse=always "$file" "$T/ours"
	ok "$name: our code carries it out" "$tool" replay "$T/ours" $offset
	ok "$name: the guest opens it" serve_stock copy file "$T/kernel" || return
	ok "$name: and closes it" guest "attach ${ports[copy]} /dev/nbd1 -C 1 &&
		cryptsetup open --key-file /run/pass /dev/nbd1 copy && cryptsetup close copy &&
		detach /dev/nbd1"
	stop_server copy
	ok "$name: data and tags are the same" cmp -i "$areas" "$T/ours" "$T/kernel"
}

# Was there something to be carried out?
changed() { # FILE
	! cmp -s -i "$areas" "$1" "$T/ours"
}

shown() { # FILE
	"$tool" show "$1" $offset
}

from_the_kernel() { # NAME
	local name=$1 i

	ok "$name: is opened" open_in_guest disk /dev/nbd0 || return
	ok "$name: is written and flushed, a little" guest "$(write 4096 20 11) && $(write 4096 7 25)"
	ok "$name: is taken away" snapshot "$T/flushed"
	like "$name: there is a journal to be carried out" "$(shown "$T/flushed")" \
		" take=[1-9]"
	guest "while :; do
			$(write 4096 5 40)
			$(write 65536 9 3)
			$(write 4096 3 42)
		done >/dev/null 2>&1 & echo \$! >/run/writer"
	for i in 1 2; do
		guest "sleep 1.$i"
		ok "$name: is taken away while it is written" snapshot "$T/busy$i"
	done
	guest "kill \$(cat /run/writer); wait"
	ok "$name: is closed" close_in_guest disk /dev/nbd0
	like "$name: nothing is left to be done then" "$(shown "$T/disk")" " take=0 erase=0 "
	same_as_kernel "$name, flushed" "$T/flushed"
	ok "$name: which is not what was there before" changed "$T/flushed"
	for i in 1 2; do
		same_as_kernel "$name, busy, $i" "$T/busy$i"
	done
}

# The kernel goes on where our code left it; and carries out what our code left in its journal.
from_ours() { # NAME
	local name=$1 i

	cp --sparse=always "$T/flushed" "$T/disk"
	ok "$name: our code carries it out and closes it" "$tool" replay "$T/disk" $offset
	like "$name: nothing is left to be done then" "$(shown "$T/disk")" " take=0 erase=0 "
	ok "$name: is served again" serve_stock disk file "$T/disk"
	ok "$name: the guest opens it" open_in_guest disk /dev/nbd0
	ok "$name: reads, writes and reads" guest "dd if=/dev/mapper/disk of=/run/was bs=4096 \
			skip=11 count=14 && cmp -n 57344 /run/was /run/random && $(write 4096 500 3) &&
		forget_caches &&
		dd if=/dev/mapper/disk bs=4096 skip=3 count=500 | cmp -n 2048000 - /run/random"
	ok "$name: and closes it" close_in_guest disk /dev/nbd0
	stop_server disk
	for i in 70 2600; do
		cp --sparse=always "$T/disk" "$T/cut"
		ok "$name: our code writes, until write $i" "$tool" write "$T/cut" $offset 7 "$i"
		same_as_kernel "$name, write $i" "$T/cut"
		ok "$name: which is not what was there before" changed "$T/cut"
	done
}

damaged() { # NAME
	local name=$1

	cp --sparse=always "$T/flushed" "$T/disk"
	printf 'what' | dd of="$T/disk" bs=1 seek=$((offset + 4096 + 512 * 20 + 508)) conv=notrunc \
		2>/dev/null
	is "$name: a commit id that fits none is refused" \
		"$("$tool" replay "$T/disk" $offset 2>&1)" "integrity-journal: $T/disk: integrity: the \
journal is damaged: section 0, sector 20"
	ok "$name: it is served" serve_stock disk file "$T/disk"
	ok "$name: the guest opens it" open_in_guest disk /dev/nbd0
	ok "$name: and fails each request" guest "! dd if=/dev/mapper/disk of=/dev/null count=1 bs=4096"
	ok "$name: and closes it" close_in_guest disk /dev/nbd0
	stop_server disk
}

# kind NAME SECTOR-SIZE CRYPTSETUP-OPTION...
kind() {
	local name=$1 sector=$2

	shift 2
	rm -f "$T/disk"
	truncate -s 160M "$T/disk"
	ok "$name: is served" serve_stock disk file "$T/disk" || return
	ok "$name: the guest formats it" guest "attach ${ports[disk]} /dev/nbd0 -C 1 &&
		cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
			--key-file /run/pass --sector-size $sector --integrity-no-wipe $* /dev/nbd0 &&
		detach /dev/nbd0" || return
	areas=$((offset + $("$tool" areas "$T/disk" $offset)))
	from_the_kernel "$name"
	stop_server disk
	from_ours "$name"
	damaged "$name"
}

kind "HMAC, sectors of 4096" 4096 --cipher aes-xts-plain64 --key-size 512 --integrity hmac-sha256
kind "HMAC, sectors of 512" 512 --cipher aes-xts-plain64 --key-size 512 --integrity hmac-sha256
kind "AES-GCM" 4096 --cipher aes-gcm-random --integrity aead
done_testing
