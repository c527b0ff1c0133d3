#!/bin/bash
# ndio copy: what can go wrong has a message that names the place, a status, and says how far
# the copy got; and nothing that stopped half-way looks whole.
. "$(dirname "$0")/../lib/lib.sh"

ndio=$NDIO_BUILD/ndio
key=$T/pass
mib=1048576

# fails NAME STATUS REGEX ARG...: ndio copy ARG... ends so, and says so.
fails() {
	local name=$1 wanted=$2 regex=$3 status

	timeout 60 "$ndio" copy "${@:4}" >"$T/out" 2>"$T/err"
	status=$?
	is "$name: status" "$status" "$wanted" || diag "$(cat "$T/err")"
	like "$name: message" "$(cat "$T/err")" "$regex"
}

# The X of "everything below offset X is written", from what fails() left.
below() {
	sed -n 's/.*everything below offset \([0-9]*\) .*/\1/p' "$T/err"
}

# Is that true?
is_written() { # SRC COPY
	local offset

	offset=$(below)
	[ -n "$offset" ] && cmp -n "$offset" "$1" "$2"
}

head -c $((8 * mib)) /dev/urandom >"$T/src"
make_luks2 "$T/vol" 24M --sector-size 4096

# ---- the command line ----

fails "no locators" 2 "source and a destination"
fails "one locator" 2 "source and a destination" "$T/src"
fails "three locators" 2 "source and a destination" a b c
fails "an unknown option" 2 "nonsense" --nonsense a b
fails "two keys for a side" 2 "src-key-fd" --src-key-file x --src-key-fd 3 a b
fails "a bad size" 2 "sparse" -S 1000 a b
fails "a key for a pipe" 2 "- can't be opened with a key" --src-key-file "$key" - "$T/dst"
fails "a key for null:" 2 "null: can't be opened" --dst-key-file "$key" "$T/src" null:
fails "null: as the source" 2 "only be a destination" null: "$T/dst"
fails "a header without a key" 2 "header without a key" --src-header "$T/vol" "$T/src" "$T/dst"
fails "stdin as key and source" 2 "one stream" --dst-key-file - - "$T/vol"
fails "stdin as both keys" 2 "one stream" --src-key-file - --dst-key-fd 0 "$T/vol" "$T/src"

# ---- places ----

echo precious >"$T/dst"
fails "no such source" 1 "$T/none: No such file" "$T/none" "$T/dst"
printf wrong >"$T/wrong"
fails "a wrong passphrase" 1 "$T/vol: .*passphrase" --src-key-file "$T/wrong" "$T/vol" "$T/dst"
fails "not LUKS" 1 "$T/src: not a LUKS" --src-key-file "$key" "$T/src" "$T/dst"
fails "no such key file" 1 "$T/none: No such file" --src-key-file "$T/none" "$T/vol" "$T/dst"
fails "no server" 1 "nbd.unix:///\?socket=$T/none.sock: " "$(uri none)" "$T/dst"
fails "no URI" 1 "nbd://:" "nbd://:nonsense:" "$T/dst"
is "nothing of that touched the destination" "$(cat "$T/dst")" precious
fails "an encrypted destination that isn't there" 1 "$T/none: No such file" \
	--dst-key-file "$key" "$T/src" "$T/none"
fails "no such folder" 1 "$T/none/x: No such file" "$T/src" "$T/none/x"
fails "a folder" 1 "$T: " "$T/src" "$T"
fails "a folder as the source" 1 "$T: " "$T" "$T/dst"

ln "$T/src" "$T/link"
ln -s "$T/src" "$T/symlink"
for same in src link symlink; do
	fails "onto itself, by $same" 1 "$T/src and $T/$same: .*the same" "$T/src" "$T/$same"
done
fails "onto the source's header" 1 "the same" --src-header "$T/src" --src-key-file "$key" \
	"$T/vol" "$T/link"
cp "$T/src" "$T/copy"
timeout 60 "$ndio" copy - "$T/copy" <"$T/copy" >"$T/out" 2>"$T/err"
is "stdin onto itself: status" $? 1
ok "the content is still there" cmp "$T/src" "$T/copy"
start_nbdkit small memory 1M
fails "a URI onto itself" 1 "the same" "$(uri small)" "$(uri small)"

