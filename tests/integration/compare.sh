#!/bin/bash
# ndio compare: files, encrypted or not, servers and pipes are the same or differ, as cmp says; the
# first difference is told, whatever is read first; what can't be read is neither.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

key=$T/pass

# compares NAME STATUS REGEX ARG...: what it prints, and how it ends.
compares() {
	local status

	timeout 60 "$ndio" compare "${@:4}" >"$T/out" 2>&1 </dev/null
	status=$?
	without_limits -i "$T/out"
	if [ $status = "$2" ] && [[ $(cat "$T/out") =~ $3 ]]; then
		result 0 "$1"
	else
		result 1 "$1"
		diag "status $status, not $2: $(cat "$T/out")"
	fi
}

# differs OFFSET FILE: makes it another byte.
differs() {
	printf '\xff' | dd of="$2" bs=1 seek="$1" conv=notrunc status=none
}

# serve_script NAME SIZE PREAD: a server of $T/data that reads as the shell says: $count at $offset.
serve_script() {
	start_stock "$1" eval get_size="echo $2" thread_model='echo parallel' \
		pread="count=\$3 offset=\$4; $3
			dd if=$T/data skip=\$offset count=\$count iflag=count_bytes,skip_bytes status=none"
}

size=3000003 # pieces, and a part of a block
# No byte is what differs() writes, nor, in the first place, as a hole or LUKS begins.
head -c $size /dev/urandom | tr '\377\000L' '\376\001M' >"$T/data"
cp "$T/data" "$T/same"
truncate -s 6M "$T/padded"
dd if="$T/data" of="$T/padded" conv=notrunc status=none

# ---- every kind with every other ----

make_luks2 "$T/luks2" 22M --sector-size 4096
make_luks1 "$T/luks1" 8M
make_luks2 "$T/detached" 6M --header "$T/header"
for volume in luks2 luks1; do
	"$ndio" copy --dst-key-file "$key" "$T/padded" "$T/$volume"
done
"$ndio" copy --dst-key-file "$key" --dst-header "$T/header" "$T/padded" "$T/detached"
start_stock plain file "$T/data"
start_stock luks file "$T/luks2"
src=(--src-key-file "$key") dst=(--dst-key-file "$key")
compares "file, file" 0 '^the same$' "$T/data" "$T/same"
compares "a file and itself" 0 '^the same$' "$T/data" "$T/data"
compares "file, NBD" 0 '^the same$' "$T/data" "$(uri plain)"
compares "NBD, file" 0 '^the same$' "$(uri plain)" "$T/data"
compares "file, LUKS2" 0 '^the same' "${dst[@]}" "$T/padded" "$T/luks2"
compares "LUKS1, LUKS2" 0 '^the same' "${src[@]}" "${dst[@]}" "$T/luks1" "$T/luks2"
compares "LUKS2 by NBD, LUKS1" 0 '^the same' "${src[@]}" "${dst[@]}" "$(uri luks)" "$T/luks1"
compares "a detached header" 0 '^the same' "${src[@]}" --src-header "$T/header" "$T/detached" "$T/padded"
compares "ciphertext" 0 '^the same$' "$T/luks2" "$(uri luks)"
compares "ciphertext is no plaintext" 1 'first at offset 0$' "$T/luks2" "$T/padded"
is "a pipe" "$("$ndio" compare - "$T/data" <"$T/same")" "the same"
is "two pipes" "$("$ndio" compare <(cat "$T/data") - < <(cat "$T/same"))" "the same"
is "a pipe and a server with a key" "$(cat "$T/padded" | "$ndio" compare "${src[@]}" "$(uri luks)" - |
	sed 's/,.*//')" "the same"
: >"$T/empty"
compares "nothing and nothing" 0 '^the same$' "$T/empty" "$T/empty"
compares "quiet" 0 '^$' -q "$T/data" "$T/same"

# ---- differences ----

for offset in 0 1 4095 4096 262143 262144 1234567 $((size - 1)); do
	cp "$T/data" "$T/other"
	differs $offset "$T/other"
	compares "a difference at $offset" 1 "^they differ, first at offset $offset\$" "$T/data" "$T/other"
	is "by a pipe" "$("$ndio" compare - "$(uri plain)" <"$T/other")" "they differ, first at offset $offset"
done
compares "quiet" 1 '^$' --quiet "$T/data" "$T/other"
cp "$T/padded" "$T/other"
differs $((6 * 1024 * 1024 - 1)) "$T/other"
compares "the last byte of a volume" 1 "first at offset $((6 * 1024 * 1024 - 1))\$" "${src[@]}" "$T/luks1" "$T/other"
cp "$T/data" "$T/other"
for offset in 100 300000 1000000 2000000 2900000; do
	differs $offset "$T/other"
done
serve_script slow $size '[ $offset -gt 0 ] || sleep 0.5;'
compares "the first of several, which is read last" 1 '^they differ, first at offset 100$' \
	"$T/other" "$(uri slow)"
stop_server slow

# ---- sizes ----

compares "zeroes at the end" 0 '^the same, but the second has 3291453 bytes more, which are zero$' \
	"$T/data" "$T/padded"
compares "the same, the other way round" 0 'the first has 3291453 bytes more' "$T/padded" "$T/data"
compares "zeroes at the end are a difference" 1 '^they differ in size: 3000003 and 6291456 bytes$' \
	--strict "$T/data" "$T/padded"
compares "of one size" 0 '^the same$' -s "$T/data" "$T/same"
is "a longer pipe" "$("$ndio" compare - "$T/data" <"$T/padded")" \
	"the same, but the first has 3291453 bytes more, which are zero"
