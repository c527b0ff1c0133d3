#!/bin/bash
# ndio copy: between plain and encrypted, files, pipes and the NBD servers that we didn't write;
# every byte arrives, and what is sparse stays sparse.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/nbd.sh"

ndio=$NDIO_BUILD/ndio
key=$T/pass
places=(file memory nbdkit qemu plugin)
! command -v nbd-server >/dev/null || places+=(nbd-server)

# Small volumes: 1 MiB of header, and SIZE bytes of disk.
size=$((3 * 1024 * 1024))
make_volume() { # FILE BYTES [OPTION...]
	make_luks2 "$1" $(($2 + 1048576)) --luks2-metadata-size 16k --luks2-keyslots-size 512k \
		--offset 2048 "${@:3}" >/dev/null
}

# The blocks that a file takes, in KiB.
takes() {
	du -k "$1" | cut -f1
}

# A disk of random data, zeroes and a hole, other than the last one. FILE BYTES
make_data() {
	local mib=$(($2 / 1048576))

	rm -f "$1"
	head -c "$2" /dev/urandom >"$1"
	# Zeroes that are written, at a place that isn't aligned to anything large.
	[ $mib -lt 2 ] || {
		dd if=/dev/zero of="$1" bs=4k seek=9 count=33 conv=notrunc status=none
		fallocate --punch-hole --offset $((1048576 + 4096)) --length 700000 "$1"
	}
}

# ---- each place to each place ----

# make_place SIDE PLACE: a plain disk and an encrypted one, $T/SIDE.PLACE.(plain|key). Sets
# locator[SIDE.PLACE.*].
declare -A locator
make_place() {
	local name=$1.$2 kind file

	for kind in plain key; do
		file=$T/$name.$kind
		if [ $kind = plain ]; then
			head -c $((size + 65536)) /dev/urandom >"$file"
		else
			make_volume "$file" $((size + 65536)) --sector-size $((RANDOM % 2 ? 512 : 4096))
		fi
		locator[$name.$kind]=$(uri "$name.$kind")
		case $2 in
		file) locator[$name.$kind]=$file ;;
		memory)
			start_nbdkit "$name.$kind" memory "$(stat -c %s "$file")" &&
				nbdcopy "$file" "$(uri "$name.$kind")"
			;;
		nbdkit) start_nbdkit "$name.$kind" file "$file" ;;
		plugin) start_nbdkit "$name.$kind" "$NDIO_PLUGIN" "$file" ;;
		qemu) start_qemu_nbd "$name.$kind" --format raw "$file" ;;
		nbd-server)
			start_nbd_server "$name.$kind" "$file" 'flush = true' 'fua = true' 'trim = true'
			locator[$name.$kind]=$(uri "$name.$kind" disk)
			;;
		esac
	done
}

# copies SRC DST: with the keys that these need, and reads the result back through a pipe.
copies() {
	local src=$1 dst=$2 args=() back=()

	[[ $src != *.key ]] || args+=(--src-key-file "$key")
	[[ $dst != *.key ]] || args+=(--dst-key-file "$key") back+=(--src-key-file "$key")
	"$ndio" copy "${args[@]}" "${locator[$src]}" "${locator[$dst]}" || return
	"$ndio" copy "${back[@]}" "${locator[$dst]}" - >"$T/back" || return
	cmp -n $size "$T/data.$src" "$T/back"
}

from_everywhere() {
	local place kind src

	for place in "${places[@]}"; do
		make_place src "$place"
		make_place dst "$place"
		for kind in plain key; do
			src=src.$place.$kind
			make_data "$T/data.$src" $((size + 65536))
			if [ $kind = plain ]; then
				ok "into $src by a pipe" \
					into "$T/data.$src" - "${locator[$src]}"
			else
				ok "into $src by a pipe" \
					into "$T/data.$src" - "${locator[$src]}" --dst-key-file "$key"
			fi
		done
	done
}

into() { # STDIN ARG...
	# shellcheck disable=SC2002 # a pipe is what is tested
	cat "$1" | "$ndio" copy "${@:2}"
}

to_everywhere() {
	local from to a b

	for from in "${places[@]}"; do
		for a in plain key; do
			for to in "${places[@]}"; do
				for b in plain key; do
					ok "$from, $a -> $to, $b" \
						copies "src.$from.$a" "dst.$to.$b"
				done
			done
		done
	done
}

# ---- sizes ----

round_trip() { # FILE DST ARG...
	"$ndio" copy "$1" "$2" && "$ndio" copy "$2" "$T/back" && cmp "$1" "$T/back"
}

