#!/bin/bash
# Hundreds of MiB of an encrypted disk leave nothing of it in the page cache.
. "$(dirname "$0")/../lib/lib.sh"

load=$NDIO_BUILD/tests/clients/load
mib=512
[ -z "$NDIO_SANITIZE" ] || mib=64

case $(stat -f -c %T "$T") in
tmpfs | ramfs) skip_all "files in $T are page cache" ;;
esac
if ! dd if=/dev/zero of="$T/probe" bs=4096 count=1 oflag=direct status=none 2>/dev/null; then
	skip_all "direct I/O is refused in $T"
fi

cached() { # FILE: bytes of it in the page cache
	fincore --bytes --noheadings --output RES "$1" | tr -d ' '
}

# peak FILE COMMAND...: sets most, the most that was seen while the command ran and after it.
peak() {
	local file=$1 pid now

	shift
	most=0 samples=0
	"$@" >"$T/load.log" 2>&1 &
	pid=$!
	while kill -0 $pid 2>/dev/null; do
		now=$(cached "$file")
		[ "$now" -le "$most" ] || most=$now
		samples=$((samples + 1))
		sleep 0.02
	done
	now=$(cached "$file")
	[ "$now" -le "$most" ] || most=$now
	wait $pid || diag "$(cat "$T/load.log")"
}

# through NAME MAX OPTION...: writes and reads all, with at most MAX bytes cached; or, for MAX
# of "many", with a quarter of all at least.
through() {
	local name=$1 max=$2 what percent

	shift 2
	make_luks2 "$T/luks" $((mib + 16))M
	start_door disk "$T/luks" passphrase=+"$T/pass" "$@" || return
	sync "$T/luks"
	dd if="$T/luks" iflag=nocache count=0 status=none
	for what in written read; do
		percent=100
		[ $what = written ] || percent=0
		peak "$T/luks" "$load" -d 8 -s 1048576 -n $mib -w $percent -f "$(uri disk)"
		diag "$name: $mib MiB $what, at most $((most / 1024)) KiB cached in $samples samples"
		if [ "$max" = many ]; then
			ok "$name: what is $what is seen in the page cache" \
				test "$most" -ge $((mib << 18))
		else
			ok "$name: what is $what isn't in the page cache" test "$most" -lt "$max"
		fi
	done
	ok "$name: the server ends cleanly" stop_server disk
	rm "$T/luks"
}

through "direct=on" $((1 << 20)) direct=on
through "direct=off" many direct=off

done_testing