is "a shorter pipe" "$("$ndio" compare - "$T/padded" <"$T/data")" \
	"the same, but the second has 3291453 bytes more, which are zero"
is "a longer pipe is a difference" "$("$ndio" compare -s - "$T/data" <"$T/padded")" \
	"they differ in size: 6291456 and 3000003 bytes"
is "a shorter pipe is a difference" "$("$ndio" compare -s - "$T/padded" <"$T/data")" \
	"they differ in size: 3000003 and 6291456 bytes"
cp "$T/padded" "$T/other"
differs 5000000 "$T/other"
compares "data at the end" 1 'first at offset 5000000, where the first has ended$' "$T/data" "$T/other"
is "data at a pipe's end" "$("$ndio" compare "$(uri plain)" - <"$T/other")" \
	"they differ, first at offset 5000000, where the first has ended"
compares "nothing and data" 1 'first at offset 0, where the first has ended$' "$T/empty" "$T/data"

# ---- holes aren't read ----

truncate -s 1T "$T/sparse" "$T/sparser"
differs 900000000000 "$T/sparse"
start_stock huge memory 1T
compares "a tebibyte of holes" 1 'first at offset 900000000000$' "$T/sparse" "$T/sparser"
compares "a tebibyte of holes, by NBD" 1 'first at offset 900000000000$' "$(uri huge)" "$T/sparse"
compares "nothing but holes" 0 '^the same$' "$(uri huge)" "$T/sparser"
stop_server huge
for ((i = 0; i < 5000; i++)); do echo "@$((i * 8192)) 0x$((i % 9 + 1))"; done >"$T/many"
start_stock many data "$(cat "$T/many")" size=64M
nbdcopy "$(uri many)" "$T/copied"
compares "more extents than there is room for" 0 '^the same$' "$(uri many)" "$T/copied"
differs $((4900 * 8192 + 4096)) "$T/copied"
compares "a difference in a hole" 1 "first at offset $((4900 * 8192 + 4096))\$" "$(uri many)" "$T/copied"
stop_server many
start_stock bad --filter=error file "$T/data" error-extents=EIO error-extents-rate=100%
compares "a server that can't tell extents" 0 '^the same$' "$(uri bad)" "$T/data"
stop_server bad

# ---- what isn't known ----

# A server that is slow with its errors may be left before they have come, and nbdkit before version
# 1.34 may end by that (an assertion): so each comparison has one of its own.
broken() {
	serve_script bad $size \
		'[ $((offset + count)) -le 1048576 ] || { echo EIO broken >&2; exit 1; };'
}

no_more() {
	{
		kill -KILL "${server_pids[bad]}"
		wait "${server_pids[bad]}"
	} 2>/dev/null
	unset "server_pids[bad]"
}

broken
compares "what can't be read" 2 \
	'bad.sock: read at 1048576: Input/output error.*everything below offset [0-9]+ is the same$' \
	"$T/data" "$(uri bad)"
cp "$T/data" "$T/other"
differs 2000000 "$T/other"
no_more
broken
compares "a difference behind what can't be read" 2 'read at 1048576' "$T/other" "$(uri bad)"
differs 1000000 "$T/other"
no_more
broken
compares "a difference before" 1 '^they differ, first at offset 1000000$' "$T/other" "$(uri bad)"
no_more
compares "no such file" 2 "$T/none: No such file" "$T/data" "$T/none"
compares "not LUKS" 2 "$T/data: not a LUKS" "${src[@]}" "$T/data" "$T/same"
compares "a wrong key" 2 "$T/luks2: " --src-key-file "$T/wrong" "$T/luks2" "$T/same"
compares "one locator" 2 'takes two disks' "$T/data"
compares "null:" 2 'null: holds nothing' null: "$T/data"
compares "standard input twice" 2 'one stream' - -
compares "standard input as a key, too" 2 'one stream' --dst-key-file - - "$T/luks2"
compares "a header without a key" 2 'header without a key' --src-header "$T/header" "$T/detached" "$T/data"
if [ -c /dev/full ]; then
	"$ndio" compare "$T/data" "$T/same" >/dev/full 2>"$T/err"
	is "nowhere to say it: no answer" $? 2
fi

# ---- signals, progress, servers that go ----

interrupt() {
	python3 "$root/tests/tools/interrupt.py" "$@"
}
catches='[ $((0x$(sed -n "s/^SigCgt:.*\(.\)$/\1/p" /proc/$pid/status) & 1)) = 1 ]'
serve_script slow $size 'sleep 0.7;'
like "SIGINT" "$(interrupt SIGINT "$catches" "$ndio" compare "$T/data" "$(uri slow)")" \
	"stopped by signal 2.*everything below offset 0 is the same.*ended by SIGINT\$"
mkfifo "$T/fifo"
exec 7<>"$T/fifo"
like "SIGTERM while nothing comes" "$(interrupt SIGTERM "$catches" "$ndio" compare "$T/data" "$T/fifo")" \
	"stopped by signal 15.*ended by SIGTERM\$"
exec 7<&-
"$ndio" compare --reconnect 0 --progress=json "$T/data" "$(uri slow)" >"$T/out" 2>"$T/err" &
compare=$!
until [ "$(ls "/proc/$compare/task" | wc -l)" -ge 4 ]; do sleep 0.02; done
{ kill -KILL "${server_pids[slow]}" && wait "${server_pids[slow]}"; } 2>/dev/null
unset "server_pids[slow]"
wait $compare
is "the server dies: no answer" $? 2
"$ndio" compare --progress=json "$T/data" "$T/same" 2>"$T/err" >/dev/null
like "progress" "$(cat "$T/err")" '"state":"done","done":3000003,"total":3000003'
done_testing