in_volume() { # FILE VOLUME: a disk that is larger; what lies behind keeps its content
	"$ndio" copy --dst-key-file "$key" "$1" "$2" &&
		"$ndio" copy --src-key-file "$key" "$2" - >"$T/back" &&
		cmp -n "$(stat -c %s "$1")" "$1" "$T/back"
}

sizes() {
	local bytes

	for bytes in 0 1 511 512 4095 4097 262144 262145 1048575 5000001; do
		make_data "$T/odd" $bytes
		rm -f "$T/new" "$T/back"
		ok "a file of $bytes bytes to a file" round_trip "$T/odd" "$T/new"
		is "and no byte more" "$(stat -c %s "$T/new")" $bytes
		head -c 6M /dev/urandom >"$T/longer"
		ok "over a file that is longer" round_trip "$T/odd" "$T/longer"
		start_nbdkit odd memory $bytes && ok "to an export as long" round_trip "$T/odd" "$(uri odd)" &&
			ok "the server ends cleanly" stop_server odd
		ok "by a pipe" bash -c "cat '$T/odd' | '$ndio' copy - - | cmp - '$T/odd'"
	done
	for bytes in 1 511 4097 262145 1048575; do
		make_data "$T/odd" $bytes
		make_volume "$T/vol" $size --sector-size 4096
		ok "a file of $bytes bytes into sectors of 4096" in_volume "$T/odd" "$T/vol"
	done

	# A volume whose last sector ends where direct I/O can't.
	make_volume "$T/vol" $((size + 512)) --sector-size 512
	make_data "$T/odd" $((size + 512))
	ok "a volume of odd sectors" in_volume "$T/odd" "$T/vol"
	is "to its last sector" "$(stat -c %s "$T/back")" $((size + 512))

	# By small reads and writes, as pipes have them.
	make_data "$T/odd" 1000001
	ok "a pipe in small pieces" \
		bash -c "dd if='$T/odd' bs=777 status=none | '$ndio' copy - '$T/new' && cmp '$T/odd' '$T/new'"
	make_volume "$T/vol" $size
	ok "a pipe in small pieces into a volume" \
		bash -c "dd if='$T/odd' bs=777 status=none | '$ndio' copy --dst-key-file '$key' - '$T/vol' &&
			'$ndio' copy --src-key-file '$key' '$T/vol' - | cmp -n 1000001 '$T/odd'"
	ok "a slow reader" bash -c "'$ndio' copy '$T/odd' - | (sleep 0.3; cmp - '$T/odd')"
	mkfifo "$T/fifo"
	cat "$T/odd" >"$T/fifo" &
	ok "a named pipe" "$ndio" copy "$T/fifo" "$T/new"
	ok "has all of it" cmp "$T/odd" "$T/new"
	ok "to null:" "$ndio" copy "$T/odd" null:
}

devices() {
	local device

	truncate -s 8M "$T/disk"
	device=$(losetup --find --show "$T/disk" 2>/dev/null) || {
		skip "no block device to be had" 3
		return
	}
	make_data "$T/odd" 3000001
	ok "to a block device" "$ndio" copy "$T/odd" "$device"
	"$ndio" copy "$device" "$T/back"
	ok "has all of it" cmp -n 3000001 "$T/odd" "$T/back"
	is "and keeps its size" "$(stat -c %s "$T/back")" 8388608
	losetup --detach "$device"
}

# ---- sparse ----

