#!/bin/bash
# Volumes with integrity: what was written is read, by many writers of neighbouring sectors too; what was
# changed behind our back is an error there and nowhere else, and the log says where. tests/vm/integrity.sh
# has the kernel's word on the format.
# shellcheck source=../lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=../lib/nbd.sh
. "$root/tests/lib/nbd.sh"
. "$root/tests/lib/command.sh"

disk=$T/disk key=passphrase=+$T/pass
# Sectors of 4096, tags of 28 bytes, one section of journal: where tags and data begin.
START=16777216 TAGS=$((16777216 + (8 + 264) * 512)) DATA=$((16777216 + (8 + 264 + 224) * 512))

format() {
	rm -f "$disk"
	"$ndio" format --key-file "$T/pass" "${cheap[@]}" "$@" "$disk"
}

# Turns a byte of the file into another.
change() { # OFFSET
	local byte

	byte=$(od -An -tu1 -j "$1" -N 1 "$disk")
	printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$disk" bs=1 seek="$1" conv=notrunc status=none
}

# On $disk, which is served as "disk": the errors of reads of so many first sectors.
errors_of() { # COUNT SECTOR-SIZE
	nbdsh -u "$(uri disk)" -c "
for n in range($1):
    try:
        h.pread($2, n * $2)
    except nbd.Error as error:
        print(n, error.errno)"
}

copied() { # NAME FORMAT-OPTION...
	local name=$1 size

	shift
	ok "$name: is made" format --size 36M "$@" || return
	ok "$name: cryptsetup opens it" opens "$disk" "$T/pass"
	ok "$name: all of it can be read, as zeroes" "$ndio" copy --src-key-file "$T/pass" "$disk" \
		"$T/zero"
	size=$(stat -c %s "$T/zero")
	ok "$name: and nothing else" cmp -n "$size" "$T/zero" /dev/zero
	random "$T/data" "$size"
	ok "$name: a copy is made into it" "$ndio" copy --dst-key-file "$T/pass" "$T/data" "$disk"
	rm "$T/zero"
	ok "$name: a server has that" start_door disk "$disk" "$key"
	ok "$name: every byte" holds disk "$T/data"
	random "$T/data" "$size"
	ok "$name: and takes something else, without a flush" nbdcopy "$T/data" "$(uri disk)"
	ok "$name: it ends" stop_server disk
	ok "$name: which is there afterwards" "$ndio" copy --src-key-file "$T/pass" "$disk" "$T/back"
	ok "$name: every byte" cmp "$T/data" "$T/back"
	rm "$T/back"
}

# Each writes every eighth sector, and a part of it again: their tags are side by side.
neighbours() {
	ok "neighbours: a disk" format --size 20M --integrity aead --sector-size 512 --integrity-no-wipe
	ok "neighbours: a server" start_door disk "$disk" "$key" integrity-cache=1M
	cat >"$T/neighbours.py" <<-'END'
		import nbd, sys, threading
		uri, check, count = sys.argv[1], sys.argv[2] == "check", 2048
		def content(n):
		    return bytes([n % 251]) * 100 + bytes([n % 241]) * 412
		def work(which):
		    h = nbd.NBD()
		    h.connect_uri(uri)
		    for n in range(which, count, 8):
		        if check:
		            assert h.pread(512, n * 512) == content(n), n
		            continue
		        h.pwrite(bytes([n % 241]) * 512, n * 512)
		        h.pwrite(bytes([n % 251]) * 100, n * 512, nbd.CMD_FLAG_FUA if n % 64 == 0 else 0)
		    if not check:
		        h.flush()
		    done.append(which)
		done = []
		threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
		[thread.start() for thread in threads]
		[thread.join() for thread in threads]
		sys.exit(len(done) != 8)
	END
	ok "neighbours: eight write" /usr/bin/python3 "$T/neighbours.py" "$(uri disk)" write
	ok "neighbours: and read that" /usr/bin/python3 "$T/neighbours.py" "$(uri disk)" check
	# What was flushed needs nobody to end well.
	kill -KILL "${server_pids[disk]}"
	wait "${server_pids[disk]}" 2>/dev/null
	unset "server_pids[disk]"
	ok "neighbours: another server, after a crash" start_door disk "$disk" "$key"
	ok "neighbours: all of it is there" /usr/bin/python3 "$T/neighbours.py" "$(uri disk)" check
	ok "neighbours: it ends" stop_server disk
}