# ---- sizes ----

nbdcopy "$T/src" - | head -c 1M >"$T/mib"
nbdcopy "$T/mib" "$(uri small)"
fails "a URI that is too small" 1 \
	"socket=$T/small.sock: too small: it has $mib bytes, and $T/src has $((8 * mib))" \
	"$T/src" "$(uri small)"
make_luks2 "$T/smaller" 20M
fails "a volume that is too small" 1 "$T/smaller: too small: it has $((4 * mib)) bytes" \
	--dst-key-file "$key" --src-key-file "$key" "$T/vol" "$T/smaller"
truncate -s 32M "$T/large"
fails "a volume that is too small for a file" 1 "$T/vol: too small: it has" \
	--dst-key-file "$key" "$T/large" "$T/vol"
"$ndio" copy "$(uri small)" - | cmp - "$T/mib"
is "nothing was written" "${PIPESTATUS[*]}" "0 0"
timeout 60 "$ndio" copy - "$(uri small)" <"$T/src" 2>"$T/err"
is "a pipe that is too long: status" $? 1
like "a pipe that is too long: message" "$(cat "$T/err")" "too small: it has $mib bytes, and .* more"
is "says how far it got" "$(below)" $mib
"$ndio" copy - "$(uri small)" <"$T/mib"
is "a pipe that just fits" $? 0
stop_server small

start_nbdkit odd --filter=blocksize-policy memory 10000 blocksize-minimum=4096 \
	blocksize-error-policy=error
fails "a last block that the server won't give" 1 "socket=$T/odd.sock: its last 1808 bytes" \
	"$(uri odd)" "$T/new"
ok "makes no file" [ ! -e "$T/new" ]
stop_server odd

# ---- what servers refuse ----

start_nbdkit ro --readonly memory 8M
fails "a read-only server" 1 "socket=$T/ro.sock: it is read-only" "$T/src" "$(uri ro)"
stop_server ro

if [ "$(id -u)" = 0 ]; then
	skip "root may write anything" 2
else
	chmod 400 "$T/dst"
	fails "a read-only file" 1 "$T/dst: Permission denied" "$T/src" "$T/dst"
fi

cat >"$T/no-flush" <<SCRIPT
case \$1 in
get_size) echo 8M ;;
pread) dd if="$T/served" skip=\$4 count=\$3 iflag=count_bytes,skip_bytes status=none ;;
pwrite) dd of="$T/served" seek=\$4 conv=notrunc oflag=seek_bytes status=none ;;
can_write) exit 0 ;;
*) exit 2 ;;
esac
SCRIPT
chmod +x "$T/no-flush"
truncate -s 8M "$T/served"
start_nbdkit no-flush sh "$T/no-flush"
ok "a server without flush" "$ndio" copy "$T/src" "$(uri no-flush)"
like "is warned of" "$(cat "$T/ok.out")" "warning: .*socket=$T/no-flush.sock: .*no flush"
ok "and has it all" cmp "$T/src" "$T/served"
stop_server no-flush

# ---- errors in the middle ----

head -c 8M /dev/urandom >"$T/served"
start_nbdkit bad --filter=error file "$T/served" error-pread=EIO error-pread-rate=100% \
	error-file="$T/inject"
touch "$T/inject"
rm -f "$T/new"
fails "a read error" 1 "socket=$T/bad.sock: read at [0-9]+: Input/output error" "$(uri bad)" "$T/new"
like "says how far it got" "$(cat "$T/err")" "stopped at 0 bytes of 8388608: everything below offset 0 "
is "the new file doesn't look whole" "$(stat -c %s "$T/new")" 0
stop_server bad
rm -f "$T/inject"

# Not at once: some pieces come first.
start_nbdkit bad --filter=error --filter=delay file "$T/served" error-pread=EIO \
	error-pread-rate=30% rdelay=2ms
for try in 1 2 3; do
	rm -f "$T/new"
	fails "some read errors ($try)" 1 "read at [0-9]+: Input/output error" "$(uri bad)" "$T/new"
	ok "it is written as far as it says ($try)" is_written "$T/served" "$T/new"
	is "and no byte more ($try)" "$(stat -c %s "$T/new")" "$(below)"
done
stop_server bad