sparse() {
	truncate -s 64M "$T/holes"
	dd if=/dev/urandom of="$T/holes" bs=64k seek=99 count=1 conv=notrunc status=none
	dd if=/dev/urandom of="$T/holes" bs=1000 seek=55555 count=3 conv=notrunc status=none
	rm -f "$T/new"
	ok "holes: to a new file" round_trip "$T/holes" "$T/new"
	ok "stay holes" [ "$(takes "$T/new")" -lt 1024 ]
	head -c 64M /dev/urandom >"$T/new"
	start_nbdkit holes file "$T/new" && ok "to a full export" round_trip "$T/holes" "$(uri holes)"
	ok "make holes there" [ "$(takes "$T/new")" -lt 1024 ]
	ok "and here" [ "$(takes "$T/back")" -lt 1024 ]
	ok "the server ends cleanly" stop_server holes
	start_nbdkit holes --filter=noextents --filter=nozero memory 64M &&
		ok "a server without extents or zero" round_trip "$T/holes" "$(uri holes)"
	ok "and here" [ "$(takes "$T/back")" -lt 1024 ]
	ok "the server ends cleanly" stop_server holes
	start_nbdkit holes memory 64M &&
		ok "--destination-is-zero" "$ndio" copy --destination-is-zero "$T/holes" "$(uri holes)"
	ok "is as good" bash -c "'$ndio' copy '$(uri holes)' - | cmp - '$T/holes'"
	stop_server holes
	ok "through a pipe" bash -c "'$ndio' copy '$T/holes' - | cmp - '$T/holes'"
	ok "which has no zeroes of its own" \
		bash -c "timeout 20 '$ndio' copy --destination-is-zero '$T/holes' - | cmp - '$T/holes'"

	# From a pipe, which can't tell where they are; and to a file that is standard output.
	rm -f "$T/new"
	ok "holes from a pipe" into "$T/holes" - "$T/new"
	ok "with all bytes" cmp "$T/holes" "$T/new"
	ok "are found" [ "$(takes "$T/new")" -lt 1024 ]
	ok "unless -S 0" into "$T/holes" -S 0 - "$T/new"
	ok "writes them" [ "$(takes "$T/new")" -ge 65000 ]
	"$ndio" copy "$T/holes" - >"$T/new"
	ok "to standard output" cmp "$T/holes" "$T/new"
	ok "too" [ "$(takes "$T/new")" -lt 1024 ]
	head -c 64M /dev/urandom >"$T/new"
	"$ndio" copy "$T/holes" - 1<>"$T/new"
	ok "not where something is" cmp "$T/holes" "$T/new"
	echo "first" >"$T/new"
	"$ndio" copy "$T/holes" - >>"$T/new"
	ok "nor where it is added" cmp "$T/new" <(echo first; cat "$T/holes")
	truncate -s 8M "$T/zero"
	{ echo "first"; "$ndio" copy "$T/zero" -; echo "last"; } >"$T/new"
	ok "what follows comes behind" cmp "$T/new" <(echo first; cat "$T/zero"; echo last)
	"$ndio" copy "$T/zero" - >"$T/new"
	is "a hole at the end counts" "$(stat -c %s "$T/new")" 8388608
	head -c 8M /dev/urandom >"$T/served"
	start_nbdkit holes --filter=log file "$T/served" logfile="$T/log"
	ok "zeroes from a pipe to a server" into "$T/zero" - "$(uri holes)"
	ok "are zeroed there" grep -q ' Zero .*offset=0x7' "$T/log"
	ok "and not written" not grep -q ' Write .*offset' "$T/log"
	stop_server holes

	# The decrypted zeroes of a volume are zeroes, not holes; and the encrypted ones are data.
	make_volume "$T/vol" $((64 * 1048576)) --sector-size 4096
	ok "holes into a volume" in_volume "$T/holes" "$T/vol"
	ok "are sealed there" [ "$(takes "$T/vol")" -ge 65000 ]
	rm -f "$T/new"
	ok "and out again" "$ndio" copy --src-key-file "$key" "$T/vol" "$T/new"
	ok "with all bytes" cmp "$T/holes" "$T/new"
	is "nobody else may read what was decrypted" "$(stat -c %a "$T/new")" 600
	ok "become holes again" [ "$(takes "$T/new")" -lt 1024 ]
	rm -f "$T/new"
	ok "unless -S 0" "$ndio" copy -S 0 --src-key-file "$key" "$T/vol" "$T/new"
	ok "writes them" [ "$(takes "$T/new")" -ge 65000 ]
	ok "all the same" cmp "$T/holes" "$T/new"

	# More runs than are remembered at a time: every second block of 32 MiB.
	python3 -c "
import os
f = open('$T/comb', 'wb')
for i in range(0, 8192, 2):
    f.seek(i * 4096); f.write(os.urandom(4096))
f.truncate(8192 * 4096)"
	rm -f "$T/new"
	ok "a comb" round_trip "$T/comb" "$T/new"
	ok "stays one" [ "$(takes "$T/new")" -lt 20000 ]
	start_nbdkit comb file "$T/comb" && ok "a comb from a server" "$ndio" copy "$(uri comb)" "$T/new"
	ok "has all bytes" cmp "$T/comb" "$T/new"
	stop_server comb
}

# ---- keys ----