changed() {
	local n

	ok "changed: a disk" format --size 20M --integrity aead
	change $((DATA + 3 * 4096 + 17)) # a sector
	change $((TAGS + 5 * 28 + 2))    # what authenticates
	change $((TAGS + 7 * 28 + 20))   # an IV
	for n in 9 10; do
		dd if="$disk" of="$T/$n" bs=4096 skip=$((DATA / 4096 + n)) count=1 status=none
		dd if="$disk" of="$T/tag.$n" bs=1 skip=$((TAGS + n * 28)) count=28 status=none
	done
	# Two are swapped, with their tags.
	for n in 9 10; do
		dd if="$T/$((19 - n))" of="$disk" bs=4096 seek=$((DATA / 4096 + n)) conv=notrunc status=none
		dd if="$T/tag.$((19 - n))" of="$disk" bs=1 seek=$((TAGS + n * 28)) conv=notrunc status=none
	done
	ok "changed: a server" start_door disk "$disk" "$key"
	is "changed: these can't be read, and all others can" "$(errors_of 20 4096)" \
		$'3 EIO\n5 EIO\n7 EIO\n9 EIO\n10 EIO'
	ok "changed: the log says where" grep -q "$disk: integrity: byte 12288, which is at \
$((DATA + 12288)) here, isn't what was written there" "$T/disk.log"
	ok "changed: and what failed" grep -qE "read.* 4096 bytes at 12288: its integrity is broken" \
		"$T/disk.log"
	ok "changed: a part can't be written" not nbdsh -u "$(uri disk)" -c 'h.pwrite(b"x" * 512, 12288)'
	ok "changed: the whole can" nbdsh -u "$(uri disk)" -c 'h.pwrite(b"x" * 4096, 12288)' \
		-c 'assert h.pread(4096, 12288) == b"x" * 4096'
	ok "changed: it ends" stop_server disk
	ok "changed: ndio copy fails" not "$ndio" copy --src-key-file "$T/pass" "$disk" null:
	ok "changed: and says so" grep -q "its integrity is broken" \
		<("$ndio" copy --src-key-file "$T/pass" "$disk" null: 2>&1)
}

never_written() {
	ok "never written: a disk" format --size 20M --integrity hmac-sha256 --integrity-no-wipe
	ok "never written: a server" start_door disk "$disk" "$key" || return
	is "never written: can't be read" "$(errors_of 1 4096)" "0 EIO"
	ok "never written: and that is said" grep -q "was never written" "$T/disk.log"
	ok "never written: can be written" nbdsh -u "$(uri disk)" -c 'h.pwrite(b"x" * 8192, 4096)' \
		-c 'assert h.pread(8192, 4096) == b"x" * 8192'
	ok "never written: nothing is trimmed" nbdsh -u "$(uri disk)" -c 'assert not h.can_trim()'
	ok "never written: it ends" stop_server disk
}

# What a kernel leaves that is cut off: a section of the journal with sector 5 as it was to be, and as it
# was before in its place.
left_journal() {
	cat >"$T/leave.py" <<-'END'
		import struct, sys
		start, tags, data = map(int, sys.argv[2:])
		def sectors(block):
		    return [block[at:at + 512] for at in range(0, 4096, 512)]
		with open(sys.argv[1], "r+b") as disk:
		    def at(place, length):
		        disk.seek(place)
		        return disk.read(length)
		    block, tag = at(data + 5 * 4096, 4096), at(tags + 5 * 28, 28)
		    for place, length in ((data + 5 * 4096, 4096), (tags + 5 * 28, 28)):
		        disk.seek(place)
		        disk.write(bytes(length))
		    entry = struct.pack("<Q", 5 * 8) + b"".join(s[504:] for s in sectors(block)) + tag
		    meta = [bytearray(b"\xff" * 504) for _ in range(8)]
		    meta[0][:len(entry)] = entry
		    section = [bytes(m) for m in meta] + [s[:504] for s in sectors(block)]
		    section += [bytes(504)] * (264 - len(section))
		    disk.seek(start + 4096)
		    for n, sector in enumerate(section):
		        disk.write(sector + struct.pack("<Q", 0x2222222222222222 ^ n))
	END
	ok "left in the journal: a disk" format --size 20M --integrity aead
	ok "left in the journal: a server" start_door disk "$disk" "$key"
	ok "left in the journal: a sector" nbdsh -u "$(uri disk)" -c 'h.pwrite(b"new " * 1024, 5 * 4096)'
	ok "left in the journal: it ends" stop_server disk
	python3 "$T/leave.py" "$disk" $START $TAGS $DATA
	cp "$disk" "$T/left"
	ok "left in the journal: who only reads finds it there" "$ndio" copy --src-key-file "$T/pass" "$disk" \
		"$T/over"
	ok "left in the journal: the sector that is new" cmp -n 4096 "$T/over" \
		<(yes 'new ' | tr -d '\n') $((5 * 4096)) 0
	ok "left in the journal: and leaves it so" cmp "$disk" "$T/left"
	# Nor who doesn't mean to.
	ok "left in the journal: a server that doesn't know the key" start_nbdkit raw "$NDIO_PLUGIN" "$disk"
	ok "left in the journal: nor is it, who only reads from there" "$ndio" copy --src-key-file "$T/pass" \
		"$(uri raw)" "$T/over.raw"
	ok "left in the journal: and finds the same" cmp "$T/over" "$T/over.raw"
	ok "left in the journal: that server ends" stop_server raw
	ok "left in the journal: a server that takes little at a time" takes_little 4096
	ok "left in the journal: nor is it there" "$ndio" copy --src-key-file "$T/pass" "$(uri little)" \
		"$T/over.little"
	ok "left in the journal: and the same is found" cmp "$T/over" "$T/over.little"
	ok "left in the journal: it ends, too" stop_server little
	ok "left in the journal: and nothing was written" cmp "$disk" "$T/left"
	ok "left in the journal: a server carries it out" start_door disk "$disk" "$key" || return
	ok "left in the journal: the sector is new" nbdsh -u "$(uri disk)" \
		-c 'assert h.pread(4096, 5 * 4096) == b"new " * 1024'
	is "left in the journal: all others are as they were" "$(errors_of 20 4096)" ""
	ok "left in the journal: it is what was read before" holds disk "$T/over"
	ok "left in the journal: it ends" stop_server disk
	ok "left in the journal: nothing is" "$ndio" copy --src-key-file "$T/pass" "$disk" null:
}

