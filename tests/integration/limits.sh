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
head -c 4096 /dev/urandom >"$T/source"

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
