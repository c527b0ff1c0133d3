#!/bin/bash
# No limit of the system's ends a command or a server without a message, or has it say what isn't so:
# the size of files, descriptors, memory, threads, locked memory, a /proc that isn't there.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
# shellcheck source=../lib/command.sh
. "$root/tests/lib/command.sh"

disk=$T/disk
make_luks2 "$T/good" 64M
cp --sparse=always "$T/good" "$disk"
yes "nothing that anybody recognizes: random bytes may be" 2>/dev/null | head -c 4096 >"$T/source"

# limited LIMIT... -- COMMAND...: limits as prlimit takes them.
limited() {
	local limits=()

	while [ "$1" != -- ]; do
		limits+=("--$1")
		shift
	done
	shift
	prlimit "${limits[@]}" "$@"
}

# ends_well LIMIT ARGUMENT...: ndio succeeds, or fails with a message of its own that isn't a lie.
ends_well() {
	local limit=$1 said status

	shift
	said=$(limited "$limit" -- timeout 60 "$ndio" "$@" 2>&1 >/dev/null </dev/null)
	status=$?
	[[ $said != *damaged* && $said != *"not a LUKS"* ]] || status=lie
	[ "$status" = 0 ] || { [ "$status" = 1 ] && [[ $said = *ndio:\ * ]]; } ||
		{ [ "$status" = 127 ] && [[ $said = *"shared libraries"* ]]; } || {
		echo "$limit: status $status: $said"
		return 1
	}
}

all_end_well() { # LIMIT
	local limit=$1

	rm -f "$T/out" "$T/new.luks"
	ends_well "$limit" info "$disk" && ends_well "$limit" info --key-file "$T/pass" "$disk" &&
		ends_well "$limit" key list "$disk" &&
		ends_well "$limit" key change "${cheap[@]}" --key-file "$T/pass" \
			--new-key-file "$T/pass" "$disk" &&
		ends_well "$limit" copy --src-key-file "$T/pass" "$disk" "$T/out" &&
		ends_well "$limit" copy --dst-key-file "$T/pass" "$T/source" "$disk" &&
		ends_well "$limit" format "${cheap[@]}" --size 40M --key-file "$T/pass" "$T/new.luks"
}

echo "# the size of files"
small=fsize=$((20 << 20))
ok "below the volume's size: info" limited $small -- "$ndio" info --key-file "$T/pass" "$disk"
ok "key" limited $small -- "$ndio" key add "${cheap[@]}" --key-file "$T/pass" \
	--new-key-file "$T/new" "$disk"
like "copy" "$(limited $small -- "$ndio" copy --src-key-file "$T/pass" "$disk" "$T/out" 2>&1)" \
	"$T/out: .*File too large"
cp --sparse=always "$T/good" "$T/served"
limits=(prlimit "--$small")
ok "the plugin" start_server disk "${limits[@]}" env LD_PRELOAD="$NDIO_PRELOAD" nbdkit --foreground \
	--unix "$T/disk.sock" --pidfile "$T/disk.pid" "$NDIO_PLUGIN" "$T/served" keyfile="$T/pass"
# Data start at 16 MiB: what is up to 4 MiB can be written.
ok "a write beyond is the client's error" py disk "
h.pwrite(data(65536), 0)
try:
    h.pwrite(data(65536), 30 << 20)
    assert False, 'it was written'
except nbd.Error as e:
    assert e.errno in ('EFBIG', 'ENOSPC', 'EIO', 'EINVAL'), e.errno
same(h.pread(65536, 0), data(65536))"
ok "and the server goes on" stop_server disk
ok "too small for the header: info" fails "limit on the size of files" limited fsize=4096 -- \
	"$ndio" info "$disk"
for bytes in 0 4096 $((1 << 20)) $((17 << 20)); do
	ok "$bytes bytes" all_end_well fsize=$bytes
done

# ---- a disk that is longer than files may be: not a file of this process, so it isn't concerned ----