# Less than a chunk of tags, and than a section of the journal.
takes_little() { # BYTES
	start_stock little --filter=blocksize-policy file "$disk" blocksize-minimum=512 \
		blocksize-preferred=4096 "blocksize-maximum=$1" blocksize-error-policy=error
}

little_at_a_time() { # NAME FORMAT-OPTION...
	local name=$1 size bytes trust=()

	shift
	[[ " $* " != *" --trust "* ]] || trust=("$T/little.trust")
	for bytes in 4096 16384; do
		rm -f "$T/little.trust"
		ok "$name, $bytes: is made" format --size 36M "$@" || return
		ok "$name, $bytes: its server" takes_little "$bytes"
		size=$("$ndio" info --size --key-file "$T/pass" "${trust[@]/#/--trust=}" "$disk")
		random "$T/data" "$size"
		ok "$name, $bytes: a copy into it" "$ndio" copy --dst-key-file "$T/pass" \
			"${trust[@]/#/--dst-trust=}" "$T/data" "$(uri little)"
		rm -f "$T/back"
		ok "$name, $bytes: and out of it" "$ndio" copy --src-key-file "$T/pass" \
			"${trust[@]/#/--src-trust=}" "$(uri little)" "$T/back"
		ok "$name, $bytes: every byte" cmp "$T/data" "$T/back"
		ok "$name, $bytes: it ends" stop_server little
		ok "$name, $bytes: the disk has them, too" "$ndio" compare \
			--dst-key-file "$T/pass" "${trust[@]/#/--dst-trust=}" "$T/data" "$disk"
	done
	rm -f "$T/data" "$T/back"
}

refusals() {
	ok "refused: a disk" format --size 20M --integrity aead --integrity-no-journal --integrity-no-wipe
	ok "its header has the flag" grep -q no-journal <(cryptsetup luksDump "$disk")
	ok "info shows it" grep -qE "integrity: +aead" <("$ndio" info "$disk")
	ok "info shows its tags" grep -qE "tags: +28 bytes" <("$ndio" info "$disk")
	ok "info knows the size without the key" grep -q '"payload_size":3940352' \
		<("$ndio" info --json "$disk" | tr -d ' ')
	cp "$disk" "$T/whole"
	printf X | dd of="$disk" bs=1 seek=$START conv=notrunc status=none
	ok "no superblock" fails "$disk: integrity: there is no superblock" "$ndio" copy \
		--src-key-file "$T/pass" "$disk" null:
	cp "$T/whole" "$disk"
	printf '\14' | dd of="$disk" bs=1 seek=$((START + 24)) conv=notrunc status=none
	ok "a bitmap" fails "$disk: integrity: a bitmap in place of a journal: not supported" "$ndio" \
		copy --src-key-file "$T/pass" "$disk" null:
	cp "$T/whole" "$disk"
	printf '\40' | dd of="$disk" bs=1 seek=$((START + 10)) conv=notrunc status=none
	ok "tags of another length" fails "$disk: integrity: the superblock has .* with tags of 32" \
		"$ndio" copy --src-key-file "$T/pass" "$disk" null:
	ok "LUKS1 has none" usage "$ndio" format --type luks1 --integrity aead "$T/new"
	ok "another cipher" usage "$ndio" format --integrity aead --cipher aes-xts-plain64 "$T/new"
	ok "the size of a key" usage "$ndio" format --integrity aead --key-size 256 "$T/new"
	ok "another kind" usage "$ndio" format --integrity crc32c "$T/new"
	ok "a wish without integrity" usage "$ndio" format --integrity-no-wipe "$T/new"
}

copied "AES-GCM" --integrity aead
copied "HMAC, sectors of 512" --integrity hmac-sha256 --sector-size 512
neighbours
changed
never_written
left_journal
little_at_a_time "little, a journal" --integrity aead
little_at_a_time "little, directly" --integrity aead --integrity-no-journal
little_at_a_time "little, a journal and trust" --integrity aead --trust "$T/little.trust"
little_at_a_time "little, directly and trust" --integrity aead --integrity-no-journal --trust "$T/little.trust"
refusals
done_testing