for name in EIO ENOSPC; do
	[ $name = EIO ] && text="Input/output error" || text="No space left on device"
	start_nbdkit bad --filter=error file "$T/served" error-pwrite=$name error-pwrite-rate=50%
	fails "write errors, $name" 1 "socket=$T/bad.sock: write at [0-9]+: $text" "$T/src" "$(uri bad)"
	ok "$name: it is written as far as it says" is_written "$T/src" "$T/served"
	stop_server bad
	cp "$T/vol" "$T/served.vol"
	start_nbdkit bad --filter=error file "$T/served.vol" error-pwrite=$name \
		error-pwrite-rate=50%
	fails "encrypted, $name" 1 "write at [0-9]+: $text" --dst-key-file "$key" "$T/src" "$(uri bad)"
	stop_server bad
done

# Zeroes and trims that fail.
truncate -s 8M "$T/zero"
start_nbdkit bad --filter=error file "$T/served" error-zero=EIO error-zero-rate=100%
fails "an error of zeroing" 1 "write at [0-9]+: Input/output error" "$T/zero" "$(uri bad)"
stop_server bad

# The extents of a server that fails to tell them: all is data.
start_nbdkit bad --filter=error file "$T/served" error-extents=EIO error-extents-rate=100%
ok "an error of extents" "$ndio" copy "$(uri bad)" "$T/new"
ok "loses nothing" cmp "$T/served" "$T/new"
stop_server bad

cat >"$T/bad-flush" <<SCRIPT
case \$1 in
get_size) echo 8M ;;
pread) dd if="$T/served" skip=\$4 count=\$3 iflag=count_bytes,skip_bytes status=none ;;
pwrite) dd of="$T/served" seek=\$4 conv=notrunc oflag=seek_bytes status=none ;;
can_write|can_flush) exit 0 ;;
flush) echo 'EIO the disk died' >&2; exit 1 ;;
*) exit 2 ;;
esac
SCRIPT
chmod +x "$T/bad-flush"
start_nbdkit bad sh "$T/bad-flush"
fails "a flush that fails" 1 "socket=$T/bad.sock: flush: Input/output error" "$T/src" "$(uri bad)"
stop_server bad

if mkdir "$T/full" && mount -t tmpfs -o size=2m tmpfs "$T/full" 2>/dev/null; then
	fails "a full disk" 1 "$T/full/x: write at [0-9]+: No space" "$T/src" "$T/full/x"
	umount --lazy "$T/full" # a ring that is gone may still hold its file for a moment
else
	skip "may not mount" 2
fi
if [ -c /dev/full ]; then
	fails "/dev/full" 1 "/dev/full: write at 0: No space left" "$T/src" /dev/full
	like "says how far it got" "$(cat "$T/err")" "everything below offset 0 is written"
fi

# ---- a server that dies, or hangs ----

head -c 64M /dev/urandom >"$T/big"
make_luks2 "$T/bigvol" 96M --sector-size 4096
# slow NAME FILE: some seconds for 64 MiB
slow() {
	start_nbdkit "$1" --filter=rate file "$2" rate=200M burstiness=0.1
}

# end_server NAME: at once. One whose client went away in the middle may not end cleanly: nbdkit's
# rate filter has an assertion there.
end_server() {
	kill -KILL "${server_pids[$1]}"
	wait "${server_pids[$1]}" 2>/dev/null
	unset "server_pids[$1]"
}

# started ARG...: a copy in the background, $copy, whose own process is $child. It has begun, as
# seen by its catching SIGHUP, and has moved something.
started() {
	local deadline=$((SECONDS + 30)) caught

	timeout 60 "$ndio" copy "$@" >"$T/out" 2>"$T/err" &
	copy=$!
	until child=$(pgrep -P $copy) && caught=$(sed -n 's/^SigCgt:.*\(.\)$/\1/p' "/proc/$child/status") &&
		[ $((0x${caught:-0} & 1)) = 1 ]; do
		kill -0 $copy 2>/dev/null && [ $SECONDS -le $deadline ] || return
		sleep 0.02
	done
	sleep 1
}

# ended NAME STATUS REGEX
ended() {
	wait $copy
	is "$1: status" $? "$2"
	like "$1: message" "$(cat "$T/err")" "$3"
	like "$1: says how far" "$(cat "$T/err")" "stopped at [0-9]+ bytes( of [0-9]+)?: everything below"
}