# signature KIND FILE: of what says where it lies, or how large its disk is.
signature() {
	python3 - "$@" <<-'PYTHON'
		import os, struct, sys, zlib
		kind, path = sys.argv[1:]
		size = os.path.getsize(path)
		disk = open(path, "r+b")
		def put(at, what):
		    disk.seek(at)
		    disk.write(what)
		def nilfs2(at):
		    head = lambda crc: struct.pack("<IHHHHIIIQQQ", 2, 0, 0x3434, 1024, 0, 7, crc, 2, 7, size,
		                                   1).ljust(1024, b"\0")
		    put(at, head(zlib.crc32(head(0), ~7 & 0xffffffff) ^ 0xffffffff))
		def md0(order):
		    put(size - size % 65536 - 65536,
		        struct.pack(order + "9I", 0xa92b4efc, 0, 90, 0, 0, 1, 1, 1, (size >> 10) - 128))
		def md1(at):
		    put(at, struct.pack("<II136xQ", 0xa92b4efc, 1, at >> 9))
		def ddf(order, at):
		    put(at, struct.pack(order + "I92xQ", 0xde11de11, at >> 9))
		def partitions():
		    put(446, struct.pack("<B3sB3sII48xH", 0, b"", 0xee, b"", 1, size // 512 - 1, 0xaa55))
		{ "md 0.90": lambda: md0("<"), "md 0.90, big-endian": lambda: md0(">"),
		  "md 1.0": lambda: md1(size - size % 4096 - 8192),
		  "DDF": lambda: ddf(">", size - 512), "DDF before 128 KiB": lambda: ddf("<", size - 257 * 512),
		  "nilfs2": lambda: nilfs2(1024), "nilfs2, the second": lambda: nilfs2(size - 4096),
		  "a GPT": partitions,
		  "JFS": lambda: put(32768, b"JFS1".ljust(64, b"\1")) }[kind]()
	PYTHON
}

# A server of a file of 32 MiB and a bit, with that in it.
serve() { # COMMAND...: makes it, when the file's name is added
	rm -f "$T/long"
	truncate -s $(((32 << 20) + 9 * 512)) "$T/long"
	"$@" "$T/long" >/dev/null 2>&1
	start_stock long file "$T/long"
}

# What there is as ndio copy tells it, with limits or without.
found() { # COMMAND...
	"$@" "$ndio" copy "$T/source" "$(uri long)" 2>&1 </dev/null | sed 's/; without a terminal.*//'
}

short=fsize=$((3 << 20))
for type in luks2 luks1; do
	serve true
	ok "$type on an export: format" limited $small -- "$ndio" format "${cheap[@]}" --type $type \
		--key-file "$T/pass" "$(uri long)"
	ok "copy to it" limited $small -- "$ndio" copy --dst-key-file "$T/pass" "$T/source" "$(uri long)"
	rm -f "$T/out"
	ok "from it" limited fsize=$((31 << 20)) -- "$ndio" copy --src-key-file "$T/pass" "$(uri long)" \
		"$T/out"
	ok "what came" cmp -n 4096 "$T/out" "$T/source"
	ok "no copy to it without the key" fails "it holds a LUKS volume.* --overwrite is needed" \
		limited $small -- "$ndio" copy "$T/source" "$(uri long)"
	ok "nor another format" fails "it holds a LUKS volume.* --yes is needed" \
		limited $small -- "$ndio" format --key-file "$T/pass" "$(uri long)"
	ok "its server ends" stop_server long
	ok "cryptsetup opens it" opens "$T/long" "$T/pass"
done

truncate -s 40M "$T/existing"
ok "a file: format" limited $small -- "$ndio" format "${cheap[@]}" --key-file "$T/pass" "$T/existing"
ok "cryptsetup opens it" opens "$T/existing" "$T/pass"
head -c 6M /dev/urandom >"$T/large"
like "but nothing is written beyond" "$(limited $small -- "$ndio" copy --dst-key-file "$T/pass" \
	"$T/large" "$T/existing" 2>&1)" "$T/existing: .*File too large"

truncate -s 0 "$T/long"
truncate -s 32M "$T/long"
if [ "$(id -u)" = 0 ] && loop=$(losetup --find --show "$T/long" 2>/dev/null); then
	ok "a block device: format" limited $small -- "$ndio" format "${cheap[@]}" \
		--key-file "$T/pass" "$loop"
	ok "copy to its end" limited $small -- "$ndio" copy --dst-key-file "$T/pass" "$T/large" "$loop"
	losetup --detach "$loop"
else
	skip "needs root and loop devices" 2
fi

for kind in "md 0.90" "md 0.90, big-endian" "md 1.0" DDF "DDF before 128 KiB" nilfs2 \
	"nilfs2, the second" "a GPT"; do
	serve signature "$kind"
	there=$(found)
	like "$kind is found" "$there" "it holds [a-z]"
	is "and below the limit" "$(found limited $short --)" "$there"
	ok "format removes it" limited $small -- "$ndio" format "${cheap[@]}" --yes \
		--key-file "$T/pass" "$(uri long)"
	ok "its server ends" stop_server long
	is "it is LUKS and nothing else" \
		"$(wipefs --parsable --noheadings --output TYPE "$T/long" | sort -u)" crypto_LUKS
done

serve signature JFS
like "what libblkid only looks for on larger disks isn't written over unasked" \
	"$(found limited $short --)" "it holds data that can't be recognized below the limit"
ok "its server ends" stop_server long

serve mkswap
there=$(found)
like "(a swap area is found)" "$there" "it holds swap"
is "and below the limit" "$(found limited $short --)" "$there"
ok "which is too low to tell" fails "looking what is there: the limit on the size of files" \
	limited fsize=$((2 << 20)) -- "$ndio" copy "$T/source" "$(uri long)"
ok "unless it may go" limited fsize=0 -- "$ndio" copy --overwrite "$T/source" "$(uri long)"
ok "its server ends" stop_server long
ok "and has the copy" cmp -n 4096 "$T/source" "$T/long"

serve true
ok "a limit with no room for a header: format" fails "no room for its LUKS header: the limit on" \
	limited $short -- "$ndio" format --key-file "$T/pass" "$(uri long)"
ok "its server ends" stop_server long
ok "a detached header" limited fsize=$((17 << 20)) -- "$ndio" format "${cheap[@]}" \
	--key-file "$T/pass" --header "$T/head" "$T/long"
ok "cryptsetup opens it" opens "$T/long" "$T/pass" --header "$T/head"

echo "# descriptors"
for count in 5 8 10 11 12 13 14 16 20; do
	ok "$count descriptors" all_end_well nofile=$count
done

echo "# memory"
if [ -z "$NDIO_SANITIZE" ]; then
	for mib in 70 100 150; do
		ok "$mib MiB" all_end_well as=$((mib << 20))
	done
else
	skip "a sanitizer needs more address space" 3
fi

echo "# no /proc"
if [ -n "$NDIO_SANITIZE" ]; then
	skip "a sanitizer needs /proc" 2
elif unshare --mount true 2>/dev/null; then
	ok "info" not unshare --mount sh -c 'mount -t tmpfs none /proc && exec "$@" 2>"$0"' "$T/said" \
		"$ndio" info "$disk"
	like "which says so" "$(cat "$T/said")" "^ndio: $disk: .*is /proc mounted"
else
	skip "only root can take /proc away" 2
fi
done_testing
