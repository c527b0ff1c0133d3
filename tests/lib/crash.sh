# A server that remembers every write and flush, for tests of what a crash leaves behind.
# `. tests/lib/lib.sh` and then this.
# shellcheck shell=bash disable=SC2154

# start_recorder NAME IMAGE [NBDKIT-ARG...]: serves IMAGE. Numbered in their order, writes go to
# $T/NAME.log/NUMBER.write.OFFSET as well, flushes are NUMBER.flush. If there is $T/NAME.hook,
# that shell code runs before each call, with its name, count and offset in $1, $3 and $4;
# `exit 1` there makes it fail.
start_recorder() {
	local name=$1 image=$2
	local log=$T/$name.log.d hook="[ ! -e $T/$name.hook ] || . $T/$name.hook"
	local next="set -- \"\$@\"; n=\$(ls $log | wc -l); n=\$(printf %04d \$n)"

	shift 2
	rm -rf "$log" "$T/$name.hook"
	mkdir "$log"
	start_nbdkit "$name" "$@" eval \
		get_size="stat -c %s $image" \
		can_write='exit 0' can_flush='exit 0' can_multi_conn='exit 3' \
		thread_model='echo serialize_all_requests' \
		pread="$hook; dd if=$image bs=1M skip=\$4 count=\$3 iflag=skip_bytes,count_bytes status=none" \
		pwrite="$hook; $next; cat >$log/\$n.write.\$4 &&
			dd of=$image bs=1M seek=\$4 oflag=seek_bytes conv=notrunc status=none \
				if=$log/\$n.write.\$4" \
		flush="$hook; $next; : >$log/\$n.flush"
}

# crash_states NAME BEFORE FOLDER: what a crash could have left of BEFORE while NAME ran, as
# files in FOLDER: after each write; after a part of one, its beginning or its end; and with a
# write that came before others which weren't flushed either.
crash_states() {
	mkdir -p "$3"
	python3 - "$T/$1.log.d" "$2" "$3" <<'PYTHON'
import os, shutil, subprocess, sys

log, before, folder = sys.argv[1:]
count = 0

def apply(image, write):
    offset, data = write
    image.seek(offset)
    image.write(data)

def save(writes):
    global count
    path = os.path.join(folder, "%04d" % count)
    subprocess.check_call(["cp", "--sparse=always", before, path])
    with open(path, "r+b") as image:
        for write in writes:
            apply(image, write)
    count += 1

# The metadata of LUKS2 have a checksum in their first 4096 bytes over all that follows.
def parts(write):
    offset, data = write
    for cut in {4096, len(data) // 2 // 512 * 512}:
        if 0 < cut < len(data):
            yield offset, data[:cut]
            yield offset + cut, data[cut:]

safe, pending = [], []
save([])
for name in sorted(os.listdir(log)):
    kind = name.split(".")[1]
    if kind == "flush":
        safe, pending = safe + pending, []
        continue
    with open(os.path.join(log, name), "rb") as data:
        write = int(name.split(".")[2]), data.read()
    if pending:
        save(safe + [write])
    for part in parts(write):
        save(safe + pending + [part])
    pending.append(write)
    save(safe + pending)
PYTHON
}