keys() {
	make_data "$T/odd" 1000000
	make_luks1 "$T/vol" 4M
	ok "LUKS1" in_volume "$T/odd" "$T/vol"
	if command -v qemu-img >/dev/null; then
		ok "which qemu can read" qemu-img convert --image-opts -O raw \
			--object "secret,id=key,file=$key" \
			"driver=luks,key-secret=key,file.filename=$T/vol" "$T/qemu"
		ok "with all bytes" cmp -n 1000000 "$T/qemu" "$T/odd"
	else
		skip "no qemu-img here" 2
	fi
	truncate -s 1M "$T/vol"
	truncate -s 4M "$T/header"
	cryptsetup --batch-mode luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
		--sector-size 512 --header "$T/header" "$T/vol" "$key" 2>/dev/null
	ok "a detached header" \
		"$ndio" copy --dst-header "$T/header" --dst-key-file "$key" "$T/odd" "$T/vol"
	ok "and back" bash -c "'$ndio' copy --src-header '$T/header' --src-key-file '$key' '$T/vol' - |
		cmp -n 1000000 - '$T/odd'"

	make_volume "$T/a" $size --sector-size 512
	make_volume "$T/b" $size --sector-size 4096
	into "$T/odd" --dst-key-file "$key" - "$T/a"
	ok "keys by descriptor, both sides" bash -c \
		"'$ndio' copy --src-key-fd 3 --dst-key-fd 4 '$T/a' '$T/b' 3<'$key' 4<'$key'"
	ok "a key from stdin" bash -c \
		"'$ndio' copy --src-key-file - '$T/b' - <'$key' | cmp -n 1000000 - '$T/odd'"
	ok "the ciphertext itself, without keys" round_trip "$T/a" "$T/back2"

	ok "passphrases asked for at the terminal" python3 - "$ndio" "$T" <<-'PYTHON'
		import os, pty, sys
		ndio, t = sys.argv[1:]
		pid, fd = pty.fork()
		if pid == 0:
		    os.execv(ndio, [ndio, "copy", "--src-unlock", "--dst-unlock", t + "/b", t + "/a"])
		seen = b""
		for name in (b"/b: ", b"/a: "):
		    while not seen.endswith(name):
		        seen += os.read(fd, 1000)
		    os.write(fd, open(t + "/pass", "rb").read() + b"\n")
		while True:
		    try:
		        part = os.read(fd, 1000)
		    except OSError:
		        break
		    if not part:
		        break
		    seen += part
		print(seen)
		assert b"battery" not in seen
		sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
	PYTHON
}

# ---- progress ----

# The last member of that name that was told for scripts.
told() { # NAME
	python3 -c 'import json, sys
lines = [json.loads(line) for line in sys.stdin]
print(lines[-1][sys.argv[1]])' "$1" <"$T/json"
}

# begin_copy DST ARG...: a copy of 300,000 bytes so far, in the background, from a pipe that the shell
# holds as descriptor 9; SIGUSR1 would no longer kill it.
begin_copy() {
	local caught deadline=$((SECONDS + 30))

	mkfifo "$T/feed"
	"$ndio" copy "${@:2}" "$T/feed" "$1" 2>"$T/err" 9>&- &
	copy=$!
	exec 9>"$T/feed"
	rm "$T/feed"
	head -c 300000 /dev/urandom >&9
	until caught=$(sed -n 's/^SigCgt:.*\(...\)$/\1/p' "/proc/$copy/status") &&
		[ $((0x${caught:-0} & 0x200)) != 0 ]; do
		[ $SECONDS -le $deadline ] || return
		sleep 0.02
	done
}

end_copy() {
	exec 9>&-
	wait $copy
}

appears() { # REGEX FILE: in it, soon
	local deadline=$((SECONDS + 30))

	until grep -q "$1" "$2"; do
		[ $SECONDS -le $deadline ] || return
		sleep 0.02
	done
}