rm -f "$T/new"
slow dies "$T/big"
started --reconnect 0 "$(uri dies)" "$T/new"
end_server dies
ended "the source's server dies" 1 "socket=$T/dies.sock: read at [0-9]+: "
ok "it is written as far as it says" is_written "$T/big" "$T/new"
ok "some of it is" [ "$(below)" -gt 0 ]
is "and no byte more" "$(stat -c %s "$T/new")" "$(below)"

cp "$T/big" "$T/target"
slow dies "$T/target"
started --reconnect 0 "$T/big" "$(uri dies)"
end_server dies
ended "the destination's server dies" 1 "socket=$T/dies.sock: write at [0-9]+: "

slow dies "$T/bigvol"
started --reconnect 0 --dst-key-file "$key" "$T/big" "$(uri dies)"
end_server dies
ended "with a key" 1 "socket=$T/dies.sock: write at [0-9]+: "

slow hangs "$T/big"
started "$(uri hangs)" null:
freeze "${server_pids[hangs]}"
sleep 0.3
start=$EPOCHREALTIME
kill -INT $copy 2>/dev/null
# timeout(1) passes it on.
ended "SIGINT, and the server hangs" 130 "signal 2"
ok "it stops promptly" awk "BEGIN { exit !($EPOCHREALTIME - $start < 5) }"
end_server hangs

# ---- signals ----

for signal in INT TERM HUP; do
	rm -f "$T/new"
	slow server "$T/big"
	started "$(uri server)" "$T/new"
	kill -$signal $copy
	ended "SIG$signal" $((128 + $(kill -l $signal))) "signal .*"
	ok "SIG$signal: some of it is written" [ "$(below)" -gt 0 ]
	ok "SIG$signal: as far as it says" is_written "$T/big" "$T/new"
	end_server server
done

slow server "$T/bigvol"
started --dst-key-file "$key" "$T/big" "$(uri server)"
kill -INT $copy
ended "SIGINT, with a key" 130 "signal 2"
end_server server
"$ndio" copy --src-key-file "$key" "$T/bigvol" - >"$T/new" 2>"$T/err2"
ok "it is written as far as it says" is_written "$T/big" "$T/new"

# Nobody reads, nobody writes.
mkfifo "$T/fifo"
sleep 100 >"$T/fifo" &
sleeper=$!
started "$T/fifo" "$T/new"
kill -INT $copy
ended "SIGINT while nothing comes" 130 "signal 2"
kill $sleeper
sleep 100 <"$T/fifo" &
sleeper=$!
started "$T/big" "$T/fifo"
kill -INT $copy
ended "SIGINT while nobody reads" 130 "signal 2"
kill $sleeper

# ---- pipes ----

"$ndio" copy "$T/big" - 2>"$T/err" | head -c 1000 >"$T/out"
is "a reader that leaves: status" "${PIPESTATUS[0]}" 1
like "a reader that leaves: message" "$(cat "$T/err")" "standard output: write at [0-9]+: Broken pipe"
ok "it got what it wanted" cmp -n 1000 "$T/out" "$T/big"
timeout 60 "$ndio" copy - "$T/new" <&- >"$T/out" 2>"$T/err"
is "no stdin: status" $? 1
like "no stdin: message" "$(cat "$T/err")" "standard input: "
timeout 60 "$ndio" copy "$T/src" - >&- 2>"$T/err"
is "no stdout: status" $? 1
like "no stdout: message" "$(cat "$T/err")" "standard output: "

# ---- secrets ----

slow server "$T/bigvol"
started --dst-key-file "$key" "$T/big" "$(uri server)"
ok "the passphrase isn't in the command line" not grep -qa battery "/proc/$child/cmdline"
# Not dumpable: its files in /proc are root's, whoever runs it.
if [ "$(id -u)" = 0 ]; then
	ok "nor in the environment" not grep -qa battery "/proc/$child/environ"
	skip "root owns every process here"
else
	skip "only root may look at the environment of a process that has keys"
	is "no core dumps while a key is held" "$(stat -c %u "/proc/$child/mem")" 0
fi
kill -INT $copy
wait $copy
end_server server
done_testing
