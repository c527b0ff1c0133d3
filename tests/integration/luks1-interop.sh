#!/bin/bash
# A LUKS1 volume is the same to the plugin, to qemu and to nbdkit's luks filter: what one
# writes the others read.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"

SIZE=$((3 * 1024 * 1024))
secret=secret,id=pass,file=$T/pass

# make_by_qemu FILE OPTIONS: holds $T/plain. Nearly all of its time, qemu measures how fast key
# derivation is; it gives up when it measures nothing.
make_by_qemu() {
	local try

	for try in 1 2 3 4 5; do
		rm -f "$1"
		qemu-img convert -f raw -O luks --object "$secret" \
			-o "key-secret=pass,iter-time=$((try * 10)),$2" "$T/plain" "$1" && return
	done
	return 1
}

# by_qemu FILE OUTPUT
by_qemu() {
	qemu-img convert --object "$secret" -O raw \
		--image-opts "driver=luks,key-secret=pass,file.filename=$1" "$2"
}

read_by_qemu() {
	by_qemu "$1" "$T/back" && cmp "$T/back" "$2"
}

read_by_filter() {
	start_nbdkit filter file --filter=luks "$1" passphrase=+"$T/pass" || return
	holds filter "$2"
}

# Whole sectors, parts of them, and a long run. The same goes to a plain file.
write_by_plugin() {
	py disk "
with open('$1', 'r+b') as plain:
    for i, (offset, count) in enumerate([(0, 512), (4096, 65536), (70001, 1), (100001, 3333),
                                         (999 * 512 - 7, 14), (1 << 20, 1500000),
                                         ($SIZE - 513, 513)]):
        h.pwrite(data(count, i), offset)
        plain.seek(offset)
        plain.write(data(count, i))
h.flush()"
}

interop() { # NUMBER NAME [NO-FILTER]
	local disk=$T/$1.luks plain=$T/$1.plain

	wait "${makers[$1]}"
	result $? "$2: qemu makes a volume" || { diag "$(cat "$T/$1.log")"; return; }
	cp "$T/plain" "$plain"
	ok "$2: the plugin opens it" start_door disk "$disk" \
		passphrase=+"$T/pass" || return
	is "$2: its size is what qemu made" "$(nbdinfo --size "$(uri disk)")" "$SIZE"
	ok "$2: the plugin reads what qemu wrote" holds disk "$plain"
	ok "$2: the plugin writes" write_by_plugin "$plain"
	ok "$2: the plugin reads what it wrote" holds disk "$plain"
	ok "$2: the server ends well" stop_server disk
	ok "$2: qemu reads what the plugin wrote" read_by_qemu "$disk" "$plain"
	if [ -n "${3:-}" ]; then
		skip "$3"
	else
		ok "$2: nbdkit's luks filter reads it" read_by_filter "$disk" "$plain"
		stop_server filter
	fi
}

random "$T/plain" $SIZE
# shellcheck disable=SC2054
variants=(
	cipher-alg=aes-256
	cipher-alg=aes-128
	cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256
	cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=sha512
	cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha1
)
makers=()
for i in "${!variants[@]}"; do
	make_by_qemu "$T/$i.luks" "${variants[i]}" >"$T/$i.log" 2>&1 &
	makers[i]=$!
done
interop 0 "aes-256 xts-plain64"
interop 1 "aes-128 xts-plain64"
interop 2 "aes-256 cbc-essiv" "nbdkit's luks filter knows no essiv"
interop 3 "aes-128 cbc-plain64, sha512"
interop 4 "aes-256 cbc-plain, sha1"
done_testing