progress() {
	local size

	size=$(stat -c %s "$T/odd")
	like "help" "$("$ndio" copy --help)" "^Usage: ndio copy"
	is "no bar without a terminal" "$("$ndio" copy -p "$T/odd" null: 2>&1 | without_limits)" ""
	ok "a bar on a terminal with -p, none without" python3 - "$ndio" "$T" <<-'PYTHON'
		import os, pty, sys
		ndio, t = sys.argv[1:]
		def run(*args):
		    pid, fd = pty.fork()
		    if pid == 0:
		        os.execv(ndio, [ndio, "copy", *args, t + "/odd", "null:"])
		    seen = b""
		    while True:
		        try:
		            part = os.read(fd, 1000)
		        except OSError:
		            break
		        if not part:
		            break
		        seen += part
		    assert os.waitpid(pid, 0)[1] == 0
		    return seen
		bar = run("-p")
		print(bar)
		assert b"100%" in bar and b"/s" in bar and b"of 976.6 KiB" in bar and b"in 0:0" in bar
		assert bar.endswith(b"\n")
		assert run() == b""
	PYTHON
	"$ndio" copy --progress=7 "$T/odd" null: 7>"$T/json"
	is "lines of JSON to a descriptor: state" "$(told state)" "done"
	is "all was done" "$(told "done")/$(told total)/$(told percent)" "$size/$size/100"
	"$ndio" copy --progress=json "$T/odd" null: 2>"$T/json"
	is "and to stderr" "$(told state)/$(told "done")" "done/$size"
	"$ndio" copy --progress=json "$T/odd" /dev/full 2>&1 | grep '^{' >"$T/json"
	is "and when it fails" "$(told state)" stopped
	ok "a script that doesn't read holds nothing up" python3 - "$ndio" "$T" <<-'PYTHON'
		import fcntl, os, subprocess, sys
		ndio, t = sys.argv[1:]
		r, w = os.pipe()
		os.set_blocking(w, False)
		try:
		    while True:
		        os.write(w, bytes(4096))
		except BlockingIOError:
		    os.set_blocking(w, True)
		subprocess.run([ndio, "copy", f"--progress={w}", t + "/odd", "null:"], pass_fds=[w],
		               check=True, timeout=30)
	PYTHON
	ok "a descriptor that isn't open" refuses 2 "takes json, or a descriptor" --progress=7 "$T/odd" null:
	ok "one for reading" bash -c "'$ndio' copy --progress=7 '$T/odd' null: 7</dev/null; [ \$? = 2 ]"
	ok "where the data go" refuses 2 "can't go where the copy does" --progress=1 "$T/odd" -

	begin_copy null: -p
	ok "a line in a log" appears "^ndio: 256 KiB, .*/s, after 0:0" "$T/err"
	ok "of a copy that succeeds" end_copy
	like "and a last one" "$(tail -n 1 "$T/err")" "^ndio: 29[0-9.]* KiB, .*/s, in 0:0"
	begin_copy null:
	kill -USR1 $copy
	ok "a line when SIGUSR1 comes" appears "^ndio: .*/s, after 0:0" "$T/err"
	ok "which a copy survives" end_copy
}

refuses() { # STATUS REGEX ARG...
	local status

	"$ndio" copy "${@:3}" >"$T/out" 2>"$T/err" </dev/null
	status=$?
	[ $status = "$1" ] && grep -q "$2" "$T/err" && return
	diag "status $status: $(cat "$T/err")"
	return 1
}

# Are there so many KiB in the copy that runs, locked and not for core dumps?
hidden() { # KIB
	awk -v wanted="$1" '/^Size:/ { size = $2 }
		/^VmFlags:.* lo .*dd / { all += size }
		END { print all + 0; exit all < wanted }' "/proc/$copy/smaps"
}

secrets() {
	make_volume "$T/vol" $size
	begin_copy "$T/vol" --dst-key-file "$key"
	if [ "$(id -u)" = 0 ]; then
		ok "what is on its way is locked, and not for core dumps" hidden 16384
	else
		skip "needs root: what is locked is limited"
	fi
	end_copy
	[ "$(id -u)" = 0 ] || nobody=()
	"${nobody[@]}" "$ndio" --version >/dev/null || {
		skip "nobody can't run what was built" 2
		return
	}
	chmod 711 "$T" && chmod 644 "$T/vol"
	(ulimit -l 1024 && exec 3<"$key" && "${nobody[@]}" "$ndio" copy --src-key-fd 3 "$T/vol" null:) \
		>"$T/out" 2>&1
	is "a limit is no reason to fail" $? 0
	like "but to say so" "$(cat "$T/out")" \
		"warning: buffers can't be locked in memory, .*written to swap"
}

# A Unix socket holds less than a large write, unless it is told.
room() {
	if [ -n "$NDIO_SANITIZE" ] || ! strace -o /dev/null true 2>/dev/null; then
		skip "no strace here, or under a sanitizer" 3
		return
	fi
	start_nbdkit room memory 8M || return
	ok "a copy through a Unix socket" strace -f -e trace=setsockopt -o "$T/strace" \
		"$ndio" copy "$(uri room)" null:
	is "each connection has room for a large write" \
		"$(grep -c 'SO_SNDBUF, .* = 0$' "$T/strace")" 4
	ok "its server ends cleanly" stop_server room
}

from_everywhere
to_everywhere
for name in "${!server_pids[@]}"; do
	if [[ $name = *nbd-server* ]]; then
		end_nbd_server "$name"
	else
		ok "$name ends cleanly" stop_server "$name"
	fi
done
sizes
devices
sparse
keys
progress
secrets
room
done_testing
