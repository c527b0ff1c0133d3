#!/bin/bash
# The main job on real files, by standard clients: an encrypted disk is made, served, filled
# and read back. `make demo` runs this.
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"
umask 077

MAX_MIB=200 # of files, at most
PORTION=$((16 << 20)) # bytes of the disk that are compressed at a time

W=$(mktemp -d "${TMPDIR:-/var/tmp}/ndio-demo.XXXXXX")
server=

clean_up() {
	local pids

	pids=$(jobs -p)
	# shellcheck disable=SC2086
	[ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
	wait 2>/dev/null || true
	rm -rf "$W"
}
trap clean_up EXIT
trap 'echo "interrupted"; exit 130' INT
trap 'echo "terminated"; exit 143' TERM

fail() {
	echo "FAILED: $1"
	for log in step nbdkit; do
		[ ! -s "$W/$log.log" ] || sed "s/^/  $log: /" "$W/$log.log"
	done
	exit 1
}

# step WHAT COMMAND...: in the background, so that a signal is heard meanwhile. Sets seconds.
step() {
	local what=$1 start=$EPOCHREALTIME

	shift
	"$@" >"$W/step.log" 2>&1 &
	wait $! || fail "$what"
	seconds=$(awk "BEGIN { print $EPOCHREALTIME - $start }")
}

mib() { # BYTES
	echo $(($1 / 1048576))
}

rate() { # BYTES SECONDS
	awk "BEGIN { printf \"%.0f MiB/s\", $1 / 1048576 / $2 }"
}

serve() {
	LD_PRELOAD=${NDIO_PRELOAD:-} exec nbdkit --foreground --exit-with-parent \
		--unix "$W/sock" --pidfile "$W/pid" \
		"$NDIO_PLUGIN" "$W/disk.luks" passphrase=+"$W/passphrase"
}

start_server() {
	local deadline=$((SECONDS + 60))

	serve >"$W/nbdkit.log" 2>&1 </dev/null &
	server=$!
	until [ -s "$W/pid" ]; do
		if ! kill -0 $server 2>/dev/null || [ $SECONDS -gt $deadline ]; then
			fail "starting nbdkit"
		fi
		sleep 0.05
	done
}

stop_server() {
	# nbdkit leaks a connection's memory when it is stopped while it closes the connection.
	[ -z "${NDIO_SANITIZE:-}" ] || sleep 1
	kill $server
	wait $server || fail "stopping nbdkit"
}

# Real files, as many folders as fit, and five lines of text that are known to be in them.
gather() {
	local dir size total=0

	mkdir "$W/tree"
	for dir in /usr/include /usr/share/doc /usr/share/perl /usr/lib/python3 /usr/share/zoneinfo; do
		[ -d "$dir" ] || continue
		size=$(du -sm "$dir" | cut -f 1)
		[ $((total + size)) -le $MAX_MIB ] || continue
		total=$((total + size))
		mkdir -p "$W/tree$dir"
		cp -a "$dir/." "$W/tree$dir"
		echo "$dir" >>"$W/dirs"
	done
	find "$W/tree" -type f -size +8k | sort >"$W/files"
	awk 'NR % 23 == 1' "$W/files" | while read -r file; do
		head -c 4096 "$file" | grep -a -m 1 -E '^[[:print:]]{24,72}$' || true
	done | sort -u | head -n 5 >"$W/strings"
	[ "$(wc -l <"$W/strings")" = 5 ]
}

make_image() { # room for a quarter more
	mke2fs -q -t ext4 -i 8192 -d "$W/tree" "$W/plain.img" \
		"$(($(du -sm "$W/tree" | cut -f 1) * 5 / 4 + 32))M"
}

make_disk() { # 16 MiB are LUKS2's own
	head -c 32 /dev/urandom | base64 -w 0 >"$W/passphrase"
	truncate -s "$((bytes + (16 << 20)))" "$W/disk.luks"
	cryptsetup -q luksFormat --type luks2 "$W/disk.luks" "$W/passphrase"
}

# found FILE: how many of the known lines are in a file.
found() {
	local line count=0

	while read -r line; do
		[ "$(grep -a -c -F -e "$line" "$1")" = 0 ] || count=$((count + 1))
	done <"$W/strings"
	echo "found $count"
}

portion() { # FILE OFFSET BYTES
	dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none
}

# shrunk FILE OFFSET: four portions of a file, compressed, in percent.
shrunk() {
	local i part=$((bytes / 4)) len packed=0 whole=0

	len=$((part < PORTION ? part : PORTION))
	for ((i = 0; i < 4; i++)); do
		whole=$((whole + len))
		packed=$((packed + $(portion "$1" $(($2 + i * part)) $len | gzip -1 | wc -c)))
	done
	echo "shrunk to $((packed * 100 / whole))"
}

step "gathering files" gather
step "making an ext4 image of them" make_image
bytes=$(stat -c %s "$W/plain.img")
echo "image:     ext4, $(mib "$bytes") MiB, $(find "$W/tree" -type f | wc -l) real files ($(paste -s -d ' ' "$W/dirs"))"

step "making a LUKS2 volume" make_disk
echo "disk:      LUKS2, $(cryptsetup luksDump "$W/disk.luks" | awk '$1 == "cipher:" { c = $2 } $1 == "PBKDF:" { p = $2 } END { print c ", " p }')"

start_server
uri="nbd+unix:///?socket=$W/sock"
size=$(nbdinfo --size "$uri") || fail "asking for the size"
echo "export:    nbdkit on a private socket, $(mib "$size") MiB"

step "copying in" nbdcopy --flush "$W/plain.img" "$uri"
echo "copied in: nbdcopy, $(rate "$bytes" "$seconds")"
step "copying out" qemu-img convert -f raw -O raw "$uri" "$W/back.img"
echo "and out:   qemu-img, $(rate "$bytes" "$seconds")"
stop_server

step "comparing what came back" cmp -n "$bytes" "$W/plain.img" "$W/back.img"
echo "compared:  every byte came back"
step "checking the file system that came back" e2fsck -f -n "$W/back.img"
echo "fsck:      clean"

step "looking for known text in the image" found "$W/plain.img"
grep -qx 'found 5' "$W/step.log" || fail "the image has to hold five known lines"
step "looking for known text on the disk" found "$W/disk.luks"
grep -qx 'found 0' "$W/step.log" || fail "the disk holds plaintext"
echo "sealed:    of 5 lines known to be in the files, the image holds 5, the disk 0"
step "compressing the image" shrunk "$W/plain.img" 0
image=$(cut -d ' ' -f 3 "$W/step.log")
step "compressing the disk" shrunk "$W/disk.luks" $((16 << 20))
disk=$(cut -d ' ' -f 3 "$W/step.log")
[ "$disk" -ge 100 ] || fail "the disk's data compress to $disk %"
echo "           gzip makes $image % of the image, and $disk % of the disk"
echo "OK"
